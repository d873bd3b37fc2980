"""How alike two maps are, and how much a map holds: what sanity checks are read by.

Maps are compared as they are, signed, after dividing each by the root of its mean square, so that only their shape
counts; a map of zeros stays zero.
"""

from __future__ import annotations

import numpy as np
import torch
from scipy.stats import rankdata
from torch import Tensor

BINS = 100


def normalised(maps: Tensor) -> Tensor:
    """Return maps ``[..., h, w]`` over the root of their mean square; zeros stay zeros."""
    flat = maps.double()
    size = flat.square().mean(dim=(-2, -1), keepdim=True).sqrt()
    return torch.where(size > 0, flat / size.clamp(min=1e-300), 0.0)


def rank_correlation(first: Tensor, second: Tensor) -> Tensor:
    """Return Spearman's correlation of maps ``[R, h, w]`` with others, place by place, ``[R]``; ties share their rank.

    A flat map goes with nothing: 0; two flat ones are equal: 1.

    Example:
        >>> one = torch.arange(6.0).view(1, 2, 3)
        >>> rank_correlation(one, one.exp()).tolist(), rank_correlation(one, -one).tolist()
        ([1.0], [-1.0])
    """
    ranks = [torch.from_numpy(rankdata(maps.flatten(1).double().cpu().numpy(), axis=1)) for maps in (first, second)]
    one, other = (rank - rank.mean(dim=1, keepdim=True) for rank in ranks)
    sizes = one.norm(dim=1), other.norm(dim=1)
    both = sizes[0] * sizes[1]
    flat = ((sizes[0] == 0) & (sizes[1] == 0)).double()
    return torch.where(both > 0, (one * other).sum(dim=1) / both.clamp(min=1e-300), flat)


def structural_similarity(first: Tensor, second: Tensor) -> Tensor:
    """Return scikit-image's SSIM of maps ``[R, h, w]`` with others, ``[R]``.

    Of :func:`normalised` maps scaled to 0 to 1 by the least and the largest value of the pair, over windows of seven
    places a side at most.
    """
    from skimage.metrics import structural_similarity as ssim  # slow to import: only who measures waits for it

    window = min(7, *first.shape[1:])
    window -= 1 - window % 2
    found = []
    for one, other in zip(normalised(first).cpu().numpy(), normalised(second).cpu().numpy(), strict=True):
        low, high = min(one.min(), other.min()), max(one.max(), other.max())
        scaled = [(part - low) / max(high - low, 1e-300) for part in (one, other)]
        found.append(float(ssim(*scaled, win_size=window, data_range=1.0)))
    return torch.tensor(found, dtype=torch.float64)


def histogram_entropy(maps: Tensor, bins: int = BINS) -> Tensor:
    """Return the entropy of each map's histogram, in nats, ``[R]``: 0 of a flat map.

    Over ``bins`` bins from its least to its largest value, as eMPRT takes it (Hedström et al. 2024); the scale of a map
    does not matter to it.

    Args:
        maps: ``[R, h, w]``.
        bins: Bins.
    """
    found = []
    for one in maps.flatten(1).double().cpu().numpy():
        counts = np.histogram(one, bins=bins)[0] if np.ptp(one) > 0 else np.array([len(one)])
        shares = counts[counts > 0] / len(one)
        found.append(float(-(shares * np.log(shares)).sum()))
    return torch.tensor(found, dtype=torch.float64)


def entropy_rise(own: Tensor, random: Tensor) -> Tensor:
    """Return eMPRT of maps ``[R, h, w]``: the relative rise of the histogram's entropy when all parameters are random.

    ``(entropy(random) - entropy(own)) / entropy(own)``, NaN of a flat map. Knowledge makes a map simpler, so that
    higher is better.
    """
    before, after = histogram_entropy(own), histogram_entropy(random)
    return torch.where(before > 0, (after - before) / before.clamp(min=1e-300), float("nan"))
