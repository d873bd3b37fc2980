"""The page of planted shortcuts: whether the captioner cheats, and which methods show it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from clip_xai.report.pages import Table, write_page
from clip_xai.text import decimals

WIDTH, HEIGHT = 300, 150  # of a chart, in its own units
_EDGE = 14


@dataclass(frozen=True)
class Point:
    """A rise at one strength: where it lies, its interval, and whether it reveals the cheat."""

    p: float
    value: float
    low: float | None
    high: float | None
    revealed: bool = False


@dataclass(frozen=True)
class Rise:
    """How the share of one method's heat rises with the strength of the shortcut.

    Attributes:
        name: The method.
        text: What came out, in a sentence.
        points: The rise on the artefact.
        other: The rise on another part of the scene.
        control: Whether it never saw the model, or is made of the truth.
    """

    name: str
    text: str
    points: tuple[Point, ...]
    other: tuple[Point, ...] = ()
    control: bool = False


@dataclass(frozen=True)
class Shown:
    """A picture with a map over it, or without one, as a ``data:`` address."""

    text: str
    picture: str


@dataclass(frozen=True)
class ArtefactPart:
    """What one artefact came to.

    Attributes:
        title: The artefact.
        tables: What it truly does, and what methods show.
        rises: One chart a method.
        pictures: One scene, with maps of some methods over it.
        note: What the pictures show.
    """

    title: str
    tables: tuple[Table, ...]
    rises: tuple[Rise, ...]
    pictures: tuple[Shown, ...]
    note: str


def write_shortcuts_page(
    path: Path,
    *,
    subtitle: str,
    verdicts: Sequence[tuple[str, bool]],
    parts: Sequence[ArtefactPart],
    left_out: Sequence[str],
    settings: Mapping[str, object],
) -> Path:
    """Write the page.

    Args:
        path: Where to write, usually ``index.html``.
        subtitle: One line about model and scenes.
        verdicts: Sentences, and whether each is a warning.
        parts: One for each artefact.
        left_out: What was not measured, a sentence each.
        settings: What was asked.
    """
    drawn = [{"part": part, "charts": _charts(part.rises)} for part in parts]
    return write_page(
        "shortcuts.html.j2",
        path,
        title="Planted shortcuts: which explainer shows the cheat",
        subtitle=subtitle,
        styles=("evaluation.css", "shortcuts.css"),
        verdicts=[{"text": text, "warning": warning, "scope": "overall"} for text, warning in verdicts],
        parts=drawn,
        size=(WIDTH, HEIGHT),
        left_out=list(left_out),
        settings=settings,
    )


def _charts(rises: Sequence[Rise]) -> list[dict[str, object]]:
    """Where everything lies on each chart; all charts of an artefact have one scale."""
    ends = [0.0]
    for rise in rises:
        ends += [one.value for one in rise.other]
        for one in rise.points:
            ends += [value for value in (one.value, one.low, one.high) if value is not None]
    low, high = min(ends), max(max(ends), min(ends) + 0.01)

    def across(p: float) -> float:
        return round(_EDGE + p * (WIDTH - 2 * _EDGE), 1)

    def down(value: float) -> float:
        return round(_EDGE + (high - value) / (high - low) * (HEIGHT - 2 * _EDGE), 1)

    def placed(points: Sequence[Point]) -> list[dict[str, object]]:
        return [
            {"x": across(one.p), "y": down(one.value), "revealed": one.revealed,
             "low": None if one.low is None else down(one.low), "high": None if one.high is None else down(one.high)}
            for one in points
        ]  # fmt: skip

    return [
        {
            "rise": rise,
            "zero": down(0.0),
            "top": decimals(high, sign="+"),
            "bottom": decimals(low, sign="+"),
            "points": placed(rise.points),
            "other": placed(rise.other),
            "line": " ".join(f"{across(one.p)},{down(one.value)}" for one in (Point(0, 0, None, None), *rise.points)),
            "other_line": " ".join(
                f"{across(one.p)},{down(one.value)}" for one in (Point(0, 0, None, None), *rise.other)
            ),
        }
        for rise in rises
    ]
