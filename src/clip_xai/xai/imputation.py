"""ROAD's fill (Rong et al., ICML 2022): each removed pixel is the weighted mean of its eight neighbours, plus noise.

A removed region takes on the colours around it, so that its outline tells little of the class. The published code
solves one sparse system an image on the processor; here all masked images of a chunk are solved together, where the
images are.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

DIRECT, DIAGONAL = 1 / 6, 1 / 12  # weights of the neighbours
_TOLERANCE = 1e-5  # of the residual, relative to the right-hand side
_COARSEST = 8  # pixels a side from which on a coarser picture gives no better start


@dataclass(frozen=True)
class Road:
    """What stands where pixels were removed.

    Attributes:
        noise: Standard deviation of what is added there, in normalised values.
        seed: Seed of that noise, one field for all masked images.
    """

    noise: float = 0.01
    seed: int = 0
    words: ClassVar[str] = "what its surroundings make likely (ROAD)"

    def mixed(self, pixels: Tensor, kept: Tensor) -> Tensor:
        """Return images in which what is not kept was filled in.

        Args:
            pixels: ``[n, 3, S, S]``.
            kept: ``[n, 1, S, S]``; what is above .5 is kept.
        """
        there = kept > 0.5
        generator = torch.Generator().manual_seed(self.seed)
        noise = self.noise * torch.randn(pixels.shape[1:], generator=generator).to(pixels)
        return torch.where(there, pixels, imputed(pixels, there) + noise)


def imputed(pixels: Tensor, kept: Tensor) -> Tensor:
    """Solve for all removed pixels at once: each is the mean of its neighbours, weighted 1/6 and, diagonally, 1/12.

    At the border the weights of the neighbours that exist are scaled to sum to 1. Conjugate gradients, started from the
    solution on a picture of half the side. Where nothing is kept, the image's mean colour stands everywhere.

    Args:
        pixels: ``[n, C, S, S]``.
        kept: Bool ``[n, 1, S, S]``.

    Returns:
        ``[n, C, S, S]``; what is kept as it was.

    Example:
        >>> picture, kept = torch.zeros(1, 1, 3, 3), torch.ones(1, 1, 3, 3, dtype=torch.bool)
        >>> picture[0, 0, 0] = 1.0
        >>> kept[0, 0, 1, 1] = False
        >>> round(float(imputed(picture, kept)[0, 0, 1, 1]), 4)  # 1/6 + 2/12 of the upper row
        0.3333
    """
    some = kept.flatten(1).any(dim=1)[:, None, None, None]
    mean = pixels.mean(dim=(2, 3), keepdim=True)
    # Of an image without any pixel left, one is held at the mean colour, which then is the solution.
    anchored = kept.clone()
    anchored[..., 0, 0] |= ~some[..., 0, 0]
    known = torch.where(some, pixels, mean)
    return _solved(known.float(), anchored).to(pixels)


def _solved(known: Tensor, kept: Tensor) -> Tensor:
    start = torch.where(kept, known, _start(known, kept))
    removed = (~kept).float()
    degree = _neighbours(torch.ones_like(removed))

    def applied(values: Tensor) -> Tensor:
        return removed * (degree * values - _neighbours(values))

    right = removed * _neighbours(known * kept)
    solution = start * removed
    residual = right - applied(solution)
    direction, size = residual, _squares(residual)
    enough = _TOLERANCE**2 * _squares(right).clamp(min=1e-12)
    for _ in range(10 * known.shape[-1]):
        if bool((size <= enough).all()):
            break
        image = applied(direction)
        curvature = (direction * image).sum(dim=(2, 3), keepdim=True)
        step = torch.where(curvature > 0, size / curvature.clamp(min=1e-30), 0.0)
        solution = solution + step * direction
        residual = residual - step * image
        before, size = size, _squares(residual)
        direction = residual + size / before.clamp(min=1e-30) * direction
    return torch.where(kept, known, solution)


def _start(known: Tensor, kept: Tensor) -> Tensor:
    """What a picture of half the side, solved likewise, says of the removed pixels."""
    side = known.shape[-1]
    weight = kept.float()
    if side % 2 or side <= _COARSEST:
        total = weight.sum(dim=(2, 3), keepdim=True)
        return ((known * weight).sum(dim=(2, 3), keepdim=True) / total).expand_as(known)
    share = F.avg_pool2d(weight, 2)
    coarse = F.avg_pool2d(known * weight, 2) / share.clamp(min=0.25)
    return F.interpolate(_solved(coarse, share > 0), scale_factor=2, mode="bilinear", align_corners=False)


def _neighbours(values: Tensor) -> Tensor:
    """Return the weighted sum of each pixel's neighbours, nothing beyond the border."""
    kernel = values.new_tensor([[DIAGONAL, DIRECT, DIAGONAL], [DIRECT, 0.0, DIRECT], [DIAGONAL, DIRECT, DIAGONAL]])
    flat = values.flatten(0, 1)[:, None]
    return F.conv2d(flat, kernel[None, None], padding=1).view_as(values)


def _squares(values: Tensor) -> Tensor:
    return values.square().sum(dim=(2, 3), keepdim=True)
