"""The page of judged explainers: how each does by causes that are known, beside controls and random weights."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from clip_xai.report.pages import Table, write_page

WIDTH, HEIGHT = 1000, 400  # of the chart of seconds, in its own units
_NAME, _LINE = 190, 22  # room for a method's name on it
_TICKS = (0.03, 0.1, 0.3, 1, 3, 10, 30, 100, 300, 1000)


@dataclass(frozen=True)
class Dot:
    """One method or control on one criterion.

    Attributes:
        name: Its title.
        value: 0 to 1.
        low: Where its interval starts; None without one.
        high: Where it ends.
        text: Value and interval in words.
        twin: The same method at random weights; None without it.
        rank: Its rank and the spread of it, in words; empty for a control.
        leads: Whether it is above its twin, corrected for all methods.
        control: Whether it never saw the model.
    """

    name: str
    value: float
    low: float | None
    high: float | None
    text: str
    twin: float | None = None
    rank: str = ""
    leads: bool = False
    control: bool = False


@dataclass(frozen=True)
class Forest:
    """All methods on one criterion, the best first.

    Attributes:
        title: The criterion.
        note: What it means and what chance is.
        dots: The methods and controls.
        chance: Where a map that knows nothing lies; None where that depends on the scenes.
    """

    title: str
    note: str
    dots: tuple[Dot, ...]
    chance: float | None = 0.5


@dataclass(frozen=True)
class Priced:
    """What a method costs and what it is worth: seconds a scene, and its place on the vertical axis, 0 to 1."""

    name: str
    seconds: float
    value: float
    text: str


@dataclass(frozen=True)
class Share:
    """One part of a case: its effect and its share of the map, both as widths from -100 to 100."""

    name: str
    effect: float
    effect_text: str
    heat: float
    heat_text: str


@dataclass(frozen=True)
class Case:
    """One scene with a map over it.

    Attributes:
        title: The method and what it explains.
        text: How well the map agrees with the effects, and the caption.
        picture: The scene as a ``data:`` address.
        heat: The same with the map over it.
        shares: Its parts, the largest effect first.
    """

    title: str
    text: str
    picture: str
    heat: str
    shares: tuple[Share, ...]


@dataclass(frozen=True)
class Matrix:
    """Mean effects of parts on what is asked.

    Attributes:
        title: What it shows.
        columns: What is asked.
        rows: A part's name, and for each column text, a strength from -1 to 1 and how many scenes; None where none.
        note: How to read it.
    """

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, tuple[tuple[str, float, int] | None, ...]], ...]
    note: str


def write_causes_page(
    path: Path,
    *,
    title: str = "Which explainer can be believed",
    subtitle: str,
    verdicts: Sequence[tuple[str, bool]],
    tables: Sequence[Table],
    forests: Sequence[Forest] = (),
    priced: Sequence[Priced] = (),
    matrices: Sequence[Matrix] = (),
    cases: Sequence[tuple[str, Sequence[Case]]] = (),
    curves: Sequence[tuple[str, str]] = (),
    more: Sequence[Table] = (),
    details: Sequence[Table] = (),
    left_out: Sequence[str] = (),
    settings: Mapping[str, object],
) -> Path:
    """Write the page.

    Args:
        path: Where to write, usually ``index.html``.
        title: Heading of the page.
        subtitle: One line about model and scenes.
        verdicts: Sentences, and whether each is a warning.
        tables: What stands before the charts.
        forests: One chart a criterion.
        priced: Methods with their seconds, for the chart of evidence against seconds.
        matrices: Effect matrices.
        cases: Groups of scenes by their headings.
        curves: Pictures of curves: what each shows, and its ``data:`` address.
        more: Tables behind the cases.
        details: Tables that are folded up.
        left_out: What was not measured, a sentence each.
        settings: What was asked.
    """
    return write_page(
        "causes.html.j2",
        path,
        title=title,
        subtitle=subtitle,
        styles=("evaluation.css", "causes.css"),
        verdicts=[{"text": text, "warning": warning, "scope": "overall"} for text, warning in verdicts],
        tables=tables,
        forests=forests,
        prices=_prices(priced),
        ticks=_ticks(priced),
        levels=_levels(priced),
        chance=next((y for y, text in _levels(priced) if text == "0.5"), None),
        matrices=matrices,
        cases=cases,
        curves=curves,
        more=more,
        details=details,
        left_out=left_out,
        settings=settings,
    )


def _prices(priced: Sequence[Priced]) -> list[dict[str, object]]:
    """Where each method and its name lie on a chart of 1000 x 400, seconds on a logarithmic scale."""
    low, high = _span(priced)
    bottom, top = _range(priced)
    found: list[dict[str, object]] = []
    taken: list[tuple[float, float]] = []  # where names stand
    for one in sorted(priced, key=lambda one: -one.value):
        x = WIDTH * (math.log(max(one.seconds, 1e-3)) - low) / (high - low)
        y = label = HEIGHT * (top - one.value) / (top - bottom)
        while any(abs(x - across) < _NAME and abs(label - down) < _LINE for across, down in taken):
            label += 4
        taken.append((x, label))
        found.append({"name": one.name, "x": round(x, 1), "y": round(y, 1), "label_y": round(label + 6, 1)})
    return found


def _levels(priced: Sequence[Priced]) -> list[tuple[float, str]]:
    bottom, top = _range(priced)
    steps = [round(0.1 * step, 1) for step in range(11)]
    return [
        (round(HEIGHT * (top - step) / (top - bottom), 1), f"{step:.1f}") for step in steps if bottom <= step <= top
    ]


def _range(priced: Sequence[Priced]) -> tuple[float, float]:
    values = [one.value for one in priced] or [0.5]
    return max(0.0, min(*values, 0.5) - 0.05), min(1.0, max(*values, 0.5) + 0.05)


def _ticks(priced: Sequence[Priced]) -> list[tuple[float, str]]:
    low, high = _span(priced)
    places = [(WIDTH * (math.log(tick) - low) / (high - low), f"{tick:g} s") for tick in _TICKS]
    return [(round(x, 1), text) for x, text in places if 0 <= x <= WIDTH]


def _span(priced: Sequence[Priced]) -> tuple[float, float]:
    logs = [math.log(max(one.seconds, 1e-3)) for one in priced] or [0.0]
    return min(logs) - 0.5, max(logs) + 0.5
