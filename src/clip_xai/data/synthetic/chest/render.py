"""A film from its plan: attenuation of all parts, exposure, grain, and a mask of every part that can be left out.

Air is what makes a radiograph: solid parts take its place, bones and tubes add to what the ray has passed. Each part
acts on the pixels of its own mask alone, and exposure and grain do not look at the picture, so leaving a part out
changes nothing else.

>>> film = sample_film(0, 1, 0)
>>> drawn = render(film, 64)
>>> drawn.image.shape, drawn.image.dtype
((64, 64), dtype('uint8'))
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass

import numpy as np

from clip_xai.data.synthetic.chest import anatomy, artefacts, findings
from clip_xai.data.synthetic.chest.anatomy import Frame
from clip_xai.data.synthetic.chest.plan import Film, sample_film
from clip_xai.data.synthetic.fields import Array

__all__ = ["ARTEFACTS", "MINIMUM_SIDE", "STRUCTURES", "Rendering", "part_names", "render", "sample_film"]

MINIMUM_SIDE = 32

#: Structures that take the place of air.
_SOLID: dict[str, Callable[[Frame], Array]] = {
    "mediastinum": anatomy.mediastinum,
    "hila": anatomy.hila,
}
#: Structures that add to the attenuation, and by how much.
_ADDED: dict[str, tuple[Callable[[Frame], Array], float]] = {
    "spine": (anatomy.spine, 0.15),
    "ribs": (anatomy.ribs, 0.17),
    "clavicles": (anatomy.clavicles, 0.105),
    "scapulae": (anatomy.scapulae, 0.10),
    "breasts": (anatomy.breasts, 0.15),
    "trachea": (anatomy.trachea, -0.16),
    "stomach bubble": (anatomy.stomach_bubble, -0.34),
}
STRUCTURES = ("heart", "vessels", *_SOLID, *_ADDED)
#: Artefacts that attenuate, and by how much; the marker lies on the film.
_ON_PATIENT: dict[str, tuple[Callable[[Frame], Array], float]] = {
    "chest tube": (artefacts.chest_tube, 0.45),
    "leads": (artefacts.leads, 0.55),
    "nipples": (artefacts.nipples, 0.075),
}
ARTEFACTS = (*_ON_PATIENT, "marker")

_OPACITIES = {
    "Infiltration": findings.infiltration,
    "Mass": findings.mass,
    "Nodule": findings.nodule,
    "Effusion": findings.effusion,
}


@dataclass(frozen=True)
class Rendering:
    """A drawn film.

    Attributes:
        image: uint8 ``[S, S]``; what attenuates is bright.
        masks: Name of a part -> bool ``[S, S]``: every pixel that leaving it out would change. Of Cardiomegaly it is
            the whole heart.
        lungs: bool ``[S, S]``, both lungs as far as no heart, mediastinum or diaphragm lies over them.
    """

    image: Array
    masks: dict[str, Array]
    lungs: Array


def part_names(film: Film) -> tuple[str, ...]:
    """Return the names of the parts of a film that can be left out."""
    return (*STRUCTURES, *film.labels, *film.artefacts)


def render(film: Film, size: int = 256, without: Collection[str] = ()) -> Rendering:
    """Draw a film; its composition is the same at every size.

    Args:
        film: What to draw.
        size: Side in pixels, at least 32.
        without: Names of parts (`part_names`) to leave out. Without Cardiomegaly the heart has its normal size.

    Raises:
        ValueError: The size is too small, or a name is not one of the film's parts.
    """
    if size < MINIMUM_SIDE:
        raise ValueError(f"{size} x {size} pixels are too few: a film needs at least {MINIMUM_SIDE}")
    if unknown := sorted(set(without) - set(part_names(film))):
        raise ValueError(f"this film does not show {', '.join(unknown)}; it shows {', '.join(part_names(film))}")
    frame = Frame(film, size)
    masks: dict[str, Array] = {}

    def shown(name: str, layer: Array) -> Array:
        masks[name] = layer > 0
        return layer

    tissue = anatomy.body(frame)
    air = frame.air * film.anatomy.air
    for name, paint in _SOLID.items():
        if name not in without:
            air = air * (1 - shown(name, paint(frame)))
    large = "Cardiomegaly" in film.labels and "Cardiomegaly" not in without
    if "heart" not in without:
        heart = shown("heart", anatomy.heart(frame, large))
        air = air * (1 - heart)
        if large:
            masks["Cardiomegaly"] = masks["heart"]
    lungs = (frame.lungs > 0) & (air > 0.3 * frame.air)
    bare = np.zeros_like(air)
    line = np.zeros_like(air)
    for finding in film.findings:
        if finding.label in without or finding.label == "Cardiomegaly":
            continue
        if finding.label == "Pneumothorax":
            bare, line = findings.pneumothorax(frame, finding)
            masks["Pneumothorax"] = (bare > 0) | (line > 0)
        else:
            air = air * (1 - shown(finding.label, _OPACITIES[finding.label](frame, finding)))
    markings = 0.14 * anatomy.parenchyma(frame)
    if "vessels" not in without:
        vessels = shown("vessels", anatomy.vessels(frame) * (frame.air > 0))
        markings = markings + vessels
    # Markings are seen against air alone; where air has left the lung there are none, and more air.
    air = air * (1 - 0.32 * markings * (1 - bare)) * (1 + 0.20 * bare)
    attenuation = film.anatomy.tissue * tissue * (1 - 0.80 * air) + 0.20 * tissue * (1 - frame.air)
    attenuation = attenuation + 0.26 * line
    for name, (paint, strength) in _ADDED.items():
        if name not in without:
            layer = shown(name, paint(frame))
            # Bones are clear over the lungs and hardly seen over what is dense itself.
            seen = 0.35 + 0.65 * np.minimum(air, 1) if name == "ribs" else 1.0
            attenuation = attenuation + strength * layer * tissue * seen
    for name, (paint, strength) in _ON_PATIENT.items():
        if name in film.artefacts and name not in without:
            attenuation = attenuation + strength * shown(name, paint(frame))
    grey = _exposed(frame, attenuation)
    if "marker" in film.artefacts and "marker" not in without:
        letters = shown("marker", artefacts.marker(frame))
        grey = grey + letters * (0.97 - grey)
    image = (np.clip(grey, 0, 1) * 255 + 0.5).astype(np.uint8)
    return Rendering(image, masks, lungs)


def _exposed(frame: Frame, attenuation: Array) -> Array:
    """Return grey values: the film's curve, a slant of its exposure, and grain."""
    pose, rng = frame.film.pose, frame.film.stream("grain")
    slant = 1 + pose.slant[0] * frame.x + pose.slant[1] * frame.y
    curve = np.clip((attenuation * slant - pose.level) * pose.gain, 0, 1) ** pose.gamma
    size = frame.x.shape[1]
    grain = rng.standard_normal((size, size), dtype=np.float32)
    # Finer pixels catch fewer quanta each.
    return curve + pose.noise * (size / 64) ** 0.3 * grain
