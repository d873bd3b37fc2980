"""95 % intervals by a bootstrap that draws whole groups (patients, lesions), never single photographs.

Several photographs of one lesion tell less than as many photographs of different lesions. Drawing groups with
replacement keeps them together, so that the interval is as wide as the data deserve (Field & Welsh 2007).

The corpus values of this project are functions of sums over rows: a mean of (sum, count), BLEU of fifteen sums. One
resample is then a weighted sum over groups, and all resamples are one matrix product.

Few groups, or groups that all say the same, would make these intervals too narrow, so:

- groups of unequal size count with their effective number, (sum m)^2 / sum m^2 (Kish 1965);
- the percentiles are those of the expanded percentile interval (Hesterberg 2015), which is as wide as Student's;
- shares of right and wrong have the interval of Korn and Graubard (1998): Clopper and Pearson's exact one for as many
  independent trials as have the variance of the resamples; under ten groups, for the effective number of groups;
- where every resample has the same value (all right, all wrong, always tied), the resamples say nothing: the bounds are
  then the exact ones for the share of groups that might differ and were not met;
- under ten effective groups nothing but a share has an interval.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

SAMPLES = 1000
LEVEL = 0.95
FEWEST = 10  # effective groups behind an interval of resamples, a range of ranks, and a verdict
_CHUNK = 100


@dataclass(frozen=True)
class Interval:
    """A value with the bounds of its interval.

    Attributes:
        value: The statistic on the data themselves.
        low: Lower bound; NaN where too few groups were drawn for one.
        high: Upper bound, likewise.
        n: Number of rows.
        groups: Number of groups.
        clusters: Their effective number, at most `groups`: that of as many groups of equal size.
    """

    value: float
    low: float
    high: float
    n: int
    groups: int
    clusters: float


def mean_of_sums(sums: NDArray) -> NDArray:
    """Means from sums [..., 2] of (value, count), NaN of none; a value whose resamples hold one has no interval."""
    with np.errstate(invalid="ignore"):
        return sums[..., 0] / sums[..., 1]


def effective_clusters(groups: Sequence[str]) -> float:
    """Return the number of groups of equal size that tell as much as these (Kish 1965), (sum m)^2 / sum m^2.

    >>> effective_clusters(["a", "a", "b", "b"]), round(effective_clusters(["a"] * 8 + ["b"]), 2)
    (2.0, 1.25)
    """
    _, sizes = np.unique(np.asarray(groups, dtype=str), return_counts=True)
    return effective_number(sizes)


def effective_number(sizes: ArrayLike) -> float:
    """Return `effective_clusters` of groups of these sizes; 0 where there is no row.

    >>> effective_number([2, 2]), round(effective_number([8, 1]), 2)
    (2.0, 1.25)
    """
    array = np.asarray(sizes, dtype=np.float64)
    return float(array.sum() ** 2 / (array**2).sum()) if array.any() else 0.0


def mean_interval(
    values: ArrayLike,
    groups: Sequence[str],
    samples: int = SAMPLES,
    seed: int = 0,
    level: float = LEVEL,
    span: tuple[float, float] | None = None,
    share: bool = False,
) -> Interval:
    """Interval of the mean of one value per row.

    Args:
        values: One value per row, [n].
        groups: Group of each row.
        samples: Number of resamples.
        seed: Seed of the draws.
        level: Share of the resamples inside the interval.
        span: Least and largest value that a row can have, where there is one.
        share: Each value is 1 or 0, right or wrong.

    >>> found = mean_interval([1.0, 1.0, 1.0, 1.0], ["a", "b", "c", "d"], span=(0, 1))
    >>> found.value, round(found.low, 3), found.high
    (1.0, 0.398, 1.0)
    """
    return interval(_with_count(values), groups, mean_of_sums, samples, seed, level, span, share)


def interval(
    statistics: ArrayLike,
    groups: Sequence[str],
    value: Callable[[NDArray], NDArray] = mean_of_sums,
    samples: int = SAMPLES,
    seed: int = 0,
    level: float = LEVEL,
    span: tuple[float, float] | None = None,
    share: bool = False,
) -> Interval:
    """Percentile interval of a function of summed row statistics.

    Args:
        statistics: What is summed, [n, K], one row per photograph.
        groups: Group of each row.
        value: Turns sums [..., K] into values [...].
        samples: Number of resamples.
        seed: Seed of the draws; the same seed gives the same interval.
        level: Share of the resamples inside the interval.
        span: Least and largest value that there can be.
        share: The value is a mean of rows that are 1 or 0, right or wrong.
    """
    array = np.asarray(statistics, dtype=np.float64)
    draws = value(resampled_sums(array, groups, samples, seed))
    return bounds(float(value(array.sum(axis=0))), draws, groups, level, span, share)


def paired_interval(
    values: NDArray,
    draws: NDArray,
    groups: Sequence[str],
    level: float = LEVEL,
    span: tuple[float, float] | None = None,
) -> Interval:
    """Interval of the difference of two values that describe the same rows and share every draw.

    Args:
        values: The two values, [2].
        draws: Both in each resample, [samples, 2].
        groups: Group of each row.
        level: Share of the resamples inside the interval.
        span: What each of the two can be; their difference then lies within plus and minus its width.
    """
    return bounds(float(values[0] - values[1]), draws[:, 0] - draws[:, 1], groups, level, difference_span(span))


def bootstrap(
    statistic: Callable[[NDArray[np.int64]], float],
    groups: Sequence[str],
    samples: int = SAMPLES,
    seed: int = 0,
    level: float = LEVEL,
) -> Interval:
    """Interval of any statistic, called once per resample: for what is not a function of sums over rows.

    Args:
        statistic: Maps row numbers [m] (a row may occur several times) to a value.
        groups: Group of each row.
        samples: Number of resamples.
        seed: Seed of the draws.
        level: Share of the resamples inside the interval.
    """
    member, count = group_numbers(groups)
    rows_of = [np.flatnonzero(member == group) for group in range(count)]
    draws = [
        statistic(np.concatenate([np.repeat(rows_of[group], times) for group, times in enumerate(counts) if times]))
        for chunk in group_counts(count, samples, seed)
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
    member, count = group_numbers(groups)
    if statistics.shape[-2] != len(member):
        raise ValueError(f"{statistics.shape[-2]} rows of statistics have {len(member)} groups.")
    rows = np.moveaxis(statistics, -2, 0).reshape(len(member), -1)
    sums = np.zeros((count, rows.shape[1]))
    np.add.at(sums, member, rows)
    draws = np.concatenate([counts @ sums for counts in group_counts(count, samples, seed)])
    return draws.reshape(samples, *statistics.shape[:-2], statistics.shape[-1])


def difference_span(span: tuple[float, float] | None) -> tuple[float, float] | None:
    """Return what the difference of two values can be, each of which lies in a span."""
    return None if span is None else (span[0] - span[1], span[1] - span[0])


def bounds(
    value: float,
    draws: NDArray,
    groups: Sequence[str],
    level: float = LEVEL,
    span: tuple[float, float] | None = None,
    share: bool = False,
) -> Interval:
    """Put bounds round a value, by the rules of this module.

    Args:
        value: The statistic on the data themselves.
        draws: Its values on the resamples.
        groups: Group of each row.
        level: Share of the resamples inside the interval.
        span: Least and largest value that there can be; without it, values that never vary have no interval.
        share: The value is a mean of rows that are right or wrong, 1 or 0.
    """
    return bounds_of_counts(value, draws, len(groups), len(set(groups)), effective_clusters(groups), level, span, share)


def bounds_of_counts(
    value: float,
    draws: NDArray,
    rows: int,
    count: int,
    clusters: float,
    level: float = LEVEL,
    span: tuple[float, float] | None = None,
    share: bool = False,
) -> Interval:
    """Put `bounds` round a value whose rows and groups were counted before.

    Args:
        value: The statistic on the data themselves.
        draws: Its values on the resamples.
        rows: Number of rows.
        count: Number of groups.
        clusters: Their effective number; of a value that depends on a part of the rows most, that of this part.
        level: Share of the resamples inside the interval.
        span: As for `bounds`.
        share: As for `bounds`.
    """
    low, high = float("nan"), float("nan")
    if count > 1:
        if np.ptp(draws) <= 1e-9 * max(1.0, abs(value)):
            low, high = _unvarying(value, clusters, level, span)
        elif share:
            low, high = exact_bounds(value, _trials(value, draws, rows, clusters, level), level)
        elif clusters >= FEWEST:
            tail = stats.norm.cdf(-np.sqrt(clusters / (clusters - 1)) * stats.t.isf((1 - level) / 2, clusters - 1))
            low, high = (float(bound) for bound in np.quantile(draws, [tail, 1 - tail]))
    return Interval(float(value), low, high, rows, count, clusters)


def exact_bounds(share: float, count: float, level: float = LEVEL) -> tuple[float, float]:
    """Clopper-Pearson bounds of a share; the count of trials may be an effective one and need not be whole.

    >>> [round(bound, 3) for bound in exact_bounds(0.0, 4)]
    [0.0, 0.602]
    """
    tail, hits = (1 - level) / 2, share * count
    low = 0.0 if hits <= 0 else float(stats.beta.ppf(tail, hits, count - hits + 1))
    high = 1.0 if hits >= count else float(stats.beta.isf(tail, hits + 1, count - hits))
    return low, high


def _trials(share: float, draws: NDArray, rows: int, clusters: float, level: float) -> float:
    """How many independent trials tell as much as these rows: at most as many as there are rows."""
    if clusters < FEWEST:
        return clusters
    variance = float(np.var(draws)) * clusters / (clusters - 1)
    tail = (1 - level) / 2
    student = (stats.norm.isf(tail) / stats.t.isf(tail, clusters - 1)) ** 2
    return float(min(share * (1 - share) / variance, rows) * student)


def _unvarying(value: float, clusters: float, level: float, span: tuple[float, float] | None) -> tuple[float, float]:
    """Bounds where all groups agree: how far the value would move if those not met lay at the ends of the span."""
    if span is None:
        return float("nan"), float("nan")
    unmet = exact_bounds(0.0, clusters, level)[1]
    return value + unmet * (min(span[0], value) - value), value + unmet * (max(span[1], value) - value)


def _with_count(values: ArrayLike) -> NDArray[np.float64]:
    array = np.asarray(values, dtype=np.float64)
    return np.stack([array, np.ones_like(array)], axis=-1)


def group_numbers(groups: Sequence[str]) -> tuple[NDArray[np.int64], int]:
    """Number the groups; return the number of each row's group, and how many there are."""
    if not len(groups):
        raise ValueError("There are no rows to draw from.")
    names, member = np.unique(np.asarray(groups, dtype=str), return_inverse=True)
    return member, len(names)


def group_counts(count: int, samples: int, seed: int) -> Iterator[NDArray[np.int64]]:
    """Yield how often each group was drawn, [chunk, count] at a time: a matrix for thousands of groups is large."""
    generator = np.random.default_rng(seed)
    for start in range(0, samples, _CHUNK):
        size = min(_CHUNK, samples - start)
        drawn = generator.integers(count, size=(size, count)) + count * np.arange(size)[:, None]
        yield np.bincount(drawn.ravel(), minlength=size * count).reshape(size, count)
