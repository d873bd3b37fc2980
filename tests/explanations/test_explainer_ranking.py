"""Which method xai=best takes: on rankings whose answer is read off by hand, from file to job."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from clip_xai.errors import UserError
from clip_xai.explanations.explainer_ranking import (
    FILE,
    ExplainerRanking,
    MethodJudged,
    best_explainers,
    in_order,
    ranking_beside,
)
from clip_xai.xai.methods import GradCam, GradEclip, Saliency

MODEL = {"captioner": "abc"}


def judged(method: str, value: float, half: float, seconds: float, leads: bool = True) -> MethodJudged:
    names = {"gradcam": GradCam(), "gradeclip": GradEclip(), "saliency": Saliency()}
    return MethodJudged(method, names[method].settings, value, value - half, value + half, leads, seconds)


def ranking(*methods: MethodJudged) -> ExplainerRanking:
    return ExplainerRanking(MODEL, 40, {"diagnosis": methods})


def test_the_cheapest_of_those_that_cannot_be_told_from_the_best_is_taken() -> None:
    slow, alike, worse = (
        judged("saliency", 0.8, 0.05, 3.0),
        judged("gradcam", 0.74, 0.05, 1.0),
        judged("gradeclip", 0.6, 0.05, 0.1),
    )
    assert ranking(slow, alike, worse).best("diagnosis") == alike
    assert ranking(slow, worse).best("diagnosis") == slow
    # The best value may be the least certain: its lower bound counts.
    vague = judged("gradeclip", 0.85, 0.3, 9.0)
    assert ranking(vague, slow).best("diagnosis") == slow


def test_nothing_is_taken_that_does_no_better_than_at_random_weights() -> None:
    with pytest.raises(UserError, match=r"none of 2 methods .* on 40 scenes"):
        ranking(judged("saliency", 0.8, 0.05, 3.0, False), judged("gradcam", 0.7, 0.05, 3.0, False)).best("diagnosis")
    with pytest.raises(UserError, match="no map of the contrast was judged"):
        ranking(judged("saliency", 0.8, 0.05, 3.0)).best("contrast")
    with pytest.raises(UserError, match="were not judged: run python"):
        best_explainers(None, ["caption"])
    with pytest.raises(UserError, match="target=logit was not judged"):
        best_explainers(ranking(judged("saliency", 0.8, 0.05, 3.0)), ["logit"])


def test_it_goes_through_a_file_and_is_of_one_model_alone(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    made = ranking(judged("saliency", 0.8, 0.05, 3.0), judged("gradcam", 0.6, 0.05, 1.0))
    assert made.save(tmp_path) == tmp_path / FILE
    found = ranking_beside(tmp_path, MODEL)
    assert found is not None and found.best("diagnosis") == made.best("diagnosis")
    assert ranking_beside(tmp_path, {"captioner": "other"}) is None and "another model" in caplog.text
    [method] = best_explainers(found, ["caption", "caption_span"])
    assert method == Saliency()
    methods, said = in_order([GradCam(), GradEclip(), Saliency()], found, ("caption_span",))
    assert [one.name for one in methods] == ["saliency", "gradcam", "gradeclip"] and "40 scenes" in said
    methods, said = in_order([GradCam(layer=-2), Saliency()], found, ("caption_span",))  # other settings: not judged
    assert [one.name for one in methods] == ["saliency", "gradcam"]
    assert in_order([GradCam()], None, ("caption",)) == ([GradCam()], "")
    (tmp_path / FILE).write_text(json.dumps({"model": MODEL, "scenes": 3}))
    assert ranking_beside(tmp_path, MODEL) is None and "cannot be read" in caplog.text
