"""Measures of rendered radiographs beside what is documented of real ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from clip_xai.data.synthetic.chest.parts import box_of
from clip_xai.data.synthetic.chest.plan import Film
from clip_xai.data.synthetic.chest.render import Rendering, render
from clip_xai.data.synthetic.fields import Array


@dataclass(frozen=True)
class Measure:
    """One measure of many films.

    Attributes:
        name: What is measured.
        low, middle, high: 5th, 50th and 95th percentile over the films.
        least, most: Bounds for the middle one.
        documented: Where the bounds come from.
    """

    name: str
    low: float
    middle: float
    high: float
    least: float
    most: float
    documented: str

    @property
    def within(self) -> bool:
        """Whether the middle value lies within the bounds."""
        return self.least <= self.middle <= self.most


_BOX_AREAS = {
    "Cardiomegaly": 0.171, "Effusion": 0.056, "Infiltration": 0.057, "Mass": 0.015, "Nodule": 0.005,
    "Pneumothorax": 0.036,
}  # fmt: skip


def cardiothoracic_ratio(drawn: Rendering, film: Film) -> float:
    """Return the widest diameter of the drawn heart over the inner width of the thorax, both measured across the film.

    The film of a patient who leans is measured as it stands, as a reader would.
    """
    columns = np.flatnonzero(drawn.masks["heart"].any(axis=0))
    heart = (columns[-1] - columns[0] + 1) * 2 / drawn.image.shape[1]
    return float(heart / (2 * film.anatomy.half_width * film.pose.scale))


def measure(films: Sequence[Film], size: int = 256) -> list[Measure]:
    """Render films and measure them.

    Args:
        films: What to draw.
        size: Side in pixels.

    Returns:
        Cardiothoracic ratio without and with Cardiomegaly, areas of lungs, of the left lung over the right and of ribs,
        grey values, and the area of each finding's box.
    """
    values: dict[str, list[float]] = {}

    def note(name: str, value: float) -> None:
        values.setdefault(name, []).append(value)

    for film in films:
        drawn = render(film, size)
        enlarged = "Cardiomegaly" in film.labels
        note(f"cardiothoracic ratio, {'Cardiomegaly' if enlarged else 'normal'}", cardiothoracic_ratio(drawn, film))
        note("lungs, share of the film", float(drawn.lungs.mean()))
        if not enlarged:
            note("left lung / right lung", _left_over_right(drawn, film))
        note("ribs, share of the lungs", float((drawn.masks["ribs"] & drawn.lungs).sum() / drawn.lungs.sum()))
        grey = drawn.image / 255
        note("grey value, mean", float(grey.mean()))
        note("grey value, standard deviation", float(grey.std()))
        note("grey values that are black or white", float(((drawn.image == 0) | (drawn.image == 255)).mean()))
        for label in film.labels:
            note(f"box of {label}, share of the film", _box_area(drawn.masks[label]))
    return [_measure(name, values[name], *bounds) for name, bounds in _documented().items() if name in values]


def histogram(films: Sequence[Film], size: int = 128, bins: int = 16) -> Array:
    """Return the share of pixels in each of equal ranges of grey values, over all films."""
    total = np.zeros(bins)
    for film in films:
        total += np.histogram(render(film, size).image, bins, (0, 256))[0]
    return total / total.sum()


def _documented() -> dict[str, tuple[float, float, str]]:
    ratio = "cardiothoracic ratio"
    grey = "ChestX-ray14 as medical_mae scales it: mean .506, standard deviation .252"
    own = "no published figure was found; the bounds are this project's"
    return {
        f"{ratio}, normal": (0.40, 0.50, "normal is .42 to .50 on a PA film"),
        f"{ratio}, Cardiomegaly": (0.52, 0.70, "above .50"),
        "lungs, share of the film": (0.18, 0.40, own),
        "left lung / right lung": (0.65, 0.98, "the left lung is the smaller one"),
        "ribs, share of the lungs": (0.25, 0.70, own),
        "grey value, mean": (0.42, 0.58, grey),
        "grey value, standard deviation": (0.20, 0.30, grey),
        "grey values that are black or white": (0.0, 0.25, own),
        **{
            f"box of {label}, share of the film": (0.5 * area, 2 * area, f"median of ChestX-ray14's boxes {area}")
            for label, area in _BOX_AREAS.items()
        },
    }


def _measure(name: str, values: list[float], least: float, most: float, documented: str) -> Measure:
    low, middle, high = np.percentile(values, [5, 50, 95])
    return Measure(name, float(low), float(middle), float(high), least, most, documented)


def _box_area(mask: Array) -> float:
    _, _, width, height = box_of(mask)
    return width * height / mask.size


def _left_over_right(drawn: Rendering, film: Film) -> float:
    size = drawn.lungs.shape[1]
    midline = round((film.pose.shift[0] + 1) / 2 * size)
    return float(drawn.lungs[:, midline:].sum() / max(1, drawn.lungs[:, :midline].sum()))
