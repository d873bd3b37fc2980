"""The lesion's body: outline, colour, relief and the surface that its diagnosis has. Structures come on top of it."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from clip_xai.data.synthetic.composition import Scene, stream
from clip_xai.data.synthetic.fields import Array, Canvas, blend, local_noise, smoothstep, stain
from clip_xai.data.synthetic.profiles import COLOURS
from clip_xai.data.synthetic.skin import base_tone


@dataclass
class Plot:
    """The window around the lesion, and what every painter of a part of the lesion needs.

    Attributes:
        rows, columns: where the window lies in the picture.
        dx [1, w], dy [h, 1]: offsets from the lesion's centre.
        depth [h, w]: distance from the centre relative to the border in that direction (1 = on the border).
        body [h, w]: opacity of the lesion, 0.5 on its border.
        colour, height, gloss, texture: views into the canvas.
        base: the lesion's own colour on this skin.
        rng: random numbers of the part that is being painted.
    """

    scene: Scene
    rows: slice
    columns: slice
    dx: Array
    dy: Array
    rho: Array
    theta: Array
    depth: Array
    body: Array
    colour: Array
    height: Array
    gloss: Array
    texture: Array
    pixel: float
    base: Array
    tone: Array
    rng: np.random.Generator

    @property
    def radius(self) -> float:
        """Radius of the circle of equal area."""
        return self.scene.radius

    def noise(self, cell: float, stretch: float = 1.0) -> Array:
        """Smooth noise on the window; `cell` in half-widths of the central square."""
        return local_noise(self.rng, self.dx, self.dy, cell, 0.85, stretch)


def lesion_colour(scene: Scene) -> Array:
    """The canonical colour as it looks on this skin: the darker the skin, the more its pigment shows through."""
    rng = stream(scene.seed, "lesion colour")
    colour = np.array(COLOURS[scene.colour], np.float32) * rng.uniform(0.93, 1.07) + rng.normal(0, 0.009, 3)
    tone = base_tone(scene)
    if scene.colour in ("pink", "red", "purple"):
        dim = np.clip(0.45 + 0.75 * float(tone.mean()), 0.6, 1.0)
        colour = 0.88 * colour * dim + 0.12 * tone
    elif scene.colour == "blue-grey":
        colour = colour * (1.0 if scene.fitzpatrick < 5 else 0.85)
    elif scene.colour in ("light brown", "dark brown"):
        colour = colour * np.clip(tone / tone.mean() / np.array([1.25, 0.95, 0.80], np.float32), 0.9, 1.12)
    elif scene.colour == "white":
        colour = 0.85 * colour + 0.15 * tone
    return np.clip(colour, 0.03, 0.98).astype(np.float32)


_NOTCHES = {"well-defined": 0.018, "ill-defined": 0.07, "irregular": 0.07}
_SOFTNESS = {"well-defined": 0.09, "ill-defined": 0.50, "irregular": 0.12}


def lay_out(canvas: Canvas, scene: Scene) -> Plot:
    """Window, border distance and opacity of the lesion."""
    rng = stream(scene.seed, "lesion")
    reach = 1.45 * max(scene.outline)
    rows, columns = canvas.window(scene.centre_x, scene.centre_y, reach)
    dx, dy = canvas.x[:, columns] - scene.centre_x, canvas.y[rows] - scene.centre_y
    rho = np.sqrt(dx * dx + dy * dy)
    theta = np.arctan2(dy, dx)
    table = np.asarray((*scene.outline, scene.outline[0]), np.float32)
    at = (theta * (len(scene.outline) / (2 * np.pi))) % len(scene.outline)
    low = np.minimum(at.astype(np.int32), len(scene.outline) - 1)
    edge = table[low] + (at - low) * (table[low + 1] - table[low])
    # Rings inside the lesion grow rounder towards its centre: notches of the border do not run inwards as spokes.
    edge = scene.radius + (edge - scene.radius) * np.minimum(rho / edge, 1) ** 2
    view = (rows, columns)
    plot = Plot(
        scene, rows, columns, dx, dy, rho, theta, rho / edge, rho, canvas.colour[view], canvas.height[view],
        canvas.gloss[view], canvas.texture[view], canvas.pixel, lesion_colour(scene), base_tone(scene), rng,
    )  # fmt: skip
    ragged = plot.noise(0.09) + 0.6 * plot.noise(0.04)
    plot.depth = plot.depth + np.clip(_NOTCHES[scene.border] * ragged, -0.06, 0.25)
    soft = _SOFTNESS[scene.border]
    plot.body = smoothstep(1 + soft / 2, 1 - soft / 2, plot.depth)
    return plot


def _dome(plot: Plot, height: float, edge: float = 1.0) -> None:
    """Raise the lesion: a rounded cushion, steeper at its edge for smaller `edge`."""
    plot.height += height * smoothstep(1.05, 1.05 - edge, plot.depth)


def _pigmented(plot: Plot, variation: float, centre: float, spread: float = 0.10) -> Array:
    """Fields of the lesion's colour [h, w, 3]: cloudy, darker (or lighter) towards its centre."""
    clouds = variation * (plot.noise(spread) + 0.5 * plot.noise(spread / 2.5)) + 0.25 * variation * plot.noise(0.02)
    tone = 1 + clouds + centre * (0.5 - np.clip(plot.depth, 0, 1))
    return plot.base * (np.clip(tone, 0.45, 1.6) * plot.texture)[..., None]


def _nevus(plot: Plot) -> None:
    blend(plot.colour, 0.90 * plot.body, _pigmented(plot, 0.07, -0.30))
    _dome(plot, 0.014, 0.9)


def _melanoma(plot: Plot) -> None:
    paint = _pigmented(plot, 0.16, 0.0, 0.09)
    usual = ("black", "dark brown", "light brown", "red", "blue-grey")
    others = [name for name in plot.rng.permutation(usual) if name != plot.scene.colour]
    lobe = plot.rng.uniform(0, 2 * np.pi)
    for name in others[: int(plot.rng.integers(2, 4))]:
        lobe += plot.rng.uniform(1.4, 2.6)
        far = plot.rng.uniform(0.35, 0.75) * plot.radius
        away = np.hypot(plot.dx - far * np.cos(lobe), plot.dy - far * np.sin(lobe)) / plot.radius
        share = smoothstep(0.70, 0.22, away + 0.16 * plot.noise(0.07))
        pigment = np.array(COLOURS[str(name)], np.float32) * (0.75 if plot.scene.fitzpatrick > 4 else 0.95)
        pigments = pigment * (1 + 0.08 * plot.noise(0.05))[..., None]
        blend(paint, (0.55 if name == "red" else 0.8) * share, pigments)
    blend(plot.colour, 0.96 * plot.body, paint)
    _dome(plot, 0.02, 0.5)
    plot.height += 0.004 * plot.noise(0.06) * plot.body


def _seborrheic_keratosis(plot: Plot) -> None:
    bumps = np.abs(plot.noise(0.055)) + 0.6 * np.abs(plot.noise(0.03))
    paint = _pigmented(plot, 0.10, 0.05, 0.06) * (1.16 - 0.16 * bumps)[..., None]
    blend(plot.colour, 0.97 * plot.body, paint)
    _dome(plot, 0.028, 0.20)
    plot.height -= 0.007 * np.minimum(bumps, 2) * plot.body
    plot.gloss += 0.15 * plot.body
    foot = smoothstep(0.98, 1.02, plot.depth) * smoothstep(1.10, 1.02, plot.depth)
    stain(plot.colour, 0.35 * foot, (0.5, 0.4, 0.38))


def _basal_cell_carcinoma(plot: Plot) -> None:
    rolled = smoothstep(0.5, 0.85, plot.depth) * smoothstep(1.08, 0.9, plot.depth)
    paint = _pigmented(plot, 0.06, 0.15, 0.12)
    pearl = 0.30 * paint + 0.70 * np.minimum(1, plot.tone * np.array([1.12, 1.02, 1.06], np.float32))
    paint += (0.55 * rolled)[..., None] * (pearl - paint)
    blend(plot.colour, 0.80 * plot.body, paint)
    _dome(plot, 0.026, 0.6)
    plot.height += 0.022 * rolled
    plot.gloss += 0.38 * plot.body * (0.5 + 0.5 * rolled)


def _actinic_keratosis(plot: Plot) -> None:
    blotches = smoothstep(-1.0, 0.8, plot.noise(0.10) + 0.5 * plot.noise(0.05))
    blend(plot.colour, plot.body * (0.50 + 0.36 * blotches), _pigmented(plot, 0.06, -0.1))
    plot.height += plot.body * (0.0018 * plot.noise(0.03) + 0.0015 * plot.noise(0.06))


def _squamous_cell_carcinoma(plot: Plot) -> None:
    blend(plot.colour, 0.84 * plot.body, _pigmented(plot, 0.09, 0.0, 0.08))
    _dome(plot, 0.06, 0.75)
    plot.height -= 0.02 * smoothstep(0.5, 0.3, plot.depth)
    plot.height += 0.003 * plot.noise(0.05) * plot.body
    plot.gloss += 0.12 * plot.body


def _hemangioma(plot: Plot) -> None:
    blend(plot.colour, 0.80 * plot.body, _pigmented(plot, 0.06, 0.0) * 0.92 + 0.08 * plot.tone)
    _dome(plot, 0.04, 0.8)
    plot.gloss += 0.22 * plot.body


def _dermatofibroma(plot: Plot) -> None:
    ring = smoothstep(0.2, 0.7, plot.depth)
    blend(plot.colour, plot.body * (0.72 + 0.2 * ring), _pigmented(plot, 0.06, 0.0))
    _dome(plot, 0.02, 0.9)


def _psoriasis(plot: Plot) -> None:
    blend(plot.colour, 0.86 * plot.body, _pigmented(plot, 0.08, 0.0, 0.12))
    _dome(plot, 0.012, 0.16)
    plot.height += 0.0025 * plot.noise(0.035) * plot.body


def _eczema(plot: Plot) -> None:
    patchy = smoothstep(-1.1, 0.9, plot.noise(0.13) + 0.6 * plot.noise(0.06))
    blend(plot.colour, plot.body * (0.46 + 0.36 * patchy), _pigmented(plot, 0.07, -0.1))
    plot.height += 0.0022 * plot.noise(0.04) * plot.body


def _tinea_corporis(plot: Plot) -> None:
    width = plot.rng.uniform(0.26, 0.36)
    ring = smoothstep(1 - 1.5 * width, 1 - 0.75 * width, plot.depth + 0.03 * plot.noise(0.08)) * plot.body
    blend(plot.colour, 0.35 * plot.body, plot.tone * np.array([0.90, 0.78, 0.72], np.float32))
    around = 1 + 0.12 * np.cos(plot.theta - plot.rng.uniform(0, 6.28)) + 0.08 * plot.noise(0.12)
    blend(plot.colour, np.clip(0.78 * around, 0.5, 0.95) * ring, _pigmented(plot, 0.09, 0.0, 0.07))
    plot.height += ring * (0.008 + 0.0025 * plot.noise(0.035))


def _vitiligo(plot: Plot) -> None:
    rim = smoothstep(0.96, 1.03, plot.depth) * smoothstep(1.18, 1.05, plot.depth)
    stain(plot.colour, 0.25 * rim, (0.6, 0.5, 0.45))
    blend(plot.colour, 0.90 * plot.body, _pigmented(plot, 0.018, 0.0))


_PAINTERS = {
    "melanocytic nevus": _nevus,
    "melanoma": _melanoma,
    "seborrheic keratosis": _seborrheic_keratosis,
    "basal cell carcinoma": _basal_cell_carcinoma,
    "actinic keratosis": _actinic_keratosis,
    "squamous cell carcinoma": _squamous_cell_carcinoma,
    "hemangioma": _hemangioma,
    "dermatofibroma": _dermatofibroma,
    "psoriasis": _psoriasis,
    "eczema": _eczema,
    "tinea corporis": _tinea_corporis,
    "vitiligo": _vitiligo,
}


def paint_body(plot: Plot) -> None:
    """Paint the lesion's body into the canvas, with random numbers of its own."""
    _PAINTERS[plot.scene.diagnosis](replace(plot, rng=stream(plot.scene.seed, "lesion's body")))
