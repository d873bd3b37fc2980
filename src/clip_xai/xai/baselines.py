"""What stands where a photograph is taken away: another picture, its surroundings, or nothing at all."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from scipy.ndimage import gaussian_filter1d
from torch import Tensor
from torchvision.transforms.functional import gaussian_blur

from clip_xai.data.preprocess import Preprocess
from clip_xai.xai.imputation import Road


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

    def __call__(self, pixels: Tensor, preprocess: Preprocess | None = None) -> Tensor:
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

    def __call__(self, pixels: Tensor, preprocess: Preprocess | None = None) -> Tensor:
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

    def __call__(self, pixels: Tensor, preprocess: Preprocess | None = None) -> Tensor:
        """Return the flat copy of images ``[B, 3, S, S]``."""
        return pixels.mean(dim=(-2, -1), keepdim=True).expand_as(pixels)


@dataclass(frozen=True)
class Zeros:
    """Zeros of the normalised picture: the mean colour of the tower's training data, not black."""

    words: ClassVar[str] = "zeros (the mean colour of the training data)"

    def __call__(self, pixels: Tensor, preprocess: Preprocess | None = None) -> Tensor:
        """Return zeros like images ``[B, 3, S, S]``."""
        return torch.zeros_like(pixels)


@dataclass(frozen=True)
class Black:
    """Black, whatever the normalisation."""

    words: ClassVar[str] = "black"

    def __call__(self, pixels: Tensor, preprocess: Preprocess) -> Tensor:
        """Return black pictures like images ``[B, 3, S, S]``."""
        return _normalised(torch.zeros_like(pixels), preprocess)


@dataclass(frozen=True)
class RandomColours:
    """A colour drawn at random for each pixel.

    Attributes:
        seed: Seed of the colours, the same for every photograph.
    """

    seed: int = 0
    words: ClassVar[str] = "random colours"

    def __call__(self, pixels: Tensor, preprocess: Preprocess) -> Tensor:
        """Return pictures of noise like images ``[B, 3, S, S]``."""
        drawn = torch.rand(pixels.shape[1:], generator=torch.Generator().manual_seed(self.seed))
        return _normalised(drawn.to(pixels).expand_as(pixels), preprocess)


@dataclass(frozen=True)
class TokenDrop:
    """Nothing: the patches never enter the tower."""

    words: ClassVar[str] = "nothing (its patches are left out of the tower)"


Baseline = Blurred | RiseBlurred | MeanColour | Zeros | Black | RandomColours | Road | TokenDrop


def _normalised(colours: Tensor, preprocess: Preprocess) -> Tensor:
    mean, std = (colours.new_tensor(values)[:, None, None] for values in (preprocess.mean, preprocess.std))
    return (colours - mean) / std
