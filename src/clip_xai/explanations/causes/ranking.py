"""Methods ranked by a criterion, each with its interval, the spread of its rank, and its lead over random weights."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

from clip_xai.explanations.causes.measures import Measured, Method, Row
from clip_xai.explanations.causes.one_scene import RANDOM, TRAINED
from clip_xai.metrics.intervals import FEWEST, Interval, bounds, mean_of_sums, resampled_sums
from clip_xai.metrics.multiplicity import above, holm

SAMPLES = 1000
SPAN = (0.0, 1.0)


@dataclass(frozen=True)
class Place:
    """How one method does by one criterion.

    Attributes:
        method: Its name, and the weights that its maps were made with.
        score: Mean over rows with the interval over scenes.
        rank: 1 for the best of the methods on the trained model; None for a control or random weights.
        ranks: Bounds of 95 % of its ranks on resampled scenes; None where these are too few.
        lead: What it is above itself at random weights, paired by row; None where there is no twin.
        leads: Whether that is above 0, corrected for all methods; never of too few scenes.
    """

    method: Method
    score: Interval
    rank: int | None = None
    ranks: tuple[int, int] | None = None
    lead: Interval | None = None
    leads: bool = False

    @property
    def few(self) -> bool:
        """Whether its scenes are too few to tell its rank from luck."""
        return self.score.clusters < FEWEST

    @property
    def decided(self) -> bool:
        """Whether scenes are enough to say if it leads."""
        return self.lead is not None and self.lead.clusters >= FEWEST

    @property
    def rank_text(self) -> str:
        """``2 [1–3]``: its rank with the bounds of it, where it has any; empty for what is not ranked."""
        if self.rank is None:
            return ""
        return f"{self.rank}" if self.ranks is None else f"{self.rank} [{self.ranks[0]}–{self.ranks[1]}]"


def ranked(
    measured: Measured, criterion: str, keep: Sequence[bool], samples: int = SAMPLES, seed: int = 0
) -> list[Place]:
    """Rank the methods on the trained model by one criterion; the others stand in the list with their scores.

    Args:
        measured: What was measured.
        criterion: One of its values.
        keep: Which rows count.
        samples: Resamples of scenes.
        seed: Seed of them.

    Returns:
        The best first; methods without any value are not there.
    """
    chosen = np.flatnonzero(np.asarray(keep, dtype=bool))
    values = measured.values[criterion][:, chosen]
    scenes = [str(measured.rows[row].scene) for row in chosen]
    there = np.flatnonzero((~np.isnan(values)).any(axis=1)) if len(chosen) else np.empty(0, int)
    if not len(there):
        return []
    names = [measured.methods[number] for number in there]
    values = values[there]
    with np.errstate(invalid="ignore"):  # a resample without any scene that defines a value
        draws = mean_of_sums(_resampled(values, scenes, samples, seed))
    places = {name: _score(values[row], draws[:, row], scenes) for row, name in enumerate(names)}
    trained = [row for row, name in enumerate(names) if name[1] == TRAINED]
    order = rankdata(-np.array([places[names[row]].value for row in trained]), method="min").astype(int)
    drawn = rankdata(-draws[:, trained], axis=1, method="average")
    spread = np.nanquantile(drawn, [0.025, 0.975], axis=0) if trained else np.empty((2, 0))
    rank_of = {names[row]: (int(order[n]), (round(float(spread[0, n])), round(float(spread[1, n]))))
               for n, row in enumerate(trained)}  # fmt: skip
    leads = {}
    for row in trained:
        twin = (names[row][0], RANDOM)
        if twin in places:
            leads[names[row]] = _lead(values[row] - values[names.index(twin)], scenes, samples, seed)
    verdicts = dict(zip(leads, holm([p_value for _, p_value in leads.values()]), strict=True))
    found = []
    for name, score in places.items():
        rank, spread_of = rank_of.get(name, (None, None))
        spread_of = spread_of if score.clusters >= FEWEST else None
        lead = leads[name][0] if name in leads else None
        found.append(Place(name, score, rank, spread_of, lead, verdicts.get(name, False)))
    return sorted(found, key=lambda place: -place.score.value)


def rows_of(rows: Sequence[Row], target: str | None = None, passing: bool = False) -> list[bool]:
    """Tell which rows are about a target, any if None, and of scenes that pass where that is asked."""
    return [(target is None or row.target == target) and (row.passes or not passing) for row in rows]


def _resampled(values: NDArray[np.floating], scenes: Sequence[str], samples: int, seed: int) -> NDArray:
    known = ~np.isnan(values)
    return resampled_sums(np.stack([np.where(known, values, 0.0), known], axis=-1), scenes, samples, seed)


def _score(values: NDArray, draws: NDArray, scenes: Sequence[str]) -> Interval:
    known = ~np.isnan(values)
    members = [scene for scene, there in zip(scenes, known, strict=True) if there]
    return bounds(float(values[known].mean()), draws[~np.isnan(draws)], members, span=SPAN)


def _lead(values: NDArray, scenes: Sequence[str], samples: int, seed: int) -> tuple[Interval, float]:
    known = ~np.isnan(values)
    if not known.any():
        return Interval(math.nan, math.nan, math.nan, 0, 0, 0.0), math.nan
    members = [scene for scene, there in zip(scenes, known, strict=True) if there]
    draws = mean_of_sums(_resampled(values[None, known], members, samples, seed))[:, 0]
    found = bounds(float(values[known].mean()), draws, members, span=(-1.0, 1.0))
    # Student's distribution has an answer for four scenes, too; a verdict needs as many as an interval.
    return found, above(found.value, draws, found.clusters, -1.0) if found.clusters >= FEWEST else math.nan
