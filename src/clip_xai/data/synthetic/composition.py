"""The facts and the geometry of a scene, drawn from a seed. Nothing here knows about pixels.

Lengths are in half-widths of the central square: the square is [-1, 1] x [-1, 1], x to the right and y downwards, and a
wider picture goes beyond it on the left and right.
"""

from __future__ import annotations

import math
import zlib
from dataclasses import dataclass
from typing import Any

import numpy as np

from clip_xai.data.synthetic.profiles import (
    COLOURS,
    FITZPATRICK_WEIGHTS,
    PROFILES,
    PURPLE_ERYTHEMA,
    SIZE_RADII,
    SKIN_TONES,
    VISIBLE_COLOURS,
    Profile,
)
from clip_xai.data.vocabulary import load_vocabulary

#: Cells of the 3 x 3 grid of the central square, row by row.
POSITIONS = tuple(load_vocabulary("skin").attributes["position"])

VIEWS = ("clinical", "dermoscopic")
_MARK_RADII = {
    "freckle": (0.03, 0.06),
    "ink dot": (0.045, 0.09),
    "sticker": (0.09, 0.12),
    "red patch": (0.11, 0.155),
}
REACH = 0.575  # No outline goes further from its centre: so a large lesion still fits into a corner cell.
_MARK_KINDS = ("freckle", "mole", "angioma", "scar", "ink dot", "sticker", "red patch")


@dataclass(frozen=True)
class Mark:
    """A second, harmless mark: always clearly smaller than the smallest lesion.

    Attributes:
        kind: such as "mole".
        x, y: its centre.
        radius: of the circle that it fills or lies in.
        number: which of the scene's marks it is, from 0; its random numbers follow from it.
    """

    kind: str
    x: float
    y: float
    radius: float
    number: int = 0

    @property
    def name(self) -> str:
        """Its name among the parts of a scene, such as "mole 2"."""
        return f"{self.kind} {self.number + 1}"


@dataclass(frozen=True)
class Scene:
    """Everything a picture shows: the described facts, and the numbers from which it is drawn.

    Attributes:
        seed: every random number of the rendering follows from it.
        diagnosis, colour, position, size, border, shape: canonical values of `clip_xai.data.vocabulary`.
        fitzpatrick: skin type, 1 to 6.
        view: "clinical" or "dermoscopic".
        structures: visible sub-structures of the lesion, at most three, in the vocabulary's order.
        distractors: names of what is in the picture beside the lesion.
        hair: "none", "few dark", "many dark", "few light" or "many light".
        lighting: "even", "gradient" or "flash".
        centre_x, centre_y: centroid of the lesion's outline.
        radius: radius of the circle of equal area.
        outline: distance from the centroid to the border in equally spaced directions (first to the right, clockwise).
        skin: mean colour of the skin, sRGB in [0, 1].
        light_direction: angle from which the light comes, in radians.
        marks: second, harmless marks.
        around: what artefacts keep clear of or lie around, where it is no longer the lesion's centre.
        body: whether the lesion is drawn; its structures go with it.
    """

    seed: int
    diagnosis: str
    colour: str
    position: str
    size: str
    border: str
    shape: str
    fitzpatrick: int
    view: str
    structures: tuple[str, ...]
    distractors: tuple[str, ...]
    hair: str
    lighting: str
    centre_x: float
    centre_y: float
    radius: float
    outline: tuple[float, ...]
    skin: tuple[float, float, float]
    light_direction: float
    marks: tuple[Mark, ...]
    around: tuple[float, float] | None = None
    body: bool = True

    @property
    def artefacts_around(self) -> tuple[float, float]:
        """The point that artefacts keep clear of or lie around: the lesion's centre when the scene was drawn."""
        return self.around or (self.centre_x, self.centre_y)


def stream(seed: int, name: str) -> np.random.Generator:
    """Random numbers of one purpose: fixing or adding another purpose does not change them."""
    return np.random.default_rng([seed, zlib.crc32(name.encode())])


def _choose(weights: dict[Any, float], rng: np.random.Generator) -> Any:
    shares = np.cumsum(list(weights.values()))
    return list(weights)[int(np.searchsorted(shares, rng.random() * shares[-1], side="right"))]


def _checked(value: Any, allowed: Any, name: str) -> Any:
    if value is not None and value not in allowed:
        raise ValueError(f"{name}={value!r} cannot be drawn: choose one of {', '.join(map(str, allowed))}")
    return value


def _skin_type(seed: int, profile: Profile, fixed: int | None, colour: str | None) -> int:
    if fixed is not None:
        return fixed
    weights = {
        kind: weight * profile.fitzpatrick[kind - 1]
        for kind, weight in FITZPATRICK_WEIGHTS.items()
        if colour is None or colour in VISIBLE_COLOURS[kind]
    }
    return int(_choose(weights, stream(seed, "fitzpatrick")))


def _colour(seed: int, profile: Profile, fixed: str | None, fitzpatrick: int) -> str:
    if fixed is not None:
        if fixed not in VISIBLE_COLOURS[fitzpatrick]:
            raise ValueError(f"a {fixed} lesion does not stand out on skin of Fitzpatrick type {fitzpatrick}")
        return fixed
    weights = {name: weight for name, weight in profile.colours.items() if name in VISIBLE_COLOURS[fitzpatrick]}
    if profile.inflamed and "purple" in weights:
        weights["purple"] *= PURPLE_ERYTHEMA[fitzpatrick]
    return str(_choose(weights, stream(seed, "colour")))


def _happens(seed: int, what: str, share: float) -> bool:
    return bool(stream(seed, what).random() < share)


def _structures(seed: int, profile: Profile) -> tuple[str, ...]:
    chosen = list(profile.always)
    if profile.one_of:
        chosen.append(profile.one_of[int(stream(seed, "leading structure").integers(len(profile.one_of)))])
    odds = (*((name, 0.45) for name in profile.one_of), *profile.sometimes)
    chosen += [name for name, share in odds if name not in chosen and _happens(seed, f"has {name}", share)]
    return tuple(name for name in load_vocabulary("skin").structures if name in chosen[:3])


def _outline(seed: int, shape: str, border: str, radius: float) -> np.ndarray:
    """Distances [128] from the centroid to the border; the enclosed area is pi * radius^2."""
    rng = stream(seed, "outline")
    theta = np.arange(128) * (2 * np.pi / 128)
    ratio = rng.uniform(*{"round": (1.0, 1.08), "oval": (1.5, 1.8), "asymmetric": (1.05, 1.3)}[shape])
    tilt = rng.uniform(0, np.pi)
    ellipse = 1 / np.sqrt((np.cos(theta - tilt) / np.sqrt(ratio)) ** 2 + (np.sin(theta - tilt) * np.sqrt(ratio)) ** 2)
    low, high = {"round": (0.014, 0.006), "oval": (0.016, 0.006), "asymmetric": (0.20, 0.022)}[shape]
    rough = {"well-defined": 0.005, "ill-defined": 0.012, "irregular": 0.034}[border]
    waves = np.zeros_like(theta)
    for k in range(2, 16):
        size = low / (k - 1) ** 0.5 if k <= 4 else high / (k - 3) ** 0.5 + (rough if 6 <= k <= 13 else 0.0)
        waves += size * rng.normal() * np.cos(k * theta + rng.uniform(0, 2 * np.pi))
    reach = ellipse * np.exp(waves)
    for _ in range(3):  # Recentre on the centroid, then set the area; both settle in two rounds.
        x, y = reach * np.cos(theta), reach * np.sin(theta)
        cross = x * np.roll(y, -1) - np.roll(x, -1) * y
        area = cross.sum() / 2
        mean_x = ((x + np.roll(x, -1)) * cross).sum() / (6 * area)
        mean_y = ((y + np.roll(y, -1)) * cross).sum() / (6 * area)
        x, y = x - mean_x, y - mean_y
        angle, distance = np.arctan2(y, x) % (2 * np.pi), np.hypot(x, y)
        reach = np.interp(theta, angle, distance, period=2 * np.pi) * np.sqrt(np.pi / area)
    reach = reach * radius / np.sqrt((reach**2).mean())
    excess = reach.max() / REACH
    if excess > 1:  # Towards the circle until the longest reach fits.
        share = (REACH - radius) / (reach.max() - radius)
        reach = radius + (reach - radius) * share
        reach *= radius / np.sqrt((reach**2).mean())
    return reach


def _coordinate(cell: int, before: float, after: float, rng: np.random.Generator) -> float:
    """Centre along one axis in cell -1, 0 or 1, with the lesion's extents to either side inside the square."""
    if cell == 0:
        return float(rng.uniform(-0.24, 0.24))
    outward = after if cell > 0 else before
    return cell * float(rng.uniform(0.375, max(0.385, min(0.74, 0.955 - outward))))


def marks_around(seed: int, centre: tuple[float, float], outline: np.ndarray) -> tuple[Mark, ...]:
    """Draw marks that keep clear of a lesion and of each other."""
    count = int(_choose({0: 0.06, 1: 0.26, 2: 0.32, 3: 0.22, 4: 0.14}, stream(seed, "number of marks")))
    marks: list[Mark] = []
    while len(marks) < count:
        rng = stream(seed, f"place of mark {len(marks)}")
        kind = str(_choose(dict(zip(_MARK_KINDS, (0.10, 0.30, 0.22, 0.10, 0.08, 0.04, 0.16), strict=True)), rng))
        low, high = _MARK_RADII.get(kind, (0.08, 0.15))
        radius = float(rng.uniform(low, high))
        for _ in range(60):
            x, y = rng.uniform(-0.94, 0.94, 2)
            dx, dy = x - centre[0], y - centre[1]
            edge = outline[round(math.atan2(dy, dx) / (2 * math.pi) * len(outline)) % len(outline)]
            free = all(math.hypot(x - mark.x, y - mark.y) > radius + mark.radius + 0.05 for mark in marks)
            if free and math.hypot(dx, dy) > max(edge, 0.8 * float(outline.max())) + radius + 0.07:
                marks.append(Mark(kind, float(x), float(y), radius, len(marks)))
                break
        else:
            break
    return tuple(marks)


def distractors_of(seed: int, view: str, marks: tuple[Mark, ...]) -> tuple[str, ...]:
    """Draw which artefacts a scene has, the kinds of its marks behind them."""
    dermoscopic = view == "dermoscopic"
    odds = {
        "ruler": 0.25 if dermoscopic else 0.12,
        "ink": 0.07 if dermoscopic else 0.18,
        "gel bubbles": 0.35 if dermoscopic else 0.0,
        "dark corners": 0.4 if dermoscopic else 0.0,
        "bandage": 0.0 if dermoscopic else 0.12,
        "freckles": 0.25,
    }
    names = [name for name, share in odds.items() if _happens(seed, f"has {name}", share)]
    return tuple(dict.fromkeys(names + [mark.kind for mark in marks]))


def hair_of(seed: int) -> str:
    """Draw how much hair lies over a scene."""
    shares = {"none": 0.5, "few dark": 0.2, "many dark": 0.1, "few light": 0.14, "many light": 0.06}
    return str(_choose(shares, stream(seed, "kind of hair")))


def lighting_of(seed: int) -> str:
    """Draw how a scene is lit."""
    return str(_choose({"even": 0.45, "gradient": 0.35, "flash": 0.2}, stream(seed, "kind of light")))


def light_direction_of(seed: int) -> float:
    """Draw the angle from which the light comes, in radians."""
    return float(stream(seed, "light direction").uniform(-2.6, -0.5))


def skin_colour(seed: int, fitzpatrick: int) -> tuple[float, float, float]:
    """Mean colour of the skin of one type, sRGB in [0, 1]: lighter or darker within it by the same draw for all."""
    rng = stream(seed, "tone")
    tone = np.array(SKIN_TONES[fitzpatrick]) * rng.uniform(0.95, 1.05) + rng.normal(0, 0.012, 3)
    return float(tone[0]), float(tone[1]), float(tone[2])


def centre_at(seed: int, outline: np.ndarray, position: str) -> tuple[float, float]:
    """Centre of a lesion with this outline in a cell of the 3 x 3 grid, wholly inside the central square."""
    theta = np.arange(len(outline)) * (2 * np.pi / len(outline))
    x, y = outline * np.cos(theta), outline * np.sin(theta)
    row, column = divmod(POSITIONS.index(position), 3)
    rng = stream(seed, "jitter")
    return _coordinate(column - 1, -x.min(), x.max(), rng), _coordinate(row - 1, -y.min(), y.max(), rng)


def sample_scene(
    seed: int,
    diagnosis: str | None = None,
    view: str | None = None,
    fitzpatrick: int | None = None,
    colour: str | None = None,
    position: str | None = None,
    size: str | None = None,
) -> Scene:
    """Draw a scene; what is given is fixed, and fixing it leaves the draws of everything else as they were.

    Args:
        seed: any non-negative integer.
        diagnosis: one of `PROFILES`.
        view: "clinical" or "dermoscopic".
        fitzpatrick: 1 to 6.
        colour: canonical colour of the lesion; it may be one that the diagnosis does not usually have.
        position: cell of the 3 x 3 grid of the central square.
        size: "small", "medium" or "large".

    Raises:
        ValueError: a value is unknown, or a lesion of this colour cannot be seen on skin of this type.
    """
    _checked(diagnosis, tuple(PROFILES), "diagnosis")
    _checked(fitzpatrick, tuple(SKIN_TONES), "fitzpatrick")
    _checked(colour, tuple(COLOURS), "colour")
    _checked(view, VIEWS, "view")
    diagnosis = diagnosis or tuple(PROFILES)[int(stream(seed, "diagnosis").integers(len(PROFILES)))]
    profile = PROFILES[diagnosis]
    fitzpatrick = _skin_type(seed, profile, fitzpatrick, colour)
    colour = _colour(seed, profile, colour, fitzpatrick)
    odds = profile.dermoscopic
    view = view or VIEWS[int(stream(seed, "view").random() < odds)]
    position = _checked(position, POSITIONS, "position") or POSITIONS[int(stream(seed, "position").integers(9))]
    size = _checked(size, tuple(SIZE_RADII), "size") or tuple(SIZE_RADII)[int(stream(seed, "size").integers(3))]
    border = str(_choose(profile.borders, stream(seed, "border")))
    shape = str(_choose(profile.shapes, stream(seed, "shape")))

    radius = float(stream(seed, "radius").uniform(*SIZE_RADII[size]))
    outline = _outline(seed, shape, border, radius)
    centre = centre_at(seed, outline, position)
    marks = marks_around(seed, centre, outline)
    return Scene(
        seed=seed,
        diagnosis=diagnosis,
        colour=colour,
        position=position,
        size=size,
        border=border,
        shape=shape,
        fitzpatrick=fitzpatrick,
        view=view,
        structures=_structures(seed, profile),
        distractors=distractors_of(seed, view, marks),
        hair=hair_of(seed),
        lighting=lighting_of(seed),
        centre_x=centre[0],
        centre_y=centre[1],
        radius=radius,
        outline=tuple(float(value) for value in outline),
        skin=skin_colour(seed, fitzpatrick),
        light_direction=light_direction_of(seed),
        marks=marks,
    )
