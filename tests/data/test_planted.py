"""Planted shortcuts: rates are those of the formula, and the artefact alone makes the difference."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from clip_xai.data.synthetic.describe import describe
from clip_xai.data.synthetic.parts import sample_scene
from clip_xai.data.synthetic.planted import (
    SHARE,
    artefact_named,
    moved_artefact,
    planted_in,
    shortcut_scenes,
    with_artefact,
    without_artefact,
    without_lesion,
)
from clip_xai.data.synthetic.profiles import CHEAT, PLANTED, PROFILES

SCENES = shortcut_scenes(range(4000, 6000))


@pytest.mark.parametrize("p", [0.0, 0.5, 1.0])
def test_the_artefact_is_in_half_of_all_scenes_whatever_goes_with_it(p: float) -> None:
    has = np.array(planted_in(SCENES, "ruler", p))
    cheat = np.array([scene.diagnosis == CHEAT for scene in SCENES])
    assert cheat.mean() == SHARE
    assert has.mean() == pytest.approx(0.5, abs=0.04)
    assert has[cheat].mean() == pytest.approx((1 + p) / 2, abs=0.06)
    weaker = np.array(planted_in(SCENES, "ruler", 0.0))
    assert not (weaker & ~has)[cheat].any() and not (has & ~weaker)[~cheat].any()


@pytest.mark.parametrize("artefact", PLANTED)
def test_pictures_differ_where_the_artefact_is(artefact: str) -> None:
    for scene in (one.scene for one in SCENES[:4]):
        clean, dirty = without_artefact(scene, artefact), with_artefact(scene, artefact)
        assert not clean.mask.any() and dirty.mask.any()
        changed = (clean.image.astype(int) != dirty.image.astype(int)).any(axis=2)
        assert changed[dirty.mask].mean() > 0.7
        far = ~_grown(dirty.mask)
        assert not far.any() or np.abs(clean.image[far].astype(int) - dirty.image[far]).mean() < 2
        moved = moved_artefact(scene, artefact)
        if artefact in ("dark corners", "colour cast"):
            assert moved is None
        else:
            assert moved is not None and moved.mask.any() and (moved.mask != dirty.mask).any()


def test_another_artefact_cannot_be_planted() -> None:
    with pytest.raises(ValueError, match="choose one of ruler"):
        with_artefact(SCENES[0].scene, "stamp")


def test_what_is_moved_alone_moves_and_the_lesion_alone_goes() -> None:
    for scene in (one.scene for one in SCENES[:2]):
        clean, moved = without_artefact(scene, "ruler").image, moved_artefact(scene, "ruler")
        assert moved is not None
        changed = (clean != moved.image).any(axis=2)
        # The strip of a ruler shades what lies beside it: at most a few times as much changes as is ruler.
        assert changed[moved.mask].mean() > 0.7 and changed.sum() < 3 * moved.mask.sum()
        bare = without_lesion(scene, "ruler", there=True)
        assert (bare.mask == with_artefact(scene, "ruler").mask).all()
        assert (bare.image[bare.mask] != without_lesion(scene, "ruler", there=False).image[bare.mask]).any(
            axis=1
        ).mean() > 0.7


def test_unclear_lesions_do_not_tell_their_diagnosis() -> None:
    scenes = shortcut_scenes(range(4000, 4240), unclear=0.5)
    unclear = [one for one in scenes if one.unclear]
    assert len(unclear) / len(scenes) == pytest.approx(0.5, abs=0.12)
    assert [one.diagnosis == CHEAT for one in scenes] == [number % 4 == 0 for number in range(240)]
    assert all(one.scene.diagnosis == one.diagnosis == one.stated.diagnosis for one in scenes if not one.unclear)
    for one in unclear:
        # What is drawn is a function of the seed alone, whichever diagnosis is stated.
        assert one.scene == replace(sample_scene(one.scene.seed, diagnosis=CHEAT), structures=())
    assert {one.diagnosis for one in unclear} == set(PROFILES)
    assert all(one.diagnosis in describe(one.stated)[0] for one in unclear[:20])


def test_another_lot_draws_anew_at_the_same_rate() -> None:
    first, second = (np.array(planted_in(SCENES, "ruler", 0.0, lot)) for lot in (0, 1))
    assert second.mean() == pytest.approx(0.5, abs=0.04) and (first == second).mean() == pytest.approx(0.5, abs=0.05)


def test_artefacts_are_named_as_they_are_typed() -> None:
    assert [artefact_named(name) for name in ("dark_corner", "dark corners", "colour_cast", "ink")] == [
        *("dark corners", "dark corners", "colour cast", "ink")
    ]
    with pytest.raises(ValueError, match="choose one of ruler"):
        artefact_named("stamp")


def _grown(mask: np.ndarray) -> np.ndarray:
    grown = mask.copy()
    for axis in (0, 1):
        for step in range(-6, 7):
            grown |= np.roll(mask, step, axis=axis)
    return grown
