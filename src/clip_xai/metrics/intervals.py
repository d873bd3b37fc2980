"""95 % intervals by a bootstrap that draws whole groups (patients, lesions), never single photographs.

Several photographs of one lesion tell less than as many photographs of different lesions. Drawing groups with
replacement keeps them together, so that the interval is as wide as the data deserve (Field & Welsh 2007).

The corpus values of this project are functions of sums over rows: a mean of (sum, count), BLEU of ten sums. One
resample is then a weighted sum over groups, and all resamples are one matrix product.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

SAMPLES = 1000
LEVEL = 0.95
_CHUNK = 100


@dataclass(frozen=True)
class Interval:
    """A value with the bounds of its interval.

    Attributes:
        value: The statistic on the data themselves.
        low: Lower bound; NaN where there are fewer than two groups, for then nothing can be said.
        high: Upper bound, likewise.
        n: Number of rows.
        groups: Number of groups.
    """

    value: float
    low: float
    high: float
    n: int
    groups: int


def mean_of_sums(sums: NDArray) -> NDArray:
    """Means from sums [..., 2] of (value, count)."""
    return sums[..., 0] / sums[..., 1]


def mean_interval(
    values: ArrayLike, groups: Sequence[str], samples: int = SAMPLES, seed: int = 0, level: float = LEVEL
) -> Interval:
    """Interval of the mean of one value per row.

    >>> mean_interval([1.0, 1.0, 1.0], ["a", "b", "c"])
    Interval(value=1.0, low=1.0, high=1.0, n=3, groups=3)
    """
    return interval(_with_count(values), groups, mean_of_sums, samples, seed, level)


def interval(
    statistics: ArrayLike,
    groups: Sequence[str],
    value: Callable[[NDArray], NDArray] = mean_of_sums,
    samples: int = SAMPLES,
    seed: int = 0,
    level: float = LEVEL,
) -> Interval:
    """Percentile interval of a function of summed row statistics.

    Args:
        statistics: What is summed, [n, K], one row per photograph.
        groups: Group of each row.
        value: Turns sums [..., K] into values [...].
        samples: Number of resamples.
        seed: Seed of the draws; the same seed gives the same interval.
        level: Share of the resamples inside the interval.
    """
    array = np.asarray(statistics, dtype=np.float64)
    draws = value(resampled_sums(array, groups, samples, seed))
    return bounds(float(value(array.sum(axis=0))), draws, groups, level)


def paired_interval(
    first: ArrayLike,
    second: ArrayLike,
    groups: Sequence[str],
    value: Callable[[NDArray], NDArray] = mean_of_sums,
    samples: int = SAMPLES,
    seed: int = 0,
    level: float = LEVEL,
) -> Interval:
    """Interval of `value(first) - value(second)` where both describe the same rows and share every draw."""
    both = np.stack([np.asarray(first, dtype=np.float64), np.asarray(second, dtype=np.float64)])
    draws = value(resampled_sums(both, groups, samples, seed))
    full = value(both.sum(axis=1))
    return bounds(float(full[0] - full[1]), draws[:, 0] - draws[:, 1], groups, level)


def bootstrap(
    statistic: Callable[[NDArray[np.int64]], float],
    groups: Sequence[str],
    samples: int = SAMPLES,
    seed: int = 0,
    level: float = LEVEL,
) -> Interval:
    """Interval of any statistic, called once per resample: for what is no function of sums over rows.

    Args:
        statistic: Maps row numbers [m] (a row may occur several times) to a value.
        groups: Group of each row.
        samples: Number of resamples.
        seed: Seed of the draws.
        level: Share of the resamples inside the interval.
    """
    member, count = _group_numbers(groups)
    rows_of = [np.flatnonzero(member == group) for group in range(count)]
    draws = [
        statistic(np.concatenate([np.repeat(rows_of[group], times) for group, times in enumerate(counts) if times]))
        for chunk in _group_counts(count, samples, seed)
        for counts in chunk
    ]
    return bounds(statistic(np.arange(len(member))), np.asarray(draws), groups, level)


def resampled_sums(statistics: NDArray, groups: Sequence[str], samples: int = SAMPLES, seed: int = 0) -> NDArray:
    """Sum row statistics over each resample of groups.

    Args:
        statistics: [..., n, K].
        groups: Group of each of the n rows.
        samples: Number of resamples.
        seed: Seed of the draws; equal groups and seeds give equal draws, which pairs several systems.

    Returns:
        Sums [samples, ..., K].
    """
    member, count = _group_numbers(groups)
    if statistics.shape[-2] != len(member):
        raise ValueError(f"{statistics.shape[-2]} rows of statistics have {len(member)} groups.")
    rows = np.moveaxis(statistics, -2, 0).reshape(len(member), -1)
    sums = np.zeros((count, rows.shape[1]))
    np.add.at(sums, member, rows)
    draws = np.concatenate([counts @ sums for counts in _group_counts(count, samples, seed)])
    return draws.reshape(samples, *statistics.shape[:-2], statistics.shape[-1])


def bounds(value: float, draws: NDArray, groups: Sequence[str], level: float = LEVEL) -> Interval:
    """Put the percentiles of resampled values round a value; NaN bounds where fewer than two groups were drawn."""
    count = len(set(groups))
    low, high = (float("nan"), float("nan"))
    if count > 1:
        low, high = (float(bound) for bound in np.quantile(draws, [(1 - level) / 2, (1 + level) / 2]))
    return Interval(float(value), low, high, len(groups), count)


def _with_count(values: ArrayLike) -> NDArray[np.float64]:
    array = np.asarray(values, dtype=np.float64)
    return np.stack([array, np.ones_like(array)], axis=-1)


def _group_numbers(groups: Sequence[str]) -> tuple[NDArray[np.int64], int]:
    if not len(groups):
        raise ValueError("There are no rows to draw from.")
    names, member = np.unique(np.asarray(groups, dtype=str), return_inverse=True)
    return member, len(names)


def _group_counts(count: int, samples: int, seed: int) -> Iterator[NDArray[np.int64]]:
    """Yield how often each group was drawn, [chunk, count] at a time: a matrix for thousands of groups is large."""
    generator = np.random.default_rng(seed)
    for start in range(0, samples, _CHUNK):
        size = min(_CHUNK, samples - start)
        drawn = generator.integers(count, size=(size, count)) + count * np.arange(size)[:, None]
        yield np.bincount(drawn.ravel(), minlength=size * count).reshape(size, count)
