"""How rankings of explainers carry over, as tables for a reader and as rows for programs."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from clip_xai.explanations.carry_over import CarryOver, Halves, Predictor, Ranking, split_half
from clip_xai.explanations.causes.measures import (
    AGREEMENT,
    ANEW,
    COMPLETENESS,
    CONTRASTIVITY,
    CRITERIA,
    PLACE,
)
from clip_xai.explanations.causes.tables import EVERY
from clip_xai.explanations.measures.base import Measure
from clip_xai.explanations.measures.cost import CostMeasure
from clip_xai.explanations.measures.table import MEASURES
from clip_xai.metrics.intervals import FEWEST, Interval
from clip_xai.metrics.regions import REGION_MEASURES
from clip_xai.report.pages import Table
from clip_xai.text import counted, with_bounds

SHOWN = {
    AGREEMENT: "correctness", PLACE: "place", COMPLETENESS: "completeness", CONTRASTIVITY: "contrastivity",
    ANEW: "correctness, caption written anew",
}  # fmt: skip
FEWEST_METHODS = 3
#: Measures that say something of maps; what they cost does not.
RANKED = {key: measure for key, measure in MEASURES.items() if not isinstance(measure, CostMeasure)}
LABEL_FREE = tuple(key for key, measure in RANKED.items() if measure.name not in REGION_MEASURES)
Rankings = Mapping[tuple[str, str], Ranking]


def carry_table(found: Mapping[tuple[str, str], CarryOver], names: tuple[str, str], note: str = "") -> Table:
    """Return how each criterion carries over by what is asked, and each measure of everything asked together.

    Args:
        found: By criterion or measure, and target.
        names: What the two rankings are of.
        note: What else a reader has to know.
    """
    rows = tuple(
        (
            title(name),
            "all" if target == EVERY else target,
            tau(one.tau),
            tau(one.within),
            halves(one.halves),
            halves(one.own[0]),
            halves(one.own[1]),
            str(len(one.methods)),
        )
        for (name, target), one in found.items()
        if not math.isnan(one.tau.value) and (target == EVERY or name in SHOWN)
    )
    head = ("ranked by", "asked about", "tau", "within families", "half against half", f"within {names[0]}",
            f"within {names[1]}", "methods")  # fmt: skip
    lost = sorted({name for one in found.values() for name in one.left_out})
    said = (
        f"Kendall's tau of the methods' means on {names[0]} and on {names[1]} [95 % interval over scenes, the methods "
        "fixed; resampling adds the noise of few scenes once more, so that intervals lean to 0]. Within families: "
        "pairs of methods of one family alone. Half against half: random halves, no scene in both, mean [95 % of the "
        "splits]; beside it the same within one of the two, which is its ceiling."
    )
    said += f" In one alone, and left out: {', '.join(lost)}." if lost else ""
    tied = dict.fromkeys(title(name) for (name, _), one in found.items() if math.isnan(one.tau.value))
    said += f" Puts no two methods in an order, and is left out: {', '.join(tied)}." if tied else ""
    return Table(f"Does the ranking of {names[0]} carry over to {names[1]}?", head, rows, f"{said} {note}".strip())


def family_table(found: Mapping[tuple[str, str], CarryOver], names: tuple[str, str]) -> list[Table]:
    """Return the same family by family, of everything asked together; none where no family has three methods."""
    families = list(dict.fromkeys(name for one in found.values() for name in one.families))
    rows = tuple(
        (title(name), *(tau(one.families.get(family)) for family in families))
        for (name, target), one in found.items()
        if target == EVERY and not math.isnan(one.tau.value)
    )
    note = f"Kendall's tau between {names[0]} and {names[1]} of the methods of one family, three at least."
    return [Table("Family by family", ("ranked by", *families), rows, note)] if families and rows else []


def steadiness_table(rankings: Rankings, seed: int = 0) -> Table | None:
    """Return how far each criterion's ranking agrees with itself on other scenes; None where it cannot be said."""
    rows = []
    for (name, target), ranking in rankings.items():
        found = split_half(ranking, seed)
        if name in SHOWN and len(ranking.methods) >= FEWEST_METHODS and not math.isnan(found.mean):
            scenes = len(set(ranking.groups))
            rows.append((title(name), "all" if target == EVERY else target, halves(found), str(scenes)))
    note = (
        "Kendall's tau of the ranking on a random half of the scenes with that on the others, mean [95 % of the "
        "splits]: no ranking of as few scenes agrees with another model's, or with photographs, better than that."
    )
    head = ("ranked by", "asked about", "half against half", "scenes")
    return Table("How steady is the ranking?", head, tuple(rows), note) if rows else None


def predictor_table(found: Sequence[Predictor], of: str = "") -> Table | None:
    """Return which measure foretells the true effects; None where none was measured on enough methods."""
    known = [one for one in found if len(one.found.methods) >= FEWEST_METHODS and not math.isnan(one.found.tau.value)]
    if not known:
        return None
    rows = tuple(
        (
            title(one.measure) + ("" if one.label_free else " (needs a region)"),
            tau(one.found.tau),
            tau(one.found.within),
            tau(one.by_picture),
            "–" if math.isnan(one.best) else f"{one.best:.0%}",
            str(len(one.found.methods)),
            str(one.found.tau.groups),
        )
        for one in known
    )
    free = next((one for one in known if one.label_free), None)
    said = "" if free is None else f"Of those without labels {title(free.measure)} comes nearest. "
    if free is not None and math.isnan(free.best):
        scenes = counted(free.found.tau.groups, "scene")
        said = f"Of {scenes} nobody can say which comes nearest ({FEWEST} are needed). "
    note = (
        f"{said}Kendall's tau between the methods' means by each measure{of} and their mean correctness, the agreement "
        "with true effects [95 % interval over scenes]. By picture: the same of the maps of one picture and question, "
        "on average. Best: share of resamples in which no other measure without labels has a higher tau; the first of "
        f"{counted(len(known), 'measure')} is first by luck, too."
    )
    head = ("measure", "tau", "within families", "by picture", "best", "methods", "scenes")
    return Table("Which measure foretells the true effects?", head, rows, note)


def carry_rows(found: Mapping[tuple[str, str], CarryOver]) -> list[dict[str, Any]]:
    """Return what carries over as plain values, None for what is not a number."""
    rows = []
    for (name, target), one in found.items():
        row: dict[str, Any] = {"ranked by": name, "target": target, "methods": len(one.methods)}
        row |= _bounds("tau", one.tau) | _bounds("within families", one.within)
        for key, half in zip(("halves", "halves of the first", "halves of the second"), (one.halves, *one.own),
                             strict=True):  # fmt: skip
            row |= _bounds(key, half)
        for family, interval in one.families.items():
            row |= _bounds(family, interval)
        rows.append(row)
    return rows


def predictor_rows(found: Sequence[Predictor]) -> list[dict[str, Any]]:
    """Return how measures foretell the true effects as plain values."""
    rows = []
    for one in found:
        row: dict[str, Any] = {"measure": one.measure, "label free": one.label_free, "methods": len(one.found.methods)}
        row |= _bounds("tau", one.found.tau) | _bounds("within families", one.found.within)
        row |= _bounds("by picture", one.by_picture)
        rows.append(row | {"best": _known(one.best), "scenes": one.found.tau.groups})
    return rows


def title(name: str) -> str:
    """A criterion or a measure for people."""
    if name in CRITERIA:
        return SHOWN.get(name, name)
    measure: Measure | None = MEASURES.get(name)
    if measure is None:
        return name
    where = name.partition("/")[2].replace("_", " ")
    return f"{measure.title}, {where}" if where else measure.title


def tau(found: Interval | None) -> str:
    """``.62 [.30, .81]``; a dash for what is not defined."""
    return "–" if found is None else with_bounds(found.value, found.low, found.high)


def halves(found: Halves) -> str:
    """The same of halves."""
    return with_bounds(found.mean, found.low, found.high)


def _bounds(key: str, found: Interval | Halves) -> dict[str, float | None]:
    value = found.mean if isinstance(found, Halves) else found.value
    return {key: _known(value), f"{key}, low": _known(found.low), f"{key}, high": _known(found.high)}


def _known(value: float) -> float | None:
    return None if math.isnan(value) else value
