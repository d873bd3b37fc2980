"""From a photograph to what a model sees, and from the model's grid back onto the photograph."""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from clip_xai.data.images import as_rgb, check_shape, read_reduced

CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)

#: How many times finer than the model's input a photograph is decoded where the decoder can leave pixels out.
REDUCED_MARGIN = 2

_FILTERS = {"bicubic": Image.Resampling.BICUBIC, "bilinear": Image.Resampling.BILINEAR}
_RESIZES = ("shortest", "squash", "longest")


@dataclass(frozen=True)
class Geometry:
    """Where the square that a model saw lies on the original photograph.

    The box is given in pixels of the photograph, edges included: pixel column ``x`` covers ``[x, x + 1]``.
    It may reach beyond the picture where the model saw padding.

    Attributes:
        height: Height of the photograph in pixels.
        width: Width of the photograph in pixels.
        left: Left edge of the box.
        top: Upper edge of the box.
        right: Right edge of the box.
        bottom: Lower edge of the box.
    """

    height: int
    width: int
    left: float
    top: float
    right: float
    bottom: float

    def place(self, grid: Tensor) -> Tensor:
        """Lay a map of the model's square onto the photograph.

        Bilinear between cell centres (``align_corners=False``, edge cells extended to the box's edge).

        Args:
            grid: Map over the model's square, ``[..., h, w]``, any ``h`` and ``w``.

        Returns:
            Map over the photograph, ``[..., height, width]``; NaN wherever the model did not look.
        """
        rows = _bilinear_weights(self.height, self.top, self.bottom, grid.shape[-2]).to(grid)
        columns = _bilinear_weights(self.width, self.left, self.right, grid.shape[-1]).to(grid)
        placed = rows @ grid @ columns.T
        return placed.masked_fill(~self.seen().to(grid.device), float("nan"))

    def locate(self, mask: Tensor, size: int | tuple[int, int]) -> Tensor:
        """Measure how much of each cell of the model's square a mask of the photograph covers.

        Exact areas: a pixel that is cut by a cell's edge counts with the part that lies inside. Padding is not mask.

        Args:
            mask: Mask (or any map) over the photograph, ``[..., height, width]``.
            size: Cells per side, or ``(h, w)``: the model's patch grid, or its input size.

        Returns:
            Share of each cell that is covered, ``[..., h, w]`` in float32, 0 to 1 for a mask.

        Raises:
            ValueError: The mask has another size than the photograph.
        """
        if mask.shape[-2:] != (self.height, self.width):
            raise ValueError(f"mask is {tuple(mask.shape[-2:])}, the photograph ({self.height}, {self.width})")
        h, w = (size, size) if isinstance(size, int) else size
        rows = _overlap_weights(self.height, self.top, self.bottom, h).to(mask.device)
        columns = _overlap_weights(self.width, self.left, self.right, w).to(mask.device)
        return rows @ mask.to(torch.float32) @ columns.T

    def seen(self) -> Tensor:
        """Tell which pixels of the photograph the model saw: bool, ``[height, width]``, by pixel centre."""
        rows = _inside(self.height, self.top, self.bottom)
        columns = _inside(self.width, self.left, self.right)
        return rows[:, None] & columns[None, :]


@dataclass(frozen=True)
class Preprocess:
    """The evaluation transform of a backbone: resize, centre crop or pad, scale to [0, 1], normalise.

    ``shortest`` scales the shorter side to the model's input and crops the centre; ``longest`` scales the longer side
    and pads with black; ``squash`` ignores the aspect ratio. All three give the same numbers as open_clip's
    ``image_transform(..., is_train=False)``.

    Attributes:
        image_size: Side of the model's square input in pixels.
        resize: ``shortest``, ``longest`` or ``squash``.
        interpolation: ``bicubic`` or ``bilinear``.
        mean: Mean of red, green and blue on the scale [0, 1].
        std: Standard deviation of red, green and blue on the scale [0, 1].
        grey: Show the model luminance alone, three times (MedCLIP).
        scaled: For ``shortest``: the length that the shorter side is scaled to before the crop, where it is not the
            model's input.
        floored: Round the corner of the crop down, as transformers does; torchvision and open_clip round to even.
    """

    image_size: int = 224
    resize: str = "shortest"
    interpolation: str = "bicubic"
    mean: tuple[float, ...] = CLIP_MEAN
    std: tuple[float, ...] = CLIP_STD
    grey: bool = False
    scaled: int | None = None
    floored: bool = False

    def __post_init__(self) -> None:
        if self.resize not in _RESIZES:
            raise ValueError(f"resize is {self.resize!r}; choose one of {', '.join(_RESIZES)}")
        if self.interpolation not in _FILTERS:
            raise ValueError(f"interpolation is {self.interpolation!r}; choose one of {', '.join(_FILTERS)}")
        if self.image_size < 1:
            raise ValueError(f"image_size is {self.image_size}; it must be at least 1")
        if self.scaled is not None and (self.resize != "shortest" or self.scaled < self.image_size):
            raise ValueError(f"scaled is {self.scaled}: it must be at least image_size, and goes with shortest alone")
        for name, values in (("mean", self.mean), ("std", self.std)):
            if isinstance(values, str) or len(values) != 3 or not all(math.isfinite(float(value)) for value in values):
                raise ValueError(f"{name} is {values}: it must be three finite numbers")
        if not all(0 <= float(value) <= 1 for value in self.mean):
            raise ValueError(f"mean is {self.mean}: each must be on the scale from 0 to 1")
        if not all(float(value) > 0 for value in self.std):
            raise ValueError(f"std is {self.std}: each must be more than 0")
        # JSON knows lists only; tuples keep the fingerprint and the hash the same after a round trip.
        object.__setattr__(self, "mean", tuple(float(value) for value in self.mean))
        object.__setattr__(self, "std", tuple(float(value) for value in self.std))

    def __call__(self, image: Image.Image) -> Tensor:
        """Turn a photograph into the model's input.

        Args:
            image: Any photograph; brought to RGB first.

        Returns:
            Normalised pixels, float32 ``[3, image_size, image_size]``.
        """
        return self._normalised(self.square(image))

    def _normalised(self, square: Image.Image) -> Tensor:
        pixels = torch.from_numpy(np.array(square, dtype=np.uint8)).permute(2, 0, 1)
        mean = torch.tensor(self.mean).view(3, 1, 1)
        std = torch.tensor(self.std).view(3, 1, 1)
        return pixels.contiguous().to(torch.float32).div(255).sub_(mean).div_(std)

    def read(self, path: Path | str) -> Tensor:
        """Turn a photograph on disk into the model's input, large JPEG files by way of the decoder's reduced sizes.

        The decoder keeps `REDUCED_MARGIN` times the pixels that the resize leaves, so the result differs from that of
        the full photograph by less than one of 255 levels on average.

        Args:
            path: The file.

        Returns:
            Normalised pixels, float32 ``[3, image_size, image_size]``.

        Raises:
            UnreadableImageError: The file cannot be shown as a photograph.
        """
        image, size = read_reduced(path, REDUCED_MARGIN * (self.scaled or self.image_size))
        return self._normalised(self._square(image, size))

    def square(self, image: Image.Image) -> Image.Image:
        """Return the RGB square that the model sees, before normalisation.

        Raises:
            ValueError: The picture has a mode without an agreed range, or is too large or too thin.
        """
        image = as_rgb(image)
        return self._square(image, image.size)

    def _square(self, image: Image.Image, full: tuple[int, int]) -> Image.Image:
        check_shape(*full)
        if self.grey:
            image = image.convert("L").convert("RGB")
        size = self.image_size
        width, height = self._resized(*full)
        if (width, height) != image.size:
            image = image.resize((width, height), _FILTERS[self.interpolation])
        left, top = self._offset(width), self._offset(height)
        # PIL fills what lies outside of the picture with black, which is open_clip's padding.
        return image.crop((left, top, left + size, top + size))

    def geometry(self, width: int, height: int) -> Geometry:
        """Tell where the square that the model sees lies on a photograph of this size.

        Args:
            width: Width of the photograph in pixels.
            height: Height of the photograph in pixels.
        """
        new_width, new_height = self._resized(width, height)
        left, top = self._offset(new_width), self._offset(new_height)
        # The two scales differ slightly: open_clip rounds the longer side to whole pixels.
        x_scale, y_scale = width / new_width, height / new_height
        return Geometry(
            height=height,
            width=width,
            left=left * x_scale,
            top=top * y_scale,
            right=(left + self.image_size) * x_scale,
            bottom=(top + self.image_size) * y_scale,
        )

    @property
    def fingerprint(self) -> str:
        """Sixteen hexadecimal digits that change whenever the numbers given to the model could change."""
        settings = asdict(self)
        if not self.grey:
            del settings["grey"]  # features that were cached before the setting came stay valid
        for name in ("scaled", "floored"):
            if not settings[name]:
                del settings[name]
        return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:16]

    def _resized(self, width: int, height: int) -> tuple[int, int]:
        """Return width and height after the resize, rounded as open_clip rounds them."""
        size = self.image_size
        if self.resize == "squash":
            return size, size
        if self.resize == "shortest":
            size = self.scaled or size
            longer = int(size * max(width, height) / min(width, height))
            return (size, longer) if width <= height else (longer, size)
        ratio = max(width / size, height / size)
        # A hair-thin picture would round to nothing.
        return max(1, round(width / ratio)), max(1, round(height / ratio))

    def _offset(self, length: int) -> int:
        """Return where a centred window of the input's side starts in `length` pixels: negative where it is padded.

        torchvision rounds the crop to even and open_clip floors the padding; both are kept.
        """
        size = self.image_size
        if length < size:
            return -((size - length) // 2)
        return (length - size) // 2 if self.floored else round((length - size) / 2.0)


def _inside(length: int, start: float, end: float) -> Tensor:
    centres = torch.arange(length, dtype=torch.float64) + 0.5
    return (centres >= start) & (centres <= end)


def _bilinear_weights(length: int, start: float, end: float, cells: int) -> Tensor:
    """Return ``[length, cells]``: how each pixel centre mixes the cells between `start` and `end`."""
    centres = torch.arange(length, dtype=torch.float64) + 0.5
    position = ((centres - start) / (end - start) * cells - 0.5).clamp(0, cells - 1)
    lower = position.floor().long().clamp(max=cells - 1)
    upper = (lower + 1).clamp(max=cells - 1)
    share = position - lower
    weights = torch.zeros(length, cells, dtype=torch.float64)
    weights.scatter_add_(1, lower[:, None], (1 - share)[:, None])
    weights.scatter_add_(1, upper[:, None], share[:, None])
    return weights


def _overlap_weights(length: int, start: float, end: float, cells: int) -> Tensor:
    """Return ``[cells, length]``: the share of each cell between `start` and `end` that each pixel fills."""
    edges = torch.linspace(start, end, cells + 1, dtype=torch.float64)
    pixels = torch.arange(length, dtype=torch.float64)
    lower = torch.maximum(edges[:-1, None], pixels[None, :])
    upper = torch.minimum(edges[1:, None], pixels[None, :] + 1)
    return ((upper - lower).clamp(min=0) * cells / (end - start)).to(torch.float32)
