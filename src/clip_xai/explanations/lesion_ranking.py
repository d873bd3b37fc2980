"""Which methods find the region: every measure, against the best control without a model and against random weights.

All methods see the same photographs, so that differences are paired; of many methods some are better by chance, so
that each family of comparisons is corrected (Holm).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from clip_xai.data.vocabulary import Vocabulary
from clip_xai.explanations.lesion_maps import CONTROLS, RANDOM, LesionMaps, cells_of, finite
from clip_xai.metrics.findings import tuned_iou, usual_places
from clip_xai.metrics.intervals import FEWEST, Interval
from clip_xai.metrics.localisation import lay_over
from clip_xai.metrics.method_means import MethodMeans
from clip_xai.metrics.regions import REGION_MEASURES
from clip_xai.report.explained import title_of
from clip_xai.report.pages import Table
from clip_xai.text import with_bounds

TUNED = "overlap_tuned"
#: Every measure, and by which methods are compared.
TITLES = {name: measure.title for name, measure in REGION_MEASURES.items()} | {TUNED: "overlap (IoU, tuned)"}
COMPARED = "auprc"
SEEDS = 3  # draws of random weights; photographs take them in turn, so that they cost no more than one
USUAL = "control: usual place"
ROLLOUT = "attention_rollout"  # a method, and a control all the same: it does not hear what is asked
CONTROL = "control"
_RANDOM, _BESIDE = "at random weights: ", "beside: "


@dataclass(frozen=True)
class Compared:
    """By how much a method is better than another, on the photographs that both have.

    Attributes:
        other: Which one.
        difference: Of AUPRC, with its interval.
        surely: Whether it is above 0, corrected for all methods of what is explained.
    """

    other: str
    difference: Interval
    surely: bool


@dataclass(frozen=True)
class RankedMethod:
    """One method on one kind of thing that is explained.

    Attributes:
        method: Its name, or a control's.
        what: What is explained; ``any`` of maps that do not depend on it.
        intervals: By measure; of a method, over the photographs in which the model sees a region.
        above_control: Against the best control.
        above_random: Against the method itself at random weights.
    """

    method: str
    what: str
    intervals: Mapping[str, Interval]
    above_control: Compared | None = None
    above_random: Compared | None = None


def ranked_regions(trained: LesionMaps, random: LesionMaps | None = None, seed: int = 0) -> list[RankedMethod]:
    """Measure all maps of a run against the regions, and compare.

    Args:
        trained: Maps of the model, controls among them.
        random: The same methods at random weights on the same photographs, of several draws of the weights in turn.
        seed: Seed of the resamples.

    Returns:
        The methods by falling AUPRC for each thing explained, then the controls.
    """
    controls = _Values(trained, "any")
    found: list[RankedMethod] = []
    for what in dict.fromkeys(what for _, what in trained.maps):
        values = controls if what == "any" else _Values(trained, what)
        beside = None if random is None else _Values(random, what)
        found += _compared(values, beside, controls, what, seed)
    blind = [name for name in controls.methods if name.startswith(CONTROL)]
    found += [RankedMethod(name, "any", controls.intervals(name, seed)) for name in blind]
    return sorted(found, key=lambda one: (one.method.startswith(CONTROL), one.what, -one.intervals[COMPARED].value))


class _Values:
    """Values of each method on each photograph by measure, for one thing explained."""

    def __init__(self, maps: LesionMaps, what: str) -> None:
        self.methods = [method for method, thing in maps.maps if thing == what]
        self.groups: dict[int, str] = {}
        self.values: dict[str, dict[str, dict[int, float]]] = {name: {} for name in TITLES}
        for method in self.methods:
            pair = (method, what)
            masks = torch.stack(maps.masks[pair])
            size = (masks.shape[1], masks.shape[2])
            laid = torch.cat([lay_over(one[None].float(), size) for one in maps.maps[pair]])
            self._measure(method, maps.numbers[pair], laid, masks, maps.groups[pair])
        if what == "any" and self.methods:
            pair = (self.methods[0], what)
            masks = torch.stack(maps.masks[pair])
            places = usual_places(masks, maps.groups[pair])
            if torch.isfinite(places).all():
                self.methods.append(USUAL)
                self._measure(USUAL, maps.numbers[pair], places, masks, maps.groups[pair])

    def _measure(self, method: str, numbers: Sequence[int], laid: Tensor, masks: Tensor, groups: Sequence[str]) -> None:
        self.groups |= dict(zip(numbers, groups, strict=True))
        found = {name: measure.of(laid, masks) for name, measure in REGION_MEASURES.items()}
        found[TUNED] = tuned_iou(laid, masks, groups)
        for name, values in found.items():
            self.values[name][method] = dict(zip(numbers, values.double().tolist(), strict=True))

    def of(self, measure: str, method: str, numbers: Sequence[int]) -> NDArray[np.float64]:
        """Return a method's values on some photographs, NaN where it has none."""
        known = self.values[measure].get(method, {})
        return np.array([known.get(number, np.nan) for number in numbers])

    def intervals(self, method: str, seed: int) -> dict[str, Interval]:
        """Return the mean of each measure with its interval."""
        numbers = sorted(self.groups)
        found = {}
        for measure in TITLES:
            share = measure in REGION_MEASURES and REGION_MEASURES[measure].share
            metric = MethodMeans([method], span=(0.0, 1.0), share=share, seed=seed)
            column = torch.from_numpy(self.of(measure, method, numbers)[:, None])
            metric.update(column, [self.groups[number] for number in numbers])
            found[measure] = metric.intervals()[method]
        return found


def _compared(values: _Values, beside: _Values | None, controls: _Values, what: str, seed: int) -> list[RankedMethod]:
    """Hold the methods of one thing explained against the best control and against themselves at random weights."""
    numbers = sorted(values.groups)
    own = [name for name in values.methods if not name.startswith(CONTROL)]
    columns = {name: values.of(COMPARED, name, numbers) for name in own}
    blind = [name for name in controls.methods if name.startswith(CONTROL) or name == ROLLOUT]
    columns |= {_BESIDE + name: controls.of(COMPARED, name, numbers) for name in blind}
    if beside is not None:
        columns |= {_RANDOM + name: beside.of(COMPARED, name, numbers) for name in own if name in beside.methods}
    columns = {name: column for name, column in columns.items() if not np.isnan(column).all()}
    metric = MethodMeans(list(columns), span=(0.0, 1.0), seed=seed)
    metric.update(torch.from_numpy(np.stack(list(columns.values()), axis=1)), [values.groups[one] for one in numbers])
    means = {name: interval.value for name, interval in metric.intervals().items()}
    best = {
        name: max((_BESIDE + one for one in blind if one != name and _BESIDE + one in means), key=means.__getitem__)
        for name in own
        if name in means
    }
    above_control = metric.differences(list(best.items()))
    above_random = metric.differences([(name, _RANDOM + name) for name in best if _RANDOM + name in means])
    found = []
    for name in own:
        control = above_control.get((name, best.get(name, "")))
        twin = above_random.get((name, _RANDOM + name))
        found.append(
            RankedMethod(
                name,
                what,
                values.intervals(name, seed),
                None if control is None else Compared(best[name].removeprefix(_BESIDE), *control),
                None if twin is None else Compared("random weights", *twin),
            )
        )
    return found


def rows_with_ranking(measured: Sequence[dict[str, Any]], found: Sequence[RankedMethod]) -> list[dict[str, Any]]:
    """Return the rows of ``LesionMaps.measure`` with every measure and both comparisons, as plain values."""
    known = {(row["method"], row["what"]): row for row in measured}
    rows = []
    for one in found:
        row = dict(known.get((one.method, one.what), {"method": one.method, "what": one.what, "chance": None}))
        row |= {name: finite(asdict(interval)) for name, interval in one.intervals.items()}
        for name, compared in (("above_control", one.above_control), ("above_random", one.above_random)):
            if compared is not None:
                row[name] = finite(asdict(compared.difference)) | {"other": compared.other, "surely": compared.surely}
        rows.append(row)
    return rows


def ranking_table(rows: Sequence[Mapping[str, Any]], vocabulary: Vocabulary) -> Table | None:
    """Return the rows for a reader; None where no photograph had a region."""
    if not rows:
        return None
    truth, groups = vocabulary.truth, vocabulary.groups[1]
    compared_with = ("above best control", "above random weights")
    head = ("method", "explained", *TITLES.values(), "n", f"{truth}'s share", *compared_with)
    cells = []
    for row in rows:
        title = CONTROLS.get(row["method"]) or title_of(row["method"])
        title += " (random weights)" if row.get("weights") == RANDOM else ""
        values = [cells_of(row.get(name))[0] if (row.get(name) or {}).get("n") else "–" for name in TITLES]
        share = "–" if row["chance"] is None else f"{row['chance']:.3f}"
        compared = [_difference(row.get(name)) for name in ("above_control", "above_random")]
        cells.append((title, row["what"], *values, str(row[COMPARED]["n"]), share, *compared))
    note = (
        f"Value [95 % interval over {groups}], measured on the square that the model saw. Pointing game: the hottest "
        f"pixel lies on the {truth}. AUPRC: how well heat ranks {truth} above {vocabulary.background} (chance: the "
        f"{truth}'s share). Energy, mass: share of the positive, of the absolute heat that lies on the {truth}. Rank: "
        f"share of the hottest pixels, as many as the {truth} has, that lie on it. IoU: of the map cut by Otsu's rule, "
        f"and at the threshold that is best for the other half of the {groups}. The last columns are differences of "
        f"AUPRC on the same photographs, from the best map that did not hear the question, and from the method itself "
        f"at random weights, drawn {SEEDS} times; * above 0 for sure, corrected for all methods of what is explained "
        "(Holm). The usual place is the mean of the masks of all others: its highest pixel is the best constant point. "
        f"Behind fewer than {FEWEST} {groups} only shares of hits have an interval, the exact one."
    )
    return Table(f"Does the heat lie on the {truth}?", head, tuple(cells), note)


def _difference(compared: Mapping[str, Any] | None) -> str:
    if compared is None or compared["value"] is None:
        return "–"
    value = with_bounds(compared["value"], compared["low"], compared["high"], 3, "+")
    other = CONTROLS.get(compared["other"], "").removeprefix("Control: ")
    return f"{value}{' *' if compared['surely'] else ''}{f' ({other})' if other else ''}"
