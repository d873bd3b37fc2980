"""A captioner whose next-word probabilities are any function of one number of the image and of the words so far."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from types import SimpleNamespace
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from clip_xai.models.captioner import Captioner
from clip_xai.models.mappers.base import Mapper
from clip_xai.models.tokenizer import CaptionTokenizer
from tests.support.small_captioner import small_captioner

END = "<end>"
# (the image's number, the words so far) -> the chance of each next word
Rule = Callable[[float, tuple[str, ...]], Mapping[str, float]]


class FirstNumber(Mapper):
    """Puts the first number of the embedding behind the one-hot part of a single prefix vector."""

    reads: ClassVar[str] = "pooled"
    idea: ClassVar[str] = "planted"
    prefix_length = 1

    def __init__(self, width: int) -> None:
        super().__init__()
        self.width = width

    def forward(self, pooled: Tensor) -> Tensor:
        """Map ``[B, D]`` to ``[B, 1, E]``."""
        prefix = pooled.new_zeros(len(pooled), 1, self.width)
        prefix[:, 0, -1] = pooled[:, 0]
        return prefix


class PlantedLanguageModel(nn.Module):
    """Logits are the logarithms of what the rule says; embeddings are one-hot, so that the words can be read off."""

    def __init__(self, tokenizer: CaptionTokenizer, rule: Rule) -> None:
        super().__init__()
        self.tokenizer, self.rule, self.size = tokenizer, rule, tokenizer.vocabulary_size
        self.config = SimpleNamespace(num_hidden_layers=1, max_position_embeddings=64, pad_token_id=None)
        self.blocks = nn.ModuleList([nn.Identity()])
        self.words = nn.Embedding.from_pretrained(torch.eye(self.size, self.size + 1))
        self.output = nn.Linear(self.size + 1, self.size, bias=False)
        self.output.weight.data = torch.eye(self.size, self.size + 1)
        self.known: dict[tuple[float, tuple[int, ...]], Tensor] = {}

    @property
    def base_model(self) -> nn.Module:
        """Itself: hidden states are logits."""
        return self

    def get_input_embeddings(self) -> nn.Module:
        """One-hot vectors."""
        return self.words

    def get_output_embeddings(self) -> nn.Module:
        """The part of them that is not the image's."""
        return self.output

    def forward(self, inputs_embeds: Tensor, use_cache: bool = False, **_: Any) -> Any:
        """Return hidden states and logits at each position."""
        ids = inputs_embeds[:, :, : self.size].argmax(dim=-1).tolist()
        numbers = inputs_embeds[:, 0, -1].tolist()
        rows = [
            torch.stack([self._log_probs(number, tuple(row[1 : place + 1])) for place in range(len(row))])
            for number, row in zip(numbers, ids, strict=True)
        ]
        hidden = torch.cat([torch.stack(rows), torch.zeros(*inputs_embeds.shape[:2], 1)], dim=-1)
        return SimpleNamespace(last_hidden_state=hidden, logits=self.output(hidden))

    def generate(self, inputs_embeds: Tensor, logits_processor: Any, generation_config: Any, **_: Any) -> Tensor:
        """Write until the end marker, token by token."""
        ids = torch.zeros(len(inputs_embeds), 0, dtype=torch.long)
        numbers = inputs_embeds[:, 0, -1].tolist()
        while ids.shape[1] < 12:
            rows = zip(numbers, ids.tolist(), strict=True)
            scores = logits_processor(ids, torch.stack([self._log_probs(number, tuple(row)) for number, row in rows]))
            ids = torch.cat([ids, scores.argmax(dim=-1, keepdim=True)], dim=1)
            if all(self.tokenizer.eos_id in row for row in ids.tolist()):
                break
        return ids

    def _log_probs(self, number: float, before: tuple[int, ...]) -> Tensor:
        key = (round(number, 6), before)
        if key not in self.known:
            words = tuple(self.tokenizer.decode(before).split())
            found = torch.full((self.size,), -40.0)
            for word, chance in self.rule(key[0], words).items():
                [token] = [self.tokenizer.eos_id] if word == END else self.tokenizer.encode(f" {word}")
                found[token] = math.log(chance) if chance > 0 else -40.0
            self.known[key] = found.log_softmax(dim=-1)
        return self.known[key]


def planted_captioner(words: str, rule: Rule) -> Captioner:
    """Build one.

    Args:
        words: All words that the rule names, each of which becomes one token.
        rule: What comes next.
    """
    tokenizer = CaptionTokenizer.train([f" {word}" for word in words.split()] * 4, 1000)
    model: Any = PlantedLanguageModel(tokenizer, rule)
    return Captioner(small_captioner().backbone, FirstNumber(tokenizer.vocabulary_size + 1), model, tokenizer).eval()


def images(*numbers: float) -> Tensor:
    """What the mapper reads of images with these numbers."""
    return torch.tensor(numbers)[:, None].expand(-1, 16).clone()
