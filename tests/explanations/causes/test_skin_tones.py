"""Skin tone as an intervention: only skin changes, what is stated is compared with itself, and intervals are paired."""

from __future__ import annotations

import warnings

import numpy as np
import pytest

from clip_xai.data.synthetic.parts import on_skin, skin_types
from clip_xai.data.synthetic.scene import render
from clip_xai.data.vocabulary import load_vocabulary
from clip_xai.explanations.causes.scene_targets import Asker
from clip_xai.explanations.causes.skin_tones import DARKEST, LIGHTEST, TYPES, scenes_on_every_skin, stated, tone_rows
from clip_xai.explanations.causes.tone_summary import tone_maps, tone_words
from clip_xai.metrics.intervals import mean_interval
from clip_xai.xai.examples import example
from clip_xai.xai.methods import GradCam, Saliency
from clip_xai.xai.targets.similarity import CutTextWarning


def test_scenes_are_those_that_every_skin_shows_and_the_others_are_counted() -> None:
    found = scenes_on_every_skin(6, seed=3)
    assert len(found.scenes) == 6 and found.left_out > 0
    for scene in found.scenes:
        assert skin_types(scene) == TYPES
        masks = [render(on_skin(scene, kind), 96, 128).lesion_mask for kind in (LIGHTEST, DARKEST)]
        np.testing.assert_array_equal(*masks)
    assert [one.seed for one in scenes_on_every_skin(3, seed=3).scenes] == [one.seed for one in found.scenes[:3]]


def test_a_clip_by_itself_is_asked_on_every_skin() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", CutTextWarning)
        asker = Asker(example()[0])
    [scene] = scenes_on_every_skin(1).scenes
    rows = tone_rows(asker, scene, [GradCam(), Saliency()])
    assert [row["type"] for row in rows if "attribute" in row] == list(TYPES)
    assert {(row["method"], row["type"]) for row in rows if "method" in row} == {
        (name, kind) for name in ("gradcam", "saliency") for kind in (LIGHTEST, DARKEST)
    }


def test_what_is_stated_is_read_by_attribute() -> None:
    text = "A large, round, red lesion in the upper left with an irregular border, showing streaks and globules."
    found = stated(text, load_vocabulary())
    assert (found["structures"], found["position"], found["diagnosis"]) == ("globules, streaks", "upper left", "")


def test_changes_are_those_of_a_loop_over_scenes() -> None:
    generator = np.random.default_rng(0)
    rows = []
    for scene in range(30):
        for kind in TYPES:
            wrong = generator.random() < 0.1 * kind
            said = "x" if not wrong else "y"
            rows.append({"scene": scene, "type": kind, "attribute": "diagnosis", "said": said, "right": not wrong})
        for kind in (LIGHTEST, DARKEST):
            noise = generator.normal(0, 0.01)
            rows.append({"scene": scene, "type": kind, "method": "m", "auprc": 0.6 - 0.02 * kind + noise, "gain": 1.0})
    [word], [maps] = tone_words(rows), tone_maps(rows)
    said = {(row["scene"], row["type"]): row["said"] for row in rows if "said" in row}
    for kind in TYPES[1:]:
        changed = np.mean([said[scene, kind] != said[scene, LIGHTEST] for scene in range(30)])
        assert word.changed[kind].value == pytest.approx(changed)
    right = {pair: value == "x" for pair, value in said.items()}
    paired = [float(right[scene, DARKEST]) - float(right[scene, LIGHTEST]) for scene in range(30)]
    assert word.loss == mean_interval(paired, [str(one) for one in range(30)], span=(-1.0, 1.0))
    assert maps.auprc_change.value == pytest.approx(-0.1, abs=0.01) and maps.auprc_change.high < 0
    assert maps.gain_change.value == 0 and tone_words([]) == [] and tone_maps([]) == []
