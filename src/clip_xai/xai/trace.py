"""What gradient and attention explainers share: one forward pass, at most one backward pass, T targets."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from clip_xai.errors import UserError
from clip_xai.models.backbones.base import Backbone
from clip_xai.models.backbones.trace import BlockTrace, Point
from clip_xai.xai.target import Target


@dataclass(frozen=True)
class Needs:
    """What an explainer reads of a tower; needs of several explainers add up with ``|``.

    Attributes:
        activations: Blocks whose activations are read, -1 for the last; None for all.
        gradients: Points ``(block, "normed" | "context")`` whose gradients are read.
    """

    activations: frozenset[int] | None = frozenset()
    gradients: frozenset[Point] = frozenset()

    def __or__(self, other: Needs) -> Needs:
        every = self.activations is None or other.activations is None
        activations = None if every else (self.activations or frozenset()) | (other.activations or frozenset())
        return Needs(activations, self.gradients | other.gradients)


class Trace:
    """One pass of a tower for T targets.

    Attributes:
        scores: ``[B, T]``.
        grid: Rows and columns of the patch grid.
        depth: L.
        read_rows: Query rows that the target reads in the last block.
    """

    def __init__(self, backbone: Backbone, pixels: Tensor, target: Target, needs: Needs) -> None:
        """Run the tower once, the target once, and, where gradients are needed, both backward once.

        Raises:
            UserError: The score of some target does not depend on the image at a point that is needed.
        """
        self._tower = backbone.trace(pixels, reads=target.reads, record=needs.activations, watch=tuple(needs.gradients))
        self.grid, self.depth, self.read_rows = self._tower.grid, self._tower.depth, self._tower.read_rows
        self._gradients: dict[Point, Tensor] = {}
        if not needs.gradients:
            with torch.no_grad():
                self.scores = target.score(self._tower.read)
            return
        self.scores, cotangents = target.score_and_cotangent(self._tower.read)
        self._gradients = self._tower.gradients(cotangents, tuple(needs.gradients))
        for point, gradient in self._gradients.items():
            _refuse_zero(gradient, point, target)

    def block(self, index: int) -> BlockTrace:
        """Return the activations of a block; -1 is the last."""
        return self._tower.block(index)

    def gradient(self, block: int, point: str) -> Tensor:
        """Return the gradient of the T scores at a point, ``[B, T, *activation.shape[1:]]``."""
        return self._gradients[block, point]


def _refuse_zero(gradient: Tensor, point: Point, target: Target) -> None:
    block, name = point
    if name == "normed":
        gradient = gradient[:, :, 1:]  # maps are made of patches; the class token alone is no evidence
    reached = (gradient != 0).flatten(2).any(dim=2).all(dim=0)
    if reached.all():
        return
    label = target.labels[int(reached.int().argmin())]
    raise UserError(
        f"the score of {label!r} has a gradient of exactly zero at {name!r} of block {block}: nothing that is computed "
        "there reaches the score, so there is no evidence to draw; choose an earlier layer or another target"
    )
