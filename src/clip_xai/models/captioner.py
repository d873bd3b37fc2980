"""The captioner: frozen CLIP tower -> mapper -> prefix -> GPT-2."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import GPT2LMHeadModel

from clip_xai.models.backbones.base import Backbone, Features
from clip_xai.models.mappers import Mapper
from clip_xai.models.tokenizer import CaptionTokenizer

IGNORED = -100


@dataclass(frozen=True)
class Caption:
    """A generated caption and the tokens that spell it, the end marker left out."""

    text: str
    token_ids: tuple[int, ...]


@dataclass(frozen=True)
class Decoding:
    """How captions are decoded.

    Attributes:
        beams: 1 is greedy search.
        max_new_tokens: Most tokens in a caption.
        min_new_tokens: Fewest tokens in a caption.
        length_penalty: Exponent of the length by which a beam's log-probability is divided.
        no_repeat_ngram_size: No n-gram of this size occurs twice; 0 allows all.
        repetition_penalty: 1 changes nothing.
    """

    beams: int = 1
    max_new_tokens: int = 80
    min_new_tokens: int = 0
    length_penalty: float = 1.0
    no_repeat_ngram_size: int = 0
    repetition_penalty: float = 1.0


class Captioner(nn.Module):
    """p(caption | image) = prod_t GPT-2(y_t | mapper(tower(image)), prompt, y_<t).

    The mapper's K slots and the optional prompt stand before the caption; logits are computed only where a caption
    token stands. The tower never gets a gradient from ``loss``: hand it features.
    """

    def __init__(
        self,
        backbone: Backbone,
        mapper: Mapper,
        language_model: GPT2LMHeadModel,
        tokenizer: CaptionTokenizer,
        prompt: str = "",
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.mapper = mapper
        self.language_model = language_model
        self.tokenizer = tokenizer
        self.prompt = prompt
        self.register_buffer("prompt_ids", torch.tensor(tokenizer.encode(prompt), dtype=torch.long), persistent=False)
        self.backbone.requires_grad_(False)

    @property
    def reads(self) -> str:
        """What the mapper reads of an image: ``"pooled"`` or ``"patches"``."""
        return self.mapper.reads

    def read(self, pixels: Tensor) -> Tensor:
        """Return what the mapper reads of ``[B, 3, S, S]`` images: ``[B, D]`` or ``[B, N, W]``, with gradients."""
        features: Features = self.backbone.features(pixels)
        return features.read(self.reads)

    def prefix(self, read: Tensor) -> Tensor:
        """Return the embeddings before the caption, mapper slots and prompt, ``[B, K + P, E]``."""
        slots = self.mapper(read)
        if not len(self.prompt_ids):
            return slots
        prompt = self.language_model.transformer.wte(self.prompt_ids).expand(slots.shape[0], -1, -1)
        return torch.cat([slots, prompt], dim=1)

    def caption_logits(self, prefix: Tensor, caption_embeddings: Tensor) -> Tensor:
        """Return next-token logits ``[B, M, V]`` at the positions that predict the M caption tokens.

        Args:
            prefix: ``[B, K + P, E]``.
            caption_embeddings: Embeddings of the caption's tokens ``[B, M, E]``; the last one is never read.
        """
        inputs = torch.cat([prefix, caption_embeddings[:, :-1]], dim=1)
        # Padding stands on the right, so causality alone keeps it from every supervised position: no mask is needed.
        hidden = self.language_model.transformer(inputs_embeds=inputs, use_cache=False).last_hidden_state
        return self.language_model.lm_head(hidden[:, prefix.shape[1] - 1 :])

    def loss(self, read: Tensor, token_ids: Tensor, label_smoothing: float = 0.0) -> Tensor:
        """Return the mean cross-entropy in nats per supervised token.

        Args:
            read: What the mapper reads, ``[B, D]`` or ``[B, N, W]``.
            token_ids: Caption tokens with the end marker, ``[B, M]``; -100 where there is no token.
            label_smoothing: Share of the target spread over the vocabulary; keep 0 outside training.
        """
        embeddings = self.language_model.transformer.wte(token_ids.clamp(min=0))
        logits = self.caption_logits(self.prefix(read), embeddings)
        return F.cross_entropy(
            logits.flatten(0, 1), token_ids.flatten(), ignore_index=IGNORED, label_smoothing=label_smoothing
        )

    def token_log_probs(self, read: Tensor, token_ids: Tensor) -> Tensor:
        """Return log p(y_t | image, y_<t) in nats under teacher forcing, ``[B, M]``, 0 where ``token_ids`` is -100."""
        embeddings = self.language_model.transformer.wte(token_ids.clamp(min=0))
        logits = self.caption_logits(self.prefix(read), embeddings)
        chosen = logits.log_softmax(-1).gather(-1, token_ids.clamp(min=0).unsqueeze(-1)).squeeze(-1)
        return chosen.masked_fill(token_ids == IGNORED, 0.0)

    def log_prob(self, read: Tensor, token_ids: Tensor) -> Tensor:
        """Return the log-probability of whole captions in nats, ``[B]``."""
        return self.token_log_probs(read, token_ids).sum(-1)

    def encode_captions(self, texts: Sequence[str], length: int | None = None) -> Tensor:
        """Return caption tokens with the end marker, padded with -100 to ``[B, M]``.

        Args:
            texts: Captions.
            length: M; the longest caption's length if None. Longer captions lose their tail and their end marker.
        """
        rows = [[*self.tokenizer.encode(text), self.tokenizer.eos_id] for text in texts]
        size = max(map(len, rows)) if length is None else length
        tokens = torch.full((len(rows), size), IGNORED)
        for target, row in zip(tokens, rows, strict=True):
            target[: min(len(row), size)] = torch.tensor(row[:size])
        return tokens.to(self.prompt_ids.device)

    @torch.no_grad()
    def generate(self, read: Tensor, decoding: Decoding | None = None) -> list[Caption]:
        """Generate one caption for each row of ``[B, D]`` or ``[B, N, W]``, with a key-value cache, as one batch."""
        decoding = decoding or Decoding()
        prefix = self.prefix(read)
        ids = self.language_model.generate(
            inputs_embeds=prefix,
            attention_mask=torch.ones(prefix.shape[:2], dtype=torch.long, device=prefix.device),
            do_sample=False,
            num_beams=decoding.beams,
            max_new_tokens=decoding.max_new_tokens,
            min_new_tokens=decoding.min_new_tokens or None,
            length_penalty=decoding.length_penalty if decoding.beams > 1 else None,
            no_repeat_ngram_size=decoding.no_repeat_ngram_size or None,
            repetition_penalty=decoding.repetition_penalty,
            eos_token_id=self.tokenizer.eos_id,
            pad_token_id=self.tokenizer.pad_id,
        )
        return [self._caption(row) for row in ids.tolist()]

    def _caption(self, token_ids: list[int]) -> Caption:
        if self.tokenizer.eos_id in token_ids:
            token_ids = token_ids[: token_ids.index(self.tokenizer.eos_id)]
        return Caption(text=self.tokenizer.decode(token_ids), token_ids=tuple(token_ids))
