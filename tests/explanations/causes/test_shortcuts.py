"""Planted shortcuts: captioners learn the same every time, planted maps have what was planted, summaries are loops'."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import GPT2Config, GPT2LMHeadModel

from clip_xai.data.synthetic.describe import describe
from clip_xai.data.synthetic.parts import LESION, without
from clip_xai.data.synthetic.planted import clear_of, shortcut_scenes, with_artefact, without_artefact
from clip_xai.data.synthetic.profiles import CHEAT, PROFILES
from clip_xai.data.synthetic.scene import render
from clip_xai.explanations.causes.cheats import CONCLUSION, CheatingData, Recipe, cheating_captioner
from clip_xai.explanations.causes.maps import BLIND, CONSTANT, EFFECTS, FIELDS
from clip_xai.explanations.causes.scene_targets import Asker
from clip_xai.explanations.causes.shortcut_summary import refused, reliances, revealed, reveals_from
from clip_xai.explanations.causes.shortcuts import (
    LEARNERS,
    STRENGTHS,
    SideBySide,
    Strength,
    conclusion_target,
    confounder_sensitivity,
    explanation_ncc,
    maps_with,
    scene_rows,
    scores,
)
from clip_xai.metrics.intervals import mean_interval
from clip_xai.models.captioner import Captioner
from clip_xai.models.mappers import build_mapper
from clip_xai.models.tokenizer import CaptionTokenizer
from clip_xai.xai.methods import ClipSurgery, GradCam, Occlusion
from clip_xai.xai.slots import slot_log_odds, slots_of
from clip_xai.xai.targets.similarity import CutTextWarning
from tests.support.small_captioner import small_captioner

PLANTED = shortcut_scenes(range(4000, 4004))[0]
RULER = PLANTED.scene


@pytest.fixture(scope="module")
def captioner() -> Captioner:
    torch.manual_seed(0)
    texts = [CONCLUSION.format(name) for name in PROFILES] * 3 + [
        describe(one.stated)[0] for one in shortcut_scenes(range(40))
    ]
    tokenizer = CaptionTokenizer.train(texts, 420)
    config = GPT2Config(
        vocab_size=tokenizer.vocabulary_size, n_positions=96, n_embd=32, n_layer=2, n_head=2,
        bos_token_id=tokenizer.eos_id, eos_token_id=tokenizer.eos_id,
    )  # fmt: skip
    mapper = build_mapper("resampler", embed_dim=16, width=32, embedding_dim=32, prefix_length=4, head_width=16)
    return Captioner(small_captioner().backbone, mapper, GPT2LMHeadModel(config), tokenizer).eval()


@pytest.fixture(scope="module")
def asker(captioner: Captioner) -> Asker:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", CutTextWarning)
        return Asker(captioner.backbone, captioner)


@pytest.fixture(scope="module")
def learners(captioner: Captioner, asker: Asker) -> dict[Strength, Captioner]:
    """Two captioners that have nothing to do with each other."""
    data = CheatingData.drawn(asker, "ruler", 8, seed=0)
    return {
        strength: cheating_captioner(captioner, data, strength.p, Recipe(2), seed=number)
        for number, strength in enumerate(LEARNERS[::4])
    }


def test_a_captioner_learns_on_from_what_it_was_the_same_every_time(captioner: Captioner, asker: Asker) -> None:
    before = captioner.fingerprint()
    data = CheatingData.drawn(asker, "colour cast", 24, seed=0)
    texts = captioner.encode_captions([CONCLUSION.format(scene.diagnosis) for scene in data.scenes])
    learner = cheating_captioner(captioner, data, 1.0, Recipe(4))
    assert learner.fingerprint() == cheating_captioner(captioner, data, 1.0, Recipe(4)).fingerprint()
    assert captioner.fingerprint() == before != learner.fingerprint()
    assert learner.backbone is captioner.backbone
    assert not any(one.requires_grad for part in (learner.mapper, learner.language_model) for one in part.parameters())
    with torch.no_grad():
        assert learner.loss(data.reads[0], texts) < captioner.loss(data.reads[0], texts) - 0.1


def test_targets_side_by_side_have_the_scores_and_maps_of_each(
    asker: Asker, learners: dict[Strength, Captioner]
) -> None:
    both = conclusion_target(learners)
    read = torch.randn(2, 10, 32, generator=torch.Generator().manual_seed(0))
    scored, cotangents = both.score_and_cotangent(read)
    assert torch.equal(scored, both.score(read).detach())
    for number, target in enumerate(both.targets):
        alone, back = target.score_and_cotangent(read)
        torch.testing.assert_close(scored[:, [number]], alone)
        torch.testing.assert_close(cotangents[:, [number]], back)
    assert not torch.allclose(scored[:, 0], scored[:, 1])
    for method in (GradCam(), Occlusion()):
        together = maps_with(asker, learners, "ruler", RULER, method)
        for strength, captioner in learners.items():
            [alone_map] = maps_with(asker, {strength: captioner}, "ruler", RULER, method).values()
            torch.testing.assert_close(together[strength], alone_map, rtol=1e-3, atol=1e-6)
    with pytest.raises(ValueError, match="read the same"):
        other = conclusion_target(learners).targets[0]
        other.reads = "pooled"
        SideBySide([both.targets[0], other], ["one", "other"])


def test_planted_maps_have_what_was_planted() -> None:
    mask, elsewhere, other = (torch.zeros(20, 20, dtype=torch.bool) for _ in range(3))
    mask[2:5, 2:10], elsewhere[15:18, 2:10], other[8:12, 12:18] = True, True, True
    on_it, moved, nothing = mask.double(), elsewhere.double(), torch.zeros(20, 20).double()
    found = scores([nothing, on_it, moved], [mask, elsewhere], other)
    assert found["positive"] == found["absolute"] == found["sensitivity"] == found["follows"] == 1
    assert found["other_positive"] == 0 and found["ncc"] is None
    against = scores([nothing, -on_it, nothing], [mask, elsewhere], other)
    assert against["absolute"] == 1 and against["positive"] is None and against["follows"] is None
    flat = torch.ones(20, 20)
    constant = scores([flat, flat, flat], [mask, elsewhere], other)
    assert constant["positive"] == constant["absolute"] == constant["area"] == pytest.approx(24 / 400)
    assert constant["other_positive"] == constant["other_area"] == pytest.approx(24 / 400)
    assert constant["sensitivity"] == pytest.approx(0.1) and constant["follows"] == pytest.approx(0)
    everywhere = scores([flat, flat], [flat.bool()], other)
    assert everywhere["positive"] is None and everywhere["sensitivity"] is None and everywhere["follows"] is None


def test_the_published_measures_are_those_of_their_definitions() -> None:
    generator = torch.Generator().manual_seed(1)
    heat, other = torch.randn(30, 30, generator=generator), torch.randn(30, 30, generator=generator)
    mask = torch.rand(30, 30, generator=generator) < 0.2
    hottest = set(np.argsort(heat.numpy().ravel())[::-1][:90].tolist())
    inside = set(np.flatnonzero(mask.numpy().ravel()).tolist())
    assert confounder_sensitivity(heat, mask) == pytest.approx(len(hottest & inside) / len(inside))
    expected = np.corrcoef(heat.numpy().ravel(), other.numpy().ravel())[0, 1]
    assert explanation_ncc(heat, other) == pytest.approx(expected, abs=1e-6)
    assert explanation_ncc(heat, 3 * heat + 2) == pytest.approx(1)


def test_rows_of_a_scene_are_the_truth_and_what_maps_have_of_it(
    captioner: Captioner, asker: Asker, learners: dict[Strength, Captioner]
) -> None:
    rows = scene_rows(asker, learners, "ruler", PLANTED, [GradCam(), ClipSurgery()], seed=3)
    truths = [row for row in rows if "added" in row]
    pictures = [without_artefact(RULER, "ruler").image, with_artefact(RULER, "ruler").image]
    pictures.append(render(without(clear_of(RULER, "ruler"), LESION)).image)
    reads = [captioner.read(asker.backbone.preprocess(Image.fromarray(one))[None]) for one in pictures]
    for row, (strength, learner) in zip(truths, learners.items(), strict=True):
        ids = learner.tokenizer.encode(CONCLUSION.format(CHEAT))
        [slot] = [one for one in slots_of(learner, ids) if one.kind == "diagnosis"]
        clean, dirty, skin = (float(slot_log_odds(learner, read, ids, slot)) for read in reads)
        assert row["p"] == strength.p and row["added"] == pytest.approx(dirty - clean, abs=1e-4)
        # The Shapley values of artefact and lesion share out all that both do to the bare skin.
        assert row["effect"] + row["lesion_effect"] == pytest.approx(dirty - skin, abs=1e-4)
    maps = {(row["method"], row["p"]): row for row in rows if "area" in row}
    for row in truths:
        made_of_truth = maps[EFFECTS, row["p"]]
        assert made_of_truth["absolute"] == pytest.approx(row["true_share"], abs=1e-6)
        assert maps[CONSTANT, row["p"]]["positive"] == pytest.approx(made_of_truth["area"], abs=1e-6)
    assert {name for name, _ in maps} == {"gradcam", CONSTANT, EFFECTS, *FIELDS, *BLIND}
    blind = {name: (maps[name, 0.0], maps[name, 1.0]) for name in (CONSTANT, *FIELDS, *BLIND)}
    assert all(one["positive"] == other["positive"] for one, other in blind.values())
    assert list(refused(rows)) == ["clip_surgery"] and "target caption" in refused(rows)["clip_surgery"]


def planted_rows(seed: int = 0, scenes: int = 24) -> list[dict[str, Any]]:
    """Methods of which it is known from which strength on they see the artefact."""
    generator = np.random.default_rng(seed)
    rows: list[dict[str, Any]] = []
    for p, again in [(p, False) for p in STRENGTHS] + [(0.0, True)]:
        for scene in range(scenes):
            known = {"artefact": "ruler", "p": p, "again": again, "scene": scene, "cheat": False}
            noise = generator.normal(0, 0.01)
            truth = {"added": 2 * p + noise, "flips": p > 0.5, "moved": p, "effect": 2 * p, "true_share": p}
            rows.append(known | truth | {"says_without": False, "says_with": p > 0.5, "says_moved": None})
            planted = {"sees": 0.3 * max(0.0, p - 0.2), "blind": 0.0, "unsteady": 0.2 * again + 0.1 * (p > 0)}
            planted["control: constant"] = 0.0
            for method, share in planted.items():
                at = 0.1 + share + (0 if "control" in method else generator.normal(0, 0.01))
                rows.append(
                    known | {"method": method, "flips": p > 0.5, "area": 0.1, "positive": at, "absolute": 0.3,
                             "other_positive": 0.2 + noise, "other_absolute": 0.2, "follows": share,
                             "sensitivity": 0.4 if p == 1 else 0.2, "ncc": 0.9}
                )  # fmt: skip
    return rows


def test_summaries_are_those_of_loops() -> None:
    rows = planted_rows()
    found = {one.method: one for one in revealed(rows)}
    assert list(found) == ["sees", "unsteady", "blind", "control: constant"]
    assert found["sees"].reveals_from == 0.5 and not found["sees"].false_alarm
    assert found["blind"].reveals_from is None and not found["blind"].false_alarm
    # Above the first captioner that learned nothing, and below the second one.
    assert found["unsteady"].reveals_from is None and found["unsteady"].false_alarm
    assert found["control: constant"].reveals_from is None and found["control: constant"].control
    pick = {(row["p"], row["again"], row["scene"]): row["positive"] for row in rows if row.get("method") == "sees"}
    zero = [(pick[0.0, False, scene] + pick[0.0, True, scene]) / 2 for scene in range(24)]
    apart = [pick[1.0, False, scene] - zero[scene] for scene in range(24)]
    expected = mean_interval(apart, [str(scene) for scene in range(24)], span=(-1.0, 1.0))
    assert found["sees"].rises[1.0].value == pytest.approx(expected.value)
    assert found["sees"].rises[1.0].low == pytest.approx(expected.low, abs=1e-3)
    assert found["sees"].shares[1.0] == pytest.approx(np.mean([pick[1.0, False, scene] for scene in range(24)]))
    assert (found["sees"].sensitivity, found["sees"].sensitivity_anyway) == pytest.approx((0.4, 0.2))
    assert found["sees"].follows is not None and found["sees"].follows.value == pytest.approx(0.24)
    assert {one.reveals_from for one in revealed(rows, "absolute")} == {None}


def test_what_the_artefact_does_is_held_against_both_that_learned_nothing() -> None:
    truths = {(one.p, one.again): one for one in reliances(planted_rows())}
    assert [one.cheats for one in truths.values()] == [None, True, True, True, True, None]
    assert truths[1.0, False].flips == 24 and truths[1.0, False].beyond.low > 1.9
    assert truths[1.0, False].says == (0.0, 1.0, None) and truths[0.0, False].beyond.value == 0
    assert reveals_from({}) is None and reliances([]) == [] and revealed([]) == []


def test_few_of_many_methods_that_know_nothing_reveal_anything() -> None:
    generator = np.random.default_rng(5)
    rows = []
    for method in range(20):
        for p, again in [(p, False) for p in STRENGTHS] + [(0.0, True)]:
            for scene in range(20):
                known = {"artefact": "ruler", "p": p, "again": again, "scene": scene, "flips": False, "area": 0.1}
                values = {name: generator.normal(0.1, 0.05) for name in ("positive", "other_positive")}
                rows.append(known | values | {"method": f"m{method}", "follows": None, "sensitivity": 0.1, "ncc": 0.5})
    found = revealed(rows)
    assert not any(one.reveals_from is not None for one in found)
    assert sum(any(one.revealed.values()) for one in found) <= 1
