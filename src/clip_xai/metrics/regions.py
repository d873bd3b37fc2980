"""More measures of whether heat lies on a region: its mass, its highest ranks, and overlap at a tuned threshold.

As in :mod:`clip_xai.metrics.localisation`, all is measured in the model's pixels, and a mask of nothing has no answer.
Chance is the mask's share of the picture for mass and rank; of overlap it depends on the threshold, so that a control
must stand beside it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from clip_xai.metrics.findings import THRESHOLDS, ious_at_thresholds, on_the_other_half, otsu_iou
from clip_xai.metrics.localisation import average_precision, checked, energy_inside, lay_over, pointing_hits
from clip_xai.metrics.method_means import MethodMeans


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
    "overlap_otsu": RegionMeasure("overlap (IoU, Otsu)", otsu_iou),
}


class TunedOverlap(MethodMeans):
    """Overlap (IoU) of M methods with a region, each at the threshold that is best for the other half of the patients.

    Which threshold that is shows when all photographs are there, so that the overlaps at all of them are kept.

    Shapes: ``update`` takes M maps on any one grid, a mask in the model's pixels and the photograph's group;
    ``compute`` as for :class:`~clip_xai.metrics.method_means.MethodMeans`.
    """

    def __init__(self, methods: Sequence[str], **settings: Any) -> None:
        """Set what is compared; the settings are those of the base class."""
        super().__init__(methods, span=(0.0, 1.0), **settings)

    def update(self, maps: Tensor, mask: Tensor, group: str) -> None:  # type: ignore[override]
        """Add one photograph.

        Args:
            maps: [M, h, w]; NaN throughout where a method has none.
            mask: Bool [H, W].
            group: Whose photograph it is.
        """
        found = torch.full((len(THRESHOLDS), len(self.methods)), float("nan"), dtype=torch.float64)
        there = torch.isfinite(maps).flatten(1).all(dim=1).cpu()
        if there.any():
            laid = lay_over(maps[there].float().cpu(), (mask.shape[0], mask.shape[1]))
            found[:, there] = ious_at_thresholds(laid, mask.cpu().expand_as(laid)).double()
        self.add(found[None], [group])

    def table(self) -> tuple[NDArray[np.float64], list[str]]:
        """Return the overlaps [n, M] at the tuned thresholds, and their groups."""
        values, groups = self.gathered()
        if not groups:
            return np.empty((0, len(self.methods))), []
        columns = [on_the_other_half(values[:, :, number].T, groups) for number in range(len(self.methods))]
        return torch.stack(columns, dim=1).numpy(), groups
