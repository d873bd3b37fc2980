"""What measured scenes or photographs say of each method: means with intervals, ranks with their spread, and leads."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd
import torch

from clip_xai.explanations.causes.maps import EFFECTS, NEGATED
from clip_xai.explanations.causes.weights import BLIND, RANDOM, TRAINED
from clip_xai.explanations.measures.base import Measure
from clip_xai.explanations.measures.pictures import Method, key_of, method_of
from clip_xai.metrics.intervals import FEWEST, Interval
from clip_xai.metrics.method_means import MethodMeans

EVERY = "any"  # of what is asked


@dataclass(frozen=True)
class Summary:
    """One method by one measure.

    Attributes:
        measure: The measure's key.
        target: What was asked; ``any`` for all of it.
        method: Its name and weights.
        mean: With its interval over scenes, or over patients.
        rank: Rank among the methods on the trained model; None where methods are not ranked, or this is not one of
            them.
        ranks: Bounds of 95 % of its ranks on resamples; None where there are too few groups to tell.
        above_random: By how much it is better than itself at random weights, and whether for sure (Holm).
        above_control: The same against the best control.
        control: Which one that is.
    """

    measure: str
    target: str
    method: Method
    mean: Interval
    rank: int | None = None
    ranks: tuple[int, int] | None = None
    above_random: tuple[Interval, bool] | None = None
    above_control: tuple[Interval, bool] | None = None
    control: str = ""


def summarised(rows: Sequence[dict[str, Any]], measures: Sequence[Measure], seed: int = 0) -> list[Summary]:
    """Summarise the rows of measured pictures, by measure and what was asked; the best first.

    Args:
        rows: With ``picture``, ``group``, ``target``, ``label``, ``measure``, ``method``, ``weights`` and ``value``.
        measures: What was measured; rows of others are passed over.
        seed: Seed of the resamples.
    """
    if not rows:
        return []
    table = pd.DataFrame(rows)
    found = []
    for measure in measures:
        own = table[table["measure"] == measure.key]
        for target in (EVERY, *dict.fromkeys(own["target"])):
            part = own if target == EVERY else own[own["target"] == target]
            found += _of_measure(part, measure, target, seed)
    return found


def _of_measure(part: pd.DataFrame, measure: Measure, target: str, seed: int) -> list[Summary]:
    if part.empty:
        return []
    # A row for each picture and thing asked, a column for each method; what one lacks is NaN.
    thing = ["group", "picture", "target", "label"]
    wide = part.groupby([*thing, "method", "weights"])["value"].mean().unstack(["method", "weights"])
    wide = wide.loc[:, wide.notna().any()]
    methods: list[Method] = [(str(column[0]), str(column[1])) for column in wide.columns.tolist()]
    names = [key_of(method) for method in methods]
    metric = MethodMeans(names, measure.falling, measure.span, measure.share, seed=seed)
    metric.update(torch.from_numpy(wide.to_numpy(dtype=float).copy()), [str(place[0]) for place in wide.index.tolist()])
    intervals = metric.intervals()
    trained = [name for name, method in zip(names, methods, strict=True) if method[1] == TRAINED]
    told = (EFFECTS, NEGATED)  # made of what is looked for
    blind = [name for name, method in zip(names, methods, strict=True) if method[1] == BLIND and method[0] not in told]
    ranks = _ranks(wide, methods, measure, seed) if measure.ranked else {}
    twins = [(name, key_of((method_of(name)[0], RANDOM))) for name in trained]
    above_random = metric.differences([pair for pair in twins if pair[1] in names]) if measure.ranked else {}
    best = _best(blind, intervals, measure.falling)
    above_control = metric.differences([(name, best) for name in trained]) if best and measure.ranked else {}
    found = []
    for name, method in zip(names, methods, strict=True):
        rank, enough = ranks.get(name), intervals[name].clusters >= FEWEST
        found.append(
            Summary(
                measure.key, target, method, intervals[name], rank and rank[0], rank[1:] if rank and enough else None,
                above_random.get((name, key_of((method[0], RANDOM)))), above_control.get((name, best or "")),
                method_of(best)[0] if best and name in trained else "",
            )
        )  # fmt: skip
    sign = 1 if measure.falling else -1
    return sorted(found, key=lambda one: sign * one.mean.value)


def _ranks(
    wide: pd.DataFrame, methods: Sequence[Method], measure: Measure, seed: int
) -> dict[str, tuple[int, int, int]]:
    """Ranks among the methods on the trained model alone."""
    chosen = [number for number, method in enumerate(methods) if method[1] == TRAINED]
    if not chosen:
        return {}
    metric = MethodMeans([key_of(methods[number]) for number in chosen], measure.falling, measure.span, seed=seed)
    values = torch.from_numpy(wide.iloc[:, chosen].to_numpy(dtype=float).copy())
    metric.update(values, [str(place[0]) for place in wide.index.tolist()])
    return metric.ranks()


def _best(blind: Sequence[str], intervals: dict[str, Interval], falling: bool) -> str | None:
    if not blind:
        return None
    return (min if falling else max)(blind, key=lambda name: intervals[name].value)


def summary_rows(found: Sequence[Summary]) -> list[dict[str, Any]]:
    """Return summaries as plain values, None for what there is not."""
    rows = []
    for one in found:
        row: dict[str, Any] = {
            "measure": one.measure, "target": one.target, "method": one.method[0], "weights": one.method[1],
            "n": one.mean.n, "groups": one.mean.groups,
        }  # fmt: skip
        row |= {name: _known(getattr(one.mean, name)) for name in ("value", "low", "high")}
        row |= {"rank": one.rank, "rank_low": one.ranks and one.ranks[0], "rank_high": one.ranks and one.ranks[1]}
        for name in ("above_random", "above_control"):
            compared = getattr(one, name)
            for part in ("value", "low", "high"):
                row[f"{name}_{part}"] = None if compared is None else _known(getattr(compared[0], part))
            row[f"{name}_surely"] = None if compared is None else compared[1]
        rows.append(row | {"control": one.control or None})
    return rows


def _known(value: float) -> float | None:
    return value if value == value else None
