"""Gradients at the pixels: cells of the patch grid, and streams of images that a path or noise asks for."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from clip_xai.models.backbones.base import VisionBackbone
from clip_xai.models.backbones.chunks import in_chunks
from clip_xai.xai.target import Target
from clip_xai.xai.trace import PIXEL_POINT, Needs, Trace, refuse_zero

PIXEL_NEEDS = Needs(gradients=frozenset({PIXEL_POINT}))


def by_cell(values: Tensor, grid: tuple[int, int], mean: bool = False) -> Tensor:
    """Sum (or average) pixels over the cells of a grid; every pixel belongs to one cell.

    Args:
        values: ``[..., S, S]``.
        grid: Rows and columns.
        mean: Average instead.

    Example:
        >>> import torch
        >>> by_cell(torch.arange(16.0).view(4, 4), (2, 2)).tolist()
        [[10.0, 18.0], [42.0, 50.0]]
    """
    rows, columns = (_members(size, cells, values) for size, cells in zip(values.shape[-2:], grid, strict=True))
    if mean:
        rows, columns = (part / part.sum(dim=1, keepdim=True) for part in (rows, columns))
    return rows @ values @ columns.T


def accumulate(
    backbone: VisionBackbone,
    target: Target,
    images: Tensor,
    points: int,
    make: Callable[[Tensor, Tensor], Tensor],
    take: Callable[[Tensor, Tensor, Tensor], Tensor],
    chunk_size: int,
) -> Tensor:
    """Sum a function of pixel gradients over several points for each image.

    The stream runs over the points of the first image, then those of the second. Each chunk is one forward and one
    batched backward pass for all targets; a chunk that does not fit into memory is halved and the stream goes on.

    Args:
        backbone: The tower.
        target: Its cotangent is taken anew at every point.
        images: ``[B, 3, S, S]``.
        points: P, points for each image.
        make: From owners ``[rows]`` and point numbers ``[rows]`` to images ``[rows, 3, S, S]``.
        take: From owners, point numbers and gradients ``[rows, T, 3, S, S]`` to what is summed, ``[rows, T, ...]``.
        chunk_size: Images in one pass.

    Returns:
        ``[B, T, ...]``.

    Raises:
        UserError: The sum is exactly zero for some target.
    """
    total: Tensor | None = None

    def summands(rows: slice) -> tuple[Tensor, Tensor]:
        index = torch.arange(rows.start, rows.stop, device=images.device)
        owners, numbers = index // points, index % points
        trace = Trace(backbone, make(owners, numbers), target, PIXEL_NEEDS, refuse_zero=False)
        return owners, take(owners, numbers, trace.pixel_gradient.float())

    for _, (owners, part) in in_chunks(summands, len(images) * points, chunk_size):
        if total is None:
            total = part.new_zeros(len(images), *part.shape[1:])
        total.index_add_(0, owners, part)
    assert total is not None
    refuse_zero(total, target, "the pixels")
    return total


def _members(size: int, cells: int, like: Tensor) -> Tensor:
    """Return which of ``size`` pixels lie in which cell, ``[cells, size]``."""
    cell = torch.arange(size, device=like.device) * cells // size
    return (cell == torch.arange(cells, device=like.device)[:, None]).to(like.dtype)
