"""Scenes that no data set holds, and one scene drawn with some of its parts alone, as a tower sees it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from clip_xai.data.preprocess import Preprocess
from clip_xai.data.synthetic.parts import LESION, Part, Scene, only, parts_of, sample_scene
from clip_xai.data.synthetic.scene import render

FRESH = 2**50  # seeds of data sets have 48 bits, those of the embedded tower's training fewer
_PER_SEED = 2**20


def fresh_seeds(count: int, seed: int = 0) -> list[int]:
    """Return seeds of scenes that no data set and no training of this package draws.

    Args:
        count: How many, at most 2^20; more of them start alike.
        seed: Another one gives other scenes.
    """
    return [FRESH + seed * _PER_SEED + number for number in range(count)]


@dataclass(frozen=True)
class DrawnScene:
    """A scene, and its parts as a tower sees them.

    Attributes:
        scene: The scene.
        players: The parts that are left out and put in: structures, artefacts, marks, hair. The bare lesion on its
            skin is what they are added to.
        masks: Where each of them can be seen in the tower's square, bool ``[n, S, S]``.
        lesion: Where the lesion is, bool ``[S, S]``.
        hidden: Names of parts that the square does not show; they are always drawn.
        pixels: The whole scene as the tower reads it, ``[3, S, S]``.
        preprocess: The tower's.
    """

    scene: Scene
    players: tuple[Part, ...]
    masks: Tensor
    lesion: Tensor
    hidden: tuple[str, ...]
    pixels: Tensor
    preprocess: Preprocess

    @classmethod
    def of(cls, scene: Scene, preprocess: Preprocess) -> DrawnScene:
        """Draw a scene whole and find its parts in the tower's square."""
        drawn = render(scene, parts=True)
        geometry = preprocess.geometry(drawn.image.shape[1], drawn.image.shape[0])
        size = preprocess.image_size

        def located(mask: NDArray[np.bool_]) -> Tensor:
            return geometry.locate(torch.from_numpy(mask), size) >= 0.5

        parts = [part for part in parts_of(scene) if part.name != LESION]
        masks = {part: located(drawn.part_masks[part.name]) for part in parts}
        players = tuple(part for part in parts if masks[part].any())
        stacked = torch.stack([masks[part] for part in players]) if players else torch.zeros(0, size, size).bool()
        return cls(
            scene,
            players,
            stacked,
            located(drawn.lesion_mask),
            tuple(part.name for part in parts if part not in players),
            preprocess(Image.fromarray(drawn.image)),
            preprocess,
        )

    def draw(self, present: NDArray[np.bool_]) -> Tensor:
        """Return the scene with some players alone, as the tower reads it: ``[3, S, S]``.

        Args:
            present: Which players are drawn, bool ``[n]``.
        """
        if bool(np.all(present)):
            return self.pixels
        kept = [part.name for part, there in zip(self.players, present, strict=True) if there]
        return self.drawn_as(only(self.scene, [LESION, *self.hidden, *kept]))

    def drawn_as(self, scene: Scene) -> Tensor:
        """Return another scene as this tower reads it, ``[3, S, S]``."""
        return self.preprocess(Image.fromarray(render(scene).image))

    def without_kind(self, *kinds: str) -> NDArray[np.bool_]:
        """Return the set of all players but those of some kinds, bool ``[n]``."""
        return np.array([part.kind not in kinds for part in self.players], dtype=bool)

    def without_names(self, names: Sequence[str]) -> NDArray[np.bool_]:
        """Return the set of all players but some, bool ``[n]``."""
        return np.array([part.name not in names for part in self.players], dtype=bool)


def fresh_scenes(count: int, preprocess: Preprocess, seed: int = 0) -> list[DrawnScene]:
    """Return scenes that no data set holds; see :func:`fresh_seeds`."""
    return [DrawnScene.of(sample_scene(one), preprocess) for one in fresh_seeds(count, seed)]
