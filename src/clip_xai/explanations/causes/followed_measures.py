"""Maps that follow the words beside those that do not: how they agree with effects on captions written anew."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from clip_xai.explanations.causes.followed import FOLLOWED, VARIANTS
from clip_xai.explanations.causes.measures import agreement
from clip_xai.explanations.causes.one_scene import SceneCauses
from clip_xai.explanations.lesion_maps import finite
from clip_xai.metrics.intervals import FEWEST, Interval, mean_interval, mean_of_sums, paired_interval, resampled_sums
from clip_xai.report.explained import title_of
from clip_xai.report.pages import Table
from clip_xai.text import with_bounds


@dataclass(frozen=True)
class FollowedMeasure:
    """How one method's maps agree with effects on captions written anew.

    Attributes:
        method: Its name.
        scores: Variant -> mean agreement.
        differences: Variant -> how much the followed map is above it, paired.
    """

    method: str
    scores: Mapping[str, Interval]
    differences: Mapping[str, Interval]


def measure_followed(scenes: Sequence[SceneCauses], target: str | None = None, seed: int = 0) -> list[FollowedMeasure]:
    """Compare the variants of each method, paired by scene.

    Args:
        scenes: What was measured.
        target: ``diagnosis`` or ``structure`` alone; None for both.
        seed: Seed of the resamples.

    Returns:
        One a method, those first whose followed maps agree most.
    """
    methods = dict.fromkeys(method for scene in scenes for method, _ in scene.followed)
    measured = [_of_method(method, scenes, target, seed) for method in methods]
    known = [one for one in measured if one is not None]
    return sorted(known, key=lambda one: -one.scores[FOLLOWED].value)


def _of_method(method: str, scenes: Sequence[SceneCauses], target: str | None, seed: int) -> FollowedMeasure | None:
    values: list[list[float]] = []
    groups: list[str] = []
    for scene in scenes:
        if (method, FOLLOWED) not in scene.followed:
            continue
        for thing, name in enumerate(scene.names):
            effects = scene.effects_anew[:, thing]
            row = [agreement(scene.followed[method, variant][thing], effects) for variant in VARIANTS]
            if target in (None, name) and not np.isnan(row).any():
                values.append(row)
                groups.append(str(scene.seed))
    if not values:
        return None
    array = np.array(values)
    counted = np.stack([array.T, np.ones_like(array.T)], axis=-1)
    draws = mean_of_sums(resampled_sums(counted, groups, seed=seed))
    own, span = VARIANTS.index(FOLLOWED), (0.0, 1.0)
    scores = {name: mean_interval(array[:, at], groups, seed=seed, span=span) for at, name in enumerate(VARIANTS)}
    differences = {
        name: paired_interval(array.mean(axis=0)[[own, at]], draws[:, [own, at]], groups, span=span)
        for at, name in enumerate(VARIANTS)
        if name != FOLLOWED
    }
    return FollowedMeasure(method, scores, differences)


def followed_rows(measured: Sequence[FollowedMeasure], leading: Sequence[str]) -> list[dict[str, Any]]:
    """Return the numbers as plain values.

    Args:
        measured: What was measured.
        leading: Methods whose direct maps beat their random-weights twin on words of the caption.
    """
    return [
        {
            "method": one.method,
            "leads": one.method in leading,
            "agreement": {name: finite(asdict(found)) for name, found in one.scores.items()},
            "followed less": {name: finite(asdict(found)) for name, found in one.differences.items()},
        }
        for one in measured
    ]


def followed_table(measured: Sequence[FollowedMeasure], leading: Sequence[str]) -> Table | None:
    """The same for a reader; None where nothing was followed."""
    if not measured:
        return None
    others = [name for name in VARIANTS if name != FOLLOWED]
    rows = tuple(
        (
            title_of(one.method) + (" *" if one.method in leading else ""),
            *(_cell(one.scores[name]) for name in VARIANTS),
            *(_cell(one.differences[name], "+") for name in others),
        )
        for one in measured
    )
    head = ("method", *VARIANTS, *(f"followed − {name}" for name in others))
    beaten = [
        title_of(one.method)
        for one in measured
        if one.method in leading and all(found.low > 0 for found in one.differences.values())
    ]
    few = max(found.clusters for one in measured for found in one.differences.values()) < FEWEST
    said = f"Above all four, intervals apart: {', '.join(beaten)}." if beaten else "None is above all four."
    said = f"Fewer than {FEWEST} scenes: nobody can say which is above all four." if few else said
    note = (
        "Rank agreement of each part's share of the map with its effect on how often captions written anew state the "
        "word, (rho + 1) / 2 [95 % interval over scenes], differences paired by scene. Followed: what the image does "
        "to the word directly and through the words before it; beside it the same with equal and with permuted shares "
        f"of these words, and the map of the whole caption. * The direct map beats its twin at random weights. {said}"
    )
    return Table("Maps that follow the words", head, rows, note)


def _cell(found: Interval, sign: str = "") -> str:
    return with_bounds(found.value, found.low, found.high, sign=sign)
