"""Does a ranking of explainers carry over: to another tower or model, to photographs, from a measure to true effects?

Kendall's tau-b of the methods' means. The methods are fixed and scenes are drawn anew, for the question is about these
methods on other scenes. Two rankings from few scenes cannot agree better than each agrees with itself, so the tau of
two random halves of the same scenes stands beside it. Halves are smaller than wholes; the number to hold against them
is the tau of a half of the one against a half of the other, which never share a scene.

Methods of one family are alike, and a ranking may carry over only because one family is better than another: the tau
within families counts pairs of methods of the same family alone.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import combinations

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from clip_xai.explanations.causes.measures import CRITERIA
from clip_xai.explanations.causes.tables import EVERY
from clip_xai.explanations.causes.weights import TRAINED
from clip_xai.explanations.measures.base import Measure
from clip_xai.metrics.intervals import (
    FEWEST,
    LEVEL,
    Interval,
    bounds_of_counts,
    effective_clusters,
    mean_interval,
    mean_of_sums,
    resampled_sums,
)
from clip_xai.xai.explainer import explainers

SAMPLES, SPLITS = 1000, 200
SPAN = (-1.0, 1.0)
_TIED = 1e-12
_IN_HALVES = 4  # scenes: of fewer every half is one scene or none
_KEYS = ("group", "picture", "target", "label")
Values = NDArray[np.float64]
Key = tuple[str, ...]  # of a row: its group, the picture, what is asked, the very thing


@dataclass(frozen=True)
class Ranking:
    """What M methods scored on R rows by one criterion or measure, higher better.

    Attributes:
        methods: Their names.
        values: ``[R, M]``; NaN where a method has none.
        rows: What each row is of.
        groups: The scene, patient or lesion of each row.
    """

    methods: tuple[str, ...]
    values: Values
    rows: tuple[Key, ...]
    groups: tuple[str, ...]

    @classmethod
    def of(cls, table: pd.DataFrame, value: str, sign: float = 1.0) -> Ranking:
        """Read the trained methods' values from a table with a row for each picture, thing asked and method."""
        own = table[(table["weights"] == TRAINED) & table[value].notna()]
        wide = own.groupby([*_KEYS, "method"], sort=False)[value].mean().unstack("method")
        places = [tuple(map(str, place)) for place in wide.index.tolist()]
        values = sign * wide.to_numpy(dtype=float)
        return cls(tuple(map(str, wide.columns)), values, tuple(places), tuple(place[0] for place in places))

    @cached_property
    def means(self) -> Values:
        """Each method's mean over the rows that have it, ``[M]``."""
        return mean_of_sums(self._statistics.sum(axis=1))

    def only(self, methods: Sequence[str]) -> Ranking:
        """Return the ranking of some of its methods, in their order."""
        chosen = [self.methods.index(name) for name in methods]
        return replace(self, methods=tuple(methods), values=self.values[:, chosen])

    def summed(self, groups: Sequence[str], counts: Values) -> Values:
        """Return sums and numbers of values ``[K, M, 2]`` where each group counts so often, ``[K, G]``."""
        place = {group: number for number, group in enumerate(groups)}
        sums = np.zeros((len(groups), len(self.methods), 2))
        np.add.at(sums, [place[group] for group in self.groups], self._statistics.transpose(1, 0, 2))
        return np.tensordot(counts, sums, axes=1)

    def resampled(self, shared: Collection[str], seeds: tuple[int, int], samples: int = SAMPLES) -> Values:
        """Return the methods' means ``[samples, M]`` on resamples of groups.

        Args:
            shared: Groups that another ranking has, too: they are drawn with the first seed, and so alike in both.
            seeds: Of the draws of shared groups, and of those that it has alone.
            samples: How many.
        """
        sums = np.zeros((samples, len(self.methods), 2))
        of_both = np.array([group in shared for group in self.groups])
        for kept, seed in ((of_both, seeds[0]), (~of_both, seeds[1])):
            if kept.any():
                groups = [group for group, there in zip(self.groups, kept, strict=True) if there]
                sums += resampled_sums(self._statistics[:, kept], groups, samples, seed)
        with np.errstate(invalid="ignore"):  # a resample without any row that has a method
            return mean_of_sums(sums)

    @cached_property
    def _statistics(self) -> Values:
        known = ~np.isnan(self.values)
        return np.stack([np.where(known, self.values, 0.0), known], axis=-1).transpose(1, 0, 2)


@dataclass(frozen=True)
class Halves:
    """Kendall's tau of random halves of scenes: its mean, and the bounds of 95 % of the splits.

    Too few scenes have no bounds: of four there are three splits, whatever the ranking is worth.
    """

    mean: float
    low: float
    high: float

    @classmethod
    def of(cls, found: Values, scenes: float) -> Halves:
        """Summarise splits of so many scenes; some splits may not define a tau."""
        known = found[~np.isnan(found)]
        if not len(known):
            return cls(*[float("nan")] * 3)
        low, high = np.quantile(known, [0.025, 0.975]) if scenes >= FEWEST else (np.nan, np.nan)
        return cls(float(known.mean()), float(low), float(high))


@dataclass(frozen=True)
class CarryOver:
    """How two rankings of the same methods agree.

    Attributes:
        methods: Those that both have.
        left_out: Those that one of them has alone.
        tau: Kendall's tau with its interval over scenes.
        within: The same of pairs within a family; without value where no family has two methods.
        families: By family of at least three methods.
        halves: Half of the one against half of the other, no scene in both.
        own: Half against half of the first, and of the second.
        draws: Tau on each resample.
    """

    methods: tuple[str, ...]
    left_out: tuple[str, ...]
    tau: Interval
    within: Interval
    families: Mapping[str, Interval]
    halves: Halves
    own: tuple[Halves, Halves]
    draws: Values


def kendall(first: Values, second: Values, pairs: NDArray[np.int64] | None = None) -> Values:
    """Return Kendall's tau-b of M values each, over the last axis; NaN where nothing is ordered.

    ``sum s_a s_b / sqrt(sum s_a^2 sum s_b^2)`` over pairs, with the sign s of a pair's difference, 0 for a tie. Pairs
    with a missing value take no part.

    Args:
        first: ``[..., M]``.
        second: ``[..., M]``.
        pairs: Which pairs of the M count, ``[P, 2]``; all if None.

    Example:
        >>> kendall(np.array([1.0, 2.0, 3.0]), np.array([1.0, 3.0, 2.0])).round(3).item()
        0.333
    """
    if pairs is None:
        pairs = np.array(list(combinations(range(first.shape[-1]), 2)), dtype=np.int64).reshape(-1, 2)
    signs = [_signs(one[..., pairs[:, 0]] - one[..., pairs[:, 1]]) for one in (first, second)]
    known = ~np.isnan(signs[0] + signs[1])
    one, two = (np.where(known, sign, 0.0) for sign in signs)
    size = np.sqrt((one**2).sum(axis=-1) * (two**2).sum(axis=-1))
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(size > 0, (one * two).sum(axis=-1) / size, np.nan)


def _signs(differences: Values) -> Values:
    return np.where(np.abs(differences) <= _TIED, 0.0, np.sign(differences))


def family_of(method: str) -> str:
    """Return the family of a method: its group in the table of explainers; its own name if it is not in it."""
    return explainers[method].group if method in explainers else method


def carry_over(
    first: Ranking,
    second: Ranking,
    seed: int = 0,
    samples: int = SAMPLES,
    splits: int = SPLITS,
    family: Callable[[str], str] = family_of,
) -> CarryOver:
    """Tell how one ranking carries over to another.

    Args:
        first: The one.
        second: The other; scenes that both have are drawn together.
        seed: Seed of resamples and splits.
        samples: Resamples of scenes.
        splits: Random halves.
        family: The family of a method.
    """
    methods = [name for name in first.methods if name in second.methods]
    left_out = tuple(sorted({*first.methods, *second.methods} - {*methods}))
    first, second = first.only(methods), second.only(methods)
    shared = {*first.groups} & {*second.groups}
    drawn = first.resampled(shared, (seed, seed + 1), samples), second.resampled(shared, (seed, seed + 2), samples)
    every = np.array(list(combinations(range(len(methods)), 2)), dtype=np.int64).reshape(-1, 2)
    names = [family(name) for name in methods]
    alike = np.array([names[i] == names[j] for i, j in every], dtype=bool)

    def of(pairs: NDArray[np.int64]) -> tuple[Interval, Values]:
        draws = kendall(*drawn, pairs)
        value = float(kendall(first.means, second.means, pairs)) if len(methods) > 1 else float("nan")
        return _interval(value, draws, first, second), draws

    tau, draws = of(every)
    big = [name for name in dict.fromkeys(names) if names.count(name) > 2]
    of_family = {name: of(every[[names[i] == names[j] == name for i, j in every]])[0] for name in big}
    halves = _halves(first, second, seed, splits)
    return CarryOver(
        tuple(methods), left_out, tau, of(every[alike])[0], of_family, halves,
        (split_half(first, seed, splits), split_half(second, seed, splits)), draws,
    )  # fmt: skip


def _interval(value: float, draws: Values, first: Ranking, second: Ranking) -> Interval:
    """Bounds by the rules of all intervals of the project: none behind few scenes of either ranking."""
    sizes = [(len(one.groups), len(set(one.groups)), effective_clusters(one.groups)) for one in (first, second)]
    rows, count, clusters = min(sizes, key=lambda one: one[2])
    known = draws[~np.isnan(draws)]
    if np.isnan(value) or not len(known):
        return Interval(value, float("nan"), float("nan"), rows, count, clusters)
    # A tau is no mean over scenes: of few that all agree, nobody can say how far one more would move it.
    return bounds_of_counts(value, known, rows, count, clusters, LEVEL, SPAN if clusters >= FEWEST else None)


def split_half(ranking: Ranking, seed: int = 0, splits: int = SPLITS) -> Halves:
    """Return how a ranking agrees with itself: Kendall's tau of two random halves of its scenes, over many splits."""
    return _halves(ranking, ranking, seed, splits)


def _halves(first: Ranking, second: Ranking, seed: int, splits: int) -> Halves:
    scenes = min(len(set(one.groups)) for one in (first, second))
    if scenes < _IN_HALVES:
        return Halves.of(np.empty(0), scenes)
    lot = np.random.default_rng(seed)
    every = sorted({*first.groups, *second.groups})
    order = np.argsort(lot.random((splits, len(every))), axis=1)
    sides = np.zeros((splits, len(every)))
    # Of scenes that both have, the one gets this half and the other that; of its own, each gets a half, too.
    np.put_along_axis(sides, order[:, ::2], 1.0, axis=1)
    with np.errstate(invalid="ignore"):  # a half without any scene of one of them
        one, two = mean_of_sums(first.summed(every, sides)), mean_of_sums(second.summed(every, 1 - sides))
    return Halves.of(kendall(one, two), scenes)


@dataclass(frozen=True)
class Predictor:
    """How one measure foretells the true effects.

    Attributes:
        measure: Its key.
        label_free: Whether it needs no mask and no box.
        found: How the ranking by it agrees with the ranking by the true effects.
        by_picture: Mean over pictures and things asked of the tau between the methods' maps; without value where the
            measure is not of the same pictures.
        best: Share of resamples in which no other label-free measure has a higher tau; without value where scenes are
            too few to resample.
    """

    measure: str
    label_free: bool
    found: CarryOver
    by_picture: Interval
    best: float = float("nan")


def predictors(
    measures: Mapping[str, Ranking], truth: Ranking, label_free: Collection[str], seed: int = 0, samples: int = SAMPLES
) -> list[Predictor]:
    """Return how each measure foretells the ranking by true effects, the best first.

    Args:
        measures: Rankings by measure.
        truth: The ranking by agreement with the true effects.
        label_free: Measures that need no mask and no box.
        seed: Seed of the resamples.
        samples: Resamples of scenes.
    """
    found = [
        Predictor(name, name in label_free, carry_over(one, truth, seed, samples), _by_picture(one, truth, seed))
        for name, one in measures.items()
    ]
    free = [one for one in found if one.label_free and one.found.tau.groups >= FEWEST]
    free = [one for one in free if not np.isnan(one.found.tau.value)]
    if free:
        draws = np.nan_to_num(np.stack([one.found.draws for one in free]), nan=-np.inf)
        shares = (draws >= draws.max(axis=0)).mean(axis=1)
        known = {one.measure: float(share) for one, share in zip(free, shares, strict=True)}
        found = [replace(one, best=known.get(one.measure, float("nan"))) for one in found]
    return sorted(found, key=lambda one: -np.nan_to_num(one.found.tau.value, nan=-2.0))


def _by_picture(measure: Ranking, truth: Ranking, seed: int) -> Interval:
    methods = [name for name in measure.methods if name in truth.methods]
    measure, truth = measure.only(methods), truth.only(methods)
    place = {row: number for number, row in enumerate(truth.rows)}
    both = [(row, place[key]) for row, key in enumerate(measure.rows) if key in place]
    rows, others = [row for row, _ in both], [other for _, other in both]
    values = kendall(measure.values[rows], truth.values[others])
    known = np.flatnonzero(~np.isnan(values))
    if not len(known):
        return Interval(float("nan"), float("nan"), float("nan"), 0, 0, 0.0)
    groups = [measure.groups[both[row][0]] for row in known]
    return mean_interval(values[known], groups, seed=seed, span=SPAN)


def of_criteria(maps: pd.DataFrame) -> dict[tuple[str, str], Ranking]:
    """Return the rankings of ``maps.parquet`` by criterion and target, ``any`` for all of them."""
    found = {}
    for target, own in _by_target(maps.assign(group=maps["scene"], picture=maps["scene"])):
        for criterion in CRITERIA:
            if criterion in own and own[criterion].notna().any():
                found[criterion, target] = Ranking.of(own, criterion)
    return found


def of_measures(measured: pd.DataFrame, measures: Mapping[str, Measure]) -> dict[tuple[str, str], Ranking]:
    """Return the rankings of ``measured.parquet`` by measure and target; measures that are only shown are left out."""
    found = {}
    for target, of_target in _by_target(measured):
        for key, own in of_target.groupby("measure", sort=False):
            measure = measures.get(str(key))
            if measure is not None and measure.ranked and own["value"].notna().any():
                sign = -1.0 if measure.falling else 1.0
                found[str(key), target] = Ranking.of(own, "value", sign)
    return found


def _by_target(table: pd.DataFrame) -> list[tuple[str, pd.DataFrame]]:
    if table.empty:
        return []
    return [(EVERY, table), *((str(name), own) for name, own in table.groupby("target", sort=False))]
