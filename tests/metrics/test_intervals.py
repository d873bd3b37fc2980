"""Intervals against scipy for single rows, against a closed form for clusters, and against a slow bootstrap."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from clip_xai.metrics.caption_metrics import bleu, bleu_from_statistics, bleu_statistics
from clip_xai.metrics.intervals import (
    Interval,
    bootstrap,
    bounds,
    effective_clusters,
    interval,
    mean_interval,
    mean_of_sums,
    paired_interval,
    resampled_sums,
)


def width(found) -> float:
    return found.high - found.low


def test_single_rows_agree_with_scipy() -> None:
    values = np.random.default_rng(1).gamma(2.0, size=80)
    names = [f"p{index}" for index in range(80)]
    ours = mean_interval(values, names, samples=8000, seed=3)
    theirs = stats.bootstrap((values,), np.mean, n_resamples=8000, method="percentile", rng=5).confidence_interval
    assert ours.value == pytest.approx(values.mean())
    assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high), abs=0.04 * width(ours))
    assert (ours.n, ours.groups) == (80, 80)


def test_planted_clusters_widen_the_interval_as_the_closed_form_says() -> None:
    # Ten equal rows per group: ten times the rows tell nothing more, and the interval must know it.
    generator = np.random.default_rng(0)
    per_group = generator.normal(size=60)
    values = np.repeat(per_group, 10)
    groups = np.repeat([f"lesion {index}" for index in range(60)], 10).tolist()
    clustered = mean_interval(values, groups, samples=6000)
    naive = mean_interval(values, [str(row) for row in range(600)], samples=6000)
    closed_form = 2 * 1.96 * per_group.std() / np.sqrt(60)
    assert width(clustered) == pytest.approx(closed_form, rel=0.06)
    assert width(clustered) == pytest.approx(np.sqrt(10) * width(naive), rel=0.08)


def test_coverage_is_near_the_level_for_clusters_and_far_below_without_them() -> None:
    generator = np.random.default_rng(7)
    groups = np.repeat(np.arange(40), 5).astype(str).tolist()
    rows = [str(row) for row in range(200)]
    hits = {"clustered": 0, "naive": 0}
    for trial in range(120):
        values = np.repeat(generator.normal(size=40), 5) + 0.3 * generator.normal(size=200)
        for name, members in (("clustered", groups), ("naive", rows)):
            found = mean_interval(values, members, samples=300, seed=trial)
            hits[name] += found.low <= 0 <= found.high
    assert hits["clustered"] >= 0.87 * 120
    assert hits["naive"] <= 0.75 * 120


def test_groups_of_unequal_size_agree_with_the_slow_bootstrap() -> None:
    generator = np.random.default_rng(2)
    groups = [f"g{number}" for number in range(12) for _ in range(1 + number % 4)]
    values = generator.random(len(groups))
    fast = mean_interval(values, groups, samples=400, seed=11)
    slow = bootstrap(lambda rows: float(values[rows].mean()), groups, samples=400, seed=11)
    assert (fast.value, fast.low, fast.high) == pytest.approx((slow.value, slow.low, slow.high))


def test_bleu_over_resamples_is_bleu_of_the_resampled_captions() -> None:
    captions = ["a red round lesion on skin", "a brown lesion on dark skin", "the lesion is small and red", "a mole"]
    references = [["a red lesion on skin"], ["one brown lesion on dark skin"], ["it is small and red"], ["a red mole"]]
    captions, references = captions * 5, references * 5
    groups = [f"{name}{number}" for number in range(5) for name in ("p1", "p1", "p2", "p3")]
    fast = interval(bleu_statistics(captions, references), groups, bleu_from_statistics, samples=60, seed=4)
    slow = bootstrap(lambda rows: bleu([captions[r] for r in rows], [references[r] for r in rows]), groups, 60, seed=4)
    assert (fast.value, fast.low, fast.high) == pytest.approx((slow.value, slow.low, slow.high), abs=1e-9)


def paired(first: np.ndarray, second: np.ndarray, groups: list[str], **span: tuple[float, float]) -> Interval:
    both = np.stack([first, second])
    draws = mean_of_sums(resampled_sums(both, groups))
    return paired_interval(mean_of_sums(both.sum(axis=1)), draws, groups, **span)


def test_paired_difference_is_narrow_where_two_systems_err_together() -> None:
    generator = np.random.default_rng(3)
    hard = generator.normal(size=100)
    ones = np.ones(100)
    first, second = np.stack([hard + 0.1, ones], -1), np.stack([hard, ones], -1)
    groups = [str(row) for row in range(100)]
    second[:, 0] += 0.001 * generator.normal(size=100)
    gap = paired(first, second, groups)
    assert (gap.value, gap.low, gap.high) == pytest.approx((0.1, 0.1, 0.1), abs=1e-3)
    alone = interval(first, groups)
    assert alone.low < interval(second, groups).high  # the two single intervals overlap all the same


def test_the_same_seed_gives_the_same_interval_whatever_else_is_drawn() -> None:
    groups = [str(row) for row in range(30)]
    values = np.arange(30.0)
    assert mean_interval(values, groups, seed=5) == mean_interval(values, groups, seed=5)
    assert mean_interval(values, groups, seed=5) != mean_interval(values, groups, seed=6)
    one, many = np.ones((30, 2)), np.ones((3, 30, 2))
    assert resampled_sums(many, groups, 250, 5)[:, 2] == pytest.approx(resampled_sums(one, groups, 250, 5))


def test_where_all_agree_the_bounds_are_exact_and_not_the_value() -> None:
    groups = [str(row) for row in range(12)]
    for value in (0.0, 1.0):
        found = mean_interval([value] * 12, groups, span=(0, 1))
        exact = stats.binomtest(int(12 * value), 12).proportion_ci(0.95, "exact")
        assert (found.low, found.high) == pytest.approx((exact.low, exact.high))
    # Three rows to a patient tell no more than one.
    clustered = mean_interval([0.0] * 36, groups * 3, span=(0, 1))
    assert clustered.high == pytest.approx(stats.binomtest(0, 12).proportion_ci(0.95, "exact").high)
    assert np.isnan(mean_interval([0.0] * 12, groups).low)  # a quantity without ends: nothing can be said
    ones, none = np.tile([1.0, 1.0], (12, 1)), np.tile([0.0, 1.0], (12, 1))
    gap = paired(ones, none, groups, span=(0, 1))
    assert gap.low == pytest.approx(1 - 2 * (1 - 0.025 ** (1 / 12))) and gap.high == 1
    tied = paired(ones, ones, groups, span=(0, 1))
    assert tied.high == -tied.low == pytest.approx(1 - 0.025 ** (1 / 12))


def test_four_photographs_without_a_hit_do_not_prove_that_there_is_none() -> None:
    found = mean_interval([0.0] * 4, ["a", "b", "c", "d"], span=(0, 1))
    assert (found.value, found.low) == (0, 0) and found.high == pytest.approx(0.602, abs=1e-3)


def test_the_effective_number_of_groups_is_that_of_equal_ones() -> None:
    assert effective_clusters(["a", "b", "c"] * 4) == pytest.approx(3)
    assert effective_clusters(["a"] * 9 + ["b"]) == pytest.approx(100 / 82)


def test_fewer_than_ten_groups_have_no_interval_of_resamples() -> None:
    values = np.random.default_rng(0).random(10)
    groups = [str(row) for row in range(10)]
    assert np.isfinite(mean_interval(values, groups).low)
    assert np.isnan(mean_interval(values[:9], groups[:9]).low)
    right = np.array([1.0] * 3 + [0.0] * 6)
    draws = mean_of_sums(resampled_sums(np.stack([right, np.ones(9)], -1), groups[:9]))
    share = bounds(right.mean(), draws, groups[:9], span=(0, 1), share=True)
    exact = stats.binomtest(3, 9).proportion_ci(0.95, "exact")
    assert (share.low, share.high) == pytest.approx((exact.low, exact.high))


@pytest.mark.parametrize(("clusters", "truth"), [(12, 0.5), (12, 0.97), (25, 0.9), (100, 0.98), (4, 0.9)])
def test_shares_are_covered_as_often_as_the_level_says(clusters: int, truth: float) -> None:
    """Simulated patients of one to three photographs, which are all right or all wrong."""
    generator = np.random.default_rng(clusters)
    sizes = 1 + np.arange(clusters) % 3
    groups = np.repeat(np.arange(clusters), sizes).astype(str).tolist()
    trials, covered = 400, 0
    for trial in range(trials):
        values = np.repeat((generator.random(clusters) < truth).astype(float), sizes)
        draws = mean_of_sums(resampled_sums(np.stack([values, np.ones_like(values)], -1), groups, 200, trial))
        found = bounds(values.mean(), draws, groups, span=(0, 1), share=True)
        covered += found.low <= truth <= found.high
    assert covered / trials >= 0.95 - 2.6 * np.sqrt(0.95 * 0.05 / trials)


def test_many_independent_photographs_of_few_patients_count_as_photographs() -> None:
    """Rows that do not depend on their patient: Korn and Graubard's interval is that of the rows, not of patients."""
    right = np.random.default_rng(3).random((12, 20)) < 0.8
    groups = np.repeat(np.arange(12), 20).astype(str).tolist()
    found = mean_interval(right.ravel().astype(float), groups, samples=2000, span=(0, 1), share=True)
    rows = stats.binomtest(int(right.sum()), right.size).proportion_ci(0.95, "exact")
    assert found.high - found.low == pytest.approx(rows.high - rows.low, rel=0.25)


def test_a_share_of_clusters_has_the_bounds_of_korn_and_graubard() -> None:
    """Their formula (1998), by the F distribution, with the variance of equal clusters in closed form."""
    right = np.array([4, 4, 4, 3, 3, 4, 0, 1, 4, 2, 4, 3])  # of four photographs of each of twelve patients
    values = np.concatenate([[1.0] * hits + [0.0] * (4 - hits) for hits in right])
    groups = np.repeat(np.arange(12), 4).astype(str).tolist()
    found = mean_interval(values, groups, samples=40000, span=(0, 1), share=True)
    share = right.sum() / 48
    variance = (right / 4).var(ddof=1) / 12
    trials = share * (1 - share) / variance * (stats.norm.ppf(0.975) / stats.t.ppf(0.975, 11)) ** 2
    hits, misses = share * trials, (1 - share) * trials
    lower = hits * stats.f.ppf(0.025, 2 * hits, 2 * (misses + 1))
    upper = (hits + 1) * stats.f.ppf(0.975, 2 * (hits + 1), 2 * misses)
    assert found.low == pytest.approx(lower / (misses + 1 + lower), abs=0.004)
    assert found.high == pytest.approx(upper / (misses + upper), abs=0.004)


def test_patients_who_are_all_half_right_tell_no_more_than_their_photographs() -> None:
    """Rows that differ within patients and not between them: resamples hardly vary, and yet there are 24 rows alone."""
    values = [1.0, 0.0] * 11 + [1.0, 1.0]
    groups = np.repeat(np.arange(12), 2).astype(str).tolist()
    found = mean_interval(values, groups, span=(0, 1), share=True)
    rows = stats.binomtest(13, 24).proportion_ci(0.95, "exact")
    assert found.low <= rows.low and found.high >= rows.high


def test_the_percentiles_of_ten_groups_are_as_far_out_as_students_interval() -> None:
    """Resamples of the shape that the mean of many has: normal, with the deviation over n and not over n - 1."""
    means = np.random.default_rng(5).normal(3.0, 2.0, size=10)
    normal = stats.norm.ppf((np.arange(40000) + 0.5) / 40000)
    draws = means.mean() + means.std(ddof=0) / np.sqrt(10) * normal
    found = bounds(means.mean(), draws, [str(group) for group in range(10)])
    student = stats.ttest_1samp(means, 0.0).confidence_interval(0.95)
    assert (found.low, found.high) == pytest.approx((student.low, student.high), abs=1e-2)


def test_twelve_groups_of_which_one_is_nearly_all_are_fewer_than_ten() -> None:
    groups = ["large"] * 12 + [str(row) for row in range(11)]
    values = np.random.default_rng(0).random(len(groups))
    assert np.isnan(mean_interval(values, groups).low)


def test_a_null_difference_is_beaten_in_no_more_trials_than_the_level_says() -> None:
    """Two systems that are equally good, ten patients: the whole interval lies above 0 in 2.5 % of trials."""
    generator = np.random.default_rng(1)
    groups = np.repeat(np.arange(10), 4).astype(str).tolist()
    trials, beaten = 1000, 0
    for trial in range(trials):
        gap = np.repeat(generator.normal(size=10), 4) + generator.normal(size=40)
        beaten += mean_interval(gap, groups, samples=200, seed=trial).low > 0
    assert beaten / trials <= 0.025 + 2.6 * np.sqrt(0.025 * 0.975 / trials)


def test_one_group_has_no_interval() -> None:
    found = mean_interval([0.0, 1.0], ["p1", "p1"])
    assert found.value == 0.5
    assert np.isnan(found.low) and np.isnan(found.high)


def test_rows_and_groups_must_match() -> None:
    with pytest.raises(ValueError, match="3 rows of statistics have 2 groups"):
        mean_interval([1.0, 2.0, 3.0], ["a", "b"])
    with pytest.raises(ValueError, match="no rows"):
        mean_interval([], [])
