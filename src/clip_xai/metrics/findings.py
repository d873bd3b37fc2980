"""Whether the heat of a finding lies in its boxes, beside the place where that finding usually is.

Findings have habits: one constant point hits every enlarged heart, and nearly half of all boxes of a well-known chest
set if it is chosen for each finding. So every measure stands beside that of a map that never saw the picture: the mean
of the boxes of all other patients. All is measured in the model's pixels, as in :mod:`clip_xai.metrics.localisation`.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.ndimage import distance_transform_edt
from torch import Tensor

from clip_xai.metrics.localisation import energy_inside, pointing_hits

TOLERANCE = 15.0  # pixels of the photograph, as in the pointing game of TorchRay
THRESHOLDS = tuple(round(0.05 * step, 2) for step in range(1, 20))  # of maps from 0 to 1
MEASURES = ("pointing", "pointing_tolerant", "energy", "iou_otsu", "iou_tuned")


def dilated(masks: Tensor, tolerances: Sequence[float]) -> Tensor:
    """Return masks with every pixel that lies within a distance of them.

    Args:
        masks: Bool ``[B, H, W]``.
        tolerances: Distance between the centres of pixels, one for each mask.

    Returns:
        Bool ``[B, H, W]``; an empty mask stays empty.
    """
    grown = [
        torch.from_numpy(distance_transform_edt(~mask.cpu().numpy()) <= tolerance) if mask.any() else mask.cpu()
        for mask, tolerance in zip(masks, tolerances, strict=True)
    ]
    return torch.stack(grown).to(masks.device)


def otsu_threshold(values: NDArray[np.floating], bins: int = 256) -> float:
    """Return the threshold that parts values into two groups with the largest variance between them (Otsu 1979).

    Args:
        values: Of any shape.
        bins: Bins of the histogram, between which the threshold lies.

    Returns:
        Values above it are the upper group; of constant values it is that value, and nothing is above.

    Example:
        >>> bool(0.1 <= otsu_threshold(np.array([0.0, 0.1, 0.9, 1.0])) < 0.9)
        True
    """
    flat = np.asarray(values, dtype=np.float64).ravel()
    low, high = flat.min(), flat.max()
    if not high > low:
        return float(high)
    counts, edges = np.histogram(flat, bins=bins, range=(low, high))
    middles = (edges[1:] + edges[:-1]) / 2
    below = counts.cumsum()[:-1]
    above = counts.sum() - below
    sums = (counts * middles).cumsum()
    with np.errstate(divide="ignore", invalid="ignore"):
        between = below * above * (sums[:-1] / below - (sums[-1] - sums[:-1]) / above) ** 2
    return float(edges[1:-1][np.nanargmax(between)])


def intersection_over_union(marked: Tensor, masks: Tensor) -> Tensor:
    """Return the IoU of bool ``[B, H, W]`` and bool ``[B, H, W]``; NaN where the mask is empty."""
    both = (marked & masks).flatten(1).sum(dim=1).float()
    either = (marked | masks).flatten(1).sum(dim=1)
    return (both / either).masked_fill(~masks.flatten(1).any(dim=1), float("nan"))


def otsu_iou(maps: Tensor, masks: Tensor) -> Tensor:
    """Return the IoU ``[B]`` of each map's pixels above its own Otsu threshold; 0 for a flat map, which marks nothing.

    Args:
        maps: ``[B, H, W]``.
        masks: Bool ``[B, H, W]``.
    """
    marked = [one > otsu_threshold(one.cpu().numpy()) for one in maps.double()]
    return intersection_over_union(torch.stack(marked), masks)


def tuned_iou(maps: Tensor, masks: Tensor, groups: Sequence[str]) -> Tensor:
    """Return the IoU ``[B]`` at a threshold that was chosen on the other half of the patients.

    Each map is scaled to 0 to 1 and cut at one of ``THRESHOLDS``: the one with the largest mean IoU on the half that
    its patient is not in. CheXlocalize tunes such a threshold for each finding on a validation set.

    Args:
        maps: ``[B, H, W]``, all of one finding.
        masks: Bool ``[B, H, W]``.
        groups: Patient of each.

    Returns:
        NaN where the mask is empty, and everywhere if there is one patient alone.
    """
    return on_the_other_half(ious_at_thresholds(maps, masks), groups)


def ious_at_thresholds(maps: Tensor, masks: Tensor) -> Tensor:
    """Return the IoU of each map, scaled to 0 to 1, cut at each of ``THRESHOLDS``: ``[K, B]``.

    Args:
        maps: ``[B, H, W]``; a flat one marks nothing.
        masks: Bool ``[B, H, W]``.
    """
    low, high = maps.amin(dim=(1, 2), keepdim=True), maps.amax(dim=(1, 2), keepdim=True)
    scaled = torch.where(high > low, (maps - low) / (high - low), torch.zeros_like(maps))
    return torch.stack([intersection_over_union(scaled >= threshold, masks) for threshold in THRESHOLDS])


def on_the_other_half(at: Tensor, groups: Sequence[str]) -> Tensor:
    """Return each picture's value ``[B]`` at the threshold with the largest mean on the half of the other patients.

    Args:
        at: Values at each threshold, ``[K, B]``.
        groups: Patient of each picture.
    """
    names = {name: number for number, name in enumerate(sorted(set(groups)))}
    half = torch.tensor([names[group] % 2 for group in groups])
    found = at.new_full((at.shape[1],), float("nan"))
    for own in (0, 1):
        others = at[:, half != own].nanmean(dim=1)
        if len(others) and not others.isnan().all():
            found[half == own] = at[int(others.nan_to_num(-1).argmax()), half == own]
    return found


def usual_places(masks: Tensor, groups: Sequence[str]) -> Tensor:
    """Return for each picture the mean of the other patients' masks: the best that can be said without looking.

    Its highest pixel is the best constant point, chosen on everybody else.

    Args:
        masks: Bool ``[B, H, W]``, all of one finding.
        groups: Patient of each.

    Returns:
        ``[B, H, W]``; NaN where there is no other patient.
    """
    total = masks.sum(dim=0).float()
    places = torch.full(masks.shape, float("nan"))
    for group in set(groups):
        own = torch.tensor([other == group for other in groups])
        count = int((~own).sum())
        if count:
            places[own] = (total - masks[own].sum(dim=0)) / count
    return places


def best_point_hits(masks: Tensor) -> Tensor:
    """Return the hits ``[B]`` of the one constant point that hits most of these very masks: an upper bound.

    Args:
        masks: Bool ``[B, H, W]``, all of one finding.
    """
    return pointing_hits(masks.float().mean(dim=0).expand(masks.shape), masks)


def finding_rows(maps: Tensor, masks: Tensor, groups: Sequence[str], tolerances: Sequence[float]) -> dict[str, Tensor]:
    """Measure maps against the boxes of one finding, each picture by itself.

    Args:
        maps: ``[B, H, W]`` in the model's pixels; a map of NaN alone has no measure.
        masks: Bool ``[B, H, W]``.
        groups: Patient of each.
        tolerances: How far beside a mask a hit may be, in the model's pixels.

    Returns:
        The ``MEASURES``, ``[B]`` each, NaN where undefined.
    """
    rows = {name: torch.full((len(maps),), float("nan")) for name in MEASURES}
    known = torch.isfinite(maps).flatten(1).all(dim=1)
    if not known.any():
        return rows
    maps, masks = maps[known], masks[known]
    groups = [group for group, there in zip(groups, known.tolist(), strict=True) if there]
    near = dilated(masks, [distance for distance, there in zip(tolerances, known.tolist(), strict=True) if there])
    measured = {
        "pointing": pointing_hits(maps, masks),
        "pointing_tolerant": pointing_hits(maps, near),
        "energy": energy_inside(maps, masks),
        "iou_otsu": otsu_iou(maps, masks),
        "iou_tuned": tuned_iou(maps, masks, groups),
    }
    for name, values in measured.items():
        rows[name][known] = values.float().cpu()
    return rows
