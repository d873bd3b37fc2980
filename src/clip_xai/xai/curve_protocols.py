"""How insertion and deletion curves are drawn: in which steps, over what, scored by what; and whose settings those are.

The published numbers differ in all three, and rankings turn with them, so a protocol has a name that stands beside each
number. ``default`` is this package's own; the others repeat studies, without what was wrong in them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor, nn

from clip_xai.models.backbones.recording import evaluation_mode
from clip_xai.xai.baselines import (
    Baseline,
    Black,
    Blurred,
    MeanColour,
    RandomColours,
    RiseBlurred,
    TokenDrop,
    Zeros,
)
from clip_xai.xai.imputation import Road
from clip_xai.xai.masks import finer_grid
from clip_xai.xai.targets import CaptionTarget, ClassifierTarget, ClassTarget, Target

Score = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class CurveProtocol:
    """How a curve is drawn.

    Attributes:
        name: As in ``curves=NAME``.
        insertion: What the photograph is inserted into.
        deletion: What is left where it is deleted.
        cells: Steps are of whole patch cells, not of single pixels.
        steps: So many steps of equal size (the last may be smaller).
        pixels: Pixels of each step, where that and not ``steps`` is given.
        marks: Shares at which a curve is read between its ends, where these and not ``steps`` are given.
        share: How much of the photograph is inserted or deleted at the end.
        score: ``own``, the target's score as it is explained; ``softmax`` or ``sigmoid``, a probability, of targets
            that have one; ``top1``, 1 where a class is the likeliest of all and 0 elsewhere.
        area: ``shares``, the mean height over the share of the picture by trapezoids; ``steps``, the same with all
            steps counted alike, as RISE does; ``points``, the sum of the trapezoids over the number of points.
        words: Whose settings they are.
    """

    name: str
    insertion: Baseline
    deletion: Baseline
    cells: bool = False
    steps: int | None = None
    pixels: int | None = None
    marks: tuple[float, ...] = ()
    share: float = 1.0
    score: str = "own"
    area: str = "shares"
    words: str = ""

    def units(self, grid: tuple[int, int], side: int) -> tuple[int, int]:
        """Return what is taken in one piece, rows and columns of pixels or of patch cells.

        Args:
            grid: The tower's patch grid.
            side: S.
        """
        if isinstance(self.deletion, TokenDrop):
            return grid
        return finer_grid(grid, side) if self.cells else (side, side)

    def counts(self, units: int) -> list[int]:
        """Return how many of the units are inserted or deleted at each point of the curve, from 0 on."""
        if self.marks:
            return sorted({0, *(round(mark * units) for mark in self.marks), units})
        steps = self.steps or units
        size = self.pixels if self.pixels is not None else -(-units // steps) if self.share == 1 else units // steps
        last = int(self.share * units)
        counts = list(range(0, last + 1, size))
        return counts if self.share < 1 or counts[-1] == last else [*counts, last]

    def areas(self, scores: Tensor, shares: Tensor) -> Tensor:
        """Return the area under curves.

        Args:
            scores: ``[..., K]``.
            shares: ``[K]``, rising from 0.

        Returns:
            ``[...]``; a curve of one height has that height for its area, but by ``points``.
        """
        middles = (scores[..., 1:] + scores[..., :-1]) / 2
        if self.area == "shares":
            widths = shares.diff().to(scores)
            return (middles * widths).sum(dim=-1) / widths.sum()
        return middles.sum(dim=-1) / (scores.shape[-1] - (self.area == "steps"))


RISE = CurveProtocol(
    "rise", RiseBlurred(), Zeros(), steps=28, score="softmax", area="steps",
    words="RISE (Petsiuk et al., BMVC 2018): 28 steps (1,792 pixels each at 224), softmax probability",
)  # fmt: skip
#: What a photograph is inserted into and deleted to alike, by the name of the protocol.
REMOVALS: dict[str, Baseline] = {
    "token_drop": TokenDrop(), "mean": MeanColour(), "blur": Blurred(1 / 8), "road": Road(),
}  # fmt: skip
PROTOCOLS = {
    protocol.name: protocol
    for protocol in (
        CurveProtocol(
            "default", Blurred(1 / 8), MeanColour(), cells=True, steps=25,
            words="whole patch cells in at most 25 steps, scored as explained",
        ),
        RISE,
        CurveProtocol(
            "abs_cam_study", RISE.insertion, RISE.deletion, steps=28, score="softmax", area="steps",
            words="the folder study of RISE and Abs-CAM, which took over RISE's: 28 steps (1,792 pixels each at 224)",
        ),
        CurveProtocol(
            "gradeclip", Black(), RandomColours(), steps=20, share=0.5, score="top1",
            words="Grad-ECLIP (Zhao et al., ICML 2024): half of the pixels in ten steps, accuracy of the first class",
        ),
        CurveProtocol(
            "chest_study", Blurred(10, 19), Blurred(10, 19), pixels=25, share=0.5, score="sigmoid", area="points",
            words="the chest X-ray study: 25 pixels a step, up to half of the picture, sigmoid probability",
        ),
        *(
            CurveProtocol(name, removal, removal, cells=True, steps=24, words="whole patch cells, scored as explained")
            for name, removal in REMOVALS.items()
        ),
    )
}  # fmt: skip


@dataclass(frozen=True)
class Scored:
    """What a curve is of.

    Attributes:
        score: From what the tower hands over to ``[B, T]``.
        name: What the scores are.
        note: What a reader must know where it is not what the protocol asks for; empty elsewhere.
    """

    score: Score
    name: str
    note: str = ""


def scored(target: Target, protocol: CurveProtocol) -> Scored:
    """Return what a protocol scores a target by: the target's own score where it has no such probability.

    Args:
        target: What is explained.
        protocol: Its ``score`` counts.
    """
    own = Scored(target.score, target.score_name)
    if protocol.score == "own":
        return own
    if protocol.score == "top1":
        return _first_class(target, own, protocol)
    if isinstance(target, ClassifierTarget):
        return Scored(_of_logits(target, protocol.score), f"{protocol.score} probability")
    if isinstance(target, CaptionTarget):
        return Scored(lambda read: target.score(read).exp(), "probability")
    if isinstance(target, ClassTarget) and target.softmax and protocol.score == "softmax":
        return Scored(lambda read: target.score(read).exp(), "softmax probability")
    note = f"The protocol {protocol.name} scores by a probability, which a {own.name} is not: it is scored as it is."
    return Scored(own.score, own.name, note)


def _first_class(target: Target, own: Scored, protocol: CurveProtocol) -> Scored:
    """Whether each class is the likeliest; of a target that has classes to choose from."""
    if isinstance(target, ClassifierTarget):
        return Scored(_of_logits(target, "top1"), "accuracy of the first class")
    if isinstance(target, ClassTarget) and len(target.labels) > 1:
        return Scored(lambda read: _highest(target.score(read)), "accuracy of the first class")
    note = f"The protocol {protocol.name} asks which class is the first of several, and a {own.name} has none: "
    return Scored(own.score, own.name, f"{note}it is scored as it is.")


def _highest(scores: Tensor) -> Tensor:
    return F.one_hot(scores.argmax(dim=1), scores.shape[1]).to(scores)


def _of_logits(target: ClassifierTarget, kind: str) -> Score:
    turned: dict[str, Score] = {
        "softmax": lambda logits: logits.softmax(dim=1), "sigmoid": Tensor.sigmoid, "top1": _highest,
    }  # fmt: skip

    def score(read: Tensor) -> Tensor:
        if isinstance(target.head, nn.Module):
            with evaluation_mode(target.head):
                logits = target.head(read)
        else:
            logits = target.head(read)
        return turned[kind](logits)[:, target.classes]

    return score
