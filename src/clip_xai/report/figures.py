"""Heat over photographs: the only place where raw attributions are scaled, coloured and blended.

No number is ever computed from what this module returns. A scale is chosen from robust percentiles of the raw values
and is always shown with those raw values beside it.
"""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass, replace
from functools import lru_cache

import contourpy
import matplotlib
import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from clip_xai.data.preprocess import Geometry
from clip_xai.report.explained import number

FloatMap = NDArray[np.floating]

# Green is what skin has least of. Viridis (sequential) and purple-green (diverging) stay legible on every skin tone,
# and for colour-blind readers, where red maps drown in erythema. Viridis begins where its purple ends: purple says that
# something lowered the score, and a map that has no such place must not look as if it had.
SEQUENTIAL = "viridis"
SEQUENTIAL_START = 0.35
DIVERGING = "PRGn"
PERCENTILE = 99.0
OPACITY = 0.8
STRENGTH_EXPONENT = 0.7  # middling values would vanish on skin if opacity grew linearly
_PERCENTILES = f"{100 - PERCENTILE:g}st to {PERCENTILE:g}th percentile"
HATCH_PERIOD = 9  # pixels between the stripes over what the model did not see
OUTLINE_INK = ((255, 255, 255), (20, 20, 24))  # a light line inside a dark one shows on every skin


@dataclass(frozen=True)
class Scale:
    """The range of raw values that a colour bar spans.

    Attributes:
        low: Raw value at the lower end of the bar.
        high: Raw value at the upper end.
        signed: Diverging about zero (``low == -high``) rather than sequential.
        least: Least raw value that there is.
        most: Largest raw value that there is.
    """

    low: float
    high: float
    signed: bool
    least: float
    most: float

    @property
    def flat(self) -> bool:
        """Whether the map is constant, so that there is nothing to colour."""
        return not self.high > self.low

    @property
    def colour_map(self) -> str:
        """Name of the matplotlib colour map."""
        return DIVERGING if self.signed else SEQUENTIAL

    @property
    def ends(self) -> tuple[str, str]:
        """What stands at the ends of the bar; a sign tells where values beyond the end share its colour."""
        if self.flat:
            return f"{number(self.low)} everywhere", ""
        return ("≤ " if self.least < self.low else "") + number(self.low), (
            "≥ " if self.most > self.high else ""
        ) + number(self.high)

    @property
    def text(self) -> str:
        """How values became colours, in words."""
        if self.flat:
            empty = " The method found no positive evidence." if self.low == 0 else ""
            return f"Constant map: {number(self.low)} everywhere.{empty}"
        span = f"Raw values {number(self.least)} to {number(self.most)}; colours span {number(self.low)} to "
        rule = f"±{PERCENTILE:g}th percentile of |value|" if self.signed else _PERCENTILES
        return f"{span}{number(self.high)} ({rule})."

    def position(self, values: FloatMap) -> FloatMap:
        """Where each raw value stands on the bar, 0 (low end) to 1 (high end); NaN stays NaN."""
        if self.flat:
            return np.where(np.isnan(values), np.nan, 0.5 if self.signed else 0.0)
        return np.clip((values - self.low) / (self.high - self.low), 0.0, 1.0)

    def strength(self, values: FloatMap) -> FloatMap:
        """How opaque each raw value is drawn, 0 to 1: the distance from zero (signed) or from the low end."""
        position = self.position(values)
        return (np.abs(2.0 * position - 1.0) if self.signed else position) ** STRENGTH_EXPONENT


def scale_of(values: FloatMap, signed: bool | None = None) -> Scale:
    """Choose the display range of a map of raw values from robust percentiles.

    Args:
        values: Raw values of any shape; NaN marks what the model did not see.
        signed: Whether zero is a centre. By default: whether any value is negative.

    Raises:
        ValueError: When no value is finite.
    """
    finite = np.asarray(values, dtype=np.float64)
    finite = finite[np.isfinite(finite)]
    if finite.size == 0:
        raise ValueError("a map without a single finite value cannot be drawn")
    least, most = float(finite.min()), float(finite.max())
    signed = least < 0 if signed is None else signed
    if signed:
        # Where one cell holds everything the percentile can vanish; the largest value then sets the range.
        limit = float(np.percentile(np.abs(finite), PERCENTILE)) or float(np.abs(finite).max())
        return Scale(-limit, limit, True, least, most)
    low, high = (float(value) for value in np.percentile(finite, [100 - PERCENTILE, PERCENTILE]))
    return Scale(low, high, False, least, most) if high > low else Scale(least, most, False, least, most)


@lru_cache(maxsize=4)
def lookup_table(name: str) -> NDArray[np.uint8]:
    """The 256 colours [256, 3] of a matplotlib colour map; of the sequential one without its purple part."""
    start = SEQUENTIAL_START if name == SEQUENTIAL else 0.0
    colours = matplotlib.colormaps[name](np.linspace(start, 1.0, 256))[:, :3]
    return np.round(colours * 255).astype(np.uint8)


def colours(values: FloatMap, scale: Scale, opacity: float = OPACITY) -> NDArray[np.uint8]:
    """Colour a map: [H, W] raw values to [H, W, 4] RGBA, opaque by strength and clear where the value is NaN."""
    position = scale.position(values)
    seen = ~np.isnan(position)
    index = np.round(np.where(seen, position, 0.0) * 255).astype(np.uint8)
    alpha = np.where(seen, np.nan_to_num(scale.strength(values)), 0.0) * opacity
    return np.dstack([lookup_table(scale.colour_map)[index], np.round(alpha * 255).astype(np.uint8)])


def hatch(photograph: Image.Image, unseen: NDArray[np.bool_]) -> Image.Image:
    """Grey out and stripe the part of a photograph that the model never saw."""
    picture = np.asarray(photograph.convert("RGB"), dtype=np.float64)
    grey = picture.mean(axis=2, keepdims=True) * 0.45 + 70.0
    rows, columns = np.indices(unseen.shape)
    stripe = np.less((rows + columns) % HATCH_PERIOD, 2)[..., None]
    dimmed = np.where(stripe, 0.55 * grey + 0.45 * 235.0, grey)
    return Image.fromarray(np.where(unseen[..., None], dimmed, picture).astype(np.uint8))


def overlay(photograph: Image.Image, heat: FloatMap, scale: Scale, opacity: float = OPACITY) -> Image.Image:
    """Lay a heat map over the whole photograph.

    Args:
        photograph: The whole original photograph (or a smaller copy of it).
        heat: Raw values [H, W] on that photograph; NaN where the model did not look.
        scale: Display range, from :func:`scale_of`.
        opacity: Opacity of the strongest colour.

    Returns:
        An RGB picture of the photograph's size. What the model did not see is hatched grey, unlike any low value.

    Raises:
        ValueError: When the map is not of the photograph's size.
    """
    if heat.shape != (photograph.height, photograph.width):
        raise ValueError(f"the map is {heat.shape}, the photograph {(photograph.height, photograph.width)}")
    base = hatch(photograph, np.isnan(heat)).convert("RGBA")
    return Image.alpha_composite(base, Image.fromarray(colours(heat, scale, opacity), "RGBA")).convert("RGB")


def colour_bar(scale: Scale, width: int, height: int, ground: tuple[int, int, int]) -> Image.Image:
    """The legend: the colours from the low to the high end as they look over the photograph's mean colour."""
    ramp = np.tile(np.linspace(scale.low, scale.high, width), (height, 1))
    base = Image.new("RGBA", (width, height), (*ground, 255))
    return Image.alpha_composite(base, Image.fromarray(colours(ramp, scale), "RGBA")).convert("RGB")


def mean_colour(photograph: Image.Image) -> tuple[int, int, int]:
    """Mean colour of a photograph, the ground that legends are drawn on."""
    red, green, blue = np.asarray(photograph.convert("RGB")).reshape(-1, 3).mean(axis=0)
    return int(red), int(green), int(blue)


def fitted(photograph: Image.Image, width: int, height: int) -> Image.Image:
    """A copy of the whole photograph, as large as fits the box, never cropped; metadata such as EXIF stays behind."""
    factor = min(width / photograph.width, height / photograph.height)
    size = max(1, round(photograph.width * factor)), max(1, round(photograph.height * factor))
    copy = photograph.convert("RGB").resize(size, Image.Resampling.LANCZOS)
    return without_metadata(copy)


def without_metadata(photograph: Image.Image) -> Image.Image:
    """The pixels alone: no EXIF (place, time, camera, owner), no comments, no colour profile."""
    return Image.fromarray(np.asarray(photograph.convert("RGB")))


def resized_geometry(geometry: Geometry, width: int, height: int) -> Geometry:
    """The same box on a copy of the photograph that is ``width`` x ``height`` pixels."""
    across, down = width / geometry.width, height / geometry.height
    return replace(
        geometry,
        width=width,
        height=height,
        left=geometry.left * across,
        right=geometry.right * across,
        top=geometry.top * down,
        bottom=geometry.bottom * down,
    )


def placed(values: FloatMap, geometry: Geometry, picture: Image.Image) -> FloatMap:
    """A grid of raw values [h, w] on a (smaller) copy of the photograph: [H, W], NaN where the model did not look."""
    fit = resized_geometry(geometry, picture.width, picture.height)
    return fit.place(torch.tensor(np.asarray(values), dtype=torch.float64)).numpy()


def outlines(mask: NDArray[np.bool_], limit: int = 320) -> list[NDArray[np.float64]]:
    """The borders of a lesion mask [H, W] as polygons [points, 2] of (x, y) in fractions of the photograph.

    Masks larger than ``limit`` pixels are thinned first, so that the page stays small.
    """
    step = max(1, int(np.ceil(max(mask.shape) / limit)))
    thin = np.pad(mask[::step, ::step].astype(np.float64), 1)
    size = np.array([mask.shape[1] / step, mask.shape[0] / step])
    lines = contourpy.contour_generator(z=thin).lines(0.5)
    # Pixel (0, 0) of the padded mask is centred half a pixel outside the photograph.
    return [np.clip((np.asarray(line) - 0.5) / size, 0.0, 1.0) for line in lines if len(line) > 3]


def draw_outline(picture: Image.Image, mask: NDArray[np.bool_]) -> Image.Image:
    """A copy of the picture with the border of the lesion mask drawn over it."""
    copy = picture.copy()
    pen = ImageDraw.Draw(copy)
    for line in outlines(mask):
        points = [(float(x), float(y)) for x, y in line * [copy.width, copy.height]]
        pen.line(points, fill=OUTLINE_INK[1], width=4, joint="curve")
        pen.line(points, fill=OUTLINE_INK[0], width=2, joint="curve")
    return copy


def data_uri(picture: Image.Image, kind: str = "JPEG", quality: int = 86) -> str:
    """A picture as a ``data:`` address, freshly encoded, so that no metadata travels with it."""
    buffer = io.BytesIO()
    without_metadata(picture).save(buffer, kind, quality=quality, optimize=True)
    return f"data:image/{kind.lower()};base64,{base64.b64encode(buffer.getvalue()).decode('ascii')}"
