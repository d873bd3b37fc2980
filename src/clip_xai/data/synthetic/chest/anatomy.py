"""The chest as layers on a film: outlines of body, lungs and heart, and the attenuation of bones and vessels."""

from __future__ import annotations

import math

import numpy as np
from scipy.ndimage import gaussian_filter

from clip_xai.data.synthetic.chest.plan import SIDES, Film
from clip_xai.data.synthetic.fields import Array, local_noise, smoothstep

#: Opacities below this are nothing at all, so that a part's mask holds every pixel that the part changes.
FAINTEST = 0.06

_EXTENT = 1.1


class Frame:
    """The pixels of a film in the patient's frame, and the outlines that other parts are placed by.

    Attributes:
        film: What is drawn.
        pixel: Side of a pixel.
        x, y: ``[1, W]`` and ``[H, 1]``, pixel centres on the film.
        across, down: ``[H, W]``, the same points in the patient's frame.
        distance: ``[H, W]``, distance from the midline.
        left: ``[H, W]``, the patient's left half.
        wall: ``[H, W]``, how far inside the chest wall a point lies; negative outside.
        lungs: ``[H, W]``, how far inside a lung a point lies; negative outside.
        air: ``[H, W]``, share of air before any solid part takes its place.
    """

    def __init__(self, film: Film, size: int) -> None:
        self.film = film
        self.pixel = 2.0 / size
        centres = (np.arange(size, dtype=np.float32) + 0.5) * self.pixel - 1
        self.x, self.y = centres[None, :], centres[:, None]
        pose, anatomy = film.pose, film.anatomy
        cosine, sine = math.cos(pose.turn) / pose.scale, math.sin(pose.turn) / pose.scale
        dx, dy = self.x - np.float32(pose.shift[0]), self.y - np.float32(pose.shift[1])
        self.across = np.float32(cosine) * dx + np.float32(sine) * dy
        self.down = np.float32(cosine) * dy - np.float32(sine) * dx
        self.distance = np.abs(self.across)
        self.left = self.across > 0
        self.soft = 1.1 * self.pixel / pose.scale
        self.wall = self.wall_inside(0.0, 0.0)
        inner = 0.075 - 0.02 * smoothstep(-0.4, 0.3, self.down)
        domes = np.where(self.left, anatomy.domes[1], anatomy.domes[0]).astype(np.float32) - np.float32(pose.breath)
        # The dome is highest in the middle of a lung and falls towards the angle at the chest wall.
        towards = (self.distance - 0.38 * anatomy.half_width) / (0.62 * anatomy.half_width)
        self.floor = domes + 0.24 * np.where(towards > 0, towards**2, 0.35 * towards**2)
        self.lungs = np.minimum(np.minimum(self.wall, self.distance - inner), self.floor - self.down)
        edge = smoothstep(-self.soft, self.soft + 0.02, self.lungs)
        bulge = 1 - (1 - np.clip(self.lungs / 0.34, 0, 1)) ** 2
        self.air = edge * (0.62 + 0.38 * bulge)

    def wall_inside(self, lower: float, narrower: float) -> Array:
        """Return how far inside the chest wall a point lies, for a wall that stands lower and narrower by as much."""
        anatomy = self.film.anatomy
        top = anatomy.apex + lower
        depth = np.clip((self.down - top) / (0.52 - anatomy.apex), 0, None)
        curve = np.sqrt(np.clip(1 - (1 - np.minimum(depth, 1)) ** 2.9, 0, 1))
        reach = 0.12 + (anatomy.half_width - narrower - 0.12) * curve
        across = reach - self.distance
        return np.where(self.down < top, np.minimum(across, self.down - top), np.minimum(across, 1.2 * depth + 0.02))

    def lines(self, paths: Array, width: float, end: float = 1.0) -> Array:
        """Return the opacity of soft lines.

        Args:
            paths: ``[n, p, 2]``, polylines of p points each in the patient's frame.
            width: Full width of all of them.
            end: Strength at a path's end, as a share of that at its start.
        """
        pose = self.film.pose
        cosine, sine = math.cos(pose.turn) * pose.scale, math.sin(pose.turn) * pose.scale
        x = cosine * paths[..., 0] - sine * paths[..., 1] + pose.shift[0]
        y = sine * paths[..., 0] + cosine * paths[..., 1] + pose.shift[1]
        return drawn_lines(x, y, self.pixel, pose.scale * width, end)

    def noise(self, rng: np.random.Generator, cell: float) -> Array:
        """Return smooth noise of unit variance, with a grain of ``cell``."""
        return local_noise(rng, self.x, self.y, cell, _EXTENT)

    def disc(self, x: float, y: float, radius: float | Array, soft: float) -> Array:
        """Return the opacity of a disc whose edge is ``soft`` wide, as a share of its radius."""
        away = np.hypot(self.across - x, self.down - y)
        wide = np.maximum(soft * radius, self.soft)
        return smoothstep(0.0, 1.0, (radius + 0.5 * wide - away) / wide)


def drawn_lines(x: Array, y: Array, pixel: float, width: float, end: float) -> Array:
    """Return the opacity ``[S, S]`` of polylines ``[n, p]`` on the film: points along them, counted and smoothed."""
    size, steps = round(2 / pixel), np.hypot(np.diff(x), np.diff(y))
    parts = max(1, math.ceil(float(steps.max()) / (0.6 * pixel)))
    at = (np.arange(parts) + 0.5) / parts
    dense_x = (x[:, :-1, None] + np.diff(x)[..., None] * at + 1) / pixel - 0.5
    dense_y = (y[:, :-1, None] + np.diff(y)[..., None] * at + 1) / pixel - 0.5
    fading = np.linspace(1, end, steps.shape[1] * parts).reshape(steps.shape[1], parts)
    weight = (steps[..., None] / pixel / parts * fading).ravel()
    dense_x, dense_y = dense_x.ravel(), dense_y.ravel()
    inside = (dense_x > -1) & (dense_y > -1) & (dense_x < size) & (dense_y < size)
    dense_x, dense_y, weight = dense_x[inside], dense_y[inside], weight[inside]
    left, top = np.floor(dense_x).astype(int), np.floor(dense_y).astype(int)
    right, below = dense_x - left, dense_y - top
    side = size + 2
    base = (top + 1) * side + left + 1
    places = np.concatenate([base, base + 1, base + side, base + side + 1])
    shares = np.concatenate(
        [weight * (1 - right) * (1 - below), weight * right * (1 - below), weight * (1 - right) * below,
         weight * right * below]
    )  # fmt: skip
    total = np.bincount(places, shares, minlength=side * side).reshape(side, side)[1:-1, 1:-1].astype(np.float32)
    drawn = max(width, 0.9 * pixel)
    sigma = 0.42 * drawn / pixel
    return np.clip(gaussian_filter(total, sigma, truncate=3) * (2.5066 * sigma * width / drawn), 0, 1)


def present(opacity: Array) -> Array:
    """Return an opacity without its faintest part."""
    return np.where(opacity < FAINTEST, 0, opacity).astype(np.float32)


def body(frame: Frame) -> Array:
    """Return the thickness of soft tissue: neck, shoulders and chest; nothing beside them."""
    anatomy, rng = frame.film.anatomy, frame.film.stream("body", of_patient=True)
    half = anatomy.half_width + rng.uniform(0.17, 0.34)
    arms = frame.film.stream("arms").uniform(0.0, 0.45)
    shoulders = smoothstep(-1.05, -0.60, frame.down)
    outline = 0.26 + (half - 0.26) * shoulders + arms * smoothstep(-0.95, -0.60, frame.down)
    outline = outline - arms * smoothstep(-0.55, 0.35, frame.down) - 0.05 * smoothstep(-0.3, 0.5, frame.down)
    inside = smoothstep(-0.03, 0.05, outline - frame.distance)
    # Seen edge on, the chest wall is thickest just outside the lungs.
    rim = np.exp(-(((frame.distance - anatomy.half_width - 0.04) / 0.10) ** 2)) * smoothstep(-0.75, -0.3, frame.down)
    flank = smoothstep(0.0, 0.22, outline - frame.distance)
    fat = 1 + 0.035 * frame.noise(frame.film.stream("tissue"), 0.30)
    return inside * (0.55 + 0.25 * flank + 0.13 * rim) * fat


def mediastinum(frame: Frame) -> Array:
    """Return the opacity of the great vessels between the lungs, with the knob of the aorta on the left."""
    rng = frame.film.stream("mediastinum", of_patient=True)
    right, left = 0.115 + rng.uniform(-0.02, 0.04), 0.11 + rng.uniform(-0.02, 0.03)
    half = np.where(frame.left, left, right) + 0.10 * smoothstep(-0.50, -0.95, frame.down)
    # Vena cava and pulmonary trunk bulge a little, each on its side.
    bulge = np.where(frame.left, 0.055 * np.exp(-(((frame.down + 0.12) / 0.09) ** 2)), 0.0)
    half = half + bulge + np.where(frame.left, 0, 0.03 * smoothstep(-0.75, -0.45, frame.down))
    half = half - 0.03 * smoothstep(0.0, 0.35, frame.down)
    band = smoothstep(-0.025, 0.02, half - frame.distance)
    knob = frame.disc(0.10 + rng.uniform(0, 0.02), -0.32 + rng.uniform(-0.04, 0.04), rng.uniform(0.075, 0.105), 0.3)
    return present(0.88 * np.maximum(band, knob * frame.left))


def trachea(frame: Frame) -> Array:
    """Return the share of air in the windpipe and the main bronchi."""
    rng = frame.film.stream("trachea", of_patient=True)
    lean, fork = rng.uniform(-0.03, 0.02), rng.uniform(-0.24, -0.16)
    pipe = np.array([[[0.0, -1.15], [lean, -0.7], [lean, fork]]])
    branches = np.array([[[lean, fork], [-0.13, fork + 0.12]], [[lean, fork], [0.15, fork + 0.14]]])
    return present(np.maximum(frame.lines(pipe, 0.085), 0.6 * frame.lines(branches, 0.052)))


def heart(frame: Frame, enlarged: bool) -> Array:
    """Return the opacity of the heart; enlarged, it covers the normal one."""
    normal = _heart(frame, frame.film.anatomy.ratio)
    return np.maximum(normal, _heart(frame, frame.film.anatomy.enlarged_ratio)) if enlarged else normal


def heart_width(film: Film) -> float:
    """Return the width of the heart, in the patient's frame."""
    anatomy = film.anatomy
    ratio = anatomy.enlarged_ratio if "Cardiomegaly" in film.labels else anatomy.ratio
    return 2 * ratio * anatomy.half_width


def _heart(frame: Frame, ratio: float) -> Array:
    anatomy = frame.film.anatomy
    width = 2 * ratio * anatomy.half_width
    middle = width / 2 - anatomy.heart_share * width
    tall, shear = 0.20 + 0.20 * width, 0.42
    bottom = anatomy.domes[1] - frame.film.pose.breath + 0.09
    # Sheared, the ellipse reaches sqrt(half^2 + (shear * tall)^2) to either side.
    half = math.sqrt(max((width / 2) ** 2 - (shear * tall) ** 2, 0.01))
    dy = frame.down - (bottom - tall)
    dx = frame.across - middle - shear * dy
    depth = np.hypot(dx / half, dy / tall)
    wide = frame.soft + 0.012
    return present(0.86 * smoothstep(1 + 0.5 * wide / half, 1 - 0.5 * wide / half, depth))


def spine(frame: Frame) -> Array:
    """Return the attenuation of the vertebrae: a column with a darker line at each disc."""
    rng = frame.film.stream("spine", of_patient=True)
    half, gap = rng.uniform(0.075, 0.095), rng.uniform(0.135, 0.155)
    column = smoothstep(-0.015, 0.015, half - frame.distance)
    discs = 0.5 + 0.5 * np.cos(2 * math.pi * (frame.down + rng.uniform(0, gap)) / gap)
    process = np.exp(-((frame.distance / 0.018) ** 2)) * discs
    return present(column * (0.75 - 0.30 * discs**4) + 0.2 * column * process)


def ribs(frame: Frame) -> Array:
    """Return the attenuation of ten pairs of ribs: their backs fall outwards, their fronts fall towards the middle."""
    anatomy, rng = frame.film.anatomy, frame.film.stream("ribs", of_patient=True)
    number = np.arange(10)[:, None]
    gap = (0.66 - anatomy.apex) / 9.5
    top = anatomy.apex - 0.02 + rng.uniform(-0.02, 0.02) + gap * number
    depth = np.clip((top + 0.1 - anatomy.apex) / (0.52 - anatomy.apex), 0, 1)
    reach = 0.14 + (anatomy.half_width - 0.12) * np.sqrt(1 - (1 - depth) ** 2.9)
    fall = anatomy.rib_slope * (0.4 + 0.6 * reach)
    along = np.linspace(0, 1, 14)[None, :]
    backs, fronts = [], []
    for sign in SIDES.values():
        shake = rng.normal(0, 0.008, (10, 1))
        x = 0.07 + (reach - 0.07) * np.sin(0.5 * math.pi * along) ** 0.9
        y = top + shake - 0.06 * np.sin(math.pi * along) + fall * along**1.5
        backs.append(np.stack([sign * x, y], axis=-1))
        x = reach - (reach - 0.30) * along
        y = top + fall + 0.02 + 0.34 * reach * along**0.9
        fronts.append(np.stack([sign * x, y], axis=-1)[1:7])
    back, front = np.concatenate(backs), np.concatenate(fronts)
    # A rib is flat with an edge, and densest along its lower one.
    wide = smoothstep(0.30, 0.75, frame.lines(back, 0.058))
    rims = frame.lines(back + np.array([0, 0.024]), 0.013) * (wide > 0)
    fronts_wide = smoothstep(0.35, 0.80, frame.lines(front, 0.064, end=0.7))
    return present(0.60 * wide + 0.40 * rims + 0.36 * fronts_wide)


def clavicles(frame: Frame) -> Array:
    """Return the attenuation of the collar bones."""
    rng = frame.film.stream("clavicles", of_patient=True)
    lift = rng.uniform(-0.02, 0.08) + (0.06 if frame.film.view == "AP" else 0)
    along = np.linspace(0, 1, 12)
    x = 0.07 + 0.72 * along
    y = frame.film.anatomy.apex + 0.16 - 0.16 * along - 0.04 * np.sin(2 * math.pi * along) - lift * along
    paths = np.stack([np.stack([sign * x, y + rng.normal(0, 0.012)], axis=1) for sign in SIDES.values()])
    return present(0.85 * frame.lines(paths, 0.07) + 0.4 * frame.lines(paths + np.array([0, 0.03]), 0.014))


def scapulae(frame: Frame) -> Array:
    """Return the attenuation of the shoulder blades; on an AP film they lie over the lungs."""
    rng = frame.film.stream("scapulae")
    inner = frame.film.anatomy.half_width * ((0.72 if frame.film.view == "AP" else 0.90) + rng.uniform(-0.05, 0.05))
    edge = inner + 0.25 * (frame.down + 0.45) ** 2 + 0.10 * (frame.down + 0.45)
    blade = smoothstep(-0.012, 0.012, frame.distance - edge) * smoothstep(0.10, -0.02, frame.down)
    blade = blade * smoothstep(-0.82, -0.66, frame.down) * smoothstep(0.34, 0.16, frame.distance - edge)
    rim = np.exp(-(((frame.distance - edge - 0.012) / 0.014) ** 2)) * blade
    return present(0.45 * blade + 0.4 * rim)


def breasts(frame: Frame) -> Array:
    """Return the thickness of the breasts over the lower zones, with a sharp lower edge; nothing for men."""
    if not frame.film.anatomy.female:
        return np.zeros_like(frame.across)
    rng = frame.film.stream("breasts", of_patient=True)
    total = np.zeros_like(frame.across)
    radius, strength, y = rng.uniform(0.26, 0.40), rng.uniform(0.35, 1.0), rng.uniform(0.16, 0.38)
    for sign in SIDES.values():
        x = sign * (0.60 * frame.film.anatomy.half_width + rng.uniform(-0.05, 0.06))
        dx, dy = frame.across - x, frame.down - y - rng.uniform(-0.04, 0.04)
        away = np.hypot(dx, np.where(dy > 0, 1.15 * dy, 0.8 * dy)) / radius
        total += strength * smoothstep(1.02, 0.90, away) * smoothstep(-0.9, 0.7, dy / radius)
    return present(total)


def stomach_bubble(frame: Frame) -> Array:
    """Return the share of air in the stomach, below the left dome."""
    rng = frame.film.stream("stomach bubble")
    if rng.random() < 0.35:
        return np.zeros_like(frame.across)
    x, radius = rng.uniform(0.26, 0.40), rng.uniform(0.07, 0.13)
    y = frame.film.anatomy.domes[1] - frame.film.pose.breath + 0.05 + radius
    away = np.hypot((frame.across - x) / 1.3, frame.down - y)
    return present(0.8 * smoothstep(radius + 0.02, radius - 0.03, away) * (frame.lungs < -0.02))


def vessels(frame: Frame) -> Array:
    """Return the lung markings: vessels that branch from each hilum and grow thin towards the chest wall."""
    anatomy, rng = frame.film.anatomy, frame.film.stream("vessels", of_patient=True)
    trunks, twigs = [], []
    for sign in SIDES.values():
        count = 10
        angle = np.linspace(-1.40, 1.25, count) + rng.normal(0, 0.10, count)
        root = np.array([0.12, (-0.02 if sign < 0 else -0.07)]) + rng.normal(0, 0.025, (count, 2))
        length = rng.uniform(0.7, 1.0, count) * (anatomy.half_width - 0.10) * (1 + 0.45 * np.abs(np.sin(angle)))
        trunk = _branches(rng, root, angle, length)
        own = np.repeat(np.arange(count), 5)
        start = trunk[own, rng.integers(2, 9, len(own))]
        turn = angle[own] + rng.choice([-1, 1], len(own)) * rng.uniform(0.35, 0.8, len(own))
        twig = _branches(rng, start, turn, length[own] * rng.uniform(0.3, 0.6, len(own)))
        trunks.append(trunk * [sign, 1])
        twigs.append(twig * [sign, 1])
    wide = frame.lines(np.concatenate(trunks), 0.030, end=0.25)
    fine = frame.lines(np.concatenate(twigs), 0.018, end=0.4)
    return present(np.maximum(wide, 0.85 * fine))


def parenchyma(frame: Frame) -> Array:
    """Return the fine net between the vessels, zero on average."""
    return frame.noise(frame.film.stream("parenchyma"), 0.034)


def _branches(rng: np.random.Generator, starts: Array, angles: Array, lengths: Array) -> Array:
    """Return wandering paths ``[n, 11, 2]``."""
    turns = angles[:, None] + np.cumsum(rng.normal(0, 0.09, (len(starts), 10)), axis=1)
    steps = np.stack([np.cos(turns), np.sin(turns)], axis=-1) * (lengths / 10)[:, None, None]
    return np.concatenate([starts[:, None], starts[:, None] + np.cumsum(steps, axis=1)], axis=1)


def hila(frame: Frame) -> Array:
    """Return the opacity of the roots of the lungs, with vessels seen end on beside them."""
    rng = frame.film.stream("hila", of_patient=True)
    total = np.zeros_like(frame.across)
    for sign in SIDES.values():
        y = (0.0 if sign < 0 else -0.06) + rng.uniform(-0.03, 0.03)
        away = np.hypot((frame.across - sign * 0.16) / 0.07, (frame.down - y) / 0.12)
        total = np.maximum(total, 0.40 * smoothstep(1.25, 0.5, away))
        for _ in range(int(rng.integers(1, 4))):
            x, dy = rng.uniform(0.22, 0.36), rng.uniform(-0.18, 0.2)
            total = np.maximum(total, 0.55 * frame.disc(sign * x, y + dy, rng.uniform(0.020, 0.032), 0.6))
    return present(total)
