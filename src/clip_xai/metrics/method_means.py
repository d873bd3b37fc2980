"""Means of several methods over the same photographs, with intervals over patients or lesions."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import rankdata
from torch import Tensor
from torchmetrics import Metric

from clip_xai.metrics.intervals import FEWEST, Interval, bounds, mean_of_sums, resampled_sums
from clip_xai.metrics.multiplicity import above, holm

SAMPLES = 1000
_DIGITS = 12  # to which means that are alike are the same


class MethodMeans(Metric):
    """The mean of one measure for each of M methods; all see the same photographs, so that differences are paired.

    A method that has no value for a photograph has NaN there, which counts neither for nor against it.

    Shapes: ``update`` takes values ``[B, M]`` and B groups; ``compute`` returns for each method ``[3]``: the mean and
    the bounds of its 95 % interval, NaN where there are too few groups.

    Attributes:
        methods: Their M names.
        falling: Whether lower is better.
        span: Least and largest value that a photograph can have, where there is one.

    Example:
        >>> metric = MethodMeans(["a", "b"], span=(0.0, 1.0))
        >>> metric.update(torch.tensor([[0.5, 1.0], [1.0, float("nan")]]), ["patient 1", "patient 2"])
        >>> metric.compute()["a"][0].item(), metric.compute()["b"][0].item()
        (0.75, 1.0)
    """

    full_state_update = False
    is_differentiable = False
    values: list[Tensor]
    groups: list[Tensor]

    def __init__(
        self,
        methods: Sequence[str],
        falling: bool = False,
        span: tuple[float, float] | None = None,
        share: bool = False,
        samples: int = SAMPLES,
        seed: int = 0,
        **settings: Any,
    ) -> None:
        """Set what is compared.

        Args:
            methods: Names.
            falling: Lower is better.
            span: Least and largest value.
            share: Each value is 1 or 0, right or wrong.
            samples: Resamples of groups.
            seed: Seed of them.
            settings: Those of torchmetrics.
        """
        super().__init__(**settings)
        self.methods = tuple(methods)
        self.falling, self.span, self.share, self.samples, self.seed = falling, span, share, samples, seed
        self.add_state("values", default=[], dist_reduce_fx="cat")
        self.add_state("groups", default=[], dist_reduce_fx="cat")

    def update(self, values: Tensor, groups: Sequence[str]) -> None:
        """Add a batch: values ``[B, M]`` and the group of each of the B photographs.

        Raises:
            ValueError: The shapes do not fit.
        """
        if values.shape != (len(groups), len(self.methods)):
            raise ValueError(f"values {list(values.shape)} of {len(groups)} groups and {len(self.methods)} methods")
        self.add(values, groups)

    def add(self, values: Tensor, groups: Sequence[str]) -> None:
        """Keep the values of a batch, whatever their shape, and the group of each of its rows."""
        self.values.append(values.detach().double().to(self.device))
        self.groups.append(torch.tensor([number_of(group) for group in groups], device=self.device))

    def compute(self) -> dict[str, Tensor]:
        """Return mean, lower and upper bound of each method."""
        found = self.intervals()
        return {name: torch.tensor([one.value, one.low, one.high]) for name, one in found.items()}

    def gathered(self) -> tuple[Tensor, list[str]]:
        """Return what was kept of all photographs, and their groups."""
        if isinstance(self.values, list) and not self.values:
            return torch.empty(0, len(self.methods), dtype=torch.float64), []
        values, groups = (torch.cat(part) if isinstance(part, list) else part for part in (self.values, self.groups))
        return values.cpu(), [str(group) for group in groups.tolist()]

    def table(self) -> tuple[NDArray[np.float64], list[str]]:
        """Return all values ``[n, M]`` as they came, and their groups."""
        values, groups = self.gathered()
        return values.numpy(), groups

    def intervals(self) -> dict[str, Interval]:
        """Return each method's mean with its interval; NaN and n = 0 for one without any value."""
        values, groups = self.table()
        return {name: self._interval(values[:, column], groups)[0] for column, name in enumerate(self.methods)}

    def differences(self, pairs: Sequence[tuple[str, str]]) -> dict[tuple[str, str], tuple[Interval, bool]]:
        """Return by how much one method is better than another on the photographs that both have, and whether surely.

        Better is higher, or lower where that is better. Sure is what holds at one-sided 2.5 % by Holm's rule over all
        pairs that are asked for together; of fewer groups than an interval needs nothing is sure.

        Args:
            pairs: Of names, the better one first.
        """
        values, groups = self.table()
        sign = -1.0 if self.falling else 1.0
        width = None if self.span is None else self.span[1] - self.span[0]
        span = None if width is None else (-width, width)
        found, p_values = {}, []
        for first, second in pairs:
            apart = sign * (values[:, self.methods.index(first)] - values[:, self.methods.index(second)])
            interval, draws = self._interval(apart, groups, span, paired=True)
            found[first, second] = interval
            unbounded = interval.clusters < FEWEST or not np.isfinite(draws).any()
            least = -np.inf if width is None else -width
            p_values.append(math.nan if unbounded else _p_value(interval, draws, least))
        verdicts = holm(p_values)
        return {pair: (interval, sure) for (pair, interval), sure in zip(found.items(), verdicts, strict=True)}

    def ranks(self) -> dict[str, tuple[int, int, int]]:
        """Return each method's rank, 1 for the best, with the bounds of 95 % of its ranks on resampled groups.

        Methods that are alike share the better rank, and their bounds reach over all places that they could have.
        """
        values, groups = self.table()
        known = ~np.isnan(values)
        able = [column for column in range(len(self.methods)) if known[:, column].any()]
        if not able:
            return {}
        sign = 1.0 if self.falling else -1.0
        statistics = np.stack([np.where(known, values, 0.0).T[able], known.T[able]], axis=-1)
        draws = mean_of_sums(resampled_sums(statistics, groups, self.samples, self.seed))
        own = np.nanmean(values[:, able], axis=0)
        places = rankdata((sign * own).round(_DIGITS), method="min").astype(int)
        drawn = np.where(np.isnan(draws), np.inf, sign * draws).round(_DIGITS)
        low, high = (
            np.quantile(rankdata(drawn, method=ties, axis=1), tail, axis=0, method="nearest").astype(int)
            for ties, tail in (("min", 0.025), ("max", 0.975))
        )
        return {self.methods[column]: (int(places[n]), int(low[n]), int(high[n])) for n, column in enumerate(able)}

    def _interval(
        self,
        values: NDArray[np.float64],
        groups: Sequence[str],
        span: tuple[float, float] | None = None,
        paired: bool = False,
    ) -> tuple[Interval, NDArray[np.float64]]:
        known = np.flatnonzero(~np.isnan(values))
        if not len(known):
            return Interval(math.nan, math.nan, math.nan, 0, 0, 0.0), np.empty(0)
        members = [groups[int(row)] for row in known]
        statistics = np.stack([values[known], np.ones(len(known))], axis=-1)
        draws = mean_of_sums(resampled_sums(statistics, members, self.samples, self.seed))
        share = self.share and not paired
        found = bounds(float(values[known].mean()), draws, members, span=span if paired else self.span, share=share)
        return found, draws


def number_of(group: str) -> int:
    """Return a number of 63 bits that stands for a group's name, the same in every process.

    >>> number_of("patient 1") == number_of("patient 1") != number_of("patient 2")
    True
    """
    return int.from_bytes(hashlib.sha256(group.encode()).digest()[:8], "big") >> 1


def _p_value(interval: Interval, draws: NDArray[np.float64], least: float) -> float:
    if not np.isfinite(least) and float(np.ptp(draws)) <= 1e-12:
        return math.nan  # nothing says how far groups that were not met could lie
    return above(interval.value, draws, interval.clusters, least)
