"""Scenes drawn without a part, in another colour, place or skin: everything else stays pixel for pixel."""

from __future__ import annotations

from dataclasses import replace
from itertools import permutations

import numpy as np
import pytest
from scipy.ndimage import binary_dilation

from clip_xai.data.synthetic import parts
from clip_xai.data.synthetic.composition import Mark, Scene, sample_scene
from clip_xai.data.synthetic.parts import LESION, free_positions, moved, on_skin, only, parts_of, recoloured, without
from clip_xai.data.synthetic.profiles import COLOURS, PROFILES
from clip_xai.data.synthetic.scene import render
from clip_xai.data.vocabulary import load_vocabulary

SIZE = (72, 96)
ARTEFACTS = {"clinical": ("ruler", "ink", "bandage", "freckles"),
             "dermoscopic": ("ruler", "ink", "gel bubbles", "dark corners", "freckles")}  # fmt: skip


def full(seed: int, diagnosis: str, view: str) -> Scene:
    """A scene with everything that its diagnosis and view can have, and a mark of every kind."""
    profile = PROFILES[diagnosis]
    able = {*profile.always, *profile.one_of, *(name for name, _ in profile.sometimes)}
    scene = sample_scene(seed, diagnosis=diagnosis, view=view, position="upper left", size="medium")
    kinds = ("freckle", "mole", "angioma", "scar", "ink dot", "sticker", "red patch")
    marks = tuple(Mark(kind, -0.6 + 0.21 * k, 0.6, 0.09, k) for k, kind in enumerate(kinds))
    structures = tuple(name for name in load_vocabulary("skin").structures if name in able)
    artefacts = (*ARTEFACTS[view], *kinds)
    return replace(scene, structures=structures, marks=marks, distractors=artefacts, hair="few dark")


CASES = [(seed, diagnosis, view) for seed, diagnosis in enumerate(PROFILES) for view in ARTEFACTS]


def differs(one: Scene, two: Scene) -> np.ndarray:
    return (render(one, *SIZE).image != render(two, *SIZE).image).any(axis=-1)


@pytest.mark.parametrize(("seed", "diagnosis", "view"), CASES)
def test_without_a_part_the_picture_changes_inside_the_parts_reach_alone(seed: int, diagnosis: str, view: str) -> None:
    scene = full(seed, diagnosis, view)
    drawn = render(scene, *SIZE, parts=True)
    assert {part.name for part in parts_of(scene)} == set(drawn.part_masks) == set(drawn.touched)
    for part in parts_of(scene):
        changed = (drawn.image != render(without(scene, part.name), *SIZE).image).any(axis=-1)
        mask = drawn.part_masks[part.name]
        assert changed.any() and mask.any(), part
        assert not (changed & ~parts.reach(drawn, part.name)).any(), part
        assert (binary_dilation(mask, iterations=2) & changed).any(), part
    for part in parts_of(scene):  # The visible masks themselves are where the picture changes most.
        if part.kind != "structure":
            continue
        alone = only(scene, [LESION, part.name])
        change = np.abs(render(alone, *SIZE).image.astype(int) - render(only(scene, [LESION]), *SIZE).image)
        mask = drawn.part_masks[part.name]
        assert change[mask].mean() > 3 * change[~mask].mean(), part


def test_parts_can_be_left_out_in_any_order() -> None:
    scene = full(3, "melanoma", "clinical")
    for names in permutations(("globules", "ruler", "mole 2", "hair")):
        one = scene
        for name in names:
            one = without(one, name)
        assert one == without(scene, *names)
    assert only(scene, [part.name for part in parts_of(scene)]) == scene
    bare = only(scene, [LESION])
    assert [part.name for part in parts_of(bare)] == [LESION]
    assert parts_of(only(scene, [])) == () == parts_of(without(scene, *(part.name for part in parts_of(scene))))
    with pytest.raises(ValueError, match=r"does not have a part 'scale'; it has lesion"):
        without(scene, "scale")


def test_a_mark_keeps_its_looks_when_the_one_before_it_goes() -> None:
    scene = full(5, "eczema", "clinical")
    changed = differs(scene, without(scene, "freckle 1"))
    x = (np.arange(SIZE[1]) + 0.5) * 2 / SIZE[0] - SIZE[1] / SIZE[0]
    assert changed.any() and np.ptp(x[changed.any(axis=0)]) < 0.4


def test_the_choice_of_one_thing_does_not_change_that_of_another(monkeypatch: pytest.MonkeyPatch) -> None:
    before = [sample_scene(seed, "melanoma") for seed in range(200)]
    profile = replace(PROFILES["melanoma"], sometimes=(("pigment network", 0.25),))
    monkeypatch.setitem(PROFILES, "melanoma", profile)
    after = [sample_scene(seed, "melanoma") for seed in range(200)]
    kept = 0
    for one, two in zip(before, after, strict=True):
        if "globules" in one.structures and len(one.structures) < 3:
            assert without(one, "globules") == two
            kept += 1
        assert replace(one, structures=()) == replace(two, structures=())
    assert kept > 10
    moles = [scene.marks for scene in before if len(scene.marks) == 4]
    assert all([mark.number for mark in marks] == [0, 1, 2, 3] for marks in moles) and moles


def test_another_colour_changes_the_lesion_alone() -> None:
    for seed, diagnosis in enumerate(PROFILES):
        scene = sample_scene(seed, diagnosis=diagnosis, fitzpatrick=2)
        drawn = render(scene, *SIZE, parts=True)
        for colour in set(COLOURS) - {scene.colour}:
            assert not (differs(scene, recoloured(scene, colour)) & ~parts.reach(drawn, LESION)).any(), diagnosis
    with pytest.raises(ValueError, match="does not stand out"):
        recoloured(sample_scene(1, fitzpatrick=6), "light brown")
    with pytest.raises(ValueError, match="choose one of"):
        recoloured(sample_scene(1), "green")


def test_a_moved_lesion_leaves_its_old_place_and_takes_a_free_one() -> None:
    tried = 0
    for seed in range(12):
        scene = sample_scene(seed)
        assert sample_scene(seed, position=scene.position) == scene
        old = parts.reach(render(scene, *SIZE, parts=True), LESION)
        for position in free_positions(scene)[:2]:
            there = moved(scene, position)
            new = render(there, *SIZE, parts=True)
            assert not (differs(scene, there) & ~old & ~parts.reach(new, LESION)).any(), (seed, position)
            assert there.position == position and there.marks == scene.marks
            assert replace(moved(there, scene.position), around=None) == scene
            tried += 1
    assert tried > 12
    scene = full(3, "melanoma", "clinical")
    with pytest.raises(ValueError, match="mole 2 is in the way of a lesion in the lower left"):
        moved(replace(scene, marks=(Mark("mole", -0.5, 0.5, 0.12, 1),), distractors=("mole",)), "lower left")


def test_another_skin_leaves_every_other_field() -> None:
    scene = sample_scene(4, diagnosis="psoriasis", colour="red")
    types = parts.skin_types(scene)
    assert types == (1, 2, 3, 4, 5, 6)
    brightness = []
    for kind in types:
        other = on_skin(scene, kind)
        assert replace(other, fitzpatrick=scene.fitzpatrick, skin=scene.skin) == scene
        assert sample_scene(4, diagnosis="psoriasis", colour="red", fitzpatrick=kind) == other
        brightness.append(render(other, *SIZE).image.mean())
    assert brightness == sorted(brightness, reverse=True)
    with pytest.raises(ValueError, match="Fitzpatrick type 6"):
        on_skin(sample_scene(1, colour="light brown", fitzpatrick=2), 6)
