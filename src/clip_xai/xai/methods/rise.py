"""RISE: how the score goes with what random masks keep."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from clip_xai.ranges import setting
from clip_xai.xai.explainer import BankExplainer, explainers
from clip_xai.xai.masks import smooth_masks
from clip_xai.xai.perturbation_bank import PerturbationBank
from clip_xai.xai.target import Target
from clip_xai.xai.trace import Trace


@explainers.register("rise", title="RISE", group="perturbation", order=2)
@dataclass(frozen=True)
class Rise(BankExplainer):
    """RISE (Petsiuk, Das and Saenko, BMVC 2018, arXiv 1806.07421) with N smooth random masks M_n.

    Each mask is a grid of ``cells`` x ``cells`` random values, enlarged bilinearly and shifted by less than a cell::

        paper      H_i = 1 / (N m)  sum over n of  s(x * M_n) M_n(i)
        centred    H_i = 1 / (N m)  sum over n of  ( s(x * M_n) - mean of s ) M_n(i)

    with m the mean of the masks: ``keep`` for ``bernoulli`` masks, whose cells are 0 or 1, and the mean over all masks
    and pixels for ``gaussian`` ones, whose cells come from a normal distribution of mean ``keep`` and standard
    deviation ``spread``, clipped to [0, 1].

    A similarity is a large constant with a small signal on top, and in the paper's sum the constant multiplies the
    masks' uneven coverage: with a few thousand masks the map shows chance. Centring takes that away and changes
    nothing in expectation but a constant map, so it is the default.

    Shapes: maps ``[B, T, h, w]``, signed, in units of the score: the mean of the map over the pixels of each patch,
    exactly. Cost: N forward passes of masked images, shared by all T targets; no backward pass. The result does not
    depend on ``chunk_size``.

    Deviations from the published code: centring by default; masks of one draw serve all images; the published code
    stores masks of full size for all N (0.4 GB a thousand at 224 pixels), here they are made chunk by chunk.

    Attributes:
        masks: N. The paper takes 4000 to 8000.
        cells: Cells of the random grid a side.
        keep: Probability that a cell is kept; for Gaussian masks the mean of a cell.
        kind: ``"bernoulli"`` or ``"gaussian"``.
        spread: Standard deviation of the Gaussian cells.
        normalisation: ``"centred"`` or ``"paper"``.
        fill: Normalised value where nothing is kept; 0 is the mean colour of the tower's training data.
        seed: Seed of the masks.
        chunk_size: Masked images in one forward pass; halved when memory runs out.

    Raises:
        UserError: A setting has no meaning.

    Example:
        >>> from clip_xai.xai.examples import example
        >>> found = Rise(masks=20, cells=3).explain(*example())
        >>> found.values.shape
        torch.Size([2, 2, 4, 4])
    """

    reading: ClassVar[str] = (
        "Random parts of the photograph are shown: where being seen raises the score. Negative: it lowers it."
    )

    masks: int = setting(1000, least=2)
    cells: int = setting(7, least=1)
    keep: float = setting(0.5, above=0, below=1)
    kind: str = setting("bernoulli", one_of=("bernoulli", "gaussian"))
    spread: float = setting(0.25, least=0)
    normalisation: str = setting("centred", one_of=("centred", "paper"))
    fill: float = 0.0
    seed: int = setting(0, least=0)
    chunk_size: int = setting(64, least=1)

    linear_in_target: ClassVar[bool] = True
    cost: ClassVar[str] = "N F"

    def maps(self, bank: PerturbationBank, target: Target, trace: Trace | None) -> tuple[Tensor, Tensor]:
        """Return raw maps ``[B, T, h, w]`` and the scores of the images."""
        side, grid = bank.pixels.shape[-1], bank.backbone.grid
        masks = smooth_masks(
            self.masks, self.cells, self.keep, side, seed=self.seed, kind=self.kind, spread=self.spread
        )
        scores = bank.scores(masks, target, fill=self.fill, chunk_size=self.chunk_size)
        told = scores - scores.mean(dim=1, keepdim=True) if self.normalisation == "centred" else scores
        values = scores.new_zeros(*scores.shape[::2], *grid)
        mean = 0.0
        for first in range(0, self.masks, 1024):
            rows = torch.arange(first, min(first + 1024, self.masks))
            kept = masks.cells(rows, side, grid).to(scores)
            values += torch.einsum("bmt,mhw->bthw", told[:, rows], kept)
            mean += float(kept.mean(dim=(1, 2)).sum()) / self.masks
        return values / (self.masks * (self.keep if self.kind == "bernoulli" else mean)), bank.whole_scores(target)
