"""Scenes and their renderings: determinism, masks against the geometry, contrast, and the spread of what is drawn."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from collections import Counter
from functools import cache

import numpy as np
import pytest
from scipy.ndimage import binary_dilation

from clip_xai.data.synthetic.composition import POSITIONS
from clip_xai.data.synthetic.profiles import PROFILES, SIZE_RADII
from clip_xai.data.synthetic.scene import Rendering, Scene, render, sample_scene
from clip_xai.data.vocabulary import load_vocabulary

SKIN = load_vocabulary("skin")

SCENES = [sample_scene(seed) for seed in range(120)]


@cache
def drawn(seed: int) -> Rendering:
    return render(SCENES[seed], 96, 128)


def digest(scene: Scene) -> str:
    return hashlib.sha256(render(scene, 96, 128).image.tobytes()).hexdigest()


def central(mask: np.ndarray) -> np.ndarray:
    side = min(mask.shape[:2])
    top, left = (mask.shape[0] - side) // 2, (mask.shape[1] - side) // 2
    return mask[top : top + side, left : left + side]


def test_the_same_seed_gives_the_same_bytes_in_another_process() -> None:
    code = (
        "import hashlib; from clip_xai.data.synthetic.scene import *; "
        "print(hashlib.sha256(render(sample_scene(5), 96, 128).image.tobytes()).hexdigest())"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    elsewhere = subprocess.check_output([sys.executable, "-c", code], text=True, env=environment).strip()
    assert elsewhere == digest(SCENES[5]) == digest(SCENES[5])
    assert digest(SCENES[5]) != digest(SCENES[6])


def test_the_lesion_lies_inside_the_central_square_in_the_cell_and_of_the_size_that_are_stated() -> None:
    areas = []
    for seed, scene in enumerate(SCENES):
        mask = drawn(seed).lesion_mask
        square = central(mask)
        assert mask.sum() == square.sum() > 0
        rows, columns = np.nonzero(square)
        side = len(square)
        cell = int((rows.mean() + 0.5) / side * 3) * 3 + int((columns.mean() + 0.5) / side * 3)
        assert POSITIONS[cell] == scene.position, seed
        area = square.mean()
        areas.append(area)
        radius = np.sqrt(area * 4 / np.pi)
        nearest = min(SIZE_RADII, key=lambda size: abs(np.mean(SIZE_RADII[size]) - radius))
        assert nearest == scene.size, (seed, radius)
    assert 0.09 <= np.mean(areas) <= 0.12


def test_masks_are_the_same_composition_at_every_size() -> None:
    for seed in (0, 3, 9):
        small = central(drawn(seed).lesion_mask)
        large = central(render(SCENES[seed], 288, 384).lesion_mask).reshape(96, 3, 96, 3).mean((1, 3)) > 0.5
        assert (small & large).sum() / (small | large).sum() > 0.95
    square = render(SCENES[0], 96, 96)
    assert (square.lesion_mask == central(drawn(0).lesion_mask)).all()
    with pytest.raises(ValueError, match="at least 64"):
        render(SCENES[0], 63, 200)


def test_structures_have_masks_on_or_beside_the_lesion() -> None:
    for seed, scene in enumerate(SCENES):
        drawing = drawn(seed)
        assert tuple(drawing.structure_masks) == scene.structures
        near = binary_dilation(drawing.lesion_mask, iterations=16)
        for name, mask in drawing.structure_masks.items():
            assert mask.shape == drawing.lesion_mask.shape and mask.any(), (seed, name)
            assert (mask & near).sum() == mask.sum(), (seed, name)


def test_the_lesion_stands_out_from_the_skin_around_it() -> None:
    for seed in range(len(SCENES)):
        drawing = drawn(seed)
        pixels = drawing.image.astype(float)
        ring = binary_dilation(drawing.lesion_mask, iterations=8) & ~binary_dilation(drawing.lesion_mask, iterations=3)
        around = np.median(pixels[ring], axis=0)
        difference = np.linalg.norm(pixels[drawing.lesion_mask] - around, axis=1)
        assert np.percentile(difference, 75) > 20, SCENES[seed]


def test_a_second_mark_is_smaller_than_any_lesion_and_never_on_it() -> None:
    smallest = min(low for low, _ in SIZE_RADII.values())
    for scene in SCENES:
        for mark in scene.marks:
            assert mark.radius < 0.7 * smallest
            away = np.hypot(mark.x - scene.centre_x, mark.y - scene.centre_y)
            assert away > mark.radius + 0.5 * scene.radius


def test_cells_sizes_and_diagnoses_are_spread_evenly() -> None:
    scenes = [sample_scene(seed) for seed in range(1800)]
    for name, values in (("position", POSITIONS), ("size", tuple(SIZE_RADII)), ("diagnosis", tuple(PROFILES))):
        counts = Counter(getattr(scene, name) for scene in scenes)
        expected = len(scenes) / len(values)
        chi_square = sum((counts[value] - expected) ** 2 / expected for value in values)
        assert chi_square < 3 * len(values), (name, counts)
    assert np.mean([bool(scene.distractors) for scene in scenes]) > 0.8
    assert {scene.fitzpatrick for scene in scenes} == {1, 2, 3, 4, 5, 6}


def test_what_is_fixed_stays_fixed_and_the_rest_stays_as_drawn() -> None:
    free = sample_scene(11)
    position = next(cell for cell in POSITIONS if cell != free.position)
    moved = sample_scene(11, position=position)
    assert moved.position == position
    for name in ("diagnosis", "colour", "size", "border", "shape", "fitzpatrick", "view", "structures", "outline"):
        assert getattr(moved, name) == getattr(free, name)
    scene = sample_scene(1, "psoriasis", "dermoscopic", 5, "purple", "lower left", "large")
    assert (scene.diagnosis, scene.view, scene.fitzpatrick) == ("psoriasis", "dermoscopic", 5)
    assert (scene.colour, scene.position, scene.size) == ("purple", "lower left", "large")
    with pytest.raises(ValueError, match="does not stand out"):
        sample_scene(1, colour="light brown", fitzpatrick=6)
    with pytest.raises(ValueError, match="choose one of"):
        sample_scene(1, diagnosis="measles")


def test_rendered_diagnoses_are_in_the_ontology() -> None:
    assert len(PROFILES) == 12 and set(PROFILES) <= set(SKIN.diagnoses)
