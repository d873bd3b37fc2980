"""The ruler itself: turns, ratios and peaks of planted work."""

from __future__ import annotations

import doctest
import math
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from benchmarks import common
from benchmarks.before_after import interval, rows
from benchmarks.common import Timing, alternately, peak_mib, speedup

TOY = """
import sys
from benchmarks.common import alternately

def side(row, name):
    with open({log!r}, "a") as log:
        print("{who}:" + row + ":" + name, file=log)
    return 1

def main():
    print(sys.argv)
    for name in ("small", "large"):
        alternately({{one: lambda one=one: side(name, one) for one in ("ours", "theirs")}}, rounds=5)
"""


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


def test_an_interval_of_ratios_is_students_t_on_their_logarithms() -> None:
    after, before = [1.1, 1.3, 0.9, 1.2], [1.0, 1.0, 1.0, 1.0]
    low, high = stats.ttest_1samp(np.log(after), 0).confidence_interval(0.95)
    expected = (stats.gmean(after), math.exp(low), math.exp(high))
    assert interval(after, before) == pytest.approx(expected)
    with pytest.raises(ValueError, match="at least 2"):
        interval([1.0], [1.0])


def test_rows_of_two_checkouts_take_turns_and_keep_their_names(tmp_path: Path) -> None:
    """Two small checkouts with a benchmark of two rows; each notes which of its sides ran, and in which order."""
    for name in ("before", "after"):
        package = tmp_path / name / "benchmarks"
        package.mkdir(parents=True)
        (package / "__init__.py").write_text("")
        (package / "common.py").write_text(Path(common.__file__).read_text())
        (package / "toy.py").write_text(TOY.format(who=name, log=str(tmp_path / "turns")))
    with (tmp_path / "log").open("wb") as log:
        found = list(rows(tmp_path / "before", tmp_path / "after", "toy --loud", 2, log))
    assert [name for name, _ in found] == ["toy: small ours", "toy: large ours"]
    assert all(low <= ratio <= high for _, (ratio, low, high) in found)
    assert "--loud" in (tmp_path / "log").read_text()
    turns = (tmp_path / "turns").read_text().split()
    timed = [turn for turn in turns if turn.endswith("small:ours")][2:6]  # after one call each that does not count
    assert timed == ["before:small:ours", "after:small:ours", "after:small:ours", "before:small:ours"]
    assert "after:large:theirs" in turns  # sides are still compared at the end of a row


def test_rows_that_only_one_checkout_has_are_refused(tmp_path: Path) -> None:
    for name in ("before", "after"):
        package = tmp_path / name / "benchmarks"
        package.mkdir(parents=True)
        (package / "__init__.py").write_text("")
        (package / "common.py").write_text(Path(common.__file__).read_text())
        toy = TOY.format(who=name, log=str(tmp_path / "turns"))
        (package / "toy.py").write_text(toy if name == "after" else toy.replace('"small"', '"tiny"'))
    with (tmp_path / "log").open("wb") as log, pytest.raises(RuntimeError, match="the rows differ"):
        list(rows(tmp_path / "before", tmp_path / "after", "toy", 2, log))
