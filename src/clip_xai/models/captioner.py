"""The captioner: frozen CLIP tower -> mapper -> prefix -> language model."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import PreTrainedModel

from clip_xai.data.vocabulary import Vocabulary, load_vocabulary, unpacked
from clip_xai.models.backbones.base import Features, VisionBackbone
from clip_xai.models.causal_model import last_hidden, output_layer, positions, require_causal, word_embeddings
from clip_xai.models.decoding import Caption, decode
from clip_xai.models.mappers import Mapper
from clip_xai.models.settings import Decoding
from clip_xai.models.tokenizer import CaptionTokenizer

IGNORED = -100


class Captioner(nn.Module):
    """p(caption | image) = prod_t LM(y_t | mapper(tower(image)), prompt, y_<t).

    The mapper's K slots and the optional prompt stand before the caption; logits are computed only where a caption
    token stands. The tower never gets a gradient from ``loss``: hand it features.

    Attributes:
        provenance: Texts that travel with the weights in their file's header, such as what they were trained on.
    """

    def __init__(
        self,
        backbone: VisionBackbone,
        mapper: Mapper,
        language_model: PreTrainedModel,
        tokenizer: CaptionTokenizer,
        prompt: str = "",
    ) -> None:
        """Put the parts together.

        Raises:
            UserError: The language model lacks an ability; see :func:`~clip_xai.models.causal_model.require_causal`.
        """
        super().__init__()
        require_causal(language_model)
        self.prompt_ids: Tensor
        self.backbone = backbone
        self.mapper = mapper
        self.language_model = language_model
        self.tokenizer = tokenizer
        self.prompt = prompt
        self.provenance: dict[str, str] = {}
        self.register_buffer("prompt_ids", torch.tensor(tokenizer.encode(prompt), dtype=torch.long), persistent=False)
        self.backbone.requires_grad_(False)

    def fingerprint(self) -> str:
        """Return a SHA-256 over prompt, tower and all weights: equal exactly when two captioners are."""
        digest = hashlib.sha256(f"{self.prompt}\0{self.backbone.fingerprint}".encode())
        if getattr(self.mapper, "normalize", False):  # the same weights read another embedding
            digest.update(b"normalize")
        for key, value in sorted(self.state_dict().items()):
            if not key.startswith("backbone."):
                tensor = value.detach().cpu().contiguous()
                digest.update(f"{key}:{tuple(tensor.shape)}:{tensor.dtype}".encode())
                digest.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes() if tensor.numel() else b"")
        return digest.hexdigest()

    @property
    def vocabulary(self) -> Vocabulary:
        """The words of the field that it was trained in; those of skin where its weights do not say."""
        return unpacked(self.provenance) or load_vocabulary()

    @property
    def reads(self) -> str:
        """What the mapper reads of an image: ``"pooled"``, ``"patches"`` or ``"tokens"``."""
        return self.mapper.reads

    def read(self, pixels: Tensor) -> Tensor:
        """Return what the mapper reads of ``[B, 3, S, S]`` images: ``[B, D]`` or ``[B, S, W]``, with gradients."""
        features: Features = self.backbone.features(pixels)
        return features.read(self.reads)

    @contextmanager
    def prompted(self, prompt: str) -> Iterator[None]:
        """Put a prompt in the place of the captioner's own for the time of a ``with`` block.

        What is explained then holds the prompt fixed: it is text before the caption, whatever is done to the image.

        Args:
            prompt: The text; the captioner's own comes back after the block, also when it raises.
        """
        own = self.prompt, self.prompt_ids
        with torch.inference_mode(False):  # explainers take gradients behind these ids
            ids = torch.tensor(self.tokenizer.encode(prompt), dtype=torch.long, device=self.prompt_ids.device)
        self.prompt, self.prompt_ids = prompt, ids
        try:
            yield
        finally:
            self.prompt, self.prompt_ids = own

    def room(self, prompts: Sequence[str] | None = None) -> int:
        """Return how many tokens a caption can have behind the slots and the longest of some prompts.

        Args:
            prompts: Prompts in the place of the captioner's own.
        """
        lengths = [self.prompt_ids.numel()] if prompts is None else [len(row) for row in self._rows(prompts)]
        slots = self.mapper.prefix_length - self.mapper.memory_length
        # The last token is never read.
        return positions(self.language_model) - slots - max(lengths, default=0) + 1

    def prefix(self, read: Tensor, prompts: Sequence[str] | None = None) -> Tensor:
        """Return what stands before the caption, the mapper's K vectors and the prompt, ``[B, K + P, E]``.

        Args:
            read: What the mapper reads, ``[B, D]`` or ``[B, S, W]``.
            prompts: A prompt for each row instead of the captioner's own; ``prefix_mask`` says where shorter ones are
                padded.
        """
        mapped = self.mapper(read)
        ids = self.prompt_ids.expand(len(mapped), -1) if prompts is None else self._padded(prompts)[0]
        if not ids.shape[1]:
            return mapped
        return torch.cat([mapped, word_embeddings(self.language_model)(ids)], dim=1)

    def prefix_mask(self, prompts: Sequence[str] | None) -> Tensor | None:
        """Return ``[B, S]``, False at the padding of prompts in the sequence before the caption; None without any."""
        if prompts is None:
            return None
        mask = self._padded(prompts)[1]
        slots = self.mapper.prefix_length - self.mapper.memory_length
        return torch.cat([mask.new_ones(len(mask), slots), mask], dim=1)

    def caption_logits(self, prefix: Tensor, caption_embeddings: Tensor, mask: Tensor | None = None) -> Tensor:
        """Return next-token logits ``[B, M, V]`` at the positions that predict the M caption tokens.

        Args:
            prefix: ``[B, K + P, E]``.
            caption_embeddings: Embeddings of the caption's tokens ``[B, M, E]``; the last one is never read.
            mask: ``prefix_mask`` of the prompts, where rows have their own.
        """
        return output_layer(self.language_model)(self._hidden(prefix, caption_embeddings, mask))

    def caption_log_probs(self, prefix: Tensor, caption_embeddings: Tensor, token_ids: Tensor) -> Tensor:
        """Return log p(y_t | prefix, y_<t) in nats, ``[B, M]``, for many derivatives of a frozen model.

        The probability of a token depends on its own hidden state h_t alone. So the derivative through the output
        layer, which is as wide as the vocabulary, is taken once for all tokens; what is returned has the values of
        log p and, as ``log p + (h - const h) . dlog p/dh``, its first derivatives in both inputs. It has no derivative
        in the weights of the output layer, and no second ones.

        Args:
            prefix: ``[B, K + P, E]``.
            caption_embeddings: Embeddings of the caption's tokens ``[B, M, E]``; the last one is never read.
            token_ids: Which tokens are scored, ``[B, M]``.
        """
        hidden = self._hidden(prefix, caption_embeddings, None)
        if not hidden.requires_grad:
            return self._chosen(hidden, token_ids)
        leaf = hidden.detach().requires_grad_()
        found = self._chosen(leaf, token_ids)
        (slope,) = torch.autograd.grad(found.sum(), leaf)
        return found.detach() + ((hidden - leaf.detach()) * slope).sum(dim=-1)

    def loss(
        self, read: Tensor, token_ids: Tensor, label_smoothing: float = 0.0, prompts: Sequence[str] | None = None
    ) -> Tensor:
        """Return the mean cross-entropy in nats per supervised token.

        Args:
            read: What the mapper reads, ``[B, D]`` or ``[B, S, W]``.
            token_ids: Caption tokens with the end marker, ``[B, M]``; -100 where there is no token.
            label_smoothing: Share of the target spread over the vocabulary; keep 0 outside training.
            prompts: A prompt for each row instead of the captioner's own.
        """
        embeddings = word_embeddings(self.language_model)(token_ids.clamp(min=0))
        hidden = self._hidden(self.prefix(read, prompts), embeddings, self.prefix_mask(prompts))
        supervised = token_ids != IGNORED
        # The output layer is the widest of all: it sees the supervised positions alone.
        logits = output_layer(self.language_model)(hidden[supervised])
        return F.cross_entropy(logits, token_ids[supervised], label_smoothing=label_smoothing)

    def token_log_probs(self, read: Tensor, token_ids: Tensor, prompts: Sequence[str] | None = None) -> Tensor:
        """Return log p(y_t | image, y_<t) in nats under teacher forcing, ``[B, M]``, 0 where ``token_ids`` is -100."""
        embeddings = word_embeddings(self.language_model)(token_ids.clamp(min=0))
        hidden = self._hidden(self.prefix(read, prompts), embeddings, self.prefix_mask(prompts))
        return self._chosen(hidden, token_ids.clamp(min=0)).masked_fill(token_ids == IGNORED, 0.0)

    def next_log_probs(self, prefix: Tensor, token_ids: Tensor, lengths: Tensor) -> Tensor:
        """Return log p(next token | prefix, first tokens of a caption) in nats, ``[B, V]``.

        Args:
            prefix: What stands before the captions, ``[B, K + P, E]``.
            token_ids: Tokens of captions, ``[B, M]``, padded on the right with any token; M may be 0.
            lengths: How many of them are there, ``[B]``.
        """
        read = torch.cat([token_ids, token_ids.new_zeros(len(token_ids), 1)], dim=1)
        hidden = self._hidden(prefix, word_embeddings(self.language_model)(read), None)
        last = hidden[torch.arange(len(hidden), device=hidden.device), lengths]
        return output_layer(self.language_model)(last).log_softmax(dim=-1)

    def _chosen(self, hidden: Tensor, token_ids: Tensor) -> Tensor:
        """Log-probabilities ``[B, M]`` of tokens by the hidden states ``[B, M, E]`` that predict them."""
        log_probs = output_layer(self.language_model)(hidden).log_softmax(dim=-1)
        return log_probs.gather(-1, token_ids.unsqueeze(-1)).squeeze(-1)

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
    def generate(
        self,
        read: Tensor,
        decoding: Decoding | None = None,
        prompts: Sequence[str] | None = None,
        rows: Sequence[int] | None = None,
    ) -> list[Caption]:
        """Generate one caption for each row of ``[B, D]`` or ``[B, S, W]``, with a key-value cache, as one batch.

        Args:
            read: What the mapper reads.
            decoding: How to decode; greedily if None.
            prompts: A prompt for each row instead of the captioner's own.
            rows: A number for each row that, with the seed, chooses its draws when sampling; 0, 1, 2 ... if None.

        Raises:
            UserError: The language model does not have enough positions.
        """
        sequence, memory = self.split(self.prefix(read, prompts))
        sequence, mask = padded_left(sequence, self.prefix_mask(prompts))
        with self.mapper.looking_at(self.language_model, memory):
            return decode(self.language_model, self.tokenizer, sequence, decoding or Decoding(), mask, rows)

    def _hidden(self, prefix: Tensor, caption_embeddings: Tensor, mask: Tensor | None) -> Tensor:
        """Return the last hidden states ``[B, M, E]`` that predict the M caption tokens."""
        sequence, memory = self.split(prefix)
        sequence, mask = padded_left(sequence, mask)
        inputs = torch.cat([sequence, caption_embeddings[:, :-1]], dim=1)
        # Padding of captions stands on the right, so causality alone keeps it from every supervised position: only
        # padded prompts need a mask.
        masked: dict[str, Tensor] = {}
        if mask is not None:
            whole = torch.cat([mask, mask.new_ones(len(mask), inputs.shape[1] - mask.shape[1])], dim=1)
            masked = {"mask": whole.long(), "position_ids": (whole.cumsum(-1) - 1).clamp(min=0)}
        with self.mapper.looking_at(self.language_model, memory):
            hidden = last_hidden(self.language_model, inputs, **masked)
        return hidden[:, sequence.shape[1] - 1 :]

    def split(self, prefix: Tensor) -> tuple[Tensor, Tensor | None]:
        """Return what stands in the sequence, ``[B, S, E]``, and the memory beside it, ``[B, M, E]`` or None.

        Args:
            prefix: What stands before the caption, ``[B, K + P, E]``.
        """
        end = self.mapper.prefix_length
        start = end - self.mapper.memory_length
        if start == end:
            return prefix, None
        return torch.cat([prefix[:, :start], prefix[:, end:]], dim=1), prefix[:, start:end]

    def _rows(self, prompts: Sequence[str]) -> list[list[int]]:
        return [self.tokenizer.encode(prompt) for prompt in prompts]

    def _padded(self, prompts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Return the prompts' tokens padded on the left ``[B, P]``, and where they are not padding."""
        rows = self._rows(prompts)
        size = max(map(len, rows), default=0)
        ids = [[self.tokenizer.pad_id] * (size - len(row)) + row for row in rows]
        mask = [[False] * (size - len(row)) + [True] * len(row) for row in rows]
        device = self.prompt_ids.device
        shape = (len(rows), size)
        return (
            torch.tensor(ids, dtype=torch.long, device=device).reshape(shape),
            torch.tensor(mask, dtype=torch.bool, device=device).reshape(shape),
        )


def padded_left(sequence: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor | None]:
    """Move the padding of ``[B, S, E]`` to the left of each row, and its mask ``[B, S]`` with it."""
    if mask is None:
        return sequence, None
    order = mask.int().argsort(dim=1, stable=True)
    return sequence.gather(1, order.unsqueeze(-1).expand_as(sequence)), mask.gather(1, order)
