"""Values that are functions of sums over groups, also the areas under curves, on thousands of resamples at once.

How often each group was drawn decides a resample. A measure is therefore a sparse matrix of row statistics summed by
group, [K, groups], and a function of the K sums: a mean has two, the calibration error three a bin. The area under the
ROC curve and average precision are functions of sums, too: of the positives at each of their scores, and of the
negatives that stand between them. One sort per label then serves every resample, ties and repeated rows included.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import sparse

from clip_xai.metrics.intervals import group_counts

BINS = 15
Values = NDArray[np.float64]


@dataclass(frozen=True)
class Statistic:
    """Values that depend on how often each group counts.

    Attributes:
        sums: What is summed, by group, [K, groups].
        value: Turns sums [K, draws] into values [V, draws]; NaN where a draw does not define one.
    """

    sums: sparse.csr_array
    value: Callable[[Values], Values]

    def on(self, counts: Values) -> Values:
        """Return the values [V, draws] where each group counts so often, [groups, draws]."""
        return self.value(self.sums @ counts)

    def whole(self) -> Values:
        """Return the values [V] on the data themselves."""
        return self.on(np.ones((self.sums.shape[1], 1)))[:, 0]


@dataclass(frozen=True)
class Members:
    """Which group each row belongs to.

    Attributes:
        of: Number of each row's group, [n].
        count: How many groups there are, also those without a row here.
    """

    of: NDArray[np.int64]
    count: int

    def at(self, rows: NDArray) -> Members:
        """Return the members of some rows; the groups stay numbered as they are."""
        return Members(self.of[rows], self.count)

    def sizes(self, rows: NDArray) -> NDArray[np.int64]:
        """Return how many of some rows each group has, [groups]."""
        return np.bincount(self.of[rows], minlength=self.count)

    def summed(self, kinds: NDArray[np.int64], count: int, values: ArrayLike = 1.0) -> sparse.csr_array:
        """Sum one value of each row by kind and group: [kinds, groups]."""
        data = np.broadcast_to(np.asarray(values, dtype=np.float64), kinds.shape)
        return sparse.coo_array((data, (kinds, self.of)), shape=(count, self.count)).tocsr()


def resampled(statistics: Sequence[Statistic], count: int, samples: int, seed: int) -> Values:
    """Return the values of statistics on resamples of groups, [all their V together, samples].

    The draws are those of `clip_xai.metrics.intervals.resampled_sums` with the same groups and seed.

    Args:
        statistics: Statistics over the same groups.
        count: How many groups there are.
        samples: Number of resamples.
        seed: Seed of the draws.
    """
    parts = []
    for drawn in group_counts(count, samples, seed):
        counts = np.ascontiguousarray(drawn.T, dtype=np.float64)
        parts.append(np.concatenate([statistic.on(counts) for statistic in statistics]))
    return np.concatenate(parts, axis=1)


def mean(values: ArrayLike, members: Members) -> Statistic:
    """Mean of one value per row."""
    kinds = np.zeros(len(members.of), dtype=np.int64)
    sums = sparse.vstack([members.summed(kinds, 1, values), members.summed(kinds, 1)], format="csr")
    return Statistic(sums, lambda found: _ratio(found[:1], found[1:]))


def calibration(confidences: Values, right: ArrayLike, members: Members, bins: int = BINS) -> Statistic:
    """Expected calibration error: the mean distance of confidence and share of right answers in bins of equal width.

    Args:
        confidences: Probability of each row's answer, [n].
        right: Whether it is right, [n].
        members: Group of each row.
        bins: Number of bins.
    """
    kinds = bin_numbers(confidences, bins)
    gap = members.summed(kinds, bins, confidences - np.asarray(right, dtype=np.float64))
    sums = sparse.vstack([gap, members.summed(kinds, bins)], format="csr")
    return Statistic(sums, lambda found: _ratio(np.abs(found[:bins]).sum(0), found[bins:].sum(0))[None])


def bin_numbers(confidences: Values, bins: int = BINS) -> NDArray[np.int64]:
    """Return the bin of equal width that each probability lies in."""
    return np.minimum((np.asarray(confidences) * bins).astype(np.int64), bins - 1)


def ranking(scores: Values, present: NDArray[np.bool_], members: Members) -> Statistic:
    """Area under the ROC curve and average precision of one label: values [2, draws].

    Both count ties as the curves do: half of a pair, and all rows of one score at once.

    Args:
        scores: One score per row, [n]; only their order counts.
        present: Whether the label is present, [n].
        members: Group of each row.
    """
    tops = np.unique(scores[present])
    blocks = len(tops)
    left, right = np.searchsorted(tops, scores, "left"), np.searchsorted(tops, scores, "right")
    tied = ~present & (right > left)
    # In descending order: the positives at each of their scores, the negatives above it and below the one before, and
    # the negatives that share it.
    kinds = np.where(present, blocks - 1 - left, 2 * blocks - right)
    kinds = np.where(tied, 2 * blocks + (blocks - left), kinds)
    ties = bool(tied.any())
    sums = members.summed(kinds, 3 * blocks + 1 if ties else 2 * blocks + 1)
    return Statistic(sums, lambda found: _areas(found, blocks, ties))


def _areas(sums: Values, blocks: int, ties: bool) -> Values:
    hits, between = sums[:blocks], sums[blocks : 2 * blocks + 1]
    above = np.cumsum(between[:blocks], axis=0)  # negatives above each block of positives
    positives, negatives = hits.sum(axis=0), between.sum(axis=0)
    upto = above
    if ties:
        level = sums[2 * blocks + 1 :]
        negatives = negatives + level.sum(axis=0)
        upto = above + np.cumsum(level, axis=0)
        above = upto - level
    found = np.cumsum(hits, axis=0)
    precision = _ratio(found, found + upto, empty=0.0)
    area = 1 - _ratio((hits * (above + upto)).sum(axis=0), 2 * positives * negatives)
    return np.stack([area, _ratio((hits * precision).sum(axis=0), positives)])


def stratified(strata: Sequence[Statistic], pairs: Sequence[Statistic]) -> Statistic:
    """Area under the ROC curve over the pairs within strata alone: the strata's areas weighted by their pairs.

    Args:
        strata: `ranking` of each stratum.
        pairs: `pair_counts` of each stratum.
    """
    matrices = [statistic.sums for both in zip(strata, pairs, strict=True) for statistic in both]
    ends = np.cumsum([0, *(matrix.shape[0] for matrix in matrices)])

    def value(sums: Values) -> Values:
        won, of = np.zeros(sums.shape[1]), np.zeros(sums.shape[1])
        for number, (area, pair) in enumerate(zip(strata, pairs, strict=True)):
            count = pair.value(sums[ends[2 * number + 1] : ends[2 * number + 2]])[0]
            share = area.value(sums[ends[2 * number] : ends[2 * number + 1]])[0]
            won += count * np.where(count > 0, share, 0.0)
            of += count
        return _ratio(won, of)[None]

    return Statistic(sparse.vstack(matrices, format="csr"), value)


def pair_counts(present: NDArray[np.bool_], members: Members) -> Statistic:
    """Number of pairs of one row with the label and one without."""
    sums = members.summed(present.astype(np.int64), 2)
    return Statistic(sums, lambda found: (found[0] * found[1])[None])


def roc_points(scores: Values, present: NDArray[np.bool_], most: int = 120) -> list[tuple[float, float]]:
    """Return the ROC curve as points of (false positives, true positives) in shares, at most so many.

    >>> roc_points(np.array([3.0, 2.0, 1.0]), np.array([True, False, True]))
    [(0.0, 0.0), (0.0, 0.5), (1.0, 0.5), (1.0, 1.0)]
    """
    order = np.argsort(-scores, kind="stable")
    ends = np.append(np.flatnonzero(np.diff(scores[order])), len(order) - 1)
    right = np.append(0, np.cumsum(present[order])[ends]) / present.sum()
    wrong = np.append(0, np.cumsum(~present[order])[ends]) / (~present).sum()
    if len(right) > most:
        # Equal steps along the curve: equal steps of rows would leave out its steep beginning.
        along = np.append(0, np.cumsum(np.hypot(np.diff(right), np.diff(wrong))))
        kept = np.unique(np.searchsorted(along, np.linspace(0, along[-1], most)).clip(max=len(right) - 1))
        right, wrong = right[np.append(kept, len(right) - 1)], wrong[np.append(kept, len(wrong) - 1)]
    return [(float(x), float(y)) for x, y in zip(wrong, right, strict=True)]


def _ratio(above: Values, below: Values, empty: float = np.nan) -> Values:
    return np.divide(above, below, out=np.full(np.broadcast(above, below).shape, empty), where=below > 0)
