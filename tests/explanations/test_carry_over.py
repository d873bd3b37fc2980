"""Whether a ranking carries over: planted rankings, scipy's tau, a slow bootstrap."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pandas as pd
import pytest
from scipy.stats import kendalltau

from clip_xai.explanations.carry_over import (
    Halves,
    Ranking,
    carry_over,
    family_of,
    kendall,
    of_criteria,
    of_measures,
    predictors,
    split_half,
)
from clip_xai.explanations.carry_over_tables import (
    LABEL_FREE,
    RANKED,
    carry_rows,
    carry_table,
    halves,
    predictor_table,
    steadiness_table,
)
from clip_xai.explanations.causes.measures import CRITERIA
from clip_xai.explanations.causes.tables import EVERY
from clip_xai.metrics.intervals import group_counts

METHODS = ("gradcam", "layercam", "hirescam", "saliency", "input_x_gradient", "occlusion")


def ranking(means, noise: float = 0.0, scenes: int = 30, seed: int = 0, first: int = 0) -> Ranking:
    """Methods of known means on scenes with noise of their own."""
    values = np.asarray(means) + noise * np.random.default_rng(seed).normal(size=(scenes, len(means)))
    names = tuple(str(first + number) for number in range(scenes))
    return Ranking(METHODS[: len(means)], values, tuple((name, name, "d", "x") for name in names), names)


def test_tau_is_that_of_scipy_also_with_ties_and_on_many_draws_at_once() -> None:
    lot = np.random.default_rng(0)
    for _ in range(20):
        first, second = lot.integers(0, 4, size=(2, 7)).astype(float)
        expected = kendalltau(first, second).statistic
        assert kendall(first, second) == pytest.approx(expected, nan_ok=True)
    many = lot.normal(size=(2, 5, 6))
    assert kendall(*many) == pytest.approx([kendalltau(*pair).statistic for pair in zip(*many, strict=True)])
    holed = np.array([1.0, np.nan, 2.0, 3.0]), np.array([1.0, 9.0, 3.0, 2.0])
    assert kendall(*holed) == pytest.approx(kendalltau([1, 2, 3], [1, 3, 2]).statistic)
    assert np.isnan(kendall(np.ones(3), np.arange(3.0)))


def test_identical_tables_give_one_and_reversed_ones_minus_one() -> None:
    own = ranking([0.9, 0.8, 0.7, 0.6, 0.5, 0.4], noise=0.3)
    same = carry_over(own, own)
    assert same.tau.value == 1 and (same.draws == 1).all() and same.tau.low > 0.7 and same.tau.high == 1
    turned = Ranking(own.methods, -own.values, own.rows, own.groups)
    found = carry_over(own, turned)
    assert found.tau.value == -1 and (found.draws == -1).all() and found.within.value == -1
    assert {name: one.value for name, one in found.families.items()} == {"activation maps": -1.0}


def test_the_interval_is_that_of_a_slow_bootstrap_and_scenes_of_both_are_drawn_together() -> None:
    first = ranking([0.9, 0.8, 0.7, 0.6], 0.4, scenes=12)
    second = ranking([0.9, 0.6, 0.8, 0.5], 0.4, scenes=12, seed=1)
    found = carry_over(first, second, seed=5, samples=50)
    order = np.argsort(first.groups)  # groups are numbered by name
    slow = []
    for counts in next(group_counts(12, 50, 5)):
        rows = np.repeat(order, counts)
        slow.append(kendalltau(first.values[rows].mean(axis=0), second.values[rows].mean(axis=0)).statistic)
    assert found.draws == pytest.approx(slow)
    apart = carry_over(first, ranking([0.9, 0.6, 0.8, 0.5], 0.4, scenes=12, seed=1, first=100), seed=5, samples=50)
    assert apart.tau.value == found.tau.value and not np.allclose(apart.draws, found.draws)
    few = carry_over(first, ranking([0.9, 0.6, 0.8, 0.5], 0.4, scenes=5, first=100))
    assert np.isnan(few.tau.low) and few.tau.groups == 5  # too few scenes for an interval


def test_methods_in_one_run_alone_are_named_and_left_out() -> None:
    first = ranking([0.9, 0.8, 0.7, 0.6])
    other = ranking([0.9, 0.8, 0.7, 0.6, 0.5])
    second = Ranking((*METHODS[1:4], "rise", "cci"), other.values, other.rows, other.groups)
    found = carry_over(first, second)
    assert found.methods == METHODS[1:4] and found.left_out == ("cci", "gradcam", "rise")
    assert found.tau.value == 1
    assert "cci, gradcam, rise" in carry_table({("agreement", EVERY): found}, ("a", "b")).note


def test_within_families_only_pairs_of_one_family_count() -> None:
    # CAMs before gradients before occlusion in both, but inside each family the other way round.
    first, second = [6, 5, 4, 3, 2, 1], [4, 5, 6, 2, 3, 1]
    found = carry_over(ranking(first), ranking(second, first=100))
    families = [family_of(name) for name in METHODS]
    pairs = [(i, j) for i, j in combinations(range(6), 2)]
    signs = [np.sign((first[i] - first[j]) * (second[i] - second[j])) for i, j in pairs]
    inside = [sign for sign, (i, j) in zip(signs, pairs, strict=True) if families[i] == families[j]]
    assert found.within.value == np.mean(inside) == -1
    assert found.tau.value == pytest.approx(np.mean(signs)) and np.mean(signs) > 0


def test_halves_agree_where_scenes_are_alike_and_not_where_they_are_noise() -> None:
    assert split_half(ranking([0.9, 0.8, 0.7, 0.6, 0.5], 0.01)) == Halves(1, 1, 1)
    noise = [ranking([0.5] * 5, 1.0, scenes=20, seed=seed) for seed in range(60)]
    found = [split_half(one, splits=20) for one in noise]
    assert abs(np.mean([one.mean for one in found])) < 0.15 and found[0].low < 0 < found[0].high
    # The same scenes of two runs are never on both sides: noise that both share is not taken for agreement.
    shared = carry_over(noise[0], noise[0], splits=20)
    assert shared.tau.value == 1 and shared.halves == shared.own[0] == found[0]


@pytest.mark.parametrize("scenes", [4, 9, 10])
def test_halves_of_few_scenes_have_a_mean_and_no_bounds(scenes: int) -> None:
    found = split_half(ranking([0.9, 0.8, 0.7, 0.6, 0.5], 0.3, scenes=scenes))
    assert -1 < found.mean < 1 and np.isnan([found.low, found.high]).tolist() == [scenes < 10] * 2
    assert ("[" in halves(found)) == (scenes >= 10)


def test_the_measure_that_goes_with_the_effects_foretells_them() -> None:
    truth = ranking([0.9, 0.8, 0.7, 0.6, 0.5, 0.4], 0.05)
    right = Ranking(METHODS, truth.values[:15] * 10, truth.rows[:15], truth.groups[:15])
    wrong = Ranking(METHODS, -truth.values, truth.rows, truth.groups)
    on_mask = Ranking(METHODS, truth.values, truth.rows, truth.groups)
    [first, second, third] = predictors(
        {"deletion/mean": wrong, "auprc": on_mask, "relevance_gain/mean": right}, truth, LABEL_FREE
    )
    assert {first.measure, second.measure} == {"auprc", "relevance_gain/mean"} and third.measure == "deletion/mean"
    by = {one.measure: one for one in (first, second, third)}
    assert by["relevance_gain/mean"].best == 1 and by["deletion/mean"].best == 0 and np.isnan(by["auprc"].best)
    assert by["relevance_gain/mean"].by_picture.value == 1 and by["relevance_gain/mean"].by_picture.groups == 15
    assert third.by_picture.value == third.found.tau.value == -1
    table = predictor_table([first, second, third])
    assert table is not None and "without labels relevance gain (SRG), mean comes nearest" in table.note


def test_tables_of_a_run_are_read_with_their_signs_and_only_trained_methods() -> None:
    maps = pd.DataFrame([
        {"scene": scene, "target": target, "label": "x", "method": name, "weights": weights, "agreement": value}
        for scene in range(12) for target in ("diagnosis", "contrast") for weights in ("trained", "random")
        for name, value in (("gradcam", 0.6), ("saliency", 0.7), ("rise", 0.2 if target == "contrast" else 0.8))
    ])  # fmt: skip
    maps = maps.assign(**{name: np.nan for name in CRITERIA if name != "agreement"})
    found = of_criteria(maps)
    assert set(found) == {("agreement", EVERY), ("agreement", "diagnosis"), ("agreement", "contrast")}
    by = dict(zip(found["agreement", EVERY].methods, found["agreement", EVERY].means, strict=True))
    assert by == pytest.approx({"gradcam": 0.6, "saliency": 0.7, "rise": 0.5})
    measured = pd.DataFrame([
        {"picture": "0", "group": "0", "target": "contrast", "label": "x", "measure": measure, "method": name,
         "weights": "trained", "value": value}
        for measure in ("deletion/mean", "sensitivity_max", "seconds")
        for name, value in (("gradcam", 1.0), ("rise", 2.0))
    ])  # fmt: skip
    measures = of_measures(measured, RANKED)
    assert set(measures) == {("deletion/mean", EVERY), ("deletion/mean", "contrast")}  # never ranked by, or a cost
    assert measures["deletion/mean", EVERY].means.tolist() == [-1.0, -2.0]  # lower is better
    table = steadiness_table(found)
    assert table is not None and table.rows[0][:2] == ("correctness", "all")
    assert carry_rows({("agreement", EVERY): carry_over(found["agreement", EVERY], found["agreement", EVERY])})[0][
        "tau"] == 1  # fmt: skip
