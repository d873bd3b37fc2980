"""What is in a photograph beside the lesion: second harmless marks, ruler, ink, gel bubbles, a bandage's edge."""

from __future__ import annotations

import math

import numpy as np

from clip_xai.data.synthetic.composition import Mark, Scene, stream
from clip_xai.data.synthetic.fields import Array, Canvas, blend, local_noise, smoothstep, spots, stain, strokes
from clip_xai.data.synthetic.skin import base_tone


def _mark_paint(mark: Mark, tone: Array, rng: np.random.Generator) -> tuple[Array, float, float, float]:
    """Colour, opacity, softness of the edge and relief of a mark on this skin."""
    if mark.kind == "freckle":
        return tone * np.array([0.66, 0.52, 0.44], np.float32), 0.85, 0.5, 0.0
    if mark.kind == "mole":
        browns = np.array([[0.30, 0.17, 0.11], [0.17, 0.11, 0.10], [0.50, 0.32, 0.21]], np.float32)
        dark = browns[int(rng.integers(3))]
        return dark * min(1.0, 0.4 + float(tone.mean())), 0.93, 0.5, 0.012
    if mark.kind == "angioma":
        red = np.array([[0.66, 0.15, 0.16], [0.42, 0.12, 0.22]][int(rng.integers(2))], np.float32)
        return red * min(1.0, 0.5 + float(tone.mean())), 0.92, 0.35, 0.016
    if mark.kind == "scar":
        return np.minimum(1, tone * np.array([1.12, 1.10, 1.12], np.float32) + 0.12), 0.85, 0.35, -0.006
    if mark.kind == "red patch":
        return tone * np.array([0.90, 0.60, 0.60], np.float32), 0.85, 0.6, 0.004
    if mark.kind == "ink dot":
        return np.array([[0.25, 0.15, 0.52], [0.10, 0.14, 0.42]][int(rng.integers(2))], np.float32), 0.85, 0.25, 0.0
    return (
        np.array([[0.90, 0.88, 0.84], [0.30, 0.62, 0.42], [0.25, 0.45, 0.75], [0.9, 0.75, 0.2]], np.float32)[
            int(rng.integers(4))
        ],
        0.97,
        0.06,
        0.01,
    )


def paint_marks(canvas: Canvas, scene: Scene) -> None:
    """Second harmless marks: small, but as coloured as a lesion."""
    tone = base_tone(scene)
    for mark in scene.marks:
        with canvas.painting(mark.name):
            _paint_mark(canvas, mark, tone, stream(scene.seed, f"mark {mark.number}"))


def _paint_mark(canvas: Canvas, mark: Mark, tone: Array, rng: np.random.Generator) -> None:
    rows, columns = canvas.window(mark.x, mark.y, 1.5 * mark.radius)
    dx, dy = canvas.x[:, columns] - mark.x, canvas.y[rows] - mark.y
    if not dx.size or not dy.size:
        return
    tilt, ratio = rng.uniform(0, math.pi), rng.uniform(1.0, {"scar": 2.2, "sticker": 1.0}.get(mark.kind, 1.4))
    along = dx * math.cos(tilt) + dy * math.sin(tilt)
    across = (dy * math.cos(tilt) - dx * math.sin(tilt)) * ratio
    depth = np.hypot(along, across) / (mark.radius * ratio**0.5 * 0.9)
    if mark.kind != "sticker":
        depth = depth + 0.07 * local_noise(rng, dx, dy, 0.5 * mark.radius, 2 * mark.radius)
    paint, opacity, soft, relief = _mark_paint(mark, tone, rng)
    body = smoothstep(1 + soft / 2, 1 - soft / 2, depth)
    cloud = 1 + 0.09 * local_noise(rng, dx, dy, 0.3 * mark.radius, 2 * mark.radius)
    cloud *= canvas.texture[rows, columns]
    blend(canvas.colour[rows, columns], opacity * body, np.clip(paint * cloud[..., None], 0, 1))
    canvas.height[rows, columns] += relief * smoothstep(1.1, 0.2 if mark.kind != "sticker" else 0.95, depth)
    if mark.kind in ("angioma", "mole"):
        canvas.gloss[rows, columns] += 0.15 * body


def _freckles(canvas: Canvas, scene: Scene, rng: np.random.Generator) -> None:
    """Many small tan spots in loose clusters, thinning out around the lesion."""
    centre_x, centre_y = scene.artefacts_around
    hubs = rng.uniform([-1.3, -1.0], [1.3, 1.0], (int(rng.integers(2, 6)), 2))
    count = int(rng.integers(40, 140))
    centres = hubs[rng.integers(len(hubs), size=count)] + rng.normal(0, 0.32, (count, 2))
    radii = rng.uniform(0.010, 0.026, count)
    away = np.hypot(centres[:, 0] - centre_x, centres[:, 1] - centre_y)
    inside = (np.abs(centres) < np.array([canvas.half[1], canvas.half[0]])).all(axis=1)
    keep = (away > 1.15 * max(scene.outline)) & inside
    bump = spots(canvas.x, canvas.y, centres[keep], 1.3 * radii[keep], canvas.pixel)
    ragged = np.clip(bump + 0.25 * canvas.noise(rng, 0.025) * (bump > 0), 0, 1)
    stain(canvas.colour, rng.uniform(0.3, 0.6) * smoothstep(0.0, 0.8, ragged), (0.74, 0.58, 0.48))


def _ink(canvas: Canvas, scene: Scene, rng: np.random.Generator) -> None:
    """Strokes of a surgical pen, on an arc around the lesion."""
    centre_x, centre_y = scene.artefacts_around
    paths = []
    far = max(scene.outline) * rng.uniform(1.2, 1.4) + 0.05
    start = rng.uniform(0, 2 * math.pi)
    for _ in range(int(rng.integers(2, 5))):
        start += rng.uniform(0.9, 1.8)
        angle = np.linspace(start, start + rng.uniform(0.25, 0.6), 12)
        away = far + np.cumsum(rng.normal(0, 0.006, 12))
        paths.append(np.stack([centre_x + away * np.cos(angle), centre_y + away * np.sin(angle)], axis=1))
    line = strokes(canvas.x, canvas.y, paths, [float(rng.uniform(0.025, 0.045))] * len(paths), canvas.pixel)
    line *= np.clip(0.72 + 0.22 * canvas.noise(rng, 0.03), 0, 1)
    stain(canvas.colour, 0.9 * line, (0.42, 0.28, 0.72))


def _ruler(canvas: Canvas, scene: Scene, rng: np.random.Generator) -> None:
    """Millimetre ticks along one side; on clinical pictures they are on a paper strip."""
    centre_x, centre_y = scene.artefacts_around
    vertical = rng.random() < 0.5
    at = rng.uniform(0.90, 0.95) + (rng.uniform(0, 0.22) if vertical else 0.0)
    sign = -1 if (centre_x if vertical else centre_y) > 0 else 1  # on the side away from the lesion
    limit = canvas.half[0] if vertical else canvas.half[1]
    ticks = []
    for index, along in enumerate(np.arange(-limit, limit, rng.uniform(0.07, 0.1))):
        length = 0.075 if index % 5 else 0.13
        ends = np.array([[sign * (at + 0.07), along], [sign * (at + 0.07 - length), along]])
        ticks.append(ends if vertical else ends[:, ::-1].copy())
    if scene.view == "clinical":
        distance = sign * (canvas.x if vertical else canvas.y)
        strip = smoothstep(at - 0.085, at - 0.075, distance + 0 * (canvas.x + canvas.y))
        blend(canvas.colour, 0.95 * strip, (0.90, 0.90, 0.86))
        canvas.height += 0.004 * strip
    line = strokes(canvas.x, canvas.y, ticks, [0.014] * len(ticks), canvas.pixel)
    blend(canvas.colour, 0.8 * line, (0.10, 0.09, 0.10))


def _bandage(canvas: Canvas, scene: Scene, rng: np.random.Generator) -> None:
    """The edge of a plaster that comes in from the side away from the lesion."""
    centre_x, centre_y = scene.artefacts_around
    angle = math.atan2(-centre_y, -centre_x) + rng.normal(0, 0.5)
    distance = canvas.x * math.cos(angle) + canvas.y * math.sin(angle)
    at = rng.uniform(0.85, 1.1)
    lesion = centre_x * math.cos(angle) + centre_y * math.sin(angle) + max(scene.outline) + 0.06
    edge = smoothstep(max(at, lesion), max(at, lesion) + 0.015, distance)
    paint = np.array([[0.93, 0.91, 0.88], [0.82, 0.64, 0.50]], np.float32)[int(rng.integers(2))]
    weave = 1 + 0.03 * canvas.noise(rng, 0.02)
    blend(canvas.colour, edge, np.clip(paint * weave[..., None], 0, 1))
    canvas.height += 0.012 * edge


def _gel_bubbles(canvas: Canvas, scene: Scene, rng: np.random.Generator) -> None:
    """Air in the immersion gel: thin dark rings with a bright inner rim and a glint."""
    centre_x, centre_y = scene.artefacts_around
    for _ in range(int(rng.integers(3, 11))):
        radius = float(rng.uniform(0.02, 0.085))
        x, y = float(rng.uniform(-1.2, 1.2)), float(rng.uniform(-0.97, 0.97))
        if math.hypot(x - centre_x, y - centre_y) < 0.55 * scene.radius + radius:
            continue
        rows, columns = canvas.window(x, y, 1.2 * radius)
        dx, dy = canvas.x[:, columns] - x, canvas.y[rows] - y
        if not dx.size or not dy.size:
            continue
        depth = np.hypot(dx, dy) / radius
        width = max(0.10, 1.1 * canvas.pixel / radius)
        view = canvas.colour[rows, columns]
        stain(view, 0.55 * np.exp(-(((depth - 1) / width) ** 2)), (0.45, 0.42, 0.45))
        view += (0.20 * np.exp(-(((depth - 1 + 1.6 * width) / width) ** 2)))[..., None]
        glint = np.exp(-((dx / radius + 0.45) ** 2 + (dy / radius + 0.45) ** 2) / 0.03)
        view += (0.45 * glint)[..., None]


_PAINTERS = {"freckles": _freckles, "ink": _ink, "ruler": _ruler, "bandage": _bandage, "gel bubbles": _gel_bubbles}
ON_SKIN = ("freckles", "ink", "bandage", "ruler")
ON_TOP = ("gel bubbles",)


def paint_distractors(canvas: Canvas, scene: Scene, names: tuple[str, ...]) -> None:
    """Paint those of `names` that the scene has."""
    for name in names:
        if name in scene.distractors:
            with canvas.painting(name):
                _PAINTERS[name](canvas, scene, stream(scene.seed, name))
