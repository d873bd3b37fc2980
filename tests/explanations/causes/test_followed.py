"""Maps that follow the words, held against planted effects; and one scene with a captioner from end to end."""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
import torch

from clip_xai.explanations.causes.followed import (
    DIRECT,
    EQUAL,
    FOLLOWED,
    PERMUTED,
    VARIANTS,
    WHOLE,
    WordFollower,
    variants,
    words_behind,
)
from clip_xai.explanations.causes.followed_measures import followed_rows, followed_table, measure_followed
from clip_xai.explanations.causes.maps import masses as masses_on
from clip_xai.explanations.causes.one_scene import SceneCauses, causes_of
from clip_xai.explanations.causes.scene_targets import Asker, SceneQuestion
from clip_xai.explanations.causes.scenes import fresh_scenes
from clip_xai.explanations.causes.store import load_scene, save_scene
from clip_xai.explanations.composed_maps import composed_maps
from clip_xai.explanations.ledger import LedgerSettings
from clip_xai.models.backbones.source import BackboneSource
from clip_xai.models.settings import Decoding
from clip_xai.models.weights import CaptionerSettings, build_captioner
from clip_xai.xai.methods import AbsCamFinal, AttentionRollout, GradCam
from clip_xai.xai.slots import slots_of
from clip_xai.xai.target import CaptionTarget
from tests.explanations.causes.test_measures import planted
from tests.explanations.test_composed_maps import planted as planted_ledger


def followed(seed: int) -> SceneCauses:
    """A scene on which one method's followed maps are the effects, and its other maps know nothing."""
    scene, generator = planted(seed), np.random.default_rng(seed)
    blind = generator.normal(size=(len(VARIANTS), 2, len(scene.parts)))
    found = {("gradcam", variant): blind[row] for row, variant in enumerate(VARIANTS)}
    found["gradcam", FOLLOWED] = scene.effects_anew.T + generator.normal(0, 1e-4, (2, len(scene.parts)))
    found["gradcam", EQUAL] = found["gradcam", FOLLOWED].copy()
    return replace(scene, ledger=planted_ledger(), followed=found)


def ordered(importances: np.ndarray, effects: np.ndarray) -> float:
    """Pair by pair: the share of the distances of effects whose pairs the importances order alike."""
    alike = total = 0.0
    for one, two in combinations(range(len(effects)), 2):
        apart, told = effects[one] - effects[two], importances[one] - importances[two]
        total += abs(apart)
        alike += abs(apart) * (0.5 if told == 0 else float(apart * told > 0))
    return alike / total


def test_followed_maps_that_are_the_effects_are_above_maps_that_know_nothing(tmp_path: Path) -> None:
    scenes = [followed(seed) for seed in range(30)]
    [measured] = measure_followed(scenes)
    slow = [
        ordered(scene.followed["gradcam", DIRECT][thing], scene.effects_anew[:, thing])
        for scene in scenes
        for thing in (0, 1)
    ]
    assert measured.scores[DIRECT].value == pytest.approx(np.mean(slow))
    assert measured.scores[FOLLOWED].value > 0.99 and measured.scores[FOLLOWED].n == 60
    for variant in (DIRECT, PERMUTED, WHOLE):
        assert measured.differences[variant].low > 0.3
    assert measured.differences[EQUAL].value == 0
    assert measure_followed(scenes, "structure")[0].scores[FOLLOWED].n == 30
    table = followed_table([measured], ["gradcam"])
    assert table is not None and table.rows[0][0].endswith("*") and "None is above all four" in table.note
    assert followed_rows([measured], [])[0]["leads"] is False
    save_scene(scenes[0], tmp_path / "scene.npz")
    again = load_scene(tmp_path / "scene.npz")
    assert again is not None and again.ledger == scenes[0].ledger
    np.testing.assert_allclose(again.followed["gradcam", WHOLE], scenes[0].followed["gradcam", WHOLE])
    assert measure_followed([replace(scene, followed={}) for scene in scenes]) == [] and followed_table([], []) is None


def test_variants_share_alike_or_in_another_order() -> None:
    direct = torch.rand(5, 3, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    ledger = planted_ledger()
    found = variants(direct, direct[0], ledger, seed=1)
    torch.testing.assert_close(found[FOLLOWED], composed_maps(direct, ledger))
    torch.testing.assert_close(
        found[EQUAL], composed_maps(direct, ledger, [{}, {0: 1.0}, {}, {0: 0.5, 1: 0.5}, {0: 1.0}])
    )
    swapped = composed_maps(direct, ledger, [{}, {0: 1.0}, {}, {0: 0.25, 1: 0.75}, {0: 1.0}])
    seeds = [variants(direct, direct[0], ledger, seed)[PERMUTED] for seed in range(12)]
    assert any(torch.allclose(one, swapped) for one in seeds)
    assert all(torch.allclose(one, swapped) or torch.allclose(one, found[FOLLOWED]) for one in seeds)
    assert (found[WHOLE] == direct[0]).all() and found[DIRECT] is direct


def test_a_scene_with_a_captioner_from_end_to_end() -> None:
    torch.manual_seed(0)
    settings = CaptionerSettings(BackboneSource("tiny", "tiny", "embedded:tiny"), "resampler", {"prefix_length": 4})
    captioner = build_captioner(settings).eval()  # it speaks of lesions already, and does not see them yet
    asker = Asker(captioner.backbone, captioner, Decoding(max_new_tokens=60), samples=2)
    follower = WordFollower.of(asker, LedgerSettings(others=11, samples=6, of_others=2))
    assert len(follower.others) == 11
    for drawn in fresh_scenes(4, captioner.backbone.preprocess, seed=3):
        found = causes_of(asker, drawn, [GradCam(), AbsCamFinal(), AttentionRollout()], None, 0, follower)
        if found.followed:
            break
    assert found.ledger is not None and found.ledger.others == 11
    assert {method for method, _ in found.followed} == {"gradcam"}  # rollout draws the same map for every word
    # Abs-CAM's final map is not defined for log-probabilities, which is said once and takes nothing else with it.
    assert [said.split()[0] for said in found.refused] == ["abscam_final"]
    things = len(found.names)
    for variant in VARIANTS:
        masses = found.followed["gradcam", variant]
        assert masses.shape == (things, len(found.parts)) and np.isnan(masses[-1]).all()  # the contrast is no word
        assert not np.isnan(masses[0]).any()
    # Only maps that something asked follows from are made, and those of the words asked are not made twice: as if all
    # words had been explained together.
    question = SceneQuestion.of(asker, drawn)
    slots = slots_of(captioner, question.caption.token_ids)
    target = CaptionTarget(captioner, question.caption.token_ids, [slot.tokens for slot in slots], ["w"] * len(slots))
    direct = GradCam().explain(captioner.backbone, drawn.pixels[None], target).values[0].double().nan_to_num()
    composed = composed_maps(direct, found.ledger)
    numbers = {number: slots.index(one.slot) for number, one in enumerate(question.asked) if one.slot is not None}
    expected = masses_on({number: composed[row] for number, row in numbers.items()}, drawn.masks, things)[:, :, 0]
    np.testing.assert_allclose(found.followed["gradcam", FOLLOWED], expected, rtol=1e-3, atol=1e-4)


def test_words_behind_a_word_are_those_it_follows_from_and_theirs() -> None:
    ledger = planted_ledger()  # 1 follows from 0, 3 from 0 and 1, 4 from 0
    assert words_behind(ledger, [3]) == [0, 1, 3] and words_behind(ledger, [4, 2]) == [0, 2, 4]
    assert words_behind(ledger, []) == []
