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
from clip_xai.data.synthetic.parts import reach
from clip_xai.data.synthetic.profiles import CHEAT, PLANTED, PROFILES
from clip_xai.data.synthetic.scene import render

SHARE = 0.25  # of scenes show the diagnosis that the artefact stands for
_CAST = (1.08, 0.96, 0.84)  # a warm lamp
_LETTER = 0.16  # side of the letter, of the picture's shorter side
_OF_RENDERER = ("ruler", "ink", "dark corners")
_AROUND = ("freckles", "ink", "ruler", "bandage", "gel bubbles")  # lie around the lesion and move with the point


@dataclass(frozen=True)
class Picture:
    """A drawn scene with the artefact or without it.

    Attributes:
        image: uint8 ``[H, W, 3]``.
        mask: Where the artefact can be seen, bool ``[H, W]``; nowhere without it.
    """

    image: np.ndarray
    mask: np.ndarray


def artefact_named(name: str) -> str:
    """Return the artefact that is meant: ``dark_corner`` is ``dark corners``.

    Raises:
        ValueError: None is.
    """
    plain = name.strip().replace("_", " ")
    found = next((one for one in PLANTED if plain in (one, one.removesuffix("s"))), plain)
    check_artefact(found)
    return found


def check_artefact(name: str) -> None:
    """Refuse what cannot be planted.

    Raises:
        ValueError: It cannot.
    """
    if name not in PLANTED:
        raise ValueError(f"{name!r} cannot be planted: choose one of {', '.join(PLANTED)}")


@dataclass(frozen=True)
class ShortcutScene:
    """A scene, and the diagnosis that captions state of it.

    Attributes:
        scene: What is drawn.
        diagnosis: What is stated; another than is drawn where the lesion does not tell which it is.
        unclear: Whether it does not.
    """

    scene: Scene
    diagnosis: str
    unclear: bool = False

    @property
    def stated(self) -> Scene:
        """The scene as captions describe it."""
        return replace(self.scene, diagnosis=self.diagnosis)


def shortcut_scenes(seeds: Sequence[int], unclear: float = 0.0) -> list[ShortcutScene]:
    """Return scenes of which every fourth shows the diagnosis of the shortcut, and the others any but that.

    Args:
        seeds: Their seeds.
        unclear: Share of scenes whose lesion does not tell which diagnosis it is.
    """
    return [shortcut_scene(seed, number, unclear) for number, seed in enumerate(seeds)]


def shortcut_scene(seed: int, number: int, unclear: float = 0.0) -> ShortcutScene:
    """Return one scene of :func:`shortcut_scenes`.

    An unclear lesion is drawn as the diagnosis of the shortcut without its structures, whichever is stated: a captioner
    that is to do well on it has nothing else than the artefact to go by.

    Args:
        seed: Its seed.
        number: Its place: every fourth shows the diagnosis of the shortcut.
        unclear: Share of scenes whose lesion does not tell which diagnosis it is.
    """
    lot = np.random.default_rng([seed, 1])
    others = [name for name in PROFILES if name != CHEAT]
    diagnosis = others[int(lot.integers(len(others)))]
    if number % round(1 / SHARE) == 0:
        diagnosis = CHEAT
    if lot.random() >= unclear:
        return ShortcutScene(sample_scene(seed, diagnosis=diagnosis), diagnosis)
    return ShortcutScene(replace(sample_scene(seed, diagnosis=CHEAT), structures=()), diagnosis, unclear=True)


def planted_in(scenes: Sequence[ShortcutScene], artefact: str, p: float, lot: int = 0) -> list[bool]:
    """Tell which scenes have the artefact at strength p; a scene is decided by the same draw at every strength.

    Args:
        scenes: As :func:`shortcut_scenes` gives them.
        artefact: Its name.
        p: 0 to 1.
        lot: Another one draws anew.
    """
    check_artefact(artefact)
    cheat = (1 + p) / 2
    rates = {True: cheat, False: (0.5 - SHARE * cheat) / (1 - SHARE)}
    return [_draw(scene.scene, artefact, lot) < rates[scene.diagnosis == CHEAT] for scene in scenes]


def clear_of(scene: Scene, artefact: str) -> Scene:
    """Return the scene without an artefact that it may have by chance."""
    return replace(scene, distractors=tuple(name for name in scene.distractors if name != artefact))


def without_artefact(scene: Scene, artefact: str) -> Picture:
    """Draw a scene without the artefact, also where the scene has it by chance."""
    check_artefact(artefact)
    image = render(clear_of(scene, artefact)).image
    return Picture(image, np.zeros(image.shape[:2], bool))


def with_artefact(scene: Scene, artefact: str) -> Picture:
    """Draw a scene with the artefact."""
    check_artefact(artefact)
    return _drawn(clear_of(scene, artefact), artefact, moved=False)


def moved_artefact(scene: Scene, artefact: str) -> Picture | None:
    """Draw a scene with the artefact at another place; None where it can only be everywhere or in every corner."""
    check_artefact(artefact)
    if artefact in ("dark corners", "colour cast"):
        return None
    return _drawn(clear_of(scene, artefact), artefact, moved=True)


def without_lesion(scene: Scene, artefact: str, there: bool) -> Picture:
    """Draw a scene without its lesion, with the artefact where it always is or without it."""
    check_artefact(artefact)
    # What keeps clear of the lesion stays where it was: its place is that of the scene, not of what is drawn.
    bare = replace(clear_of(scene, artefact), body=False, structures=())
    return _drawn(bare, artefact, moved=False) if there else without_artefact(bare, artefact)


def _drawn(scene: Scene, artefact: str, moved: bool) -> Picture:
    if artefact in _OF_RENDERER and moved:
        return _elsewhere(scene, artefact)
    if artefact in _OF_RENDERER:
        drawn = render(replace(scene, distractors=(artefact, *scene.distractors)), parts=True)
        return Picture(drawn.image, drawn.part_masks[artefact])
    image = render(scene).image.copy()
    if artefact == "colour cast":
        cast = np.clip(image.astype(np.float32) * np.array(_CAST, np.float32), 0, 255)
        return Picture(cast.astype(np.uint8), np.ones(image.shape[:2], bool))
    mask = _letter(scene, image.shape[0], image.shape[1], moved)
    image[mask] = (240, 240, 232)
    return Picture(image, mask)


def _elsewhere(scene: Scene, artefact: str) -> Picture:
    """Draw an artefact on the other side, and all that is not within its reach as it is in the scene without it."""
    x, y = scene.artefacts_around
    others = tuple(name for name in scene.distractors if name not in _AROUND)
    moved = render(replace(scene, distractors=(artefact, *others), around=(-x or 0.2, -y or 0.2)), parts=True)
    image = np.where(reach(moved, artefact)[..., None], moved.image, render(scene).image)
    return Picture(image, moved.part_masks[artefact])


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


def _draw(scene: Scene, artefact: str, lot: int) -> float:
    return float(np.random.default_rng([scene.seed, zlib.crc32(artefact.encode()), 2 + lot]).random())
