"""More measures of whether heat lies on a region: its mass and its highest ranks, and overlap at a tuned threshold.

As in :mod:`clip_xai.metrics.localisation`, all is measured in the model's pixels, and a mask of nothing has no answer.
Chance is the mask's share of the picture for mass and rank; of overlap it depends on the threshold, so that a control
must stand beside it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from clip_xai.metrics.localisation import (
    average_precision,
    checked,
    energy_inside,
    pointing_hits,
)

THRESHOLDS = tuple(round(0.05 * step, 2) for step in range(1, 20))


def relevance_mass(maps: Tensor, masks: Tensor) -> Tensor:
    """Share of a map's absolute mass inside the mask, `sum_in |S| / sum |S|` (relevance mass, Arras et al. 2022).

    Heat that speaks against counts as much as heat that speaks for, other than in the energy.

    Args:
        maps: [B, H, W].
        masks: Bool [B, H, W].

    Returns:
        [B] in 0 to 1; NaN where the mask is empty or the map is zero.
    """
    flat, inside = checked(maps, masks)
    mass = flat.double().abs()
    share = (mass * inside).sum(dim=1) / mass.sum(dim=1)
    return share.masked_fill(~inside.any(dim=1), float("nan")).float()


def relevance_rank(maps: Tensor, masks: Tensor) -> Tensor:
    """Share of the K highest pixels that lie inside a mask of K pixels (relevance rank accuracy, Arras et al. 2022).

    Of pixels that tie for the last places, the share counts that drawing them at random gives on average; a flat map
    therefore scores the mask's share of the picture.

    Args:
        maps: [B, H, W].
        masks: Bool [B, H, W].

    Returns:
        [B] in 0 to 1; NaN where the mask is empty.
    """
    flat, inside = checked(maps, masks)
    count = inside.sum(dim=1)
    ordered = flat.sort(dim=1, descending=True).values
    last = ordered.gather(1, (count - 1).clamp(min=0)[:, None])
    above, level = flat > last, flat == last
    left = (count - above.sum(dim=1)).double()
    hits = (above & inside).sum(dim=1) + left * (level & inside).sum(dim=1) / level.sum(dim=1)
    return (hits / count).masked_fill(count == 0, float("nan")).float()


def overlap(maps: Tensor, masks: Tensor, threshold: float) -> Tensor:
    """Intersection over union of the mask and the pixels that reach a threshold, each map scaled to 0 to 1 first.

    Args:
        maps: [B, H, W]; a flat map is 1 everywhere.
        masks: Bool [B, H, W].
        threshold: In 0 to 1.

    Returns:
        [B] in 0 to 1; NaN where the mask is empty.
    """
    flat, inside = checked(maps, masks)
    low, high = flat.amin(dim=1, keepdim=True), flat.amax(dim=1, keepdim=True)
    hot = torch.where(high > low, (flat - low) / (high - low).clamp(min=1e-30), 1.0) >= threshold
    shared = (hot & inside).sum(dim=1) / (hot | inside).sum(dim=1)
    return shared.masked_fill(~inside.any(dim=1), float("nan"))


def tuned_threshold(maps: Tensor, masks: Tensor, thresholds: Sequence[float] = THRESHOLDS) -> float:
    """Return the threshold with the best mean overlap; tune it on other photographs than those that it judges.

    Args:
        maps: [B, H, W].
        masks: Bool [B, H, W].
        thresholds: Those to choose from; the lowest of equally good ones.

    Raises:
        ValueError: No mask has a pixel.
    """
    means = torch.stack([overlap(maps, masks, one).double().nanmean() for one in thresholds])
    if torch.isnan(means).all():
        raise ValueError("No mask has a pixel inside the model's square.")
    return float(thresholds[int(means.argmax())])


def best_constant_point(masks: Tensor) -> Tensor:
    """Return the map [H, W] that is 1 at the places which lie inside most of the masks, and 0 elsewhere.

    What pointing at one and the same place of every picture scores; take the masks of other photographs than those
    that are judged.

    Args:
        masks: Bool [B, H, W].
    """
    counts = masks.sum(dim=0)
    return (counts == counts.max()).float()


@dataclass(frozen=True)
class RegionMeasure:
    """One measure of maps against masks.

    Attributes:
        title: For people.
        of: From maps and masks [B, H, W] to values [B] in 0 to 1.
        share: Each value is a hit or a miss.
    """

    title: str
    of: Callable[[Tensor, Tensor], Tensor]
    share: bool = False


REGION_MEASURES: Mapping[str, RegionMeasure] = {
    "pointing": RegionMeasure("pointing game", pointing_hits, share=True),
    "auprc": RegionMeasure("AUPRC", average_precision),
    "energy": RegionMeasure("energy inside", energy_inside),
    "mass": RegionMeasure("relevance mass", relevance_mass),
    "rank": RegionMeasure("relevance rank", relevance_rank),
}
