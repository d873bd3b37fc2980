"""Faithfulness: does the score follow the heat?"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from clip_xai.explanations.measures.base import Measure, PhotographMaps, RemovalMeasure
from clip_xai.models.backbones.base import VisionBackbone
from clip_xai.xai.dropping import undroppable
from clip_xai.xai.f_fidelity import DRAWS, SIZES, f_fidelity
from clip_xai.xai.insertion_deletion import Curves
from clip_xai.xai.perturbation_bank import PerturbationBank
from clip_xai.xai.stability import sensitivity_max
from clip_xai.xai.subset_game import SubsetGame, infidelity, sensitivity_n


class RelevanceGain(RemovalMeasure):
    """Symmetric relevance gain: deletion of the coldest places first, less that of the hottest first.

    Attributes:
        removal: Name of a protocol of curves.
        normalised: Over the size of what the whole photograph scores above nothing, so that targets compare.
    """

    name = "relevance_gain"
    title = "relevance gain (SRG)"

    def __init__(self, removal: str = "mean", normalised: bool = False) -> None:
        super().__init__(removal)
        self.normalised = normalised

    @property
    def key(self) -> str:
        """Its name with the protocol, and whether it is normalised."""
        return f"{super().key}{', normalised' if self.normalised else ''}"

    def of(self, asked: PhotographMaps) -> dict[str, float]:
        """Return the gain of each map; see the base class."""
        curves = asked.curves(self.removal)
        gains = curves.relevance_gain()[:, asked.row]
        return asked.by_method(gains / _size(curves, asked.row) if self.normalised else gains)


class Insertion(RemovalMeasure):
    """Area under the score while the hottest places are inserted first."""

    name = "insertion"
    title = "insertion"

    def of(self, asked: PhotographMaps) -> dict[str, float]:
        """Return the area of each map; see the base class."""
        curves = asked.curves(self.removal)
        return asked.by_method(curves.area(curves.insertion)[:, asked.row])


class Deletion(RemovalMeasure):
    """Area under the score while the hottest places are deleted first."""

    name = "deletion"
    title = "deletion"
    falling = True

    def of(self, asked: PhotographMaps) -> dict[str, float]:
        """Return the area of each map; see the base class."""
        curves = asked.curves(self.removal)
        return asked.by_method(curves.area(curves.deletion)[:, asked.row])


class SensitivityN(RemovalMeasure):
    """How the heat of random sets of cells goes with what taking them away does; see ``sensitivity_n``."""

    name = "sensitivity_n"
    title = "sensitivity-n"
    span = (-1.0, 1.0)

    def of(self, asked: PhotographMaps) -> dict[str, float]:
        """Return the correlation of each map; see the base class."""
        return asked.by_method(_on_cells(sensitivity_n, asked, self.removal))


class Infidelity(RemovalMeasure):
    """Share of what random sets of cells do that their heat does not foresee; see ``infidelity``."""

    name = "infidelity"
    title = "infidelity"
    falling = True
    span = (0.0, 1.0)

    def of(self, asked: PhotographMaps) -> dict[str, float]:
        """Return the share for each map; see the base class."""
        return asked.by_method(_on_cells(infidelity, asked, self.removal))


class FFidelityGain(Measure):
    """F-Fidelity on a tower that was fine-tuned once to patches being left out."""

    name = "f_fidelity"
    title = "F-Fidelity"

    def __init__(self, tuned: VisionBackbone | None = None, draws: int = DRAWS, sizes: int = SIZES) -> None:
        """Take the tower, a copy of the model's own, how many pictures are behind each mean, and points of a curve."""
        self.tuned, self.draws, self.sizes = tuned, draws, sizes

    def refusal(self, asked: PhotographMaps) -> str | None:
        """Patches must be left out, and the tower must have been tuned to that."""
        if self.tuned is None:
            return "no tower was fine-tuned to patches that are left out"
        return undroppable(asked.bank.backbone, asked.target)

    def of(self, asked: PhotographMaps) -> dict[str, float]:
        """Return the gain of each map; see the base class."""
        assert self.tuned is not None
        bank = PerturbationBank(self.tuned, asked.bank.pixels)
        maps = asked.stacked(asked.bank.backbone.grid)
        found = f_fidelity(bank, asked.target, maps, draws=self.draws, sizes=self.sizes, seed=asked.seed)
        return asked.by_method(found.gain()[:, asked.row])


class SensitivityMax(Measure):
    """Largest relative change of a map under small noise; shown, and never ranked by."""

    name = "sensitivity_max"
    title = "sensitivity-max"
    falling = True
    ranked = False

    def of(self, asked: PhotographMaps) -> dict[str, float]:
        """Return the change of each method that can be asked again; see the base class."""
        bank = asked.bank
        return {
            name: float(
                sensitivity_max(explainer, bank.backbone, bank.pixels, asked.target, seed=asked.seed)[0, asked.row]
            )
            for name, explainer in asked.explainers.items()
            if name in asked.maps
        }


def _size(curves: Curves, row: int) -> Tensor:
    size = curves.span()[row].abs()
    return torch.where(size > 1e-6, size, float("nan"))


def _on_cells(measure: Callable[[SubsetGame, Tensor], Tensor], asked: PhotographMaps, removal: str) -> Tensor:
    game = asked.game(removal)
    return measure(game, asked.stacked((game.removed.shape[2], game.removed.shape[3])))[:, asked.row]
