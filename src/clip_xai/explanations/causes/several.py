"""Pictures of several lesions, and mosaics of several scenes: does the map of a word choose its own?

Every lesion, or every cell of a mosaic, can be left out, so that what each word rests on is known here too. Two scores
of a map, over the k places alone (Rao et al., CVPR 2022; Baniecki et al., NeurIPS 2025):

- own: share of its positive mass that lies on its own place. A map that knows nothing has the place's share of area.
- signed: (positive mass on its own place + negative mass on the others) / all mass. A signed map that knows nothing has
  one half, one without negative values the place's share of the area: so each has a chance of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from clip_xai.data.preprocess import Preprocess
from clip_xai.data.synthetic.parts import LESION, Scene, reach, sample_scene, without
from clip_xai.data.synthetic.scene import MINIMUM_SIDE, render
from clip_xai.data.vocabulary import load_vocabulary
from clip_xai.explanations.causes.scenes import fresh_seeds

LESIONS, MOSAIC = "several lesions", "mosaic"
_CORNERS = ("upper left", "upper right", "lower left", "lower right")
_DONORS = 64  # scenes that are tried for each place
Picture = NDArray[np.uint8]


@dataclass(frozen=True)
class Pasted:
    """What one place of a picture shows.

    Attributes:
        scene: The scene that it was drawn from.
        area: Pixels that come from it, bool ``[H, W]``.
        region: Pixels that count as its own, bool ``[H, W]``: the lesion, or the cell of a mosaic.
        picture: These pixels, ``[H, W, 3]``.
    """

    scene: Scene
    area: NDArray[np.bool_]
    region: NDArray[np.bool_]
    picture: Picture


@dataclass(frozen=True)
class SeveralPicture:
    """A picture of k places.

    Attributes:
        kind: ``several lesions`` or ``mosaic``.
        seed: Of the picture.
        base: The picture with nothing at any place, ``[H, W, 3]``.
        places: What stands at each.
        preprocess: The tower's.
    """

    kind: str
    seed: int
    base: Picture
    places: tuple[Pasted, ...]
    preprocess: Preprocess

    @property
    def diagnoses(self) -> list[str]:
        """What each place shows."""
        return [place.scene.diagnosis for place in self.places]

    @cached_property
    def masks(self) -> Tensor:
        """The places' own regions in the tower's square, bool ``[k, S, S]``."""
        height, width = self.base.shape[:2]
        geometry, size = self.preprocess.geometry(width, height), self.preprocess.image_size
        return torch.stack([geometry.locate(torch.from_numpy(one.region), size) >= 0.5 for one in self.places])

    def image(self, present: Sequence[bool] | NDArray[np.bool_] | None = None) -> Image.Image:
        """Return the picture with some of its places alone; all if None."""
        drawn = self.base.copy()
        for there, place in zip(
            present if present is not None else [True] * len(self.places), self.places, strict=True
        ):
            if there:
                drawn[place.area] = place.picture[place.area]
        return Image.fromarray(drawn)

    def draw(self, present: Sequence[bool] | NDArray[np.bool_] | None = None) -> Tensor:
        """Return it as the tower reads it, ``[3, S, S]``."""
        return self.preprocess(self.image(present))

    def caption(self) -> tuple[str, list[tuple[int, int]]]:
        """Return a text that names every lesion, and where in it the colour of each stands."""
        said, spans = "", []
        for place in self.places:
            scene = place.scene
            start = f"{' ' if said else ''}A {scene.size}, {scene.shape}, "
            rest = f" lesion lies in the {scene.position}."
            spans.append((len(said + start), len(said + start + scene.colour)))
            said += start + scene.colour + rest
        return said, spans


def several_lesions(seed: int, count: int, preprocess: Preprocess) -> SeveralPicture:
    """Draw small lesions of different diagnoses on one skin, each in another corner.

    Args:
        seed: Of the picture.
        count: k, 2 to 4.
        preprocess: The tower's.
    """
    skin = replace(sample_scene(seed), marks=(), distractors=(), hair="none")
    order = np.random.default_rng(seed).permutation(len(_CORNERS))[:count]
    places: list[Pasted] = []
    for corner in sorted(int(one) for one in order):
        taken = [place.scene.diagnosis for place in places]
        for step in range(_DONORS):
            donor = sample_scene(
                seed + 1 + step, view=skin.view, fitzpatrick=skin.fitzpatrick, position=_CORNERS[corner], size="small"
            )
            if any(_same(donor.diagnosis, one) for one in taken):
                continue
            scene = _on(skin, donor)
            drawn = render(scene, parts=True)
            area = reach(drawn, LESION)
            if not any((area & place.area).any() for place in places):
                places.append(Pasted(scene, area, drawn.lesion_mask, drawn.image))
                break
    return SeveralPicture(
        LESIONS, seed, render(replace(skin, body=False, structures=())).image, tuple(places), preprocess
    )


def mosaic(seed: int, preprocess: Preprocess, grid: tuple[int, int]) -> SeveralPicture:
    """Lay four scenes of different diagnoses side by side, each on whole cells of the tower's grid.

    With an odd number of rows or columns, the middle one shows bare skin.

    Args:
        seed: Of the picture.
        preprocess: The tower's.
        grid: Rows and columns of its cells.
    """
    size = preprocess.image_size
    scenes: list[Scene] = []
    step = 0
    while len(scenes) < 4:
        step += 1
        scene = sample_scene(seed + step)
        if not any(_same(scene.diagnosis, one.diagnosis) for one in scenes):
            scenes.append(scene)
    rows, columns = (size * (cells // 2) // cells for cells in grid)
    base = np.asarray(Image.fromarray(_square(without(scenes[0], LESION))).resize((size, size))).copy()
    places = []
    for number, scene in enumerate(scenes):
        down, across = divmod(number, 2)
        window = (
            slice(size - rows, size) if down else slice(0, rows),
            slice(size - columns, size) if across else slice(0, columns),
        )
        area = np.zeros((size, size), bool)
        area[window] = True
        picture = np.zeros((size, size, 3), np.uint8)
        picture[window] = np.asarray(Image.fromarray(_square(scene)).resize((columns, rows), Image.Resampling.LANCZOS))
        base[window] = np.asarray(Image.fromarray(_square(without(scene, LESION))).resize((columns, rows)))
        places.append(Pasted(scene, area, area, picture))
    # The square is the picture: nothing is scaled or cropped, so that cells stay whole.
    return SeveralPicture(MOSAIC, seed, base, tuple(places), replace(preprocess, resize="squash", scaled=None))


def several_pictures(count: int, preprocess: Preprocess, grid: tuple[int, int], seed: int = 0) -> list[SeveralPicture]:
    """Return so many pictures of 2, 3, 4, 2 ... lesions and as many mosaics, of fresh seeds that no scene has."""
    seeds = [one + 2**19 + 1000 * number for number, one in enumerate(fresh_seeds(count, seed))]
    lesions = [several_lesions(one, 2 + number % 3, preprocess) for number, one in enumerate(seeds)]
    return [*lesions, *(mosaic(one + 500, preprocess, grid) for one in seeds)]


@dataclass(frozen=True)
class Choice:
    """How far the map of one word chooses its own place.

    Attributes:
        own: Share of the positive mass on its own place.
        own_chance: The place's share of the area.
        signed: Share of all mass that has the right sign at each place.
        signed_chance: One half for a map with negative values, else the place's share of the area.
    """

    own: float
    own_chance: float
    signed: float
    signed_chance: float


def choice(masses: NDArray[np.floating], areas: NDArray[np.floating], place: int, signed: bool) -> Choice:
    """Score the map of the word whose own place is the n-th.

    Args:
        masses: Its mass on each of k places, positive and negative apart: ``[k, 2]``, both at least 0.
        areas: Of the places, ``[k]``.
        place: n.
        signed: Whether the method gives negative values at all.

    Returns:
        NaN for scores of a map that is blank on all places.

    Example:
        >>> choice(np.array([[3.0, 0.0], [1.0, 4.0]]), np.array([1.0, 1.0]), 0, True)
        Choice(own=0.75, own_chance=0.5, signed=0.875, signed_chance=0.5)
    """
    positive, negative = masses.T
    chance = float(areas[place] / areas.sum())
    every, above = float(masses.sum()), float(positive.sum())
    right = positive[place] + negative.sum() - negative[place]
    return Choice(
        float(positive[place]) / above if above > 0 else float("nan"),
        chance,
        float(right) / every if every > 0 else float("nan"),
        0.5 if signed else chance,
    )


def _same(one: str, two: str) -> bool:
    return load_vocabulary().agree(one, two)


def _on(skin: Scene, donor: Scene) -> Scene:
    """The donor's lesion on the very skin, and in the light, of another scene."""
    return replace(
        donor, seed=skin.seed, skin=skin.skin, lighting=skin.lighting, light_direction=skin.light_direction,
        marks=(), distractors=(), hair="none", around=skin.artefacts_around,
    )  # fmt: skip


def _square(scene: Scene) -> Picture:
    return render(scene, 2 * MINIMUM_SIDE, 2 * MINIMUM_SIDE).image
