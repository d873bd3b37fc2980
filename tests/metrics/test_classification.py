"""Measures of classifiers against scikit-learn and torchmetrics, their intervals against a loop and a simulation."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from scipy.special import expit, softmax
from sklearn.metrics import (
    accuracy_score,
    average_precision_score,
    balanced_accuracy_score,
    brier_score_loss,
    confusion_matrix,
    precision_score,
    recall_score,
    roc_auc_score,
)
from torchmetrics.functional.classification import multiclass_calibration_error

from clip_xai.errors import UserError
from clip_xai.metrics.class_measures import label_metric
from clip_xai.metrics.class_results import ClassificationResult
from clip_xai.metrics.classification import evaluate_classes
from clip_xai.metrics.intervals import bootstrap
from clip_xai.metrics.multiplicity import above, holm
from clip_xai.metrics.results import MAJORITY, MODEL, PRIOR, SHUFFLED, SYSTEMS
from clip_xai.metrics.shortcuts import shortcut

NAMES = ("Mass", "Nodule", "Effusion")


def one_class(rows: int = 240, signal: float = 1.5, seed: int = 0) -> tuple[np.ndarray, np.ndarray, list[str]]:
    generator = np.random.default_rng(seed)
    truth = np.eye(3)[generator.choice(3, p=[0.5, 0.3, 0.2], size=rows)]
    return generator.normal(size=(rows, 3)) + signal * truth, truth, [f"p{row // 2}" for row in range(rows)]


def several_labels(rows: int = 240, seed: int = 0) -> tuple[np.ndarray, np.ndarray, list[str]]:
    generator = np.random.default_rng(seed)
    truth = (generator.random((rows, 3)) < [0.4, 0.3, 0.25]).astype(float)
    scores = generator.normal(size=(rows, 3)) + 2 * truth - 1
    truth[generator.random(truth.shape) < 0.1] = np.nan
    return np.round(scores, 1), truth, [f"p{row // 2}" for row in range(rows)]


@pytest.fixture(scope="module")
def single() -> ClassificationResult:
    scores, truth, groups = one_class()
    return evaluate_classes(scores, truth, NAMES, groups, multiple=False, train=truth)


@pytest.fixture(scope="module")
def multiple() -> ClassificationResult:
    scores, truth, groups = several_labels()
    return evaluate_classes(scores, truth, NAMES, groups, multiple=True, train=truth)


def test_measures_of_one_class_are_those_of_the_libraries(single: ClassificationResult) -> None:
    scores, truth, _ = one_class()
    true, said, probabilities = truth.argmax(1), scores.argmax(1), softmax(scores, axis=1)
    theirs = {
        "accuracy": accuracy_score(true, said),
        "balanced_accuracy": balanced_accuracy_score(true, said),
        "auroc": roc_auc_score(true, probabilities, multi_class="ovr"),
        "ap": average_precision_score(truth, probabilities, average="macro"),
        "brier": brier_score_loss(true, probabilities, scale_by_half=False),
        "ece": float(
            multiclass_calibration_error(torch.from_numpy(probabilities), torch.from_numpy(true), 3, n_bins=15)
        ),
    }
    for name, value in zip(NAMES, recall_score(true, said, average=None), strict=True):
        theirs[f"recall/{name}"] = value
    for name, value in zip(NAMES, precision_score(true, said, average=None), strict=True):
        theirs[f"precision/{name}"] = value
    ours = single.summary()
    for key, value in theirs.items():
        assert ours[key] == pytest.approx(value, abs=1e-6), key
    assert np.asarray(single.confusion).tolist() == confusion_matrix(true, said).tolist()
    assert single.score("auroc", PRIOR) == single.score("auroc", MAJORITY).__class__(
        PRIOR, "overall", "auroc", 240, 120, 0.5, 0.5, 0.5
    )


def test_measures_of_several_labels_leave_out_what_is_not_known(multiple: ClassificationResult) -> None:
    scores, truth, _ = several_labels()
    areas, precisions = [], []
    for number, name in enumerate(NAMES):
        rows = ~np.isnan(truth[:, number])
        areas.append(roc_auc_score(truth[rows, number], scores[rows, number]))
        precisions.append(average_precision_score(truth[rows, number], scores[rows, number]))
        brier = brier_score_loss(truth[rows, number], expit(scores[rows, number]))
        assert multiple.summary()[f"auroc/{name}"] == pytest.approx(areas[-1])
        assert multiple.summary()[f"ap/{name}"] == pytest.approx(precisions[-1])
        assert multiple.summary()[f"brier/{name}"] == pytest.approx(brier)
        assert multiple.labels[number].unknown + multiple.unknown == int((~rows).sum())
    assert multiple.summary()["auroc"] == pytest.approx(np.mean(areas))
    assert multiple.summary()["ap"] == pytest.approx(np.mean(precisions))


def test_interval_of_an_area_is_that_of_a_slow_loop() -> None:
    scores, truth, groups = one_class(rows=120)
    result = evaluate_classes(scores, truth, NAMES, groups, multiple=False, samples=400, seed=3)
    order = scores[:, 0] - np.log(np.exp(scores).sum(1))
    slow = bootstrap(lambda rows: roc_auc_score(truth[rows, 0], order[rows]), groups, samples=400, seed=3)
    ours = result.label_score("auroc", "Mass")
    # The same draws; the fewer groups that show the label widen ours a little.
    assert ours is not None and ours.value == pytest.approx(slow.value)
    assert slow.low - 0.01 < ours.low <= slow.low and slow.high <= ours.high < slow.high + 0.01


def test_intervals_of_areas_cover_the_truth_when_patients_have_several_photographs() -> None:
    generator = np.random.default_rng(5)
    hits = 0
    for trial in range(80):
        present = generator.random(60) < 0.4
        lesion = generator.normal(size=60) + present  # AUROC of two normals one deviation apart, twice each
        truth = np.repeat(present, 3)[:, None].astype(float)
        scores = np.repeat(lesion, 3)[:, None]
        groups = np.repeat(np.arange(60), 3).astype(str).tolist()
        found = evaluate_classes(scores, truth, ["Mass"], groups, multiple=True, samples=200, seed=trial)
        score = found.label_score("auroc", "Mass")
        assert score is not None
        hits += score.low <= 0.7602 <= score.high
    assert hits >= 0.87 * 80


def test_a_model_that_looks_beats_every_baseline_and_one_that_does_not_beats_none(single: ClassificationResult) -> None:
    assert set(single.systems) == {MODEL, MAJORITY, PRIOR, SHUFFLED}
    assert not any(verdict.warning for verdict in single.verdicts)
    assert all(gap.beaten for gap in single.comparisons if gap.metric in ("accuracy", "auroc", "brier"))
    scores, truth, groups = one_class(signal=0.0, seed=8)
    blind = evaluate_classes(scores, truth, NAMES, groups, multiple=False, train=truth)
    areas = [gap for gap in blind.comparisons if gap.metric == "auroc"]
    assert len(areas) == 3 and not any(gap.beaten for gap in areas)
    assert blind.verdicts[0].warning and not any(label.above_chance for label in blind.labels)


def test_what_cannot_be_measured_is_named() -> None:
    scores, truth, groups = several_labels(80)
    truth[:, 2] = np.where(np.isnan(truth[:, 2]), np.nan, 0)
    truth[:6] = np.nan
    found = evaluate_classes(scores, truth, NAMES, groups, multiple=True)
    assert found.skipped["AUROC and average precision of Effusion"].endswith("does not show it")
    assert SYSTEMS[PRIOR] in found.skipped and found.unknown == 6 and "all measures" in found.left_out()
    assert found.label_score("auroc", "Effusion") is None and not found.labels[2].roc
    together = evaluate_classes(scores, truth, NAMES, ["one"] * 80, multiple=True)
    assert SYSTEMS[SHUFFLED] in together.skipped and np.isnan(together.score("auroc").low)


def test_refusals() -> None:
    scores, truth, groups = several_labels(20)
    with pytest.raises(UserError, match="several labels at once"):
        evaluate_classes(scores, np.ones_like(truth), NAMES, groups, multiple=False)
    with pytest.raises(UserError, match="known label"):
        evaluate_classes(scores, np.full_like(truth, np.nan), NAMES, groups, multiple=True)
    with pytest.raises(UserError, match="diverged"):
        evaluate_classes(scores * np.nan, truth, NAMES, groups, multiple=True)


def test_a_source_that_cannot_be_shuffled_is_left_out_of_that_comparison_alone() -> None:
    scores, truth, groups = one_class()
    sources = ["small"] * 2 + ["large"] * 238
    found = evaluate_classes(
        scores, truth, NAMES, groups, multiple=False, train=truth, sources=sources, train_sources=sources
    )
    assert found.score("accuracy").n == 240 and found.score("accuracy", SHUFFLED).n == 238
    assert f"{SYSTEMS[SHUFFLED]} (small)" in found.skipped


def test_planted_shortcut_is_found_and_a_harmless_attribute_is_not() -> None:
    scores, truth, groups = several_labels(600, seed=2)
    generator = np.random.default_rng(0)
    tube = (generator.random(600) < np.where(truth[:, 0] == 1, 0.8, 0.1)).astype(float)
    honest = shortcut(scores, truth, NAMES, tube, groups, "tube")
    assert not any(label.found for label in honest.labels) and not honest.sentences()[0][1]
    cheating = scores + 2 * tube[:, None] * [1, 0, 0]
    found = shortcut(cheating, truth, NAMES, tube, groups, "tube")
    assert [label.found for label in found.labels] == [True, False, False]
    rows = ~np.isnan(truth[:, 0])
    first = found.labels[0]
    assert first.alone.value == pytest.approx(roc_auc_score(truth[rows, 0], tube[rows]))
    within = rows & (tube == 1)
    assert first.within.value == pytest.approx(roc_auc_score(truth[within, 0], cheating[within, 0]))
    pairs = [
        float(np.sign(cheating[one, 0] - cheating[other, 0])) / 2 + 0.5
        for one in np.flatnonzero(rows & (tube == 1))
        for other in np.flatnonzero(rows & (tube == 0) & (truth[:, 0] == truth[one, 0]))
    ]
    assert first.follows.value == pytest.approx(np.mean(pairs))
    result = evaluate_classes(cheating, truth, NAMES, groups, multiple=True).with_shortcuts(found)
    assert any("follows 'tube': Mass" in verdict.text for verdict in result.verdicts)
    assert json.loads(json.dumps(result.to_dict(), allow_nan=False))["shortcuts"][0]["labels"][0]["found"]
    assert "## Shortcut: tube" in result.to_markdown()


def test_a_shortcut_is_found_where_the_attribute_nearly_always_goes_with_the_label() -> None:
    """A model that knows the finding well and the tube besides: few photographs are left to show its area fall."""
    rows, hits, false = 900, 0, 0
    for seed in range(12):
        generator = np.random.default_rng(seed)
        truth = (generator.random((rows, 3)) < 0.18).astype(float)
        tube = (generator.random(rows) < np.where(truth[:, 0] == 1, 0.93, 0.03)).astype(float)
        scores = generator.normal(size=(rows, 3)) + 2 * truth
        groups = [f"p{row // 2}" for row in range(rows)]
        false += any(one.found for one in shortcut(scores, truth, NAMES, tube, groups, "tube", samples=200).labels)
        cheating = scores + 1.5 * tube[:, None] * [1, 0, 0]
        found = [one.found for one in shortcut(cheating, truth, NAMES, tube, groups, "tube", samples=200).labels]
        hits += found == [True, False, False]
    assert hits >= 11 and false <= 1


def test_results_hold_hostile_names_and_no_nan() -> None:
    scores, truth, groups = one_class(40)
    found = evaluate_classes(scores, truth, ("a|b", "<b>", "c"), groups, multiple=False)
    assert "NaN" not in json.dumps(found.to_dict(), allow_nan=False)
    assert "a\\|b" in found.to_markdown() and "<b>" not in found.to_markdown()
    assert label_metric("auroc", "<b>").key in found.summary()


def test_correction_is_that_of_holm_by_hand() -> None:
    assert holm([0.004, 0.03, 0.012, float("nan")]) == [True, False, True, False]
    draws = np.random.default_rng(0).normal(0.1, 0.05, 4000)
    assert above(0.1, draws, 1e6, -0.5) == pytest.approx(0.0228, abs=0.003)
    assert above(0.5, np.full(10, 0.5), 10, -0.5) == pytest.approx(0.5**10)
