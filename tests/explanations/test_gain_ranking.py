"""xai=best without a judged ranking: relevance gain on validation photographs, and what is kept of it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import yaml

from clip_xai.config.cli import CONF
from clip_xai.errors import UserError
from clip_xai.explanations.explainer_ranking import MethodJudged, best_explainers, in_order, ranking_beside
from clip_xai.explanations.gain_ranking import CANDIDATES, FILE, GainRanking, gains_beside, measured_gains
from clip_xai.explanations.measures.photographs import PhotographAsker
from clip_xai.explanations.photographs import Photograph
from clip_xai.models.backbones.backbone_builder import EMBEDDED, build_backbone
from clip_xai.xai.curve_protocols import PROTOCOLS
from clip_xai.xai.insertion_deletion import insertion_deletion
from clip_xai.xai.methods import AttentionRollout, Saliency
from clip_xai.xai.perturbation_bank import PerturbationBank
from clip_xai.xai.target import SimilarityTarget
from clip_xai.xai.targets.question import Question
from tests.support.small_runs import draw

MODEL = {"tower": "abc"}
TEXT = "a brown lesion"


def test_gains_are_those_of_the_plain_curves_and_are_kept_by_kind(tmp_path: Path) -> None:
    pictures = sorted((draw(tmp_path, count=10) / "mine").glob("*.jpg"))
    photographs = [Photograph(path, path.stem, group=path.stem) for path in pictures]
    backbone = build_backbone("tiny", "tiny", EMBEDDED)
    asker = PhotographAsker(backbone, Question(("similarity",), text=TEXT))
    methods = [Saliency(), AttentionRollout()]
    found = measured_gains(asker, photographs, methods, MODEL)
    assert set(found.kinds) == {"similarity"} and found.scenes == 10
    by = {one.method: one for one in found.kinds["similarity"]}
    target = SimilarityTarget.from_texts(backbone, [TEXT])
    protocol, expected = replace(PROTOCOLS["mean"], marks=(0.1, 0.3, 0.7, 0.9)), []
    for path in pictures:
        pixels = backbone.preprocess.read(path)[None]
        heat = Saliency().explain(backbone, pixels, target).values[0]
        curves = insertion_deletion(PerturbationBank(backbone, pixels), target, heat, protocol)
        expected.append(float(curves.relevance_gain()[0, 0]))
    assert by["saliency"].value == pytest.approx(np.mean(expected), abs=1e-4)
    low, high = by["saliency"].low, by["saliency"].high
    assert low is not None and high is not None and low < by["saliency"].value < high
    assert by["saliency"].seconds is not None and by["saliency"].settings == Saliency().settings
    with pytest.raises(UserError, match="9 patients or lesions in the validation split are too few"):
        measured_gains(asker, photographs[:9], methods, MODEL)


def test_a_photograph_that_cannot_be_read_is_left_out_and_counted(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    pictures = sorted((draw(tmp_path, count=11) / "mine").glob("*.jpg"))
    pictures[4].write_bytes(b"no photograph")
    photographs = [Photograph(path, path.stem, group=path.stem) for path in pictures]
    asker = PhotographAsker(build_backbone("tiny", "tiny", EMBEDDED), Question(("similarity",), text=TEXT))
    found = measured_gains(asker, photographs, [AttentionRollout()], MODEL)
    assert found.scenes == 10 and "left out of the relevance gain: 1 of 11" in caplog.text
    assert pictures[4].name in caplog.text
    with pytest.raises(UserError, match="9 patients or lesions in the validation split are too few"):
        measured_gains(asker, photographs[:10], [AttentionRollout()], MODEL)


def judged(method: str, value: float, leads: bool, seconds: float = 1.0) -> MethodJudged:
    settings = {"saliency": Saliency(), "attention_rollout": AttentionRollout()}[method].settings
    return MethodJudged(method, settings, value, value - 0.1, value + 0.1, leads, seconds)


def test_it_is_chosen_by_the_same_rule_and_says_what_it_was_judged_by(tmp_path: Path) -> None:
    kinds = {
        "caption": [judged("saliency", 0.5, True, 9.0), judged("attention_rollout", 0.45, True)],
        "similarity": [judged("saliency", 0.5, False)],
    }
    found = GainRanking(MODEL, 32, kinds)
    assert [one.name for one in best_explainers(found, ["caption_word", "caption"])] == ["attention_rollout"]
    with pytest.raises(UserError, match="gains more than at random weights, on 32 validation photographs"):
        best_explainers(found, ["similarity"])
    assert found.covers(["caption_span", "similarity"]) and not found.covers(["logit"])
    methods, said = in_order([AttentionRollout(), Saliency()], found, ("caption",))
    assert [one.name for one in methods] == ["saliency", "attention_rollout"]
    assert said == "methods by their relevance gain for the caption, judged on 32 validation photographs"
    assert found.save(tmp_path).name == FILE
    again = gains_beside(tmp_path, MODEL)
    assert again is not None and again.best("caption") == found.best("caption")
    assert ranking_beside(tmp_path, MODEL) is None and gains_beside(tmp_path, {"tower": "other"}) is None
    more = GainRanking(MODEL, 32, {"logit": [judged("saliency", 0.5, True)]}).beside(again)
    assert set(more.kinds) == {"caption", "similarity", "logit"}


def test_the_candidates_are_those_that_are_judged() -> None:
    assert list(CANDIDATES) == yaml.safe_load((CONF / "xai" / "judged.yaml").read_text())["defaults"]
