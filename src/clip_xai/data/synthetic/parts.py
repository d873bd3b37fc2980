"""The parts of a scene, and the same scene drawn otherwise in one thing: interventions.

Every part has random numbers of its own, so what an intervention does not name is drawn as it was, pixel for pixel:

>>> scene = sample_scene(7, diagnosis="melanoma")
>>> [part.name for part in parts_of(scene)]
['lesion', 'pigment network', 'streaks', 'gel bubbles', 'dark corners']
>>> without(scene, "streaks").structures
('pigment network',)
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np
from scipy.ndimage import binary_dilation

from clip_xai.data.synthetic.composition import (
    POSITIONS,
    Scene,
    centre_at,
    distractors_of,
    hair_of,
    light_direction_of,
    lighting_of,
    marks_around,
    sample_scene,
    skin_colour,
)
from clip_xai.data.synthetic.profiles import COLOURS, SKIN_TONES, VISIBLE_COLOURS
from clip_xai.data.synthetic.scene import HAIR, LESION, Rendering, render

__all__ = [
    "HAIR", "KINDS", "LESION", "Part", "free_positions", "moved", "on_skin", "only", "parts_of", "reach", "recoloured",
    "sample_scene", "skin_types", "surroundings_anew", "without",
]  # fmt: skip

KINDS = ("lesion", "structure", "artefact", "mark")
_LIES_UNDER = ("freckles", "gel bubbles", "dark corners", HAIR)  # Artefacts that a lesion can lie among.
_SKETCH = (96, 128)  # Height and width at which it is tried whether a lesion fits into a place.


@dataclass(frozen=True)
class Part:
    """What can be left out of a scene.

    Attributes:
        name: as in :func:`without`; marks are numbered, such as "mole 2".
        kind: one of `KINDS`.
    """

    name: str
    kind: str


def parts_of(scene: Scene) -> tuple[Part, ...]:
    """Return the parts that a scene has: the lesion, its structures, artefacts, marks, hair."""
    marks = {mark.kind for mark in scene.marks}
    found = [Part(LESION, "lesion")] if scene.body else []
    found += [Part(name, "structure") for name in scene.structures]
    found += [Part(name, "artefact") for name in scene.distractors if name not in marks]
    found += [Part(mark.name, "mark") for mark in scene.marks]
    return (*found, *([Part(HAIR, "artefact")] if scene.hair != "none" else []))


def without(scene: Scene, *names: str) -> Scene:
    """Return the scene without some of its parts; with the lesion, its structures go.

    Raises:
        ValueError: It does not have such a part.
    """
    _check(scene, names)
    return only(scene, [part.name for part in parts_of(scene) if part.name not in names])


def only(scene: Scene, names: Iterable[str]) -> Scene:
    """Return the scene with some of its parts alone; without the lesion there are no structures.

    Raises:
        ValueError: It does not have such a part.
    """
    kept = set(names)
    _check(scene, kept)
    marks = tuple(mark for mark in scene.marks if mark.name in kept)
    named = kept | {mark.kind for mark in marks}
    body = scene.body and LESION in kept
    return replace(
        scene,
        body=body,
        structures=tuple(name for name in scene.structures if body and name in kept),
        distractors=tuple(name for name in scene.distractors if name in named),
        marks=marks,
        hair=scene.hair if HAIR in kept else "none",
    )


def recoloured(scene: Scene, colour: str) -> Scene:
    """Return the scene with another colour of the lesion; its structures' colours follow from it.

    Raises:
        ValueError: The colour is unknown, or cannot be seen on this skin.
    """
    if colour not in COLOURS:
        raise ValueError(f"colour={colour!r} cannot be drawn: choose one of {', '.join(COLOURS)}")
    if colour not in VISIBLE_COLOURS[scene.fitzpatrick]:
        raise ValueError(f"a {colour} lesion does not stand out on skin of Fitzpatrick type {scene.fitzpatrick}")
    return replace(scene, colour=colour)


def skin_types(scene: Scene) -> tuple[int, ...]:
    """Return the Fitzpatrick types on which the scene's lesion can be seen."""
    return tuple(kind for kind in SKIN_TONES if scene.colour in VISIBLE_COLOURS[kind])


def on_skin(scene: Scene, fitzpatrick: int) -> Scene:
    """Return the scene on skin of another type, lighter or darker within the type by the same draw.

    Raises:
        ValueError: The type is unknown, or the lesion's colour cannot be seen on it.
    """
    if fitzpatrick not in SKIN_TONES:
        raise ValueError(f"fitzpatrick={fitzpatrick!r} cannot be drawn: choose one of 1 to {len(SKIN_TONES)}")
    if fitzpatrick not in skin_types(scene):
        raise ValueError(f"a {scene.colour} lesion does not stand out on skin of Fitzpatrick type {fitzpatrick}")
    return replace(scene, fitzpatrick=fitzpatrick, skin=skin_colour(scene.seed, fitzpatrick))


def moved(scene: Scene, position: str) -> Scene:
    """Return the scene with the lesion and its structures in another cell; artefacts and marks stay where they are.

    Raises:
        ValueError: There is no such cell, or something that a lesion cannot lie on is in the way.
    """
    if position not in POSITIONS:
        raise ValueError(f"position={position!r} cannot be drawn: choose one of {', '.join(POSITIONS)}")
    there = _placed(scene, position)
    if there is scene:
        return scene
    name = _in_the_way(there)
    if name is not None:
        raise ValueError(f"{name} is in the way of a lesion in the {position}: leave it out first, or move elsewhere")
    return there


def free_positions(scene: Scene) -> tuple[str, ...]:
    """Return the cells to which :func:`moved` can move the lesion, without its own."""
    cells = [position for position in POSITIONS if position != scene.position]
    return tuple(position for position in cells if _in_the_way(_placed(scene, position)) is None)


def surroundings_anew(scene: Scene, seed: int) -> Scene:
    """Return the very same lesion on other skin of its type, in other light, among other artefacts, marks and hair.

    Args:
        scene: The scene.
        seed: Seed of all that is drawn anew.
    """
    marks = marks_around(seed, (scene.centre_x, scene.centre_y), np.asarray(scene.outline))
    return replace(
        scene,
        skin=skin_colour(seed, scene.fitzpatrick),
        lighting=lighting_of(seed),
        light_direction=light_direction_of(seed),
        marks=marks,
        distractors=distractors_of(seed, scene.view, marks),
        hair=hair_of(seed),
    )


def reach(rendering: Rendering, name: str) -> np.ndarray:
    """Return every pixel that a part can have changed, bool [H, W]; the shading spreads its relief by one pixel.

    Args:
        rendering: Drawn with ``parts=True``.
        name: The part's; the lesion's reach holds that of its structures.
    """
    names = [name, *rendering.structure_masks] if name == LESION else [name]
    return np.asarray(binary_dilation(np.any([rendering.touched[one] for one in names], axis=0)))


def _placed(scene: Scene, position: str) -> Scene:
    if position == scene.position:
        return scene
    x, y = centre_at(scene.seed, np.asarray(scene.outline), position)
    return replace(scene, position=position, centre_x=x, centre_y=y, around=scene.artefacts_around)


def _in_the_way(scene: Scene) -> str | None:
    """Return the first artefact or mark that the lesion would lie on."""
    drawn = render(scene, *_SKETCH, parts=True)
    lesion = reach(drawn, LESION)
    solid = [part.name for part in parts_of(scene) if part.kind in ("artefact", "mark")]
    return next((name for name in solid if name not in _LIES_UNDER and (drawn.part_masks[name] & lesion).any()), None)


def _check(scene: Scene, names: Iterable[str]) -> None:
    known = [part.name for part in parts_of(scene)]
    for name in names:
        if name not in known:
            raise ValueError(f"the scene does not have a part {name!r}; it has {', '.join(known)}")
