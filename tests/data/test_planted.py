"""Planted shortcuts: rates are those of the formula, and the artefact alone makes the difference."""

from __future__ import annotations

import numpy as np
import pytest

from clip_xai.data.synthetic.planted import (
    SHARE,
    moved_artefact,
    planted_in,
    shortcut_scenes,
    with_artefact,
    without_artefact,
)
from clip_xai.data.synthetic.profiles import CHEAT, PLANTED

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
    for scene in SCENES[:4]:
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
        with_artefact(SCENES[0], "stamp")


def _grown(mask: np.ndarray) -> np.ndarray:
    grown = mask.copy()
    for axis in (0, 1):
        for step in range(-6, 7):
            grown |= np.roll(mask, step, axis=axis)
    return grown
