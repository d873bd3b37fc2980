"""KernelSHAP on images."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from clip_xai.ranges import setting
from clip_xai.xai.explainer import BankExplainer, explainers
from clip_xai.xai.masks import PlayerMasks, pooled
from clip_xai.xai.perturbation_bank import PerturbationBank
from clip_xai.xai.players import grid_players, spread_evenly, superpixels
from clip_xai.xai.shapley_values import coalitions, shapley_values
from clip_xai.xai.target import Target
from clip_xai.xai.trace import Trace


@explainers.register("kernelshap", title="KernelSHAP", group="perturbation", order=3)
@dataclass(frozen=True)
class KernelShap(BankExplainer):
    """KernelSHAP (Lundberg and Lee, NeurIPS 2017, arXiv 1705.07874): Shapley values of image regions.

    The players are squares of a grid or SLIC superpixels; the value of a coalition is the score of the image with
    everybody else's pixels filled. The Shapley values phi are found by weighted least squares over coalitions, with the
    exact kernel weights and the sum as a constraint (see ``clip_xai.xai.shapley_values``)::

        sum of phi = s(x) - s(nothing)

    They are exact where ``samples`` allows all 2^M - 2 coalitions. Else coalitions are paired with their complements,
    and sizes that can be had complete are.

    A player's value is shared out evenly over its pixels, so that a map sums to s(x) - s(nothing) whatever the regions.

    Shapes: maps ``[B, T, h, w]``, signed, in units of the score. Cost: ``samples`` + 2 forward passes at most, shared
    by all T targets; one factorisation for all of them; no backward pass. The result does not depend on ``chunk_size``.

    Deviations from captum and shap: the sum holds exactly instead of by a weight of 1e6; pairs instead of independent
    draws (captum); no l1 regularisation, which by default keeps ten regions (shap); what is absent is one colour, named
    in the settings.

    Attributes:
        players: ``"grid"`` or ``"superpixels"``.
        cells: Cells of the grid a side; about ``cells`` * ``cells`` superpixels.
        samples: Most coalitions that are asked.
        fill: Normalised value of what is absent; 0 is the mean colour of the tower's training data.
        seed: Seed of the coalitions.
        chunk_size: Masked images in one forward pass; halved when memory runs out.

    Raises:
        UserError: The players are of no known kind, or there are too few samples for them.

    Example:
        >>> from clip_xai.xai.examples import example
        >>> found = KernelShap(cells=2, samples=14).explain(*example())
        >>> found.values.shape
        torch.Size([2, 2, 4, 4])
    """

    reading: ClassVar[str] = "Shapley values: the share of each region in the score, over all ways to cover the others."

    players: str = setting("grid", one_of=("grid", "superpixels"))
    cells: int = setting(7, least=2)
    samples: int = setting(1000, least=1)
    fill: float = 0.0
    seed: int = setting(0, least=0)
    chunk_size: int = setting(64, least=1)

    linear_in_target: ClassVar[bool] = True
    cost: ClassVar[str] = "up to samples + 2 F"

    def maps(self, bank: PerturbationBank, target: Target, trace: Trace | None) -> tuple[Tensor, Tensor]:
        """Return raw maps ``[B, T, h, w]`` and the scores of the images."""
        side, images = bank.pixels.shape[-1], len(bank.pixels)
        if self.players == "grid":
            owners = [grid_players(side, self.cells, self.cells)]
        else:
            owners = superpixels(bank.backbone, bank.pixels, self.cells**2)
        counts = [int(regions.max()) + 1 for regions in owners]
        asked = [coalitions(count, self.samples, self.seed) for count in counts]
        most = max(len(one.present) for one in asked)
        # Nobody stands in front, and behind the coalitions of an image that has fewer than another.
        present = torch.zeros(len(owners), 1 + most, max(counts), dtype=torch.bool)
        for row, one in zip(present, asked, strict=True):
            row[1 : 1 + len(one.present), : one.present.shape[1]] = one.present
        key = ("grid", side, self.cells, self.samples, self.seed) if self.players == "grid" else None
        masks = PlayerMasks(torch.stack(owners), present, key)
        scores = bank.scores(masks, target, fill=self.fill, chunk_size=self.chunk_size)
        whole = bank.whole_scores(target)
        values = []
        for image in range(images):
            mine = image if len(owners) > 1 else 0
            answers = scores[image, 1 : 1 + len(asked[mine].present)]
            shares = shapley_values(asked[mine], answers, scores[image, 0], whole[image])
            density = spread_evenly(shares.T, owners[mine].to(scores.device))
            # The sum over a patch is the mean times the pixels in it.
            height, width = bank.backbone.grid
            values.append(pooled(density, (height, width)) * side**2 / (height * width))
        return torch.stack(values), whole
