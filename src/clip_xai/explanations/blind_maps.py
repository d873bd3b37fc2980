"""Maps that never saw the model: what every heat map of a photograph has to beat."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from clip_xai.data.preprocess import Preprocess
from clip_xai.metrics.localisation import centre_maps, colour_contrast_maps

NAMES = ("the centre of the picture", "colour contrast", "Sobel edges")


def blind_maps(pixels: Tensor, preprocess: Preprocess, grid: tuple[int, int]) -> Tensor:
    """Return a blob at the centre, the contrast of colours and the edges of one photograph.

    Args:
        pixels: What the tower sees, normalised, ``[1, 3, S, S]``.
        preprocess: Undoes the normalisation.
        grid: Rows and columns, h and w.

    Returns:
        ``[3, h, w]`` on the CPU, in the order of ``NAMES``.
    """
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (preprocess.mean, preprocess.std))
    square = (pixels.detach().float().cpu() * std + mean).clamp(0, 1)
    return torch.cat([centre_maps(1, grid), colour_contrast_maps(square, grid), sobel_maps(square, grid)])


def sobel_maps(images: Tensor, grid: tuple[int, int]) -> Tensor:
    """Return the length of the luminance's gradient by Sobel's filters, averaged over each cell.

    Args:
        images: sRGB in 0 to 1, ``[B, 3, S, S]``; luminance by ITU-R BT.709, the border mirrored with its edge.
        grid: Rows and columns, h and w.

    Returns:
        ``[B, h, w]``.
    """
    weights = torch.tensor([0.2125, 0.7154, 0.0721]).to(images)
    luminance = torch.einsum("c,bchw->bhw", weights, images)[:, None]
    down = torch.tensor([[1.0, 2.0, 1.0], [0.0, 0.0, 0.0], [-1.0, -2.0, -1.0]]).to(images) / 4
    filters = torch.stack([down, down.T])[:, None]
    gradient = F.conv2d(F.pad(luminance, (1, 1, 1, 1), mode="replicate"), filters)
    return F.adaptive_avg_pool2d(gradient.norm(dim=1, keepdim=True), grid)[:, 0]
