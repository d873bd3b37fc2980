"""Localisation: does the heat lie on a region that is known?"""

from __future__ import annotations

import torch
from torch import Tensor

from clip_xai.explanations.measures.base import Measure, PhotographMaps
from clip_xai.metrics.localisation import lay_over
from clip_xai.metrics.regions import REGION_MEASURES


class OnRegion(Measure):
    """One of :data:`~clip_xai.metrics.regions.REGION_MEASURES`, by its name there."""

    span = (0.0, 1.0)

    def __init__(self, name: str) -> None:
        """Take the name."""
        self.measure = REGION_MEASURES[name]
        self.name, self.title, self.share = name, self.measure.title, self.measure.share

    def refusal(self, asked: PhotographMaps) -> str | None:
        """There must be a region that the model sees something of."""
        return None if _region(asked).any() else "no region is known, or the model sees nothing of it"

    def of(self, asked: PhotographMaps) -> dict[str, float]:
        """Return the value of each map; see the base class."""
        mask = _region(asked)
        laid = _laid(asked)
        return asked.by_method(self.measure.of(laid, mask.expand_as(laid)))


def _region(asked: PhotographMaps) -> Tensor:
    return torch.zeros(1, 1, dtype=torch.bool) if asked.mask is None else asked.mask.cpu()


def _laid(asked: PhotographMaps) -> Tensor:
    """All maps in the model's pixels, ``[M, S, S]``."""
    assert asked.mask is not None
    size = (asked.mask.shape[0], asked.mask.shape[1])
    return torch.cat([lay_over(one[None].float().cpu(), size) for one in asked.maps.values()])
