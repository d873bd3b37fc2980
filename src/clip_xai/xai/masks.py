"""Families of masks: what of an image is kept, made row by row so that memory stays flat.

A family numbers its masks for every image. Any rows of it can be made at any time, in any order and with any chunk
size, and are the same: whatever is drawn at random was drawn when the family was built, from an explicit seed.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Hashable

import torch
import torch.nn.functional as F
from torch import Tensor

LEAST_CELLS = 7  # a side; on fewer, a curve has too few points and a window covers nearly everything


def finer_grid(grid: tuple[int, int], side: int) -> tuple[int, int]:
    """Return a grid with its cells cut by a whole number, the same both ways, so that a side has at least seven.

    Args:
        grid: Rows and columns.
        side: S; a cell is at least a pixel wide.
    """
    cut = max(1, *(-(-LEAST_CELLS // length) for length in grid))
    return min(side, grid[0] * cut), min(side, grid[1] * cut)


class Masks(ABC):
    """M masks for each image, values 0 (taken away) to 1 (kept).

    Attributes:
        count: M.
        key: Families with equal keys are equal for the same images, so that their reads can be shared; None for a
            family that nothing else shares.
    """

    count: int
    key: Hashable | None = None

    @abstractmethod
    def pixels(self, images: Tensor, rows: Tensor, side: int) -> Tensor:
        """Make masks at the resolution of the image.

        Args:
            images: Which image each wanted mask is for, ``[n]``.
            rows: Its number in the family, 0 to M - 1, ``[n]``.
            side: S.

        Returns:
            ``[n, S, S]``, float32.
        """

    def check(self, images: int, side: int) -> None:
        """Refuse images that the family does not fit.

        Raises:
            ValueError: It does not fit.
        """
        del images, side


class CellMasks(Masks):
    """Masks given on a grid of cells; every cell covers a block of pixels.

    Where the grid does not divide the image, a pixel belongs to the cell that its centre lies in, so that cells differ
    by one pixel in size.
    """

    def __init__(self, cells: Tensor, key: Hashable | None = None) -> None:
        """Take ``[M, h, w]`` for all images or ``[B, M, h, w]`` for each its own, of S cells a side at most."""
        self.cells = cells if cells.ndim == 4 else cells[None]
        self.count = self.cells.shape[1]
        self.key = key

    def check(self, images: int, side: int) -> None:
        """Refuse a grid that is finer than the image, or another number of images."""
        if max(self.cells.shape[-2:]) > side:
            cells = " x ".join(map(str, self.cells.shape[-2:]))
            raise ValueError(f"a mask of {cells} cells is finer than an image of {side} pixels")
        if len(self.cells) not in (1, images):
            raise ValueError(f"masks of {len(self.cells)} images cannot cover {images}")

    def pixels(self, images: Tensor, rows: Tensor, side: int) -> Tensor:
        """Make masks at the resolution of the image; see the base class."""
        owner = images if len(self.cells) > 1 else torch.zeros_like(images)
        cells = self.cells[owner.to(self.cells.device), rows.to(self.cells.device), None].float()
        return F.interpolate(cells, size=(side, side), mode="nearest-exact")[:, 0]


class SmoothMasks(Masks):
    """Coarse random grids, enlarged bilinearly and shifted by less than a cell, as RISE draws them.

    A grid of s x s values is enlarged to (s + 1) c pixels with c = ceil(S / s), mirrored at its border as
    scikit-image's ``resize(order=1, mode="reflect")`` does, and cut to S pixels from a random offset below c. Because
    that is separable, a mask is ``R g C^T`` with two S x s matrices that depend on the offsets alone, and its mean over
    cells of any grid is the same product with the rows of R and C averaged: no mask is ever pooled pixel by pixel.
    """

    def __init__(self, grids: Tensor, shifts: Tensor, key: Hashable | None = None) -> None:
        """Take grids ``[M, s, s]`` and offsets ``[M, 2]`` (down, right) in pixels."""
        self.grids, self.shifts, self.key = grids, shifts, key
        self.count = len(grids)

    def pixels(self, images: Tensor, rows: Tensor, side: int) -> Tensor:
        """Make masks at the resolution of the image, the same for every image; see the base class."""
        del images
        return self._product(rows, _enlarging(self.grids.shape[-1], side))

    def cells(self, rows: Tensor, side: int, grid: tuple[int, int]) -> Tensor:
        """Return the mean of masks over each cell of a grid, ``[n, h, w]``; exact, also where cells cut pixels."""
        weights = _enlarging(self.grids.shape[-1], side)
        down, right = (_pooling(side, cells) @ weights for cells in grid)
        return self._product(rows, down, right)

    def _product(self, rows: Tensor, down: Tensor, right: Tensor | None = None) -> Tensor:
        rows = rows.to(self.grids.device)
        shifts = self.shifts[rows].cpu()
        right = down if right is None else right
        left, other = (weights[shifts[:, axis]].to(self.grids) for axis, weights in enumerate((down, right)))
        return left @ self.grids[rows] @ other.transpose(1, 2)


class PlayerMasks(Masks):
    """Coalitions of players, each of whom owns some pixels: what belongs to an absent player is taken away."""

    def __init__(self, owners: Tensor, coalitions: Tensor, key: Hashable | None = None) -> None:
        """Take the player that owns each pixel, ``[B or 1, S, S]``, and who is present, ``[B or 1, M, players]``."""
        self.owners, self.coalitions, self.key = owners, coalitions, key
        self.count = coalitions.shape[1]

    def check(self, images: int, side: int) -> None:
        """Refuse owners of another size or of other images."""
        if self.owners.shape[-2:] != (side, side) or len(self.owners) not in (1, images):
            raise ValueError(f"owners {tuple(self.owners.shape)} do not fit {images} images of {side} pixels")

    def pixels(self, images: Tensor, rows: Tensor, side: int) -> Tensor:
        """Make masks at the resolution of the image; see the base class."""
        images, rows = images.to(self.owners.device), rows.to(self.coalitions.device)
        owners = self.owners[images if len(self.owners) > 1 else torch.zeros_like(images)].flatten(1)
        present = self.coalitions[images if len(self.coalitions) > 1 else torch.zeros_like(images), rows]
        return present.float().gather(1, owners).unflatten(1, (side, side))


class ActivationMasks(Masks):
    """Channels of activations as masks: enlarged bilinearly, then scaled to [0, 1] each on its own."""

    def __init__(self, activations: Tensor, key: Hashable | None = None) -> None:
        """Take activations ``[B, C, h, w]``; the key tells where in the tower they come from."""
        self.activations, self.key = activations, key
        self.count = activations.shape[1]

    def check(self, images: int, side: int) -> None:
        """Refuse activations of other images."""
        if len(self.activations) != images:
            raise ValueError(f"activations of {len(self.activations)} images cannot mask {images}")

    def pixels(self, images: Tensor, rows: Tensor, side: int) -> Tensor:
        """Make masks at the resolution of the image; a channel that is constant keeps nothing."""
        device = self.activations.device
        return self._enlarged(self.activations[images.to(device), rows.to(device), None].float(), side)

    def cells(self, image: int, side: int, grid: tuple[int, int]) -> Tensor:
        """Return the mean of one image's masks over each cell of a grid, ``[C, h, w]``."""
        chunks = self.activations[image, :, None].float().split(64)
        return torch.cat([pooled(self._enlarged(chunk, side), grid) for chunk in chunks])

    @staticmethod
    def _enlarged(chosen: Tensor, side: int) -> Tensor:
        large = F.interpolate(chosen, size=(side, side), mode="bilinear", align_corners=False)[:, 0]
        low, high = large.amin(dim=(1, 2), keepdim=True), large.amax(dim=(1, 2), keepdim=True)
        # Told on the coarse grid: enlarging a constant leaves rounding behind, which would be scaled up to a mask.
        varies = chosen.amax(dim=(2, 3)) > chosen.amin(dim=(2, 3))
        span = torch.where(varies[..., None], high - low, torch.inf)
        return (large - low) / span


def smooth_masks(
    count: int, cells: int, keep: float, side: int, *, seed: int, kind: str = "bernoulli", spread: float = 0.25
) -> SmoothMasks:
    """Draw RISE's masks.

    Args:
        count: N.
        cells: s, cells a side.
        keep: Probability that a cell is kept (``bernoulli``), or mean of a cell (``gaussian``).
        side: S.
        seed: Seed of the grids and offsets.
        kind: ``"bernoulli"``, or ``"gaussian"``: cells from a normal distribution, clipped to [0, 1].
        spread: Standard deviation of the Gaussian cells.

    Raises:
        ValueError: The kind is unknown.
    """
    if kind not in ("bernoulli", "gaussian"):
        raise ValueError(f"masks are {kind!r}; choose 'bernoulli' or 'gaussian'")
    generator = torch.Generator().manual_seed(seed)
    with torch.inference_mode(False):
        if kind == "bernoulli":
            grids = (torch.rand(count, cells, cells, generator=generator) < keep).float()
        else:
            grids = (keep + spread * torch.randn(count, cells, cells, generator=generator)).clamp(0, 1)
        shifts = torch.randint(0, -(-side // cells), (count, 2), generator=generator)
    return SmoothMasks(grids, shifts, ("smooth", count, cells, keep, side, seed, kind, spread))


def _enlarging(cells: int, side: int) -> Tensor:
    """Weights ``[c, S, s]``: for each offset below c, how S pixels are mixed from s cells."""
    cell = -(-side // cells)
    large = (cells + 1) * cell
    offsets = torch.arange(cell, dtype=torch.float64)[:, None] + torch.arange(side, dtype=torch.float64)
    place = (offsets + 0.5) * cells / large - 0.5
    last = cells - 1
    # Mirrored about the centre of the first and the last cell. One cell alone is everywhere.
    place = place.abs() if last else torch.zeros_like(place)
    place = torch.where(place > last, 2 * last - place, place)
    low = place.floor().clamp(0, max(last - 1, 0))
    share = place - low
    weights = torch.zeros(cell, side, cells, dtype=torch.float64)
    weights.scatter_(2, low.long()[..., None], 1 - share[..., None])
    if last:
        weights.scatter_(2, low.long()[..., None] + 1, share[..., None])
    return weights.float()


def _pooling(side: int, cells: int) -> Tensor:
    """Weights ``[cells, S]`` of the mean over each cell; a pixel that an edge cuts counts with its part."""
    edges = torch.arange(cells + 1, dtype=torch.float64) * side / cells
    pixels = torch.arange(side, dtype=torch.float64)
    overlap = torch.minimum(edges[1:, None], pixels + 1) - torch.maximum(edges[:-1, None], pixels)
    return (overlap.clamp(min=0) * cells / side).float()


def pooled(maps: Tensor, grid: tuple[int, int]) -> Tensor:
    """Return the mean of pixel maps ``[..., S, S]`` over each cell of a grid, ``[..., h, w]``."""
    down, right = (_pooling(maps.shape[-1], cells).to(maps) for cells in grid)
    return down @ maps @ right.T
