"""What a radiograph shows, drawn from a seed: the patient's anatomy, the pose of one film, findings and artefacts.

Lengths are in half-widths of the film: it is [-1, 1] x [-1, 1], x to the right and y downwards. As on every film, the
patient's right is on the left. Anatomy and findings are in the patient's own frame, with the spine at x = 0; the pose
of a film places that frame on it.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass, replace

import numpy as np

LABELS = ("Cardiomegaly", "Effusion", "Infiltration", "Mass", "Nodule", "Pneumothorax")
#: Findings that stay with a patient from film to film.
LASTING = ("Cardiomegaly", "Mass", "Nodule")
SIDES = {"right": -1, "left": 1}
ZONES = ("upper", "middle", "lower")
HOSPITALS = ("north", "south")

#: How often each finding is there. Far more often than in ChestX-ray14, so that a small set has enough of each.
PREVALENCE = {
    "Cardiomegaly": 0.16,
    "Effusion": 0.17,
    "Infiltration": 0.18,
    "Mass": 0.15,
    "Nodule": 0.18,
    "Pneumothorax": 0.16,
}
_FILMS_OF_A_PATIENT = {1: 0.45, 2: 0.25, 3: 0.15, 4: 0.10, 5: 0.05}
_TUBES = 0.25
_NORMAL_RATIO, _ENLARGED_RATIO = (0.40, 0.495), (0.54, 0.66)


@dataclass(frozen=True)
class Shortcuts:
    """How strongly an artefact goes with a finding: 0 is independent.

    Attributes:
        tube: A chest tube with Pneumothorax; at 1 it is there with each of them and never without.
        hospital: The marker of the southern hospital with Effusion; at 1 the northern one never meets any.
    """

    tube: float = 0.0
    hospital: float = 0.0

    def __post_init__(self) -> None:
        for name, strength in (("tube", self.tube), ("hospital", self.hospital)):
            if not 0 <= strength <= 1:
                raise ValueError(f"the shortcut {name}={strength:g} must lie between 0 and 1")


@dataclass(frozen=True)
class Anatomy:
    """A patient's chest.

    Attributes:
        half_width: Half of the inner width of the thorax, where it is widest.
        apex: Height of the lungs' tips.
        domes: Height of the diaphragm, right and left.
        ratio: Cardiothoracic ratio of the heart at its normal size.
        enlarged_ratio: The same with Cardiomegaly.
        heart_share: Share of the heart's width that lies right of the spine.
        tissue: Thickness of what surrounds the lungs, 1 on average.
        air: How translucent the lungs are, 1 on average.
        rib_slope: How steeply the ribs fall.
        female: Breast shadows are drawn.
    """

    half_width: float
    apex: float
    domes: tuple[float, float]
    ratio: float
    enlarged_ratio: float
    heart_share: float
    tissue: float
    air: float
    rib_slope: float
    female: bool


@dataclass(frozen=True)
class Pose:
    """How a patient stood, breathed and was exposed.

    Attributes:
        shift: Where the patient's midline and centre lie on the film.
        scale: Magnification.
        turn: Lean in radians.
        breath: How far the diaphragm stands above its usual height.
        level: Attenuation that is black on the film.
        gain: Contrast.
        gamma: Bend of the film's curve.
        slant: How much denser one edge of the film is than the other, across and down.
        noise: Standard deviation of the grain, in grey values of [0, 1] at 64 pixels.
    """

    shift: tuple[float, float]
    scale: float
    turn: float
    breath: float
    level: float
    gain: float
    gamma: float
    slant: tuple[float, float]
    noise: float


@dataclass(frozen=True)
class Finding:
    """A finding and where it lies.

    Attributes:
        label: One of `LABELS`.
        side: ``left`` or ``right``, the patient's; empty for Cardiomegaly.
        zone: ``upper``, ``middle`` or ``lower``; empty for Cardiomegaly.
        size: ``small``, ``moderate`` or ``large``.
        x, y: Its middle, in the patient's frame.
        extent: Radius of an opacity, height of a fluid, depth of the air at the tip of the lung, width of a heart.
    """

    label: str
    side: str
    zone: str
    size: str
    x: float
    y: float
    extent: float


@dataclass(frozen=True)
class Film:
    """One radiograph.

    Attributes:
        seed, patient, image: Every random number follows from these and from the name of a part.
        age: In years.
        view: ``PA`` or ``AP``.
        hospital: One of `HOSPITALS`.
        anatomy: The patient's.
        pose: This film's.
        findings: What there is to find, in the order of `LABELS`.
        artefacts: Names of what lies on the patient or on the film.
        tube_side: Side of the chest tube; empty without one.
    """

    seed: int
    patient: int
    image: int
    age: int
    view: str
    hospital: str
    anatomy: Anatomy
    pose: Pose
    findings: tuple[Finding, ...]
    artefacts: tuple[str, ...]
    tube_side: str

    @property
    def name(self) -> str:
        """File name, as in ChestX-ray14."""
        return f"{self.patient:08d}_{self.image:03d}.png"

    @property
    def labels(self) -> tuple[str, ...]:
        """Labels of the findings; empty where there are none."""
        return tuple(finding.label for finding in self.findings)

    def stream(self, part: str, of_patient: bool = False) -> np.random.Generator:
        """Return the random numbers of one part, which no other part shares."""
        return _stream(self.seed, self.patient, 0 if of_patient else self.image + 1, part)


def sample_film(seed: int, patient: int, image: int, shortcuts: Shortcuts | None = None) -> Film:
    """Draw a film; what is drawn of one part never changes what is drawn of another.

    Args:
        seed: Seed of the whole data set.
        patient: Number of the patient.
        image: Number of the film of this patient, from 0.
        shortcuts: Which artefacts go with findings; none without it.

    >>> sample_film(0, 1, 0).name
    '00000001_000.png'
    """
    shortcuts = shortcuts or Shortcuts()
    anatomy = _anatomy(seed, patient)
    hospital = HOSPITALS[int(_stream(seed, patient, 0, "hospital").random() < 0.5)]
    view = "AP" if _stream(seed, patient, image + 1, "view").random() < 0.3 else "PA"
    findings = []
    for label in LABELS:
        lasting = label in LASTING
        rng = _stream(seed, patient, 0 if lasting else image + 1, label)
        share = PREVALENCE[label]
        if label == "Effusion":
            share *= 1 + shortcuts.hospital * (1 if hospital == "south" else -1)
        if rng.random() < share:
            findings.append(_finding(label, anatomy, rng))
    artefacts, tube_side = _artefacts(seed, patient, image, view, findings, shortcuts)
    first = int(_stream(seed, patient, 0, "age").integers(18, 88))
    pose = _pose(seed, patient, image, view)
    return Film(
        seed, patient, image, first + image // 2, view, hospital, anatomy, pose, tuple(findings), artefacts, tube_side
    )


def films_of_patient(seed: int, patient: int, shortcuts: Shortcuts | None = None) -> list[Film]:
    """Draw all films of a patient: one in most cases, five at most."""
    rng = _stream(seed, patient, 0, "films")
    count = int(rng.choice(list(_FILMS_OF_A_PATIENT), p=list(_FILMS_OF_A_PATIENT.values())))
    return [sample_film(seed, patient, image, shortcuts) for image in range(count)]


def in_test_list(seed: int, patient: int, share: float) -> bool:
    """Tell whether a patient is in the official test list."""
    return bool(_stream(seed, patient, 0, "list").random() < share)


def without_findings(film: Film) -> Film:
    """Return the same film of a patient who has none of the findings."""
    return replace(film, findings=())


def _anatomy(seed: int, patient: int) -> Anatomy:
    rng = _stream(seed, patient, 0, "anatomy")
    right = rng.uniform(0.38, 0.58)
    return Anatomy(
        half_width=rng.uniform(0.56, 0.80),
        apex=rng.uniform(-0.84, -0.72),
        domes=(right, right + rng.uniform(0.01, 0.09)),
        ratio=rng.uniform(*_NORMAL_RATIO),
        enlarged_ratio=rng.uniform(*_ENLARGED_RATIO),
        heart_share=rng.uniform(0.27, 0.37),
        tissue=rng.uniform(0.82, 1.22),
        air=rng.uniform(0.88, 1.08),
        rib_slope=rng.uniform(0.16, 0.32),
        female=bool(rng.random() < 0.45),
    )


def _pose(seed: int, patient: int, image: int, view: str) -> Pose:
    rng = _stream(seed, patient, image + 1, "pose")
    light = _stream(seed, patient, image + 1, "exposure")
    breath = rng.normal(0.0, 0.05) + (0.06 if view == "AP" else 0.0)
    return Pose(
        shift=(float(np.clip(rng.normal(0, 0.07), -0.14, 0.14)), float(np.clip(rng.normal(0, 0.07), -0.14, 0.14))),
        scale=rng.uniform(0.90, 1.12),
        turn=float(np.clip(rng.normal(0, 0.045), -0.1, 0.1)),
        breath=float(np.clip(breath, -0.09, 0.15)),
        level=light.uniform(0.02, 0.20),
        gain=light.uniform(0.66, 0.92),
        gamma=light.uniform(0.80, 1.45),
        slant=(light.normal(0, 0.06), light.normal(0, 0.06)),
        noise=light.uniform(0.008, 0.022),
    )


def _finding(label: str, anatomy: Anatomy, rng: np.random.Generator) -> Finding:
    ranges = {
        "Cardiomegaly": _ENLARGED_RATIO,
        "Effusion": (0.24, 0.62),
        "Infiltration": (0.19, 0.31),
        "Mass": (0.095, 0.15),
        "Nodule": (0.052, 0.075),
        "Pneumothorax": (0.10, 0.28),
    }
    low, high = ranges[label]
    share = rng.random()
    size = ("small", "moderate", "large")[int(3 * share)]
    extent = low + share * (high - low)
    if label == "Cardiomegaly":
        ratio = anatomy.enlarged_ratio
        size = ("small", "moderate", "large")[min(2, int(3 * (ratio - low) / (high - low)))]
        return Finding(label, "", "", size, 0.0, 0.0, 2 * ratio * anatomy.half_width)
    side = ("right", "left")[int(rng.random() < 0.5)]
    sign, dome = SIDES[side], anatomy.domes[int(side == "left")]
    height = dome - anatomy.apex
    if label == "Effusion":
        return Finding(label, side, "lower", size, sign * 0.8 * anatomy.half_width, dome, extent)
    if label == "Pneumothorax":
        return Finding(label, side, "upper", size, sign * 0.6 * anatomy.half_width, anatomy.apex, extent)
    margin = min(0.5 * extent, 0.1)
    down = rng.uniform(0.14, 0.90)
    outer = (0.94 - 0.45 * max(0.0, 0.35 - down) / 0.35) * anatomy.half_width - margin
    inner = 0.24 + margin
    if sign > 0 and down > 0.5:
        # Beside the heart even where that is enlarged: what lies behind it is not seen.
        inner = 1.7 * (1 - anatomy.heart_share) * anatomy.enlarged_ratio * anatomy.half_width
    x = sign * rng.uniform(min(inner, outer - 0.05), outer)
    return Finding(label, side, ZONES[min(2, int(3 * down))], size, x, anatomy.apex + down * height, extent)


def _artefacts(
    seed: int, patient: int, image: int, view: str, findings: list[Finding], shortcuts: Shortcuts
) -> tuple[tuple[str, ...], str]:
    names = ["marker"]
    rng = _stream(seed, patient, image + 1, "tube is there")
    side = ("right", "left")[int(rng.random() < 0.5)]
    air = next((finding for finding in findings if finding.label == "Pneumothorax"), None)
    together = _TUBES + shortcuts.tube * (1 - _TUBES)
    tube = rng.random() < (together if air else _TUBES * (1 - shortcuts.tube))
    if tube:
        names.append("chest tube")
        side = air.side if air else side
    if _stream(seed, patient, image + 1, "leads are there").random() < (0.6 if view == "AP" else 0.1):
        names.append("leads")
    if _stream(seed, patient, 0, "nipples are seen").random() < 0.3:
        names.append("nipples")
    return tuple(names), side if tube else ""


def _stream(seed: int, patient: int, image: int, part: str) -> np.random.Generator:
    return np.random.default_rng((seed, patient, image, zlib.crc32(part.encode())))
