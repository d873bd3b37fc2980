"""The planted findings: each gives the opacity that takes the place of air, or the air that has no markings."""

from __future__ import annotations

import math

import numpy as np

from clip_xai.data.synthetic.chest.anatomy import Frame, present
from clip_xai.data.synthetic.chest.plan import SIDES, Finding
from clip_xai.data.synthetic.fields import Array, smoothstep


def height_of(frame: Frame, finding: Finding) -> float:
    """Return where a finding lies once the patient has breathed as on this film: lower parts of a lung move most."""
    anatomy = frame.film.anatomy
    dome = anatomy.domes[int(finding.side == "left")]
    return finding.y - frame.film.pose.breath * (finding.y - anatomy.apex) / (dome - anatomy.apex)


def infiltration(frame: Frame, finding: Finding) -> Array:
    """Return a patchy opacity with no edge: in places lung shows through it."""
    rng = frame.film.stream("Infiltration texture")
    stretch, tilt = rng.uniform(1.0, 1.5), rng.uniform(0, math.pi)
    dx, dy = frame.across - finding.x, frame.down - height_of(frame, finding)
    along = dx * math.cos(tilt) + dy * math.sin(tilt)
    beside = dy * math.cos(tilt) - dx * math.sin(tilt)
    root = math.sqrt(stretch)
    away = np.hypot(along / root, beside * root) / finding.extent
    patches = frame.noise(rng, 0.075)
    body = smoothstep(1.12, 0.35, away + 0.16 * patches)
    grain = np.clip(0.58 + 0.42 * frame.noise(rng, 0.036) + 0.15 * patches, 0.05, 1.0)
    return present(rng.uniform(0.50, 0.72) * body * grain * smoothstep(0.0, 0.03, frame.lungs))


def mass(frame: Frame, finding: Finding) -> Array:
    """Return a lobed opacity with an edge."""
    return _rounded(frame, finding, lobes=0.10, soft=0.28, least=0.55, most=0.80)


def nodule(frame: Frame, finding: Finding) -> Array:
    """Return a small round opacity with an edge."""
    return _rounded(frame, finding, lobes=0.05, soft=0.40, least=0.62, most=0.85)


def _rounded(frame: Frame, finding: Finding, lobes: float, soft: float, least: float, most: float) -> Array:
    # A patient's, so that it looks alike on all films.
    rng = frame.film.stream(f"{finding.label} outline", of_patient=True)
    y = height_of(frame, finding)
    angle = np.arctan2(frame.down - y, frame.across - finding.x)
    radius = np.ones_like(angle)
    for order in (2, 3, 5):
        radius += rng.normal(0, lobes) / math.sqrt(order - 1) * np.cos(order * angle + rng.uniform(0, 2 * math.pi))
    disc = frame.disc(finding.x, y, finding.extent * np.clip(radius, 0.7, 1.3), soft)
    return present(rng.uniform(least, most) * disc * smoothstep(-0.01, 0.02, frame.lungs))


def effusion(frame: Frame, finding: Finding) -> Array:
    """Return fluid: it fills the angle between diaphragm and chest wall, and climbs the wall in a meniscus."""
    rng = frame.film.stream("Effusion shape")
    anatomy = frame.film.anatomy
    own = frame.left == (SIDES[finding.side] > 0)
    dome = anatomy.domes[int(finding.side == "left")] - frame.film.pose.breath
    from_wall = np.clip(frame.wall, 0, None)
    reach = rng.uniform(0.10, 0.16) + 0.35 * finding.extent
    # Measured from the deepest point of the angle, upwards; away from the wall the surface comes down.
    height = finding.extent * np.exp(-((from_wall / reach) ** 1.3)) + 0.30 * max(0.0, finding.extent - 0.26)
    surface = dome + 0.20 - height
    wide = frame.soft + 0.03
    wet = smoothstep(-0.5 * wide, 0.5 * wide, frame.down - surface)
    return present(0.90 * wet * own * smoothstep(-frame.soft, frame.soft, frame.lungs))


def pneumothorax(frame: Frame, finding: Finding) -> tuple[Array, Array]:
    """Return where air without markings lies outside the lung, and the line of the pleura that bounds it."""
    rng = frame.film.stream("Pneumothorax shape")
    own = frame.left == (SIDES[finding.side] > 0)
    share = rng.uniform(0.40, 0.70)
    end = rng.uniform(0.10, 0.42)
    depth = np.clip((frame.down - frame.film.anatomy.apex) / (0.9 * end + 0.25), 0, 1)
    kept = frame.wall_inside(finding.extent, share * finding.extent)
    # Further down the lung comes back to the wall.
    kept = kept + (1.15 * share * finding.extent) * smoothstep(0.55, 1.0, depth)
    inside = own & (frame.lungs > 0)
    air = smoothstep(frame.soft, -frame.soft, kept) * inside * (frame.wall > 0.004)
    air = present(air * smoothstep(1.0, 0.96, depth))
    thin = max(0.012, 0.75 * frame.pixel)
    line = np.exp(-((kept / thin) ** 2)) * inside * smoothstep(1.0, 0.90, depth) * (0.016 / thin) ** 0.5
    return air, present(line)
