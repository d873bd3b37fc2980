"""Who plays in a game about an image: squares of the patch grid, or superpixels."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from clip_xai.errors import UserError
from clip_xai.models.backbones.base import VisionBackbone


def grid_players(side: int, rows: int, columns: int) -> Tensor:
    """Return who owns each pixel, ``[S, S]``, where players are the cells of a grid, row by row.

    Cells are as even as whole pixels allow.

    Example:
        >>> grid_players(4, 2, 2).tolist()
        [[0, 0, 1, 1], [0, 0, 1, 1], [2, 2, 3, 3], [2, 2, 3, 3]]
    """
    pixels = torch.arange(side)
    return (pixels * rows // side)[:, None] * columns + pixels * columns // side


def superpixels(backbone: VisionBackbone, pixels: Tensor, players: int) -> list[Tensor]:
    """Return who owns each pixel of each image, ``[S, S]``: SLIC superpixels (Achanta et al., TPAMI 2012).

    Found on the colours as they were before normalisation, with scikit-image's compactness of 10. There may be somewhat
    fewer or more players than asked for; they are numbered from 0 without gaps.

    Args:
        backbone: Its preprocessing says how colours were normalised.
        pixels: ``[B, 3, S, S]``.
        players: About how many.

    Raises:
        UserError: An image is of one colour, or something else that cannot be divided.
    """
    from skimage.segmentation import slic  # slow to import: only who divides by colour waits for it

    mean, std = (torch.tensor(part).view(3, 1, 1) for part in (backbone.preprocess.mean, backbone.preprocess.std))
    found = []
    for image in pixels.detach().float().cpu():
        colours = (image * std + mean).clamp(0, 1).permute(1, 2, 0).double().numpy()
        labels = slic(colours, n_segments=players, compactness=10.0, start_label=0, channel_axis=-1)
        owners = np.unique(labels, return_inverse=True)[1].reshape(labels.shape)
        if owners.max() < 1:
            raise UserError("an image is too uniform for superpixels: choose players=grid")
        found.append(torch.from_numpy(owners.astype(np.int64)))
    return found


def spread_evenly(values: Tensor, owners: Tensor) -> Tensor:
    """Share each player's value out over the pixels that it owns: ``[T, M]`` and ``[S, S]`` to ``[T, S, S]``."""
    sizes = owners.flatten().bincount(minlength=values.shape[-1])
    return (values / sizes.to(values))[:, owners]
