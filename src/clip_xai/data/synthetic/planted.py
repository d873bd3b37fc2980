"""Shortcuts: an artefact that goes with a diagnosis as often as one wants, and pictures with it, without it, elsewhere.

The artefact is in half of all scenes. Of scenes of one diagnosis it is in ``(1 + p) / 2``, and in as many of the others
as keeps the half: p = 0 plants nothing, p = 1 puts it into every scene of the diagnosis.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from clip_xai.data.synthetic.composition import Scene, sample_scene
from clip_xai.data.synthetic.profiles import CHEAT, PLANTED, PROFILES
from clip_xai.data.synthetic.scene import render

SHARE = 0.25  # of scenes show the diagnosis that the artefact stands for
_CAST = (1.08, 0.96, 0.84)  # a warm lamp
_LETTER = 0.16  # side of the letter, of the picture's shorter side
_OF_RENDERER = ("ruler", "ink", "dark corners")


@dataclass(frozen=True)
class Picture:
    """A drawn scene with the artefact or without it.

    Attributes:
        image: uint8 ``[H, W, 3]``.
        mask: Where the artefact can be seen, bool ``[H, W]``; nowhere without it.
    """

    image: np.ndarray
    mask: np.ndarray


def check_artefact(name: str) -> None:
    """Refuse what cannot be planted.

    Raises:
        ValueError: It cannot.
    """
    if name not in PLANTED:
        raise ValueError(f"{name!r} cannot be planted: choose one of {', '.join(PLANTED)}")


def shortcut_scenes(seeds: Sequence[int]) -> list[Scene]:
    """Return scenes of which every fourth shows the diagnosis of the shortcut, and the others any but that."""
    return [_scene(seed, number % round(1 / SHARE) == 0) for number, seed in enumerate(seeds)]


def planted_in(scenes: Sequence[Scene], artefact: str, p: float) -> list[bool]:
    """Tell which scenes have the artefact at strength p; a scene is decided by the same draw at every strength.

    Args:
        scenes: As :func:`shortcut_scenes` gives them.
        artefact: Its name.
        p: 0 to 1.
    """
    check_artefact(artefact)
    cheat = (1 + p) / 2
    rates = {True: cheat, False: (0.5 - SHARE * cheat) / (1 - SHARE)}
    return [_draw(scene, artefact) < rates[scene.diagnosis == CHEAT] for scene in scenes]


def without_artefact(scene: Scene, artefact: str) -> Picture:
    """Draw a scene without the artefact, also where the scene has it by chance."""
    check_artefact(artefact)
    image = render(_rid(scene, artefact)).image
    return Picture(image, np.zeros(image.shape[:2], bool))


def with_artefact(scene: Scene, artefact: str) -> Picture:
    """Draw a scene with the artefact."""
    check_artefact(artefact)
    return _drawn(_rid(scene, artefact), artefact, moved=False)


def moved_artefact(scene: Scene, artefact: str) -> Picture | None:
    """Draw a scene with the artefact at another place; None where it can only be everywhere or in every corner."""
    check_artefact(artefact)
    if artefact in ("dark corners", "colour cast"):
        return None
    return _drawn(_rid(scene, artefact), artefact, moved=True)


def _drawn(scene: Scene, artefact: str, moved: bool) -> Picture:
    if artefact in _OF_RENDERER:
        with_it = replace(scene, distractors=(artefact, *scene.distractors))
        if moved:  # artefacts lie on the other side of what they keep clear of
            x, y = scene.artefacts_around
            with_it = replace(with_it, around=(-x or 0.2, -y or 0.2))
        drawn = render(with_it, parts=True)
        return Picture(drawn.image, drawn.part_masks[artefact])
    image = render(scene).image.copy()
    if artefact == "colour cast":
        cast = np.clip(image.astype(np.float32) * np.array(_CAST, np.float32), 0, 255)
        return Picture(cast.astype(np.uint8), np.ones(image.shape[:2], bool))
    mask = _letter(scene, image.shape[0], image.shape[1], moved)
    image[mask] = (240, 240, 232)
    return Picture(image, mask)


def _letter(scene: Scene, height: int, width: int, moved: bool) -> np.ndarray:
    """An L in the corner of the central square that is farthest from the lesion, or in the one beside it."""
    side = round(_LETTER * height)
    stroke = max(2, side // 4)
    right, low = scene.centre_x < 0, scene.centre_y < 0
    if moved:
        right = not right
    margin, left = round(0.04 * height), (width - height) // 2
    x = left + (height - margin - side if right else margin)
    y = height - margin - side if low else margin
    mask = np.zeros((height, width), bool)
    mask[y : y + side, x : x + stroke] = True
    mask[y + side - stroke : y + side, x : x + side] = True
    return mask


def _scene(seed: int, cheat: bool) -> Scene:
    if cheat:
        return sample_scene(seed, diagnosis=CHEAT)
    others = [name for name in PROFILES if name != CHEAT]
    return sample_scene(seed, diagnosis=others[int(np.random.default_rng([seed, 1]).integers(len(others)))])


def _rid(scene: Scene, artefact: str) -> Scene:
    return replace(scene, distractors=tuple(name for name in scene.distractors if name != artefact))


def _draw(scene: Scene, artefact: str) -> float:
    return float(np.random.default_rng([scene.seed, zlib.crc32(artefact.encode()), 2]).random())
