"""Verdicts on many hypotheses at once: one-sided p-values of resampled values, Holm's and Benjamini's rules."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import stats

#: Of one side, as a 95 % interval has it.
ALPHA = 0.025


def above(excess: float, draws: NDArray, clusters: float, least: float) -> float:
    """Return the one-sided p-value of a value above 0, by Student's distribution with the resamples' spread.

    Quantiles of a thousand resamples cannot tell a hundredth of one from a thousandth of one, as the correction for
    many labels has to. Where no resample differs, it is the chance that groups so few hide those that would.

    Args:
        excess: The value minus what it is compared with.
        draws: The same on resamples; NaN where one does not define it.
        clusters: Effective number of groups.
        least: Least excess that there can be.
    """
    finite = draws[np.isfinite(draws)]
    if clusters <= 1 or not len(finite):
        return math.nan
    spread = float(finite.std()) * math.sqrt(clusters / (clusters - 1))
    if spread <= 1e-9:
        return 1.0 if excess <= 0 else float((-least / (excess - least)) ** clusters)
    return float(stats.t.sf(excess / spread, clusters - 1))


def holm(p_values: Sequence[float], alpha: float = ALPHA) -> list[bool]:
    """Return which hypotheses fall when the chance of a single false one may be `alpha`; NaN takes no part.

    >>> holm([0.001, 0.02, 0.2, float("nan")])
    [True, False, False, False]
    """
    known = [number for number, p_value in enumerate(p_values) if not math.isnan(p_value)]
    found = [False] * len(p_values)
    for rank, number in enumerate(sorted(known, key=lambda number: p_values[number])):
        if p_values[number] > alpha / (len(known) - rank):
            break
        found[number] = True
    return found


def benjamini_hochberg(p_values: Sequence[float]) -> list[float]:
    """Return q-values: rejecting those up to q keeps the expected share of false rejections at q (Benjamini 1995).

    ``q_(i) = min over j >= i of p_(j) n / j``; NaN takes no part and stays.

    >>> [round(q, 3) for q in benjamini_hochberg([0.01, 0.04, float("nan"), 0.03])]
    [0.03, 0.04, nan, 0.04]
    """
    array = np.array(p_values, dtype=np.float64)
    known = np.flatnonzero(~np.isnan(array))
    order = known[np.argsort(array[known], kind="stable")]
    scaled = array[order] * len(order) / np.arange(1, len(order) + 1)
    array[order] = np.minimum(np.minimum.accumulate(scaled[::-1])[::-1], 1.0)
    return [float(value) for value in array]
