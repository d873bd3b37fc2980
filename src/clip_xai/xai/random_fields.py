"""Gaussian random fields: maps that saw nothing, as smooth as a given map.

Smoothness decides how far the score moves: rough maps delete a little of everything and hardly move it, smooth ones
take away whole regions. A map is therefore held against fields of its own smoothness.
"""

from __future__ import annotations

import functools
import math

import torch
from scipy.stats import rankdata
from torch import Tensor

#: Correlation lengths, as a share of the picture's side: two, so that few fields serve all maps of a photograph.
LENGTHS = (0.1, 0.3)
_MEASURED_ON = 200  # fields behind the roughness of a length
_KNOWN = tuple(0.02 * 1.25**step for step in range(18))  # lengths .02 to .9, between which a map's own is read off


def gaussian_fields(count: int, grid: tuple[int, int], length: float, seed: int = 0) -> Tensor:
    """Draw Gaussian random fields of mean 0 and variance 1 whose correlation at distance d is exp(-d^2 / (2 length^2)).

    White noise smoothed by a Gaussian of standard deviation length / sqrt(2); the noise goes on beyond the border, so
    that the field is the same everywhere.

    Args:
        count: How many.
        grid: Rows and columns, h and w.
        length: Correlation length as a share of the side.
        seed: Seed of the noise.

    Returns:
        ``[count, h, w]``, float32.

    Example:
        >>> gaussian_fields(20, (7, 7), 0.3).shape
        torch.Size([20, 7, 7])
    """
    down, across = (_smoothing(cells, length * cells / math.sqrt(2)) for cells in grid)
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(count, down.shape[1], across.shape[1], generator=generator, dtype=torch.float64)
    return (down @ noise @ across.T).float()


def _smoothing(cells: int, sigma: float) -> Tensor:
    """Weights ``[cells, cells + 2 reach]`` of a Gaussian, each row of unit length, so that the variance stays 1."""
    reach = math.ceil(4 * sigma)
    distance = torch.arange(cells)[:, None] + reach - torch.arange(cells + 2 * reach)
    weights = torch.exp(-(distance.double() ** 2) / (2 * max(sigma, 1e-3) ** 2))
    return weights / weights.norm(dim=1, keepdim=True)


def roughness(maps: Tensor) -> Tensor:
    """Return the mean squared difference of neighbouring places over the variance, of the ranks of each map.

    Ranks, because they alone decide in which order places are deleted; equal places share the mean of their ranks.

    Args:
        maps: ``[R, h, w]``.

    Returns:
        ``[R]``; NaN of a flat map.
    """
    ranks = torch.from_numpy(rankdata(maps.flatten(1).double().cpu().numpy(), axis=1)).view(maps.shape)
    down, across = ranks.diff(dim=1).square().flatten(1), ranks.diff(dim=2).square().flatten(1)
    return torch.cat([down, across], dim=1).mean(dim=1) / ranks.flatten(1).var(dim=1, correction=0)


def smoothness_length(maps: Tensor) -> Tensor:
    """Return the correlation length of each map, as a share of the side: that of the fields that are as rough.

    Args:
        maps: ``[R, h, w]``.

    Returns:
        ``[R]`` from .02 to .9; NaN of a flat map.

    Example:
        >>> bool((smoothness_length(gaussian_fields(50, (14, 14), 0.2)).median() - 0.2).abs() < 0.03)
        True
    """
    known = torch.tensor(_roughness_of_lengths(tuple(maps.shape[1:])))
    lengths = torch.tensor(_KNOWN, dtype=torch.float64).log()
    own = roughness(maps).log()
    # From the roughest on; log roughness falls as the length grows.
    place = torch.searchsorted(-known, -own).clamp(1, len(known) - 1)
    share = ((known[place - 1] - own) / (known[place - 1] - known[place])).clamp(0, 1)
    return torch.lerp(lengths[place - 1], lengths[place], share).exp()


def nearest_length(length: float) -> float:
    """Return the one of ``LENGTHS`` that is nearest by its logarithm."""
    return min(LENGTHS, key=lambda one: abs(math.log(one / length)))


@functools.lru_cache(maxsize=16)
def _roughness_of_lengths(grid: tuple[int, int]) -> list[float]:
    """Mean log roughness of fields of every known length; made to fall strictly, where cells tell no more apart."""
    found: list[float] = []
    for length in _KNOWN:
        mean = float(roughness(gaussian_fields(_MEASURED_ON, grid, length, seed=1)).log().mean())
        found.append(mean if not found else min(mean, found[-1] - 1e-6))
    return found
