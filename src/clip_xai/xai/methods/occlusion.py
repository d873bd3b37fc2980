"""Explainers that change the image and watch the score."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from clip_xai.errors import UserError
from clip_xai.ranges import setting
from clip_xai.xai.explainer import BankExplainer, explainers
from clip_xai.xai.masks import CellMasks, finer_grid
from clip_xai.xai.perturbation_bank import PerturbationBank
from clip_xai.xai.target import Target
from clip_xai.xai.trace import Trace

_COARSE = 4


@explainers.register("occlusion", title="Occlusion", group="perturbation", order=1)
@dataclass(frozen=True)
class Occlusion(BankExplainer):
    """Occlusion (Zeiler and Fergus, ECCV 2014, arXiv 1311.2901) with windows that follow the patches.

    With x_m the image whose window m is filled with the mean colour::

        H_i = mean over the windows m that cover patch i of  s(x) - s(x_m)

    Deviations from captum's ``Occlusion``: none in the numbers. The windows are its: the last one of a row or column
    is cut off at the edge if the stride does not fit.

    A window of two patches says nothing on a grid of two or three, as convolutional networks have of small pictures:
    there, a patch is cut finer by a whole number, so that a side has at least seven cells, and "patch" is such a cell.

    Shapes: maps ``[B, T, h, w]``, signed, in units of the score. Cost: one forward pass for each window and one for
    the image, shared by all T targets; no backward pass. The result does not depend on ``chunk_size``.

    Attributes:
        window: Side of the window in patches.
        stride: Step of the window in patches, at most ``window``.
        fill: Normalised value inside the window; 0 is the mean colour of the tower's training data.
        chunk_size: Masked images in one forward pass; halved when memory runs out.

    Raises:
        UserError: The window does not fit the grid, or the stride leaves patches uncovered.

    Example:
        >>> from clip_xai.xai.examples import example
        >>> Occlusion(window=2).explain(*example()).values.shape
        torch.Size([2, 2, 4, 4])
    """

    window: int = setting(2, least=1)
    stride: int = setting(1, least=1)
    fill: float = 0.0
    chunk_size: int = setting(64, least=1)

    reading: ClassVar[str] = "How much the score falls when a patch is covered. Negative: covering it helps."
    linear_in_target: ClassVar[bool] = True
    cost: ClassVar[str] = "1 F a window + 1 F"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.stride > self.window:
            raise UserError(
                f"a stride of {self.stride} with a window of {self.window} leaves patches uncovered: "
                "choose xai.stride from 1 to xai.window"
            )

    def maps(self, bank: PerturbationBank, target: Target, trace: Trace | None) -> tuple[Tensor, Tensor]:
        """Return raw maps ``[B, T, h, w]`` and the scores of the images."""
        windows = self.windows(*window_grid(bank.backbone.grid, bank.pixels.shape[-1], self.window)).to(
            bank.pixels.device
        )
        kept = CellMasks(1 - windows, key=("windows", *windows.shape, self.window, self.stride))
        masked = bank.scores(kept, target, fill=self.fill, chunk_size=self.chunk_size)
        whole = bank.whole_scores(target)
        values = torch.einsum("bmt,mhw->bthw", whole[:, None] - masked, windows) / windows.sum(dim=0)
        return values, whole

    def windows(self, height: int, width: int) -> Tensor:
        """Return the windows as masks of ones, ``[M, h, w]``, row by row."""
        rows, columns = self._starts(height), self._starts(width)
        masks = torch.zeros(len(rows) * len(columns), height, width)
        for mask, (row, column) in zip(masks, ((r, c) for r in rows for c in columns), strict=True):
            mask[row : row + self.window, column : column + self.window] = 1.0
        return masks

    def _starts(self, length: int) -> range:
        if self.window > length:
            raise UserError(
                f"a window of {self.window} patches does not fit a grid of {length}: lower xai.occlusion.window"
            )
        # As many steps as it takes to reach the edge, rounded up.
        steps = -(-(length - self.window) // self.stride)
        return range(0, steps * self.stride + 1, self.stride)


def window_grid(grid: tuple[int, int], side: int, window: int = 2) -> tuple[int, int]:
    """Return the grid that windows move on: the tower's own, or a finer one where a window is most of a coarse one.

    Args:
        grid: h and w.
        side: S.
        window: Side of a window in cells.

    Example:
        >>> window_grid((7, 7), 224), window_grid((2, 2), 64), window_grid((2, 2), 64, window=1)
        ((7, 7), (8, 8), (2, 2))
    """
    return grid if min(grid) >= min(_COARSE, 2 * window) else finer_grid(grid, side)
