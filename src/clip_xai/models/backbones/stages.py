"""Traces of towers that have no attention over all patches, such as ModifiedResNet and Swin."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

from torch import Tensor, nn

from clip_xai.errors import UserError
from clip_xai.models.backbones.recording import (
    ABSENT,
    POOL,
    BlockIndex,
    BlockTrace,
    Point,
    Record,
    Recorder,
    VisualTrace,
)


class StagedTower(Protocol):
    """A tower that knows the grid of each stage and runs under a recorder."""

    module: nn.Module
    family: str
    grid: tuple[int, int]
    grids: list[tuple[int, int]]

    def run(self, pixels: Tensor, recorder: Recorder, reads: str) -> Tensor:
        """Return what is read."""

    def behind(self, index: int, tokens: Tensor, reads: str) -> Tensor:
        """Return what is read once a block has given these tokens ``[B, h * w, C]``; nothing before it is run."""


class StageTrace(VisualTrace):
    """One pass of a tower that can be opened between its stages (or windowed blocks), at ``"output"`` alone.

    Each stage has a grid of its own, which ``grid_of`` gives; its output is ``[B, h * w, C]``, row by row. There are
    no queries, keys and values of all patches, so those of a stage are None.
    """

    def __init__(
        self,
        tower: StagedTower,
        pixels: Tensor,
        *,
        reads: str = "pooled",
        record: Record = (),
        watch: Iterable[Point] = (),
    ) -> None:
        """Run the tower; see the base class."""
        self._tower = tower
        self.family = tower.family
        watch = list(watch)
        if any(block != POOL and name != "output" for block, name in watch):
            raise UserError(
                "this tower has no attention over all patches: only the output of its blocks can be watched; "
                "choose a method that does not read attention, such as gradcam"
            )
        super().__init__(
            tower.module,
            pixels,
            depth=len(tower.grids),
            grid=tower.grid,
            reads=reads,
            record=record,
            watch=watch,
        )

    def grid_of(self, block: BlockIndex) -> tuple[int, int]:
        """Return rows and columns of a block's own output."""
        index = self._recorder.index(block)
        return self._tower.grids[index] if isinstance(index, int) else self.grid

    def _run(self, pixels: Tensor, recorder: Recorder) -> Tensor:
        return self._tower.run(pixels, recorder, self.reads)


def keep_output(recorder: Recorder, index: int, tokens: Tensor) -> Tensor:
    """Keep a stage's output ``[B, h * w, C]`` if it was asked for, and return it."""
    if index in recorder.opened:
        tokens = recorder.mark((index, "output"), tokens)
        recorder.blocks[index] = BlockTrace(ABSENT, ABSENT, ABSENT, ABSENT, ABSENT, tokens)
    return tokens
