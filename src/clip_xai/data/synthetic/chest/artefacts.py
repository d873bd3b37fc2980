"""What lies on the patient or on the film: a chest tube, leads, nipples, the hospital's marker."""

from __future__ import annotations

import numpy as np

from clip_xai.data.synthetic.chest.anatomy import Frame, present
from clip_xai.data.synthetic.chest.plan import SIDES
from clip_xai.data.synthetic.fields import Array

_GLYPHS = {
    "L": ("10000", "10000", "10000", "10000", "10000", "10000", "11111"),
    "R": ("11110", "10001", "10001", "11110", "10100", "10010", "10001"),
    "N": ("10001", "11001", "11001", "10101", "10011", "10011", "10001"),
    "S": ("01111", "10000", "10000", "01110", "00001", "00001", "11110"),
}
#: Hospital -> side of the patient that its letter names, and its own tag.
MARKERS = {"north": ("R", "N"), "south": ("L", "S")}


def chest_tube(frame: Frame) -> Array:
    """Return the attenuation of a tube that comes through the chest wall and runs up towards the tip of the lung."""
    rng, anatomy = frame.film.stream("chest tube"), frame.film.anatomy
    sign, half = SIDES[frame.film.tube_side], anatomy.half_width
    start = np.array([half + 0.16, rng.uniform(0.15, 0.40)])
    entry = np.array([half - 0.06, start[1] - rng.uniform(0.10, 0.22)])
    end = np.array([half * rng.uniform(0.40, 0.62), anatomy.apex + rng.uniform(0.20, 0.42)])
    bend = np.array([half * rng.uniform(0.70, 0.90), 0.5 * (entry[1] + end[1])])
    t = np.linspace(0, 1, 24)[:, None]
    inner = (1 - t) ** 2 * entry + 2 * t * (1 - t) * bend + t**2 * end
    path = np.concatenate([np.linspace(start, entry, 8)[:-1], inner]) * [sign, 1]
    wall, stripe = frame.lines(path[None], 0.042), frame.lines(path[None], 0.015)
    return present(0.65 * wall + 0.75 * stripe)


def leads(frame: Frame) -> Array:
    """Return the attenuation of three electrodes with their wires: round, but far denser than a nodule."""
    rng = frame.film.stream("leads")
    places = np.array([[-0.45, -0.52], [0.48, -0.50], [0.52, 0.22]]) + rng.normal(0, 0.06, (3, 2))
    total = np.zeros_like(frame.across)
    leave = np.array([rng.choice([-1, 1]) * rng.uniform(0.2, 0.7), 1.25])
    paths = []
    for x, y in places:
        total = np.maximum(total, frame.disc(x, y, 0.034, 0.2) * (0.55 + 0.45 * frame.disc(x, y, 0.016, 0.2)))
        middle = (np.array([x, y]) + leave) / 2 + rng.normal(0, 0.12, 2)
        t = np.linspace(0, 1, 16)[:, None]
        paths.append((1 - t) ** 2 * np.array([x, y]) + 2 * t * (1 - t) * middle + t**2 * leave)
    return present(np.maximum(total, 0.55 * frame.lines(np.stack(paths), 0.014)))


def nipples(frame: Frame) -> Array:
    """Return the thickness of both nipples: a pair of faint, soft spots at one height."""
    rng = frame.film.stream("nipples", of_patient=True)
    y, x, radius = rng.uniform(0.16, 0.32), rng.uniform(0.50, 0.72), rng.uniform(0.034, 0.046)
    pair = [frame.disc(sign * x * frame.film.anatomy.half_width, y, radius, 0.9) for sign in SIDES.values()]
    return present(np.maximum(*pair))


def marker(frame: Frame) -> Array:
    """Return the opacity of the letter for the side and of the hospital's tag below it, in an upper corner."""
    rng = frame.film.stream("marker")
    letter, tag = MARKERS[frame.film.hospital]
    sign = -1 if letter == "R" else 1
    x, y = sign * rng.uniform(0.80, 0.88), rng.uniform(-0.86, -0.78)
    height = rng.uniform(0.13, 0.16)
    total = _glyph(frame, letter, x, y, height)
    return present(np.maximum(total, _glyph(frame, tag, x, y + 1.2 * height, 0.72 * height)))


def _glyph(frame: Frame, name: str, x: float, y: float, height: float) -> Array:
    rows = _GLYPHS[name]
    dot = height / len(rows)
    total = np.zeros((frame.y.shape[0], frame.x.shape[1]), np.float32)
    soft = 0.5 * frame.pixel
    for row, line in enumerate(rows):
        for column, ink in enumerate(line):
            if ink == "1":
                dx = np.abs(frame.x - (x + (column - 2) * dot))
                dy = np.abs(frame.y - (y + (row - 3) * dot))
                inside = np.minimum(dot / 2 - dx, dot / 2 - dy)
                total += np.clip(inside / (2 * soft) + 0.5, 0, 1)
    return np.clip(total, 0, 1)
