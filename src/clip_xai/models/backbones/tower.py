"""What every image tower gives, whatever its family."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from clip_xai.models.backbones.trace import Point, Record, VisualTrace


@dataclass(frozen=True)
class Features:
    """What a frozen image tower hands to a mapper.

    Attributes:
        pooled: Image embeddings after the projection, not normalised, ``[B, D]``.
        patches: Patch tokens of the last block after the final norm, before the projection, ``[B, N, W]``,
            row by row from the upper left.
    """

    pooled: Tensor
    patches: Tensor

    def read(self, reads: str) -> Tensor:
        """Return the tensor that a mapper reads: ``"pooled"`` or ``"patches"``."""
        if reads not in ("pooled", "patches"):
            raise ValueError(f"a mapper reads 'pooled' or 'patches', not {reads!r}")
        return self.pooled if reads == "pooled" else self.patches


class ImageTower(ABC):
    """An adapter around the image tower of some library. It holds no weights of its own.

    Attributes:
        module: The wrapped tower.
        image_size: Side of the square input in pixels.
        grid: Rows and columns of the patch tokens that are handed over.
        width: W, the width of these tokens.
        embed_dim: D.
        family: ``"transformer"``, ``"windowed"`` or ``"convolutional"``.
        supports: What explainers may ask of it, out of ``"attention"`` (probabilities over all tokens in each block),
            ``"class_token"`` (the embedding is read at a class token) and ``"output_gradients"`` (gradients at the
            tokens after a block).
    """

    module: Any
    image_size: int
    grid: tuple[int, int]
    width: int
    embed_dim: int
    family: str
    supports: frozenset[str]

    @abstractmethod
    def features(self, pixels: Tensor) -> Features:
        """Encode images ``[B, 3, S, S]`` in one pass."""

    @abstractmethod
    def project(self, tokens: Tensor) -> Tensor:
        """Return what single tokens would be in the embedding space, ``[..., W]`` to ``[..., D]``."""

    @abstractmethod
    def trace(
        self, pixels: Tensor, *, reads: str = "pooled", record: Record = (), watch: Iterable[Point] = ()
    ) -> VisualTrace:
        """Run the tower once, opened up; see ``VisualTrace``."""
