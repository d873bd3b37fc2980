"""Quadrants: what each quarter of a photograph carries."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from clip_xai.ranges import setting
from clip_xai.xai.explainer import BankExplainer, explainers
from clip_xai.xai.masks import CellMasks
from clip_xai.xai.perturbation_bank import PerturbationBank
from clip_xai.xai.target import Target
from clip_xai.xai.trace import Trace


@explainers.register("quadrants", title="Quadrants", group="perturbation")
@dataclass(frozen=True)
class Quadrants(BankExplainer):
    """What each quarter of the photograph carries: the score without it.

    Attributes:
        fill: Normalised value inside the hidden quarter.
    """

    fill: float = setting(0.0)
    linear_in_target: ClassVar[bool] = True
    cost: ClassVar[str] = "5 F"

    def maps(self, bank: PerturbationBank, target: Target, trace: Trace | None) -> tuple[Tensor, Tensor]:
        """Return the maps ``[B, T, h, w]`` and the scores ``[B, T]``."""
        height, width = bank.backbone.grid
        quarters = torch.zeros(4, height, width)
        for number, (row, column) in enumerate(((0, 0), (0, 1), (1, 0), (1, 1))):
            rows = slice(row * height // 2, (row + 1) * height // 2)
            quarters[number, rows, column * width // 2 : (column + 1) * width // 2] = 1
        without = bank.scores(CellMasks(1 - quarters, key=("quadrants", height, width)), target, fill=self.fill)
        whole = bank.whole_scores(target)
        return torch.einsum("bmt,mhw->bthw", whole[:, None] - without, quarters), whole
