"""Drawing tools on a canvas in scene coordinates: smooth noise, strokes, spots, blends. All float32, no pixel loops."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np
from scipy.ndimage import gaussian_filter

Array = np.ndarray
_EXTENT = 1.9  # Lattices cover [-1.9, 1.9]; beyond (very wide pictures) the last value goes on.


@lru_cache(maxsize=256)
def _spline(count: int, half: float, cell: float, extent: float) -> Array:
    """Cubic B-spline weights [count pixels, lattice] for pixel centres in [-half, half]."""
    return _spline_at((np.arange(count) + 0.5) * (2 * half / count) - half, cell, extent)


def _spline_at(coordinates: Array, cell: float, extent: float) -> Array:
    lattice = math.ceil(2 * extent / cell) + 4
    at = np.clip((coordinates + extent) / cell, 0, lattice - 4.001)
    first = np.floor(at).astype(int)
    t = at - first
    weights = np.zeros((len(coordinates), lattice), np.float32)
    rows = np.arange(len(coordinates))
    for k, w in enumerate(((1 - t) ** 3, 3 * t**3 - 6 * t**2 + 4, -3 * t**3 + 3 * t**2 + 3 * t + 1, t**3)):
        weights[rows, first + k] = w / 6
    return weights


_TO_UNIT_VARIANCE = 2.087  # 1 / variance of a cubic B-spline interpolation along one axis (its mean sum of squares).


@dataclass
class Canvas:
    """A picture being painted: `colour` is the albedo (sRGB), `height` the relief, in half-widths of the square.

    Attributes:
        shape: (height, width) in pixels.
        x, y: [1, W] and [H, 1] scene coordinates of the pixel centres.
        pixel: side of a pixel in scene units.
        gloss: how much each pixel shines.
        texture: factor [H, W] of the skin's own mottling and creases, which also show through a lesion.
        watched: whether `painted` is kept.
        painted: name of a part -> what painting it changed: largest change of the colour, and whether anything changed,
            [H, W] each.
    """

    shape: tuple[int, int]
    watched: bool = False
    painted: dict[str, tuple[Array, Array]] = field(default_factory=dict)
    colour: Array = field(init=False)
    height: Array = field(init=False)
    gloss: Array = field(init=False)
    texture: Array = field(init=False)

    def __post_init__(self) -> None:
        rows, columns = self.shape
        self.pixel = 2.0 / min(rows, columns)
        self.half = (rows * self.pixel / 2, columns * self.pixel / 2)
        self.y = ((np.arange(rows, dtype=np.float32) + 0.5) * self.pixel - self.half[0])[:, None]
        self.x = ((np.arange(columns, dtype=np.float32) + 0.5) * self.pixel - self.half[1])[None, :]
        self.colour = np.zeros((rows, columns, 3), np.float32)
        self.height = np.zeros((rows, columns), np.float32)
        self.gloss = np.zeros((rows, columns), np.float32)
        self.texture = np.ones((rows, columns), np.float32)

    @contextmanager
    def painting(self, part: str) -> Iterator[None]:
        """Note what is changed inside the block as what a part of the scene covers, where the canvas is watched."""
        if not self.watched:
            yield
            return
        colour, height, gloss = self.colour.copy(), self.height.copy(), self.gloss.copy()
        yield
        change = np.abs(self.colour - colour).max(axis=-1)
        self.painted[part] = change, (change > 0) | (self.height != height) | (self.gloss != gloss)

    def noise(self, rng: np.random.Generator, cell: float, stretch: float = 1.0) -> Array:
        """Smooth noise [H, W] of unit variance; `cell` is its grain, `stretch` makes it longer along x."""
        rows = _spline(self.shape[0], self.half[0], cell, _EXTENT)
        columns = _spline(self.shape[1], self.half[1], cell * stretch, _EXTENT)
        lattice = rng.standard_normal((rows.shape[1], columns.shape[1]), dtype=np.float32)
        return _TO_UNIT_VARIANCE * (rows @ lattice @ columns.T)

    def window(self, x: float, y: float, reach: float) -> tuple[slice, slice]:
        """Rows and columns of the square of half-side `reach` around a point, cut at the picture's edge."""
        top, left = (y - reach + self.half[0]) / self.pixel, (x - reach + self.half[1]) / self.pixel
        span = 2 * reach / self.pixel
        rows = slice(max(0, int(top)), max(0, min(self.shape[0], math.ceil(top + span) + 1)))
        columns = slice(max(0, int(left)), max(0, min(self.shape[1], math.ceil(left + span) + 1)))
        return rows, columns


def local_noise(
    rng: np.random.Generator, dx: Array, dy: Array, cell: float, extent: float, stretch: float = 1.0
) -> Array:
    """Noise as `Canvas.noise`, on a window: dx [1, w] and dy [h, 1] are offsets from the window's anchor."""
    rows, columns = _spline_at(dy.ravel(), cell, extent), _spline_at(dx.ravel(), cell * stretch, extent)
    lattice = rng.standard_normal((rows.shape[1], columns.shape[1]), dtype=np.float32)
    return _TO_UNIT_VARIANCE * (rows @ lattice @ columns.T)


def smoothstep(low: float, high: float, value: Array) -> Array:
    """0 below `low`, 1 above `high`, smooth between (low > high is the falling step)."""
    t = np.clip((value - low) / (high - low), 0, 1)
    return t * t * (3 - 2 * t)


def blend(colour: Array, alpha: Array, paint: Array | tuple[float, float, float]) -> None:
    """Cover `colour` [h, w, 3] in place with `paint` (a colour or a field of colours), opacity `alpha` [h, w]."""
    colour += alpha[..., None] * (np.asarray(paint, np.float32) - colour)


def stain(colour: Array, alpha: Array, pigment: tuple[float, float, float]) -> None:
    """Filter `colour` in place through a transparent pigment: what lies below stays visible."""
    colour *= 1 - alpha[..., None] * (1 - np.asarray(pigment, np.float32))


def spots(dx: Array, dy: Array, centres: Array, radii: Array, pixel: float) -> Array:
    """Field [h, w]: 1 in the middle of the nearest spot, 0 at its edge and outside (1 - squared distance)."""
    out = np.zeros((dy.shape[0], dx.shape[1]), np.float32)
    for (cx, cy), radius in zip(centres, radii, strict=True):
        left = max(0, int((cx - radius - dx[0, 0]) / pixel))
        top = max(0, int((cy - radius - dy[0, 0]) / pixel))
        size = int(2 * radius / pixel) + 3
        xs, ys = dx[:, left : left + size] - cx, dy[top : top + size] - cy
        if xs.size and ys.size:
            view = out[top : top + size, left : left + size]
            np.maximum(view, 1 - (xs * xs + ys * ys) / (radius * radius), out=view)
    return out


def strokes(dx: Array, dy: Array, paths: list[Array], widths: list[float], pixel: float) -> Array:
    """Opacity [h, w] of soft lines along polylines ([n, 2] points each), of given full widths, tapering at the ends."""
    shape = (dy.shape[0], dx.shape[1])
    out = np.zeros(shape, np.float32)
    if not paths:
        return out
    width = max(float(np.mean(widths)), 0.9 * pixel)
    total = np.zeros((shape[0] + 2) * (shape[1] + 2), np.float64)
    for path, own in zip(paths, widths, strict=True):
        steps = np.hypot(*np.diff(path, axis=0).T)
        length = np.concatenate([[0], np.cumsum(steps)])
        count = max(2, int(length[-1] / (0.5 * pixel)))
        at = (np.arange(count) + 0.5) / count * length[-1]
        px = (np.interp(at, length, path[:, 0]) - dx[0, 0]) / pixel
        py = (np.interp(at, length, path[:, 1]) - dy[0, 0]) / pixel
        taper = np.minimum(1, 0.35 + 4 * np.minimum(at, length[-1] - at) / length[-1])
        weight = taper * (length[-1] / pixel / count) * (own / width)
        inside = (px > -1) & (py > -1) & (px < shape[1]) & (py < shape[0])
        px, py, weight = px[inside], py[inside], weight[inside]
        x0, y0 = np.floor(px).astype(int), np.floor(py).astype(int)
        fx, fy = px - x0, py - y0
        base = (y0 + 1) * (shape[1] + 2) + x0 + 1
        for offset, share in (
            (0, (1 - fx) * (1 - fy)), (1, fx * (1 - fy)),
            (shape[1] + 2, (1 - fx) * fy), (shape[1] + 3, fx * fy),
        ):  # fmt: skip
            total += np.bincount(base + offset, weight * share, minlength=len(total))
    sigma = 0.42 * width / pixel
    lines = total.reshape(shape[0] + 2, shape[1] + 2)[1:-1, 1:-1].astype(np.float32)
    visible = min(1.0, float(np.mean(widths)) / width)
    return np.clip(gaussian_filter(lines, sigma, truncate=3) * (2.5066 * sigma * visible), 0, 1)
