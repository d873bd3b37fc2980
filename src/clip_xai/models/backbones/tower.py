"""What every image tower gives, whatever its family."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from torch import Tensor

from clip_xai.models.backbones.recording import Point, Record, VisualTrace

READS = ("pooled", "patches", "tokens")


@dataclass(frozen=True)
class Features:
    """What a frozen image tower hands to a mapper.

    Attributes:
        pooled: Image embeddings after the projection, not normalised, ``[B, D]``.
        tokens: Tokens of the last block after the final norm, before the projection, ``[B, P + N, W]``: P prefix tokens
            (the class token, where the tower has one), then the patches row by row from the upper left.
        prefix_tokens: P.
    """

    pooled: Tensor
    tokens: Tensor
    prefix_tokens: int = 0

    @property
    def patches(self) -> Tensor:
        """The patch tokens alone, ``[B, N, W]``."""
        return self.tokens[:, self.prefix_tokens :]

    def read(self, reads: str) -> Tensor:
        """Return the tensor that a mapper reads: ``"pooled"``, ``"patches"`` or ``"tokens"``."""
        return getattr(self, known_read(reads))


def known_read(reads: str) -> str:
    """Return the name of what is read.

    Raises:
        ValueError: A tower does not hand that over.
    """
    if reads not in READS:
        raise ValueError(f"reads is {reads!r}; choose one of {', '.join(READS)}")
    return reads


class ImageTower(ABC):
    """An adapter around the image tower of some library. It holds no weights of its own.

    Attributes:
        module: The wrapped tower.
        image_size: Side of the square input in pixels.
        grid: Rows and columns of the patch tokens that are handed over.
        width: W, the width of these tokens.
        embed_dim: D.
        prefix_tokens: P, the tokens in front of the patches.
        family: ``"transformer"``, ``"windowed"`` or ``"convolutional"``.
        supports: What explainers may ask of it, out of ``"attention"`` (probabilities over all tokens in each block),
            ``"class_token"`` (the embedding is read at a class token) and ``"output_gradients"`` (gradients at the
            tokens after a block).
        remedies: What its owner can do about what it does not support, where something helps.
    """

    module: Any
    image_size: int
    grid: tuple[int, int]
    width: int
    embed_dim: int
    prefix_tokens: int = 0
    family: str
    supports: frozenset[str]
    remedies: Mapping[str, str] = MappingProxyType({})

    @abstractmethod
    def features(self, pixels: Tensor) -> Features:
        """Encode images ``[B, 3, S, S]`` in one pass."""

    def encode(self, pixels: Tensor) -> Tensor:
        """Return the image embeddings alone, ``[B, D]``, with no more work than they take; in evaluation mode."""
        return self.features(pixels).pooled

    @abstractmethod
    def project(self, tokens: Tensor) -> Tensor:
        """Return what single tokens would be in the embedding space, ``[..., W]`` to ``[..., D]``."""

    @abstractmethod
    def trace(
        self, pixels: Tensor, *, reads: str = "pooled", record: Record = (), watch: Iterable[Point] = ()
    ) -> VisualTrace:
        """Run the tower once, opened up; see ``VisualTrace``."""
