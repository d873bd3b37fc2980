"""Water fleas under a microscope, in four classes: two species, each young and grown.

The classes differ in parts whose place is known: the antenna (long and straight, or short and bent), the spine at the
end of the shell (there or not), and eggs in the brood chamber of the grown ones. Size tells nothing, since the
magnification is drawn anew for each picture.

>>> flea = sample_flea(0, "straight_young", 3)
>>> render_flea(flea, 64).image.shape
(64, 64, 3)
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
from scipy.ndimage import gaussian_filter

from clip_xai.data.synthetic.chest.anatomy import drawn_lines, present
from clip_xai.data.synthetic.fields import Array, local_noise, smoothstep

SPECIES, AGES = ("straight", "bent"), ("young", "grown")
CLASSES = tuple(f"{species}_{age}" for species in SPECIES for age in AGES)
MINIMUM_SIDE = 32
PARTS = ("shell", "eye", "antenna", "legs", "gut", "spine", "eggs", "debris")


@dataclass(frozen=True)
class Flea:
    """What a picture shows.

    Attributes:
        seed, number: Every random number follows from these, the class and the name of a part.
        kind: One of `CLASSES`.
        parts: Names of the parts that it shows, of `PARTS`.
    """

    seed: int
    number: int
    kind: str
    parts: tuple[str, ...]

    def stream(self, part: str) -> np.random.Generator:
        """Return the random numbers of one part, which no other part shares."""
        return np.random.default_rng((self.seed, CLASSES.index(self.kind), self.number, zlib.crc32(part.encode())))


@dataclass(frozen=True)
class FleaRendering:
    """A drawn picture.

    Attributes:
        image: uint8 ``[S, S, 3]``.
        masks: Name of a part -> bool ``[S, S]``: every pixel that leaving it out would change.
    """

    image: Array
    masks: dict[str, Array]


def sample_flea(seed: int, kind: str, number: int) -> Flea:
    """Draw the n-th picture of a class.

    Raises:
        ValueError: There is no such class.
    """
    if kind not in CLASSES:
        raise ValueError(f"kind={kind!r} cannot be drawn: choose one of {', '.join(CLASSES)}")
    species, age = kind.split("_")
    absent = {part for part, one in (("spine", species == "bent"), ("eggs", age == "young")) if one}
    return Flea(seed, number, kind, tuple(part for part in PARTS if part not in absent))


def render_flea(flea: Flea, size: int = 256, without: Collection[str] = ()) -> FleaRendering:
    """Draw a picture; its composition is the same at every size.

    Args:
        flea: What to draw.
        size: Side in pixels, at least 32.
        without: Names of parts to leave out.

    Raises:
        ValueError: The size is too small, or a name is not one of the picture's parts.
    """
    if size < MINIMUM_SIDE:
        raise ValueError(f"{size} x {size} pixels are too few: a picture needs at least {MINIMUM_SIDE}")
    if unknown := sorted(set(without) - set(flea.parts)):
        raise ValueError(f"this picture does not show {', '.join(unknown)}; it shows {', '.join(flea.parts)}")
    slide = _Slide(flea, size)
    density = np.zeros((size, size), np.float32)
    masks = {}
    for name in flea.parts:
        if name not in without:
            layer = present(_PAINTERS[name](slide))
            masks[name] = layer > 0
            density += _DENSITY[name] * layer
    light = flea.stream("light")
    tint = np.array([1.0, 0.97, 0.90]) * light.uniform(0.72, 0.95) * (1 + light.normal(0, 0.03, 3))
    dye = np.array([0.80, 1.0, 1.25]) + light.normal(0, 0.06, 3)
    slope = light.normal(0, 0.07, 2)
    field = 1 + slope[0] * slide.x + slope[1] * slide.y
    colour = tint * field[..., None] * np.exp(-density[..., None] * dye * light.uniform(0.8, 1.25))
    grain = flea.stream("grain").standard_normal((size, size, 1), dtype=np.float32)
    return FleaRendering((np.clip(colour + 0.018 * grain, 0, 1) * 255 + 0.5).astype(np.uint8), masks)


class _Slide:
    """Pixels in the animal's own frame: its head to the right, its back upwards, its shell of length 2."""

    def __init__(self, flea: Flea, size: int) -> None:
        self.flea, self.pixel = flea, 2.0 / size
        centres = (np.arange(size, dtype=np.float32) + 0.5) * self.pixel - 1
        self.x, self.y = centres[None, :], centres[:, None]
        rng = flea.stream("pose")
        self.turn, self.mirror = rng.uniform(0, 2 * math.pi), rng.choice([-1, 1])
        self.scale, self.at = rng.uniform(0.34, 0.52), rng.normal(0, 0.10, 2)
        cosine, sine = math.cos(self.turn), math.sin(self.turn)
        dx, dy = self.x - self.at[0], self.y - self.at[1]
        self.along = (cosine * dx + sine * dy) / self.scale
        self.across = self.mirror * (cosine * dy - sine * dx) / self.scale
        self.soft = 1.1 * self.pixel / self.scale

    def lines(self, paths: Array, width: float, end: float = 1.0) -> Array:
        """Return the opacity of lines ``[n, p, 2]`` of the animal's frame."""
        cosine, sine = math.cos(self.turn), math.sin(self.turn)
        along, across = paths[..., 0] * self.scale, paths[..., 1] * self.scale * self.mirror
        x, y = cosine * along - sine * across + self.at[0], sine * along + cosine * across + self.at[1]
        return drawn_lines(x, y, self.pixel, self.scale * width, end)

    def disc(self, along: float, across: float, radius: float) -> Array:
        """Return the opacity of a disc."""
        away = np.hypot(self.along - along, self.across - across)
        return smoothstep(radius + self.soft / 2, radius - self.soft / 2, away)


def _shell(slide: _Slide) -> Array:
    rng = slide.flea.stream("shell")
    tall = rng.uniform(0.66, 0.80)
    away = np.hypot(slide.along, np.where(slide.across > 0, slide.across / 0.9, slide.across) / tall)
    inside = smoothstep(1 + slide.soft / 2, 1 - slide.soft / 2, away)
    rim = np.exp(-(((away - 0.96) / max(0.04, slide.soft)) ** 2)) * inside
    return inside * (0.75 + 0.10 * local_noise(rng, slide.x, slide.y, 0.07, 1.1)).clip(0.4, 1) + 0.5 * rim


def _eye(slide: _Slide) -> Array:
    return slide.disc(0.72, -0.10, 0.12)


def _antenna(slide: _Slide) -> Array:
    rng = slide.flea.stream("antenna")
    t = np.linspace(0, 1, 14)
    if slide.flea.kind.startswith("straight"):
        length, bend = rng.uniform(0.85, 1.05), rng.uniform(0.0, 0.08)
    else:
        length, bend = rng.uniform(0.45, 0.58), rng.uniform(0.30, 0.42)
    down = 0.95 * length * t
    along = 0.92 + 0.30 * length * t - 4 * bend * (t - 0.15).clip(0) ** 2 * 0.9
    return slide.lines(np.stack([along, 0.05 + down], axis=-1)[None], 0.11, end=0.7)


def _legs(slide: _Slide) -> Array:
    rng = slide.flea.stream("legs")
    t = np.linspace(0, 1, 8)
    paths = [
        np.stack([start - 0.25 * t + rng.normal(0, 0.02), 0.15 + 0.50 * t], axis=-1)
        for start in np.linspace(0.45, -0.25, 5)
    ]
    return slide.lines(np.stack(paths), 0.05)


def _gut(slide: _Slide) -> Array:
    t = np.linspace(0, 1, 14)
    wave = slide.flea.stream("gut").normal(0, 0.03)
    path = np.stack([0.62 - 1.25 * t, -0.02 + 0.18 * np.sin(math.pi * t) + wave], axis=-1)
    return slide.lines(path[None], 0.10)


def _spine(slide: _Slide) -> Array:
    rng = slide.flea.stream("spine")
    t = np.linspace(0, 1, 10)
    length = rng.uniform(0.42, 0.58)
    path = np.stack([-0.86 - length * t, 0.40 + 0.20 * t], axis=-1)
    return slide.lines(path[None], 0.10, end=0.4)


def _eggs(slide: _Slide) -> Array:
    rng = slide.flea.stream("eggs")
    places = np.array([[-0.42, -0.34], [-0.16, -0.44], [-0.60, -0.12], [-0.26, -0.20]])
    eggs = places[: int(rng.integers(2, 5))] + rng.normal(0, 0.03, 2)
    return np.maximum.reduce([slide.disc(along, across, rng.uniform(0.12, 0.15)) for along, across in eggs])


def _debris(slide: _Slide) -> Array:
    """Specks and threads anywhere: some round as eggs, some long as a spine."""
    rng = slide.flea.stream("debris")
    total = np.zeros((slide.y.shape[0], slide.x.shape[1]), np.float32)
    for x, y, radius in rng.uniform([-1, -1, 0.02], [1, 1, 0.06], (int(rng.integers(2, 7)), 3)):
        away = np.hypot(slide.x - x, slide.y - y)
        total = np.maximum(total, smoothstep(radius + slide.pixel, radius - slide.pixel, away))
    for _ in range(int(rng.integers(1, 4))):
        start, angle, length = rng.uniform(-1, 1, 2), rng.uniform(0, 2 * math.pi), rng.uniform(0.2, 0.5)
        t = np.linspace(0, length, 8)
        line = drawn_lines(
            (start[0] + t * math.cos(angle))[None], (start[1] + t * math.sin(angle))[None], slide.pixel, 0.04, 1.0
        )
        total = np.maximum(total, 0.8 * line)
    return gaussian_filter(total, 0.3)


_PAINTERS = {
    "shell": _shell, "eye": _eye, "antenna": _antenna, "legs": _legs, "gut": _gut, "spine": _spine, "eggs": _eggs,
    "debris": _debris,
}  # fmt: skip
_DENSITY = {
    "shell": 0.30, "eye": 1.3, "antenna": 0.75, "legs": 0.22, "gut": 0.40, "spine": 0.70, "eggs": 0.50, "debris": 0.50,
}  # fmt: skip
