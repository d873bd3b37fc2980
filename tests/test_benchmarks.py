"""The ruler itself: turns, ratios and peaks of planted work."""

from __future__ import annotations

import doctest

import pytest

from benchmarks import common
from benchmarks.common import Timing, alternately, peak_mib, speedup


def test_sides_take_turns_in_an_order_that_is_reversed() -> None:
    calls: list[str] = []

    def side(name: str) -> int:
        calls.append(name)
        return 3

    timings = alternately({"a": lambda: side("a"), "b": lambda: side("b")}, rounds=3, warmup=1)
    assert "".join(calls) == "abbaabba"
    assert [len(timings[name].seconds) for name in "ab"] == [3, 3] and timings["a"].items == 3


def test_sides_that_change_their_work_are_refused() -> None:
    counts = iter([1, 1, 2])
    with pytest.raises(ValueError, match="2 items in a round after 1"):
        alternately({"a": lambda: next(counts)}, rounds=2)


def test_a_ratio_is_the_median_over_rounds_of_equal_work() -> None:
    assert speedup(Timing((1.0, 2.0, 9.0), 10), Timing((2.0, 6.0, 9.0), 5)) == pytest.approx(4.0)
    assert Timing((3.0, 1.0, 2.0), 10).per_second == 5.0


def test_a_peak_is_that_of_one_call() -> None:
    calls: list[int] = []
    peak = peak_mib(lambda: calls.append(1))
    assert calls == [1] and (peak is None or isinstance(peak, float))


def test_the_example_is_true() -> None:
    assert doctest.testmod(common).failed == 0
