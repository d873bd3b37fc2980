"""Questions by perturbation: one stream of masked images, read once for every text and every curve."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from clip_xai.models.backbones.base import Backbone
from clip_xai.models.backbones.trace import evaluation_mode
from clip_xai.xai.target import Target


def masked_reads(
    backbone: Backbone,
    pixels: Tensor,
    masks: Tensor,
    *,
    reads: str = "pooled",
    fill: float | Tensor = 0.0,
    chunk_size: int = 64,
) -> Iterator[tuple[slice, Tensor]]:
    """Read the tower on masked copies of images: ``x * m + fill * (1 - m)``.

    The rows of the stream run over the masks of the first image, then those of the second, and so on. One forward
    pass a chunk; a chunk that does not fit into memory is halved and the stream goes on. The numbers do not depend on
    the chunk size beyond rounding.

    Args:
        backbone: The tower; run in evaluation mode and without gradients.
        pixels: ``[B, 3, S, S]``, normalised.
        masks: What is kept, 0 to 1: ``[M, h, w]`` for all images or ``[B, M, h, w]`` for each its own, on any grid
            that divides S.
        reads: ``"pooled"`` or ``"patches"``.
        fill: What stands where nothing is kept, in normalised values: a number (0 is the mean colour of the tower's
            training data) or images ``[B or 1, 3, S, S]``, such as a blurred copy.
        chunk_size: Masked images in one forward pass.

    Yields:
        Rows of the stream, of ``B * M``, and what the tower hands over for them: ``[rows, D]`` or ``[rows, N, W]``.
    """
    images, kept = len(pixels), masks.shape[-3]
    side = pixels.shape[-1]
    if side % masks.shape[-1] or side % masks.shape[-2]:
        raise ValueError(f"a mask of {tuple(masks.shape[-2:])} cells does not divide an image of {side} pixels")
    masks = masks.expand(images, *masks.shape[-3:]).flatten(0, 1)
    background = fill if isinstance(fill, Tensor) else torch.full((1, 1, 1, 1), fill)
    background = background.to(pixels).expand_as(pixels)
    start, total = 0, images * kept
    while start < total:
        rows = slice(start, min(start + chunk_size, total))
        try:
            read = _read_rows(backbone, pixels, background, masks, rows, kept, reads)
        except torch.OutOfMemoryError:
            if chunk_size == 1:
                raise
            chunk_size = (chunk_size + 1) // 2
            continue
        yield rows, read
        start = rows.stop


@dataclass(frozen=True)
class PerturbationBank:
    """Settings of a stream of masked images that perturbation methods and faithfulness curves share.

    Attributes:
        fill: Normalised value of what is taken away; 0 is the mean colour.
        chunk_size: Masked images in one forward pass.
    """

    fill: float = 0.0
    chunk_size: int = 64

    def scores(self, backbone: Backbone, pixels: Tensor, masks: Tensor, target: Target) -> Tensor:
        """Return the target's scores of every masked image, ``[B, M, T]``; all T share each forward pass.

        Args:
            backbone: The tower.
            pixels: ``[B, 3, S, S]``.
            masks: ``[M, h, w]`` or ``[B, M, h, w]``, 1 where the image is kept.
            target: What is asked.
        """
        stream = masked_reads(backbone, pixels, masks, reads=target.reads, fill=self.fill, chunk_size=self.chunk_size)
        with torch.no_grad():
            scores = torch.cat([target.score(read) for _, read in stream])
        return scores.unflatten(0, (len(pixels), masks.shape[-3]))


def _read_rows(
    backbone: Backbone, pixels: Tensor, background: Tensor, masks: Tensor, rows: slice, kept: int, reads: str
) -> Tensor:
    owner = torch.arange(rows.start, rows.stop, device=pixels.device) // kept
    mask = F.interpolate(masks[rows, None].to(pixels), size=pixels.shape[-2:], mode="nearest-exact")
    mixed = torch.lerp(background[owner], pixels[owner], mask)
    with torch.no_grad(), evaluation_mode(backbone):
        return backbone.encode_image(mixed) if reads == "pooled" else backbone.patch_tokens(mixed)
