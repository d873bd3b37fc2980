"""The most direct mapper: one linear layer on a pooled patch grid."""

from __future__ import annotations

from math import ceil
from typing import ClassVar

import torch.nn.functional as F
from torch import Tensor, nn

from clip_xai.models.mappers.base import Count, Mapper, Share, mappers


@mappers.register("linear_patch", order=3)
class LinearPatch(Mapper):
    """One linear layer on patch tokens (LiMBeR, arXiv 2209.15162), averaged over squares of ``pool`` by ``pool``.

    Slot k is a linear function of the patches of one square and of nothing else, so what the language model draws from
    a slot is drawn from that place. A 14 x 14 grid gives 49 slots; a grid that does not divide keeps smaller squares
    at its right and lower edge.
    """

    reads: ClassVar[str] = "patches"
    idea: ClassVar[str] = "a slot is a linear function of one square of patches: the most direct to attribute"
    needs: ClassVar[tuple[str, ...]] = ("grid",)

    def __init__(
        self, feature_dim: int, embedding_dim: int, grid: tuple[int, int], pool: Count = 2, dropout: Share = 0.0
    ) -> None:
        """Build the mapper.

        Args:
            feature_dim: W.
            embedding_dim: E.
            grid: Rows and columns of the patches.
            pool: Side of the squares of patches that are averaged.
            dropout: Probability of dropping an activation while training.
        """
        super().__init__()
        self.grid = (int(grid[0]), int(grid[1]))
        self.pool = pool
        self.prefix_length = ceil(grid[0] / pool) * ceil(grid[1] / pool)
        self.project = nn.Linear(feature_dim, embedding_dim)
        self.dropout = nn.Dropout(dropout)

    def forward(self, patches: Tensor) -> Tensor:
        """Map ``[B, N, W]`` patch tokens to ``[B, K, E]``, K squares row by row."""
        picture = patches.transpose(1, 2).unflatten(-1, self.grid)
        squares = F.avg_pool2d(picture, self.pool, ceil_mode=True, count_include_pad=False)
        return self.dropout(self.project(squares.flatten(2).transpose(1, 2)))
