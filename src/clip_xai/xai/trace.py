"""What gradient and attention explainers share: one forward pass, at most one backward pass, T targets."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from clip_xai.errors import UserError
from clip_xai.models.backbones.base import VisionBackbone
from clip_xai.models.backbones.recording import PIXELS, BlockIndex, BlockTrace, Point, Recorder, VisualTrace
from clip_xai.xai.target import Target

PIXEL_POINT: Point = (PIXELS, "output")


@dataclass(frozen=True)
class Needs:
    """What an explainer reads of a tower; needs of several explainers add up with ``|``.

    Attributes:
        activations: Blocks whose activations are read, -1 for the last; None for all.
        gradients: Points ``(block, "normed" | "context" | "output")`` whose gradients are read, ``PIXEL_POINT`` for the
            input's.
        weak: Points whose gradients are read, too, but may be exactly zero, because others stand beside them.
        watched: Points that some explainer differentiates on its own from, such as LeGrad.
    """

    activations: frozenset[BlockIndex] | None = frozenset()
    gradients: frozenset[Point] = frozenset()
    weak: frozenset[Point] = frozenset()
    watched: frozenset[Point] = frozenset()

    def __or__(self, other: Needs) -> Needs:
        every = self.activations is None or other.activations is None
        activations = None if every else (self.activations or frozenset()) | (other.activations or frozenset())
        gradients, weak = self.gradients | other.gradients, self.weak | other.weak
        return Needs(activations, gradients, weak, self.watched | other.watched)


class Trace:
    """One pass of a tower for T targets.

    Attributes:
        backbone: The tower's backbone.
        target: The target.
        tower: The opened tower.
        scores: ``[B, T]``.
        cotangents: Derivatives of the scores with respect to what the tower hands over, ``[B, T, *]``; None where no
            gradient was asked for.
        grid: Rows and columns of the patch grid.
        depth: L.
        prefix_tokens: Tokens before the patches.
        read_rows: Query rows that the target reads in the last block.
    """

    def __init__(
        self, backbone: VisionBackbone, pixels: Tensor, target: Target, needs: Needs, *, refuse_zero: bool = True
    ) -> None:
        """Run the tower once, the target once, and, where gradients are needed, both backward once.

        Args:
            backbone: The tower.
            pixels: ``[B, 3, S, S]``.
            target: What is to be explained.
            needs: What will be read.
            refuse_zero: Whether a gradient of exactly zero is an error.

        Raises:
            UserError: The score of some target does not depend on the image at a point that is needed.
        """
        self.backbone, self.target = backbone, target
        read = tuple(needs.gradients | needs.weak)
        watch = tuple({*read, *needs.watched})
        self.tower: VisualTrace
        record: list[int] | None = None if needs.activations is None else list(needs.activations)  # type: ignore[arg-type]
        if backbone.supports & {"attention", "output_gradients"}:
            self.tower = backbone.trace(pixels, reads=target.reads, record=record, watch=watch)
        else:
            self.tower = _ClosedTrace(backbone, pixels, target.reads, record, watch)
        self.grid, self.depth, self.read_rows = self.tower.grid, self.tower.depth, self.tower.read_rows
        self.prefix_tokens = self.tower.prefix_tokens
        self.cotangents: Tensor | None = None
        self._gradients: dict[Point, Tensor] = {}
        if not read:
            with torch.no_grad():
                self.scores = target.score(self.tower.read).detach()
            return
        self.scores, self.cotangents = target.score_and_cotangent(self.tower.read)
        self._gradients = self.tower.gradients(self.cotangents, read)
        for point in needs.gradients if refuse_zero else ():
            self._refuse_zero(self._gradients[point], point)

    def block(self, index: BlockIndex) -> BlockTrace:
        """Return the activations of a block; -1 is the last."""
        return self.tower.block(index)

    def gradient(self, block: BlockIndex, point: str) -> Tensor:
        """Return the gradient of the T scores at a point, ``[B, T, *activation.shape[1:]]``."""
        return self._gradients[block, point]

    @property
    def pixels(self) -> Tensor:
        """The input ``[B, 3, S, S]``, where its gradient was asked for."""
        return self.tower.block(PIXELS).computed.detach()

    @property
    def pixel_gradient(self) -> Tensor:
        """The gradient of the T scores at the input, ``[B, T, 3, S, S]``."""
        return self._gradients[PIXEL_POINT]

    def _refuse_zero(self, gradient: Tensor, point: Point) -> None:
        block, name = point
        if name != "context" and block != PIXELS and gradient.shape[2] > self.prefix_tokens:
            gradient = gradient[:, :, self.prefix_tokens :]  # maps are made of patches; the class token is not evidence
        refuse_zero(gradient, self.target, "the pixels" if block == PIXELS else f"{name!r} of block {block}")


class _ClosedTrace(VisualTrace):
    """A pass of a tower that cannot be opened: nothing but its input can be watched."""

    family = "convolutional"

    def __init__(
        self, backbone: VisionBackbone, pixels: Tensor, reads: str, record: list[int] | None, watch: Sequence[Point]
    ) -> None:
        if record or record is None or set(watch) - {PIXEL_POINT}:
            raise UserError(f"the tower of {backbone.name} cannot be opened: choose saliency, occlusion or another")
        self._backbone = backbone
        super().__init__(backbone, pixels, depth=0, grid=backbone.grid, reads=reads, watch=watch)

    def _run(self, pixels: Tensor, recorder: Recorder) -> Tensor:
        return self._backbone.features(pixels).read(self.reads)


def refuse_zero(evidence: Tensor, target: Target, where: str) -> None:
    """Raise a ``UserError`` if the evidence ``[B, T, ...]`` is exactly zero for some score of some image."""
    reached = (evidence != 0).flatten(2).any(dim=2).all(dim=0)
    if reached.all():
        return
    label = target.labels[int(reached.int().argmin())]
    raise UserError(
        f"the score of {label!r} has a gradient of exactly zero at {where}: nothing that is computed there reaches "
        "the score, so there is no evidence to draw; choose an earlier layer or another target"
    )
