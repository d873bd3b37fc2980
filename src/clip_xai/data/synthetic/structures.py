"""The visible sub-structures of a lesion. Each painter draws into the plot and returns the opacity of what it drew."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from clip_xai.data.synthetic.composition import stream
from clip_xai.data.synthetic.fields import Array, Canvas, blend, smoothstep, spots, stain, strokes
from clip_xai.data.synthetic.lesion import Plot

_MASK_OPACITY = 0.3  # A pixel belongs to a structure when the structure covers it by at least this much.


def _edge(plot: Plot, angle: float) -> float:
    outline = plot.scene.outline
    return outline[round(angle / (2 * np.pi) * len(outline)) % len(outline)]


def _points(plot: Plot, count: int, inner: float, outer: float, gap: float) -> Array:
    """Up to `count` points [n, 2] between two relative depths, at least `gap` apart."""
    chosen: list[tuple[float, float]] = []
    for _ in range(4 * count):
        angle = plot.rng.uniform(0, 2 * np.pi)
        far = np.sqrt(plot.rng.uniform(inner**2, outer**2)) * _edge(plot, angle)
        x, y = far * np.cos(angle), far * np.sin(angle)
        if all((x - a) ** 2 + (y - b) ** 2 > gap * gap for a, b in chosen):
            chosen.append((float(x), float(y)))
            if len(chosen) == count:
                break
    return np.array(chosen, np.float64).reshape(-1, 2)


def _dots(plot: Plot, count: int, size: tuple[float, float], depth: tuple[float, float], gap: float) -> Array:
    centres = _points(plot, count, *depth, gap)
    radii = size[0] + (size[1] - size[0]) * plot.rng.random(len(centres)) ** 1.6  # many small, few large
    bump = spots(plot.dx, plot.dy, centres, 1.15 * radii, plot.pixel)
    return np.maximum(0, bump + 0.16 * plot.noise(0.028) * (bump > 0))


def _dark(plot: Plot, factor: float) -> Array:
    return np.clip(plot.base * factor, 0.03, 1)


def _pigment_network(plot: Plot) -> Array:
    period = plot.rng.uniform(0.072, 0.092)
    melanoma = plot.scene.diagnosis == "melanoma"
    warp_x, warp_y = plot.noise(0.09), plot.noise(0.09)
    wobble = (0.36 if melanoma else 0.20) * period
    x, y = plot.dx + wobble * warp_x, plot.dy + wobble * warp_y
    tilt = plot.rng.uniform(0, np.pi)
    cells = np.zeros_like(plot.depth)
    for k in range(3):
        angle = tilt + k * 2 * np.pi / 3
        cells += np.cos(2 * np.pi / (0.866 * period) * (x * np.cos(angle) + y * np.sin(angle)))
    lines = smoothstep(0.35, -0.75, cells)
    where = smoothstep(0.45, 0.7, plot.depth) if plot.scene.diagnosis == "dermatofibroma" else 1.0
    reach = smoothstep(1.08, 0.72, plot.depth) * where
    holes = (1 - lines) * reach
    blend(plot.colour, 0.24 * holes, 0.6 * plot.base + 0.4 * plot.tone)
    opacity = lines * reach * np.clip(0.75 + 0.3 * plot.noise(0.1), 0.25, 1)
    dark = _dark(plot, 0.45) if plot.base.mean() > 0.15 else 0.35 * plot.tone + 0.3 * plot.base
    blend(plot.colour, 0.66 * opacity, dark)
    return reach * (lines + holes > 0)


def _globules(plot: Plot) -> Array:
    melanoma = plot.scene.diagnosis == "melanoma"
    size = (0.016, 0.05) if melanoma else (0.018, 0.036)
    bump = _dots(plot, int(200 * plot.radius * (0.5 if melanoma else 1)), size, (0.0, 0.92), 0.055)
    opacity = smoothstep(0.0, 0.6, bump)
    blend(plot.colour, 0.70 * opacity, _dark(plot, 0.50) if plot.base.mean() > 0.17 else 0.45 * plot.tone)
    plot.height += 0.006 * bump
    return opacity


def _blue_white_veil(plot: Plot) -> Array:
    angle, far = plot.rng.uniform(0, 2 * np.pi), plot.rng.uniform(0.15, 0.4) * plot.radius
    away = np.hypot(plot.dx - far * np.cos(angle), plot.dy - far * np.sin(angle)) / plot.radius
    opacity = smoothstep(0.74, 0.24, away + 0.14 * plot.noise(0.1)) * smoothstep(1.0, 0.85, plot.depth)
    haze = np.array([0.56, 0.60, 0.69], np.float32) * (0.82 if plot.scene.fitzpatrick > 4 else 1.0)
    blend(plot.colour, (0.76 + 0.12 * plot.noise(0.05)).clip(0, 0.92) * opacity, haze)
    return opacity


def _streaks(plot: Plot) -> Array:
    start, arc = plot.rng.uniform(0, 2 * np.pi), plot.rng.uniform(1.6, 3.0)
    paths = []
    for angle in start + np.linspace(0, arc, int(arc * 5)) + plot.rng.normal(0, 0.05, int(arc * 5)):
        edge = _edge(plot, angle)
        far = np.linspace(0.66, plot.rng.uniform(1.04, 1.20), 8) * edge
        bent = angle + np.linspace(0, plot.rng.normal(0, 0.12), 8)
        paths.append(np.stack([far * np.cos(bent), far * np.sin(bent)], axis=1))
    opacity = strokes(plot.dx, plot.dy, paths, list(plot.rng.uniform(0.022, 0.036, len(paths))), plot.pixel)
    blend(plot.colour, 0.78 * opacity, _dark(plot, 0.5) * 0.7 + 0.01)
    return opacity


def _milia_like_cysts(plot: Plot) -> Array:
    bump = _dots(plot, int(plot.rng.integers(6, 14)), (0.018, 0.044), (0.0, 0.85), 0.07)
    opacity = smoothstep(0.0, 0.8, bump)
    blend(plot.colour, 0.80 * opacity, np.minimum(1, 0.25 * plot.tone + np.array([0.68, 0.63, 0.52], np.float32)))
    plot.height += 0.006 * bump
    return opacity


def _comedo_like_openings(plot: Plot) -> Array:
    bump = _dots(plot, int(plot.rng.integers(6, 14)), (0.022, 0.054), (0.0, 0.85), 0.09)
    opacity = smoothstep(0.05, 0.55, bump)
    blend(plot.colour, 0.82 * opacity, (0.17, 0.10, 0.06) if plot.base.mean() > 0.17 else (0.42, 0.30, 0.2))
    plot.height -= 0.014 * bump
    return opacity


def _vessel(plot: Plot, start: Array, angle: float, length: float, depth: int) -> list[Array]:
    steps = max(4, int(length / 0.02))
    turns = angle + np.cumsum(plot.rng.normal(0, 0.22, steps))
    walk = np.cumsum(np.stack([np.cos(turns), np.sin(turns)], axis=1), axis=0) * length / steps
    path = start + np.concatenate([[[0.0, 0.0]], walk])
    paths = [path]
    if depth:
        for at in plot.rng.integers(1, steps, 3):
            side = turns[at] + plot.rng.choice([-1, 1]) * plot.rng.uniform(0.5, 1.0)
            paths += _vessel(plot, path[at], side, length * plot.rng.uniform(0.4, 0.65), depth - 1)
    return paths


def _arborising_vessels(plot: Plot) -> Array:
    thick: list[Array] = []
    thin: list[Array] = []
    for angle in plot.rng.uniform(0, 2 * np.pi) + np.arange(3) * 2.1 + plot.rng.normal(0, 0.3, 3):
        far = 0.97 * _edge(plot, angle)
        start = np.array([far * np.cos(angle), far * np.sin(angle)])
        tree = _vessel(plot, start, angle + np.pi + plot.rng.normal(0, 0.3), 1.05 * plot.radius, 2)
        thick.append(tree[0])
        thin += tree[1:]
    inside = smoothstep(1.08, 0.98, plot.depth)
    opacity = strokes(plot.dx, plot.dy, thick, [0.021] * len(thick), plot.pixel)
    opacity = np.maximum(opacity, 0.85 * strokes(plot.dx, plot.dy, thin, [0.012] * len(thin), plot.pixel)) * inside
    dark = plot.base.mean() < 0.42
    blend(plot.colour, 0.82 * opacity, (0.78, 0.22, 0.25) if dark and plot.base[0] < 0.5 else (0.60, 0.07, 0.12))
    return opacity


def _dotted_vessels(plot: Plot) -> Array:
    bump = _dots(plot, int(140 * plot.radius), (0.013, 0.020), (0.0, 0.92), 0.05)
    opacity = smoothstep(0.0, 0.5, bump)
    blend(plot.colour, 0.8 * opacity, (0.55, 0.05, 0.09) if plot.base.mean() > 0.3 else (0.75, 0.22, 0.24))
    return opacity


def _ulcer(plot: Plot) -> Array:
    size = plot.rng.uniform(0.32, 0.44) + 0.06 * (plot.scene.diagnosis == "squamous cell carcinoma")
    away = plot.rho / plot.radius + 0.09 * plot.noise(0.07) + 0.04 * plot.noise(0.03)
    opacity = smoothstep(size + 0.04, size - 0.04, away)
    raw = np.array([0.45, 0.11, 0.09], np.float32) * (1 + 0.25 * plot.noise(0.035))[..., None].clip(0.4, 1.8)
    blend(plot.colour, 0.93 * opacity, raw)
    dried = smoothstep(0.3, 1.1, plot.noise(0.06)) * opacity
    blend(plot.colour, 0.8 * dried, (0.17, 0.07, 0.05))
    plot.height -= 0.020 * opacity
    plot.gloss += 0.4 * opacity
    return opacity


def _crust(plot: Plot) -> Array:
    if plot.scene.diagnosis == "eczema":
        where = smoothstep(0.65, 1.25, plot.noise(0.10) + 0.35 * plot.noise(0.03)) * smoothstep(0.95, 0.75, plot.depth)
    else:
        size = plot.rng.uniform(0.42, 0.56)
        where = smoothstep(size + 0.05, size - 0.05, plot.rho / plot.radius + 0.12 * plot.noise(0.06))
    grain = plot.noise(0.03)
    honey = np.array([0.66, 0.48, 0.32], np.float32) * (0.72 + 0.28 * float(plot.tone.mean()) / 0.7)
    blend(plot.colour, 0.88 * where, honey * (1 + 0.22 * grain)[..., None].clip(0.5, 1.4))
    blend(plot.colour, 0.7 * where * smoothstep(0.3, 1.4, plot.noise(0.045)), (0.34, 0.18, 0.12))
    plot.height += where * (0.009 + 0.003 * grain)
    return where


def _flakes(plot: Plot, where: Array, share: float, cell: float) -> tuple[Array, Array]:
    """Opacity and relief of platelets: noise cut at a level, its plates stepped like mica."""
    field = plot.noise(cell, 1.6) + 0.55 * plot.noise(cell / 2.2)
    opacity = smoothstep(-0.5, 0.7, field - share) * where * (0.8 + 0.2 * plot.noise(0.025)).clip(0.3, 1)
    plates = np.floor(2.2 * field + 0.6 * plot.noise(cell / 2)) / 2.2
    return opacity, plates


def _scale(plot: Plot) -> Array:
    psoriasis = plot.scene.diagnosis == "psoriasis"
    where = smoothstep(1.0, 0.9 if psoriasis else 0.7, plot.depth)
    opacity, plates = _flakes(plot, where, -0.15 if psoriasis else 0.45, 0.055 if psoriasis else 0.042)
    colour = np.array([0.90, 0.86, 0.85] if psoriasis else [0.88, 0.80, 0.64], np.float32)
    colour = colour * (0.62 + 0.40 * float(plot.tone.mean()) / 0.7)
    paint = np.clip(colour * (1 + 0.05 * plates)[..., None], 0, 1)
    blend(plot.colour, (0.80 if psoriasis else 0.75) * opacity, paint)
    plot.height += opacity * (0.003 + 0.0022 * plates)
    plot.gloss += 0.18 * opacity
    return opacity


def _scaly_ring(plot: Plot) -> Array:
    where = smoothstep(0.70, 0.82, plot.depth) * smoothstep(1.02, 0.94, plot.depth)
    opacity, plates = _flakes(plot, where, 0.25, 0.045)
    paint = np.array([0.92, 0.86, 0.80], np.float32) * (0.6 + 0.42 * float(plot.tone.mean()) / 0.7)
    blend(plot.colour, 0.66 * opacity, np.clip(paint * (1 + 0.05 * plates)[..., None], 0, 1))
    plot.height += opacity * (0.003 + 0.002 * plates)
    return where


def _lacunae(plot: Plot) -> Array:
    low, high = 0.12 * plot.radius, 0.27 * plot.radius
    centres = _points(plot, 26, 0.0, 0.86, 1.25 * low)
    bump = spots(plot.dx, plot.dy, centres, plot.rng.uniform(low, high, len(centres)), plot.pixel)
    opacity = smoothstep(0.02, 0.5, bump + 0.16 * plot.noise(0.05) * (bump > 0)) * smoothstep(1.05, 0.95, plot.depth)
    septa = (1 - opacity) * plot.body
    blend(plot.colour, 0.28 * septa, np.minimum(1, 0.5 * plot.tone + 0.5 * plot.base + 0.06))
    cloudy = (1.15 + 0.2 * plot.noise(0.07))[..., None].clip(0.5, 1.7)
    sacs = plot.base * np.array([0.62, 0.45, 0.52], np.float32) * cloudy
    blend(plot.colour, 0.9 * opacity, sacs)
    plot.height += 0.007 * np.maximum(bump, 0) * opacity
    return opacity


def _central_white_patch(plot: Plot) -> Array:
    away = plot.depth + 0.09 * plot.noise(0.07) + 0.05 * plot.noise(0.035)
    opacity = smoothstep(0.58, 0.20, away)
    paint = np.minimum(1, 0.45 * plot.tone + np.array([0.52, 0.49, 0.48], np.float32) * (0.55 + 0.6 * plot.tone.mean()))
    blend(plot.colour, 0.88 * opacity, paint)
    plot.height -= 0.008 * opacity
    return opacity


def _red_halo(plot: Plot) -> Array:
    opacity = smoothstep(1.42, 1.05, plot.depth + 0.06 * plot.noise(0.12)) * smoothstep(0.92, 1.02, plot.depth)
    red = plot.tone * np.array([0.98, 0.62, 0.62], np.float32)
    blend(plot.colour, 0.75 * opacity, red)
    return opacity


def _papules(plot: Plot) -> Array:
    ring = plot.scene.diagnosis == "tinea corporis"
    bump = _dots(plot, int(70 * plot.radius), (0.028, 0.046), (0.74, 0.95) if ring else (0.1, 1.0), 0.075)
    opacity = smoothstep(0.0, 0.6, bump)
    blend(plot.colour, 0.65 * opacity, np.clip(plot.base * np.array([0.96, 0.70, 0.70], np.float32), 0, 1))
    plot.height += 0.013 * np.maximum(bump, 0)
    plot.gloss += 0.18 * opacity
    return opacity


def _excoriations(plot: Plot) -> Array:
    lean, paths = plot.rng.uniform(0, np.pi), []
    for far in np.linspace(-0.6, 0.6, int(plot.rng.integers(4, 8))) * plot.radius:
        length = plot.rng.uniform(0.6, 1.1) * plot.radius
        t = np.linspace(-0.5, 0.5, 10) * length
        side = far + 0.04 * np.sin(5 * t + plot.rng.uniform(0, 6)) + plot.rng.normal(0, 0.02)
        x, y = t + plot.rng.normal(0, 0.05), side
        paths.append(np.stack([x * np.cos(lean) - y * np.sin(lean), x * np.sin(lean) + y * np.cos(lean)], axis=1))
    line = strokes(plot.dx, plot.dy, paths, [0.022] * len(paths), plot.pixel)
    opacity = line * smoothstep(-0.9, 0.3, plot.noise(0.03))
    stain(plot.colour, 0.5 * smoothstep(0, 0.6, line), (0.9, 0.6, 0.6))
    blend(plot.colour, 0.78 * opacity, (0.42, 0.09, 0.08) if plot.base.mean() > 0.25 else (0.62, 0.16, 0.14))
    plot.height -= 0.006 * opacity
    return opacity


def _pigment_islands(plot: Plot) -> Array:
    bump = _dots(plot, int(plot.rng.integers(7, 16)), (0.018, 0.050), (0.0, 0.92), 0.07)
    opacity = smoothstep(0.0, 0.9, bump)
    blend(plot.colour, 0.85 * opacity, 0.86 * plot.tone)
    return opacity


_PAINTERS = {
    "pigment network": _pigment_network,
    "globules": _globules,
    "blue-white veil": _blue_white_veil,
    "streaks": _streaks,
    "milia-like cysts": _milia_like_cysts,
    "comedo-like openings": _comedo_like_openings,
    "arborising vessels": _arborising_vessels,
    "dotted vessels": _dotted_vessels,
    "ulcer": _ulcer,
    "crust": _crust,
    "scale": _scale,
    "scaly ring": _scaly_ring,
    "lacunae": _lacunae,
    "central white patch": _central_white_patch,
    "red halo": _red_halo,
    "papules": _papules,
    "excoriations": _excoriations,
    "pigment islands": _pigment_islands,
}
# What lies deeper is painted first.
_ORDER = (
    "red halo", "pigment network", "globules", "streaks", "lacunae", "blue-white veil", "central white patch",
    "dotted vessels", "arborising vessels", "pigment islands", "papules", "milia-like cysts", "comedo-like openings",
    "ulcer", "crust", "scale", "scaly ring", "excoriations",
)  # fmt: skip


def paint_structures(canvas: Canvas, plot: Plot) -> dict[str, Array]:
    """Paint the scene's structures, each with random numbers of its own.

    Returns:
        The mask of each on the plot's window, bool [h, w], in the scene's order.
    """
    masks = {}
    for name in _ORDER:
        if name in plot.scene.structures:
            with canvas.painting(name):
                opacity = _PAINTERS[name](replace(plot, rng=stream(plot.scene.seed, f"structure {name}")))
            masks[name] = opacity >= _MASK_OPACITY
    return {name: masks[name] for name in plot.scene.structures}
