"""A mechanism that is known: one region of a photograph decides the score, on the very cells of a model's tower.

The score is linear in the pixels, so that what each cell adds is known in closed form. Its map must have evidence and
its negative must not; how often the map has it is the power of the rule.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from clip_xai.models.backbones.base import VisionBackbone
from clip_xai.models.backbones.tower import Features, ImageTower
from clip_xai.xai.perturbation_bank import PerturbationBank
from clip_xai.xai.relevance_gain import DELETED_TO, units_of
from clip_xai.xai.target import Target

PARTS = 4  # the region is a quarter of the side long, a sixteenth of the cells


class PixelTower(ImageTower):
    """Hands over the pixels themselves, so that a score can be a function of them; cells as those of another tower."""

    width, family, supports = 3, "convolutional", frozenset()

    def __init__(self, image_size: int, grid: tuple[int, int]) -> None:
        """Take the size and the cells of the tower that it stands in for."""
        self.image_size, self.grid, self.embed_dim = image_size, grid, 3 * image_size**2

    def features(self, pixels: Tensor) -> Features:
        """Return the pixels as the embedding, and each cell's mean colour as its token."""
        means = nn.functional.adaptive_avg_pool2d(pixels, self.grid)
        return Features(pixels.flatten(1), means.flatten(2).transpose(1, 2))

    def project(self, tokens: Tensor) -> Tensor:
        """A mean colour has no embedding."""
        raise NotImplementedError("single cells have no embedding here")

    def trace(self, *arguments: object, **options: object) -> object:  # type: ignore[override]
        """There is nothing inside."""
        raise NotImplementedError("there is nothing inside to look at")


class RegionTarget(Target):
    """How much of a region still differs from the photograph's mean colour, 1 for all of it.

    ``s(x') = sum_i r_i (x_i - m_i)(x'_i - m_i) / sum_i r_i (x_i - m_i)^2`` over pixels and channels i, with r the
    region, x the photograph and m its mean colour: the share of the region's variance that was not deleted.
    """

    name, reads, score_name = "region", "pooled", "share"

    def __init__(self, pixels: Tensor, region: Tensor) -> None:
        """Take a photograph ``[1, 3, S, S]`` and a region ``[S, S]`` of zeros and ones."""
        self._mean = DELETED_TO(pixels).flatten(1)
        weights = (pixels.flatten(1) - self._mean) * region.expand_as(pixels).flatten(1)
        self._weights = weights / weights.square().sum().clamp(min=1e-12)
        self.labels = ["the region"]

    def score(self, read: Tensor) -> Tensor:
        """Return the shares ``[B, 1]``."""
        return (read - self._mean) @ self._weights.T


def deciding_region(bank: PerturbationBank, seed: int) -> tuple[PerturbationBank, RegionTarget, Tensor]:
    """Draw a region of a photograph and make its score.

    Args:
        bank: A tower and a photograph, ``[1, 3, S, S]``: of the tower, the cells alone are taken.
        seed: Seed of the region's place, any place being as likely.

    Returns:
        A bank of the pixels themselves, the score, and what each cell adds to it, ``[h, w]`` with the sum 1.
    """
    pixels, (rows, columns) = bank.pixels, units_of(bank)
    side = pixels.shape[-1]
    high, wide = max(1, round(rows / PARTS)), max(1, round(columns / PARTS))
    generator = torch.Generator().manual_seed(seed)
    down = int(torch.randint(0, rows - high + 1, (1,), generator=generator))
    across = int(torch.randint(0, columns - wide + 1, (1,), generator=generator))
    cells = torch.zeros(rows, columns)
    cells[down : down + high, across : across + wide] = 1
    # The same division into cells as when they are deleted.
    of_row, of_column = (torch.arange(side) * count // side for count in (rows, columns))
    region = cells[of_row][:, of_column].to(pixels)
    adds = ((pixels - DELETED_TO(pixels)).square().sum(dim=1)[0] * region).double().cpu()
    number = (of_row[:, None] * columns + of_column).flatten()
    truth = torch.zeros(rows * columns, dtype=torch.float64).index_add_(0, number, adds.flatten())
    tower = PixelTower(side, bank.backbone.grid)
    standing_in = VisionBackbone(nn.Identity(), tower, bank.backbone.preprocess, "pixels")
    share = (truth / truth.sum().clamp(min=1e-12)).view(rows, columns).float()
    return PerturbationBank(standing_in, pixels, keep_bytes=0), RegionTarget(pixels, region), share
