"""How insertion and deletion curves are drawn: in which steps, over what, scored by what; and whose settings those are.

The published numbers differ in all three, and rankings turn with them, so a protocol has a name that stands beside each
number. ``default`` is this package's own; the others repeat studies, without what was wrong in them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from scipy.ndimage import gaussian_filter1d
from torch import Tensor, nn
from torchvision.transforms.functional import gaussian_blur

from clip_xai.models.backbones.recording import evaluation_mode
from clip_xai.xai.masks import finer_grid
from clip_xai.xai.targets import CaptionTarget, ClassifierTarget, ClassTarget, Target

Score = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Blurred:
    """The photograph out of focus, mirrored beyond its border.

    Attributes:
        sigma: Standard deviation, in pixels of the model's input; below 1, as a share of its side.
        kernel: Side of the window, odd; None for three standard deviations each way.
    """

    sigma: float
    kernel: int | None = None

    @property
    def words(self) -> str:
        """What it is, for a reader."""
        return f"blurred (sigma {f'{self.sigma:.1%} of the side' if self.sigma < 1 else f'{self.sigma:g} px'})"

    def __call__(self, pixels: Tensor) -> Tensor:
        """Return the blurred copy of images ``[B, 3, S, S]``."""
        side = pixels.shape[-1]
        sigma = self.sigma * side if self.sigma < 1 else self.sigma
        kernel = 2 * max(1, round(3 * sigma)) + 1 if self.kernel is None else self.kernel
        largest = 2 * side - 1  # a photograph can be mirrored once
        kernel = min(kernel, largest)
        return gaussian_blur(pixels, [kernel, kernel], [sigma, sigma])


@dataclass(frozen=True)
class RiseBlurred:
    """RISE's blur: a window of 11 x 11 made by smoothing a single point within that window, over a border of zeros.

    The smoothing is mirrored at the window's edge, so with sigma 5 the window is nearly a plain mean.

    Attributes:
        sigma: Standard deviation in pixels.
        kernel: Side of the window.
    """

    sigma: float = 5.0
    kernel: int = 11
    words: ClassVar[str] = "blurred (11 x 11, sigma 5)"

    def __call__(self, pixels: Tensor) -> Tensor:
        """Return the blurred copy of images ``[B, 3, S, S]``."""
        point = torch.zeros(self.kernel, dtype=torch.float64)
        point[self.kernel // 2] = 1
        window = torch.from_numpy(gaussian_filter1d(point.numpy(), self.sigma)).to(pixels)
        channels, pad = pixels.shape[1], self.kernel // 2
        down = window.view(1, 1, -1, 1).expand(channels, 1, -1, 1)
        across = window.view(1, 1, 1, -1).expand(channels, 1, 1, -1)
        return F.conv2d(F.conv2d(pixels, down, padding=(pad, 0), groups=channels), across, padding=(0, pad),
                        groups=channels)  # fmt: skip


@dataclass(frozen=True)
class MeanColour:
    """The photograph's own mean colour everywhere."""

    words: ClassVar[str] = "its mean colour"

    def __call__(self, pixels: Tensor) -> Tensor:
        """Return the flat copy of images ``[B, 3, S, S]``."""
        return pixels.mean(dim=(-2, -1), keepdim=True).expand_as(pixels)


@dataclass(frozen=True)
class Zeros:
    """Zeros of the normalised picture: the mean colour of the tower's training data, not black."""

    words: ClassVar[str] = "zeros (the mean colour of the training data)"

    def __call__(self, pixels: Tensor) -> Tensor:
        """Return zeros like images ``[B, 3, S, S]``."""
        return torch.zeros_like(pixels)


Baseline = Blurred | RiseBlurred | MeanColour | Zeros


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
        share: How much of the photograph is inserted or deleted at the end.
        score: ``own``, the target's score as it is explained; ``softmax`` or ``sigmoid``, a probability, of targets
            that have one.
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
        return finer_grid(grid, side) if self.cells else (side, side)

    def counts(self, units: int) -> list[int]:
        """Return how many of the units are inserted or deleted at each point of the curve, from 0 on."""
        size = self.pixels if self.pixels is not None else -(-units // (self.steps or units))
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
            "chest_study", Blurred(10, 19), Blurred(10, 19), pixels=25, share=0.5, score="sigmoid", area="points",
            words="the chest X-ray study: 25 pixels a step, up to half of the picture, sigmoid probability",
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
        protocol: ``own``, ``softmax`` or ``sigmoid`` counts.
    """
    own = Scored(target.score, target.score_name)
    if protocol.score == "own":
        return own
    if isinstance(target, ClassifierTarget):
        return Scored(_of_logits(target, protocol.score), f"{protocol.score} probability")
    if isinstance(target, CaptionTarget):
        return Scored(lambda read: target.score(read).exp(), "probability")
    if isinstance(target, ClassTarget) and target.softmax and protocol.score == "softmax":
        return Scored(lambda read: target.score(read).exp(), "softmax probability")
    note = f"The protocol {protocol.name} scores by a probability, which a {own.name} is not: it is scored as it is."
    return Scored(own.score, own.name, note)


def _of_logits(target: ClassifierTarget, kind: str) -> Score:
    def score(read: Tensor) -> Tensor:
        if isinstance(target.head, nn.Module):
            with evaluation_mode(target.head):
                logits = target.head(read)
        else:
            logits = target.head(read)
        return (logits.softmax(dim=1) if kind == "softmax" else logits.sigmoid())[:, target.classes]

    return score
