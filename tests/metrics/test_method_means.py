"""Means of methods over shared photographs: intervals, paired differences and ranks against the plain functions."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from clip_xai.metrics.intervals import mean_interval
from clip_xai.metrics.method_means import MethodMeans, number_of

NAN = float("nan")


def filled(values: np.ndarray, groups: list[str], batch: int = 7, **settings: object) -> MethodMeans:
    metric = MethodMeans([f"m{number}" for number in range(values.shape[1])], **settings)
    for first in range(0, len(values), batch):
        rows = slice(first, first + batch)
        metric.update(torch.from_numpy(values[rows]), groups[rows])
    return metric


def planted(count: int = 60, seed: int = 0) -> tuple[np.ndarray, list[str]]:
    rng = np.random.default_rng(seed)
    difficulty = rng.normal(size=(count, 1))
    values = difficulty + 0.1 * rng.normal(size=(count, 3)) + np.array([0.2, 0.0, 0.0])
    return values, [f"patient {number // 2}" for number in range(count)]


def test_intervals_are_those_of_the_function_over_numbered_groups() -> None:
    values, groups = planted()
    values[3, 1] = values[10, 1] = NAN
    metric = filled(values, groups)
    for column, name in enumerate(metric.methods):
        known = ~np.isnan(values[:, column])
        numbers = [str(number_of(group)) for group, there in zip(groups, known, strict=True) if there]
        expected = mean_interval(values[known, column], numbers)
        found = metric.intervals()[name]
        assert (found.value, found.low, found.high) == pytest.approx((expected.value, expected.low, expected.high))
        assert (found.n, found.groups) == (int(known.sum()), 30)
        assert metric.compute()[name].tolist() == pytest.approx([found.value, found.low, found.high], abs=1e-6)


def test_paired_differences_see_what_single_intervals_hide() -> None:
    metric = filled(*planted())
    own = metric.intervals()
    assert own["m0"].low < own["m1"].high  # apart by far less than photographs differ
    found = metric.differences([("m0", "m1"), ("m1", "m2")])
    apart, sure = found["m0", "m1"]
    assert apart.value == pytest.approx(0.2, abs=0.06) and apart.low > 0 and sure
    assert not found["m1", "m2"][1] and found["m1", "m2"][0].low < 0 < found["m1", "m2"][0].high
    reverse = filled(*planted(), falling=True).differences([("m0", "m1")])["m0", "m1"]
    assert reverse[0].value == pytest.approx(-apart.value) and not reverse[1]


def test_of_many_methods_that_do_not_differ_hardly_any_is_called_better() -> None:
    wrong = 0
    for seed in range(40):
        values = np.random.default_rng(seed).normal(size=(30, 11))
        found = filled(values, [str(number) for number in range(30)], samples=300).differences(
            [(f"m{number}", "m0") for number in range(1, 11)]
        )
        wrong += any(sure for _, sure in found.values())
    assert wrong <= 4  # 2.5 % of 40, and chance


def test_ranks_have_the_spread_of_resampled_groups() -> None:
    found = filled(*planted()).ranks()
    assert found["m0"] == (1, 1, 1)
    assert {found["m1"][0], found["m2"][0]} == {2, 3} and found["m1"][1:] == (2, 3)
    assert filled(*planted(), falling=True).ranks()["m0"] == (3, 3, 3)


def test_a_method_without_values_has_no_rank_and_nothing_at_all_is_empty() -> None:
    values, groups = planted()
    values[:, 2] = NAN
    metric = filled(values, groups)
    assert set(metric.ranks()) == {"m0", "m1"} and np.isnan(metric.intervals()["m2"].value)
    assert not metric.differences([("m0", "m2")])["m0", "m2"][1]
    with pytest.raises(ValueError, match="of 1 groups and 3 methods"):
        metric.update(torch.zeros(1, 2), ["a"])


def test_states_add_up_as_torchmetrics_expects() -> None:
    """Two processes' lists, put behind each other; a reset starts anew."""
    values, groups = planted()
    both, first, second = (filled(values[rows], groups[rows]) for rows in (slice(None), slice(30), slice(30, None)))
    joined = MethodMeans(both.methods)
    joined.values, joined.groups = [*first.values, *second.values], [*first.groups, *second.groups]
    assert joined.intervals() == both.intervals()
    both.reset()
    assert both.values == []
