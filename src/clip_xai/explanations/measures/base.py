"""What measures are given, and what each of them is: a function of the maps of one photograph, and a Metric."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from clip_xai.metrics.method_means import MethodMeans
from clip_xai.xai.baselines import TokenDrop
from clip_xai.xai.curve_protocols import PROTOCOLS, REMOVALS
from clip_xai.xai.dropping import undroppable
from clip_xai.xai.explainer import Explainer
from clip_xai.xai.insertion_deletion import Curves, insertion_deletion, on_units
from clip_xai.xai.perturbation_bank import PerturbationBank
from clip_xai.xai.subset_game import SubsetGame, subset_game
from clip_xai.xai.target import Target


@dataclass(frozen=True)
class PhotographMaps:
    """The maps of one photograph for one score, by method, and all that measures may ask beside them.

    Streams of masked pictures are run once, whichever measures read them.

    Attributes:
        bank: The tower and the photograph.
        target: What was explained.
        row: Which of its scores.
        maps: ``[h, w]`` by method, on any grids.
        group: The patient or lesion that it is of.
        mask: Where the region lies that heat ought to lie on, bool ``[S, S]`` in the model's pixels; None for nothing.
        explainers: By method, where it can be asked again; controls have none.
        others: Other targets of the same photograph, with a score of each: random texts, or captions of other
            photographs.
        seed: Seed of orders, sets and noise.
        marks: Shares at which curves over ``REMOVALS`` are read; as their protocols have it where there are none.
        streams: What was run already; measures of another score of the same target may share it.
    """

    bank: PerturbationBank
    target: Target
    row: int
    maps: Mapping[str, Tensor]
    group: str
    mask: Tensor | None = None
    explainers: Mapping[str, Explainer] = field(default_factory=dict)
    others: Sequence[tuple[Target, int]] = ()
    seed: int = 0
    marks: tuple[float, ...] = ()
    streams: dict[object, Any] = field(default_factory=dict)

    def stacked(self, grid: tuple[int, int]) -> Tensor:
        """Return all maps on one grid, ``[M, h, w]``, in their order, laid over the picture where theirs is another."""
        side = self.bank.pixels.shape[-1]
        laid = [on_units(one[None].float().cpu(), grid, side)[0] for one in self.maps.values()]
        return torch.stack(laid)

    def curves(self, removal: str) -> Curves:
        """Return the curves of all maps in both orders, by the protocol of that name."""
        key = ("curves", removal, self.row)
        if key not in self.streams:
            protocol = PROTOCOLS[removal]
            if removal in REMOVALS and self.marks:
                protocol = replace(protocol, marks=self.marks)
            units = protocol.units(self.bank.backbone.grid, self.bank.pixels.shape[-1])
            maps = self.stacked(units)
            self.streams[key] = insertion_deletion(self.bank, self.target, maps, protocol, seed=self.seed)
        return self.streams[key]

    def game(self, removal: str) -> SubsetGame:
        """Return what sets of cells do to the score, taken away in that way."""
        key = ("game", removal)
        if key not in self.streams:
            self.streams[key] = subset_game(self.bank, self.target, REMOVALS[removal], seed=self.seed)
        return self.streams[key]

    def by_method(self, values: Tensor) -> dict[str, float]:
        """Name values ``[M]`` in the order of the maps."""
        return dict(zip(self.maps, values.double().tolist(), strict=True))


class Measure(ABC):
    """One number of each map.

    Attributes:
        name: In files.
        title: For people.
        falling: Whether lower is better.
        span: Least and largest value, where there is one.
        share: Each value is a hit or a miss.
        ranked: Whether methods may be ranked by it; some are only to be shown.
    """

    name: str
    title: str
    falling = False
    span: tuple[float, float] | None = None
    share = False
    ranked = True

    @property
    def key(self) -> str:
        """Its name with what it was set to."""
        return self.name

    def refusal(self, asked: PhotographMaps) -> str | None:
        """Return why it is not defined for a model, a target and a photograph; None if it is."""
        return None

    @abstractmethod
    def of(self, asked: PhotographMaps) -> dict[str, float]:
        """Return the value of each method's map; what is missing or NaN has none."""


class RemovalMeasure(Measure):
    """A measure that takes parts of the photograph away.

    Attributes:
        removal: What is left there: the name of one of ``REMOVALS``, or of a protocol of curves.
    """

    def __init__(self, removal: str = "mean") -> None:
        self.removal = removal

    @property
    def key(self) -> str:
        """Its name with what stands where parts are missing."""
        return f"{self.name}/{self.removal}"

    def refusal(self, asked: PhotographMaps) -> str | None:
        """Patches can be left out of some towers, and for some targets, alone."""
        if not isinstance(REMOVALS.get(self.removal), TokenDrop):
            return None
        return undroppable(asked.bank.backbone, asked.target)


class MapMetric(MethodMeans):
    """A measure over photographs: the mean of each method with its interval over patients or lesions.

    Shapes: ``update`` takes the maps of one photograph; ``compute`` returns ``[3]`` for each method: mean, lower and
    upper bound.
    """

    def __init__(self, methods: Sequence[str], measure: Measure, **settings: Any) -> None:
        """Set what is measured.

        Args:
            methods: Names, of controls too; maps of others are passed over.
            measure: The measure.
            settings: Those of the base class.
        """
        super().__init__(methods, measure.falling, measure.span, measure.share, **settings)
        self.measure = measure

    def update(self, asked: PhotographMaps) -> None:  # type: ignore[override]
        """Add one photograph; where the measure is not defined, no method has a value."""
        values = {} if self.measure.refusal(asked) else self.measure.of(asked)
        row = [values.get(name, float("nan")) for name in self.methods]
        super().update(torch.tensor([row], dtype=torch.float64), [asked.group])
