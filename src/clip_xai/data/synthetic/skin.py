"""Skin without a lesion: tone, mottling, relief of pores and creases, hair; and the light that falls on it all."""

from __future__ import annotations

import math

import numpy as np

from clip_xai.data.synthetic.composition import Scene, stream
from clip_xai.data.synthetic.fields import Array, Canvas, blend, smoothstep, strokes

_LUMINANCE = np.array([0.299, 0.587, 0.114], np.float32)


def base_tone(scene: Scene) -> Array:
    """Mean skin colour [3]: under a dermoscope's own light it is pinker and a little brighter."""
    tone = np.array(scene.skin, np.float32)
    if scene.view == "dermoscopic":
        rng = stream(scene.seed, "dermoscope")
        cast = np.array([[1.05, 0.93, 0.99], [1.06, 0.90, 0.93], [1.02, 0.97, 0.95]], np.float32)[int(rng.integers(3))]
        tone = tone * cast * 1.03
        if scene.fitzpatrick <= 4:
            tone = 0.86 * tone + 0.14 * np.array([0.94, 0.80, 0.80], np.float32)
    return tone


def paint_skin(canvas: Canvas, scene: Scene) -> None:
    """Tone with blood and melanin mottling, and the relief of the surface."""
    rng = stream(scene.seed, "skin")
    dermoscopic = scene.view == "dermoscopic"
    broad, patchy = canvas.noise(rng, 0.5), canvas.noise(rng, 0.13)
    melanin = 0.022 * broad + 0.014 * patchy + 0.012 * canvas.noise(rng, 0.05)
    blood = 0.020 * canvas.noise(rng, 0.38) + 0.014 * canvas.noise(rng, 0.09)
    tone = base_tone(scene)
    canvas.colour[:] = tone
    canvas.colour *= (1 + melanin)[..., None]
    for channel, share in enumerate((0.15, -1.0, -0.75)):
        canvas.colour[..., channel] += share * blood * tone[channel]

    grain = canvas.noise(rng, 0.022)
    fine = canvas.noise(rng, 0.045)
    canvas.height += (0.0002 if dermoscopic else 0.0004) * grain + (0.0003 if dermoscopic else 0.0008) * fine
    # Skin lines: two families of wavy furrows that cross at an angle, strong here and faint there.
    angle, warp = rng.uniform(0, math.pi), 0.5 * canvas.noise(rng, 0.16)
    strength = 0.5 + 0.5 * np.clip(canvas.noise(rng, 0.4), -1, 1.5)
    period = rng.uniform(0.055, 0.085)
    creases = np.zeros(canvas.shape, np.float32)
    for direction in (angle, angle + rng.uniform(0.9, 1.4)):
        phase = (canvas.x * math.cos(direction) + canvas.y * math.sin(direction)) / period + warp
        creases += (0.5 + 0.5 * np.cos(2 * math.pi * phase)) ** 5
    depth = creases * strength
    canvas.height -= (0.0005 if dermoscopic else 0.0011) * depth
    darker = 1 - (0.022 if dermoscopic else 0.045) * depth + 0.010 * grain + 0.008 * fine
    canvas.colour *= darker[..., None]
    canvas.texture[:] = darker * (1 + melanin)
    canvas.gloss[:] = 0.10 if not dermoscopic else 0.02


def shade(canvas: Canvas, scene: Scene) -> None:
    """Light the relief: diffuse shading by the slope towards the light, and highlights on what shines."""
    slope_x = np.gradient(canvas.height, axis=1) / canvas.pixel
    slope_y = np.gradient(canvas.height, axis=0) / canvas.pixel
    light = np.array([math.cos(scene.light_direction), math.sin(scene.light_direction)], np.float32)
    towards = -(slope_x * light[0] + slope_y * light[1])
    strength = 0.45 if scene.view == "dermoscopic" else 0.95
    canvas.colour *= np.clip(1 - strength * towards, 0.55, 1.4)[..., None]
    across = slope_x * light[1] - slope_y * light[0]
    mirror = np.exp(-(((-towards - 0.20) / 0.10) ** 2) - (across / 0.14) ** 2)
    canvas.colour += (canvas.gloss * mirror * 0.75)[..., None]


def paint_hair(canvas: Canvas, scene: Scene) -> None:
    """Hairs over everything: curved, tapering, lying roughly in one direction."""
    rng = stream(scene.seed, "hair")
    amount, kind = scene.hair.split()
    count = int(rng.integers(5, 12)) if amount == "few" else int(rng.integers(22, 45))
    lean = rng.uniform(0, math.pi)
    paths, widths = [], []
    t = np.linspace(0, 1, 24)
    for _ in range(count):
        start = rng.uniform([-1.5, -1.1], [1.5, 1.1])
        angle = lean + rng.normal(0, 0.45)
        length, bend = rng.uniform(0.5, 1.6), rng.normal(0, 0.25)
        along, side = t * length, bend * length * t * (1 - t) * 2 + rng.normal(0, 0.05) * length * t**2
        paths.append(
            np.stack(
                [
                    start[0] + along * math.cos(angle) - side * math.sin(angle),
                    start[1] + along * math.sin(angle) + side * math.cos(angle),
                ],
                axis=1,
            )
        )
        widths.append(float(rng.uniform(0.007, 0.013)))
    opacity = strokes(canvas.x, canvas.y, paths, widths, canvas.pixel)
    if kind == "dark":
        blend(canvas.colour, 0.82 * opacity, tuple(np.array([0.13, 0.09, 0.07]) * rng.uniform(0.8, 1.8)))
    else:
        tone = base_tone(scene)
        blend(canvas.colour, 0.55 * opacity, np.minimum(1, 0.45 * tone + np.array([0.50, 0.48, 0.42], np.float32)))


def light_picture(canvas: Canvas, scene: Scene) -> None:
    """Uneven light, flash, white balance, the dermoscope's fall-off, and the camera's noise and softness."""
    x, y = canvas.x, canvas.y
    gain = np.full(canvas.shape, stream(scene.seed, "exposure").uniform(0.92, 1.04), np.float32)
    if scene.lighting == "gradient":
        rng = stream(scene.seed, "light gradient")
        direction = rng.uniform(0, 2 * math.pi)
        gain *= 1 + rng.uniform(0.10, 0.2) * (x * math.cos(direction) + y * math.sin(direction))
    if scene.view == "dermoscopic":
        fall = stream(scene.seed, "fall-off").uniform(0.06, 0.14)
        gain *= 1 - fall * ((x / 1.2) ** 2 + y**2)
    rng = stream(scene.seed, "white balance")
    balance = np.array([1 + rng.normal(0, 0.02), 1.0, 1 + rng.normal(0, 0.022)], np.float32)
    canvas.colour *= gain[..., None] * balance
    if scene.lighting == "flash":
        rng = stream(scene.seed, "flash")
        fx, fy, spread = rng.uniform(-0.9, 0.9), rng.uniform(-0.8, 0.8), rng.uniform(0.3, 0.6)
        glow = np.exp(-((x - fx) ** 2 + (y - fy) ** 2) / (2 * spread**2)) * (0.10 if scene.view == "clinical" else 0.05)
        tone = float(base_tone(scene) @ _LUMINANCE)
        canvas.colour += (glow * (0.5 + tone))[..., None]
    canvas.colour += (0.007 * canvas.noise(stream(scene.seed, "camera"), 0.0125))[..., None]


def dark_corners(canvas: Canvas, scene: Scene) -> None:
    """The round tube of a dermoscope, off-centre, with a soft violet-black edge."""
    rng = stream(scene.seed, "corners")
    cx, cy, radius = rng.normal(0, 0.05), rng.normal(0, 0.05), rng.uniform(1.30, 1.46)
    distance = np.hypot(canvas.x - cx, canvas.y - cy)
    blend(canvas.colour, smoothstep(radius - 0.05, radius + 0.05, distance), (0.03, 0.02, 0.035))
