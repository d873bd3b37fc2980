"""The page of an evaluation: what the captions are worth, beside what they have to beat."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from clip_xai.data.images import read_image
from clip_xai.metrics.results import MODEL, OVERALL, RENDERED, SYSTEMS, EvaluationResult, MetricInfo, Scored
from clip_xai.report.figures import data_uri, fitted
from clip_xai.report.ledger import Ledger
from clip_xai.report.pages import Table, write_page
from clip_xai.text import counted

PHOTOGRAPH = 380  # longest side in the gallery in pixels
ANSWERED = "_answered"


@dataclass(frozen=True)
class Bar:
    """One system's value on a measure, ready to be drawn.

    Attributes:
        label: The system's name.
        text: ``value [low, high]``.
        value: Where the value lies on the axis, 0 to 1.
        low: Where its interval starts, None without one.
        high: Where its interval ends.
        judged: Whether this is the model.
    """

    label: str
    text: str
    value: float
    low: float | None
    high: float | None
    judged: bool


@dataclass(frozen=True)
class Plot:
    """One measure of all systems on one axis."""

    title: str
    n: int
    groups: int
    start: str
    end: str
    bars: tuple[Bar, ...]


@dataclass(frozen=True)
class Chip:
    """What a caption says on one matter: ``right``, ``wrong`` or ``unsaid``, ``unknown`` without a truth."""

    text: str
    kind: str


@dataclass(frozen=True)
class Example:
    """One photograph of the gallery with all that is said of it."""

    name: str
    source: str
    photograph: str
    references: tuple[str, ...]
    caption: str
    others: tuple[tuple[str, str], ...]
    chips: tuple[Chip, ...]
    wrong: bool
    ledger: Table | None = None


def write_evaluation_page(
    result: EvaluationResult, examples: Sequence[Mapping[str, Any]], path: Path, further: Sequence[Table] = ()
) -> Path:
    """Write the page of an evaluation: verdicts, plots and tables with intervals, what was left out, a gallery.

    Args:
        result: A finished evaluation.
        examples: For each photograph of the gallery ``image`` (path), ``name``, ``source``, ``references``,
            ``diagnosis_true``, ``diagnosis_read``, ``captions`` (by system, ``model`` first) and ``scores`` (by
            measure, None where the row does not count); ``ledger`` where one was taken.
        path: Where to write, usually ``index.html``.
        further: Tables that stand behind those of the measures.
    """
    judged = [metric for metric in result.metrics if metric.judged]
    rows = _rows_of(result, OVERALL)
    of_sources = result.scopes[1] if len(result.scopes) == 2 else counted(len(result.scopes) - 1, "source")
    # Sources of few photographs say little, and stand behind those that say more.
    scopes = sorted(result.scopes, key=lambda scope: (scope != OVERALL, -_rows_of(result, scope)))
    return write_page(
        "evaluation.html.j2",
        path,
        title="Evaluation of captions",
        subtitle=f"{counted(rows, 'photograph')} from {of_sources}",
        notes=result.must_see,
        styles=("evaluation.css",),
        verdicts=result.verdicts,
        rendered=result.settings.get(RENDERED, ""),
        plots=[plot for metric in judged if (plot := plot_of(result, metric, OVERALL))],
        tables=[scope_table(result, scope) for scope in scopes],
        further=further,
        skipped=result.skipped,
        left_out=result.left_out(),
        set_aside=result.set_aside,
        settings=result.settings,
        group_words=result.group_words,
        examples=[_example(result, example) for example in examples],
    )


def _rows_of(result: EvaluationResult, scope: str) -> int:
    return max((score.n for score in result.scores if score.scope == scope), default=0)


def scope_table(result: Scored, scope: str) -> Table:
    """All measures of all systems on the photographs of one source, or of all."""
    rows = []
    for metric in result.metrics:
        score = result.score(metric.key, result.systems[0], scope)
        if score is not None:
            cells = [result.cell(metric, system, scope) for system in result.systems]
            rows.append((metric.label, str(score.n), *cells))
    head = ("measure", "n", *(SYSTEMS.get(system, system) for system in result.systems))
    return Table("All sources" if scope == OVERALL else scope, head, tuple(rows), "value [95 % interval]")


def plot_of(result: Scored, metric: MetricInfo, scope: str) -> Plot | None:
    """Return the bars of all systems on one measure, or None where no row counts."""
    scores = [score for system in result.systems if (score := result.score(metric.key, system, scope))]
    if not scores:
        return None
    start, end = _axis(metric, [bound for score in scores for bound in (score.value, score.low, score.high)])

    def place(value: float) -> float | None:
        return None if math.isnan(value) else (value - start) / (end - start)

    bars = tuple(
        Bar(
            SYSTEMS.get(score.system, score.system),
            result.cell(metric, score.system, scope),
            place(score.value) or 0.0,
            place(score.low),
            place(score.high),
            score.system == MODEL,
        )
        for score in scores
    )
    title = f"{metric.label} (less is better)" if metric.falling else metric.label
    return Plot(title, scores[0].n, scores[0].groups, f"{start:g}", f"{end:g}", bars)


def _axis(metric: MetricInfo, values: Sequence[float]) -> tuple[float, float]:
    """The axis of a measure: what it can be, whatever it happens to be here; without such a span, from 0 to 1."""
    known = [value for value in values if not math.isnan(value)]
    start, end = metric.span or (0.0, 1.0)
    return min(start, math.floor(min(known) * 10) / 10), max(end, math.ceil(max(known) * 10) / 10)


def _example(result: EvaluationResult, example: Mapping[str, Any]) -> Example:
    chips = _chips(result, example)
    captions = example["captions"]
    ledger: Ledger | None = example.get("ledger")
    photograph = fitted(read_image(example["image"]), PHOTOGRAPH, PHOTOGRAPH)
    return Example(
        name=str(example["name"]),
        source=str(example["source"]),
        photograph=data_uri(photograph, quality=82),
        references=tuple(example["references"]),
        caption=captions[MODEL],
        others=tuple((SYSTEMS.get(system, system), text) for system, text in captions.items() if system != MODEL),
        chips=chips,
        wrong=any(chip.kind in ("wrong", "unsaid") for chip in chips),
        ledger=None if ledger is None else ledger.narrow_table,
    )


def _chips(result: EvaluationResult, example: Mapping[str, Any]) -> tuple[Chip, ...]:
    """Right, wrong or not said, for the diagnosis and each attribute that the truth tells."""
    scores = example["scores"]
    chips = []
    for metric in result.metrics:
        if not any(other.key == metric.key + ANSWERED for other in result.metrics):
            continue
        value, answered = scores.get(metric.key), scores.get(metric.key + ANSWERED)
        if value is None or answered is None:
            if metric.key == "diagnosis":
                chips.append(Chip("diagnosis: truth not known", "unknown"))
        elif not answered:
            chips.append(Chip(f"{metric.label} not stated", "unsaid"))
        elif metric.key == "diagnosis" and not value:
            text = f"{metric.label}: {example['diagnosis_read']}, truly {example['diagnosis_true']}"
            chips.append(Chip(text, "wrong"))
        else:
            chips.append(Chip(metric.label, "right" if value else "wrong"))
    return tuple(chips)
