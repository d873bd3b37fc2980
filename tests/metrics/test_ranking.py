"""Areas under curves of weighted rows against scikit-learn, and sums over groups against loops."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.metrics import auc, average_precision_score, roc_auc_score, roc_curve
from torchmetrics.functional.classification import binary_calibration_error

from clip_xai.metrics.intervals import group_counts, group_numbers, resampled_sums
from clip_xai.metrics.ranking import (
    Members,
    calibration,
    mean,
    pair_counts,
    ranking,
    resampled,
    roc_points,
    stratified,
)


def planted(ties: bool, rows: int = 160, seed: int = 0) -> tuple[np.ndarray, np.ndarray, Members]:
    generator = np.random.default_rng(seed)
    present = generator.random(rows) < 0.3
    scores = generator.normal(size=rows) + present
    members = Members(*group_numbers(generator.integers(50, size=rows).astype(str).tolist()))
    return np.round(scores) if ties else scores, present, members


def weights(members: Members, samples: int, seed: int) -> np.ndarray:
    """How often each row occurs in each resample, [samples, n]."""
    return np.concatenate(list(group_counts(members.count, samples, seed)))[:, members.of]


@pytest.mark.parametrize("ties", [False, True])
def test_areas_of_every_resample_are_those_of_scikit_learn_with_weights(ties: bool) -> None:
    scores, present, members = planted(ties)
    statistic = ranking(scores, present, members)
    areas = (roc_auc_score(present, scores), average_precision_score(present, scores))
    assert statistic.whole() == pytest.approx(areas, abs=1e-12)
    found = resampled([statistic], members.count, 40, seed=3)
    for draw, weight in zip(found.T, weights(members, 40, 3), strict=True):
        theirs = [score(present, scores, sample_weight=weight) for score in (roc_auc_score, average_precision_score)]
        assert draw == pytest.approx(theirs, abs=1e-12)


def test_constant_scores_and_a_resample_without_the_label() -> None:
    members = Members(np.array([0, 0, 1, 1]), 2)
    present = np.array([True, False, False, False])
    statistic = ranking(np.zeros(4), present, members)
    assert statistic.whole() == pytest.approx([0.5, 0.25])
    without = statistic.on(np.array([[0.0], [2.0]]))
    assert np.isnan(without).all()


def test_draws_are_those_of_the_intervals() -> None:
    scores, _, members = planted(False)
    rows = np.stack([scores, np.ones_like(scores)], axis=-1)
    sums = resampled_sums(rows, [f"{group:03}" for group in members.of], samples=30, seed=5)
    ours = resampled([mean(scores, members)], members.count, 30, seed=5)[0]
    assert ours == pytest.approx(sums[:, 0] / sums[:, 1])


@pytest.mark.parametrize("seed", range(3))
def test_calibration_error_is_that_of_torchmetrics(seed: int) -> None:
    _, present, members = planted(False, seed=seed)
    confidences = np.random.default_rng(seed).random(len(present))
    theirs = binary_calibration_error(torch.from_numpy(confidences), torch.from_numpy(present).long(), n_bins=15)
    assert calibration(confidences, present, members).whole()[0] == pytest.approx(float(theirs), abs=1e-6)


def test_area_within_strata_counts_the_pairs_within_strata_alone() -> None:
    scores, present, members = planted(True, rows=60)
    stratum = np.random.default_rng(1).random(60) < 0.5
    parts = [np.flatnonzero(stratum), np.flatnonzero(~stratum)]
    areas = [ranking(scores[rows], present[rows], members.at(rows)) for rows in parts]
    pairs = [pair_counts(present[rows], members.at(rows)) for rows in parts]
    won = of = 0.0
    for first in np.flatnonzero(present):
        for second in np.flatnonzero(~present):
            if stratum[first] == stratum[second]:
                won += (scores[first] > scores[second]) + 0.5 * (scores[first] == scores[second])
                of += 1
    assert stratified(areas, pairs).whole()[0] == pytest.approx(won / of)


def test_curve_is_that_of_scikit_learn_and_thinning_keeps_its_area() -> None:
    scores, present, _ = planted(True)
    wrong, right, _ = roc_curve(present, scores, drop_intermediate=False)
    assert np.asarray(roc_points(scores, present)) == pytest.approx(np.stack([wrong, right], axis=-1))
    scores, present, _ = planted(False, rows=5000)
    thin = np.asarray(roc_points(scores, present, most=80))
    assert len(thin) <= 81 and thin[0].tolist() == [0, 0] and thin[-1].tolist() == [1, 1]
    assert auc(thin[:, 0], thin[:, 1]) == pytest.approx(roc_auc_score(present, scores), abs=0.01)
