"""What an evaluation found: scores with intervals, comparisons with the baselines, and what they say in words."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import pandas as pd

MODEL, BLIND, NEAREST, SHUFFLED = "model", "blind", "nearest", "shuffled"
OVERALL = "overall"
# Systems by key, as a reader sees them in a table.
SYSTEMS: dict[str, str] = {
    MODEL: "Model",
    BLIND: "Majority caption (never saw the image)",
    NEAREST: "Nearest training caption (CLIP)",
    SHUFFLED: "Model, images shuffled",
}
# Baselines by key, as they stand in a sentence.
_OPPONENTS = {
    BLIND: "a caption that never saw the image",
    NEAREST: "the caption of the nearest training image",
    SHUFFLED: "its own captions of shuffled images",
}


@dataclass(frozen=True)
class MetricInfo:
    """A measure.

    Attributes:
        key: Its name in tables.
        label: Its name for a reader.
        digits: Digits after the point that are worth showing.
        judged: Whether more is better, so that the model has to beat the baselines on it.
    """

    key: str
    label: str
    digits: int = 3
    judged: bool = True


@dataclass(frozen=True)
class Score:
    """One measure of one system on one scope.

    Attributes:
        system: Key in `SYSTEMS`.
        scope: A source's name, or ``overall``.
        metric: Key of a `MetricInfo`.
        n: Rows that count.
        groups: Groups (patients, lesions) among them.
        value: The corpus value.
        low: Lower bound of the 95 % interval; NaN with fewer than two groups.
        high: Upper bound.
    """

    system: str
    scope: str
    metric: str
    n: int
    groups: int
    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Comparison:
    """The model's value minus a baseline's on the same rows, with the interval of this difference.

    Attributes:
        baseline: Key in `SYSTEMS`.
        scope: A source's name, or ``overall``.
        metric: Key of a `MetricInfo`.
        n: Rows that count.
        difference: Model minus baseline.
        low: Lower bound of the 95 % interval; NaN with fewer than two groups.
        high: Upper bound.
    """

    baseline: str
    scope: str
    metric: str
    n: int
    difference: float
    low: float
    high: float

    @property
    def beaten(self) -> bool:
        """Whether the whole interval of the difference lies above 0; never so where there is no interval."""
        return self.low > 0


@dataclass(frozen=True)
class Verdict:
    """One sentence for the top of the report; `warning` when it tells against the model."""

    text: str
    warning: bool


@dataclass(frozen=True)
class EvaluationResult:
    """All that an evaluation found.

    Attributes:
        verdicts: What it means in words, warnings first.
        scores: Every system, scope and measure.
        comparisons: The model against every baseline.
        metrics: The measures that were taken, in the order of the tables.
        systems: Keys of the systems, the model first.
        scopes: ``overall`` and the sources.
        skipped: Measures that were not taken, with the reason.
        settings: How the measures were set (signatures, scorers, resamples).
        set_aside: Files that could not be judged, with the reason.
        rows: The model's value of each measure on each row by itself, by measure; None where a row does not count.
    """

    verdicts: tuple[Verdict, ...]
    scores: tuple[Score, ...]
    comparisons: tuple[Comparison, ...]
    metrics: tuple[MetricInfo, ...]
    systems: tuple[str, ...]
    scopes: tuple[str, ...]
    skipped: dict[str, str] = field(default_factory=dict)
    settings: dict[str, str] = field(default_factory=dict)
    set_aside: dict[str, str] = field(default_factory=dict)
    rows: dict[str, list[float | None]] = field(default_factory=dict)

    def score(self, metric: str, system: str = MODEL, scope: str = OVERALL) -> Score | None:
        """Return one score, or None where no row of this scope counts for the measure."""
        wanted = (system, scope, metric)
        return next((score for score in self.scores if (score.system, score.scope, score.metric) == wanted), None)

    def summary(self) -> dict[str, float]:
        """Return the model's overall value of each measure, by key."""
        return {s.metric: s.value for s in self.scores if s.system == MODEL and s.scope == OVERALL}

    def to_dataframe(self) -> pd.DataFrame:
        """Return the scores as a table, one row per system, scope and measure."""
        return pd.DataFrame([asdict(score) for score in self.scores])

    def to_dict(self) -> dict[str, Any]:
        """Return everything but the rows as plain containers; NaN becomes None."""
        parts: dict[str, Any] = {
            "summary": self.summary(),
            "verdicts": [asdict(verdict) for verdict in self.verdicts],
            "skipped": dict(self.skipped),
            "set_aside": dict(self.set_aside),
            "settings": dict(self.settings),
            "scores": [asdict(score) for score in self.scores],
            "comparisons": [asdict(comparison) for comparison in self.comparisons],
        }
        return _without_nan(parts)

    def to_json(self) -> str:
        """Return `to_dict` as JSON."""
        return json.dumps(self.to_dict(), indent=2, ensure_ascii=False, allow_nan=False)

    def to_markdown(self) -> str:
        """Return the verdicts, the tables with intervals, what was skipped and the settings as Markdown."""
        lines = ["# Evaluation", ""]
        lines += [f"- **{verdict.text}**" if verdict.warning else f"- {verdict.text}" for verdict in self.verdicts]
        for scope in self.scopes:
            lines += ["", f"## {scope}", "", *self._table(scope)]
        lines += ["", "## Not measured", ""] if self.skipped else []
        lines += [f"- {name}: {reason}" for name, reason in self.skipped.items()]
        lines += ["", "## Photographs set aside", ""] if self.set_aside else []
        lines += [f"- {name}: {reason}" for name, reason in self.set_aside.items()]
        lines += ["", "## Settings", "", *(f"- {name}: `{value}`" for name, value in self.settings.items()), ""]
        return "\n".join(lines)

    def cell(self, metric: MetricInfo, system: str, scope: str) -> str:
        """Return a score as ``value [low, high]``, or a dash where no row counts."""
        score = self.score(metric.key, system, scope)
        if score is None:
            return "–"
        value, low, high = (f"{number:.{metric.digits}f}" for number in (score.value, score.low, score.high))
        return value if math.isnan(score.low) else f"{value} [{low}, {high}]"

    def _table(self, scope: str) -> list[str]:
        head = ["measure", "n", *(SYSTEMS.get(system, system) for system in self.systems)]
        rows = [head, ["---"] * len(head)]
        for metric in self.metrics:
            score = self.score(metric.key, self.systems[0], scope)
            if score is not None:
                cells = [self.cell(metric, system, scope) for system in self.systems]
                rows.append([metric.label, str(score.n), *cells])
        return ["| " + " | ".join(row) + " |" for row in rows]


def verdicts(comparisons: Iterable[Comparison], metrics: Sequence[MetricInfo]) -> tuple[Verdict, ...]:
    """Say in words which baselines the model beats, warnings first.

    The model beats a baseline on a measure when the 95 % interval of their paired difference lies above 0. Every
    baseline is spoken of overall, the one that never saw the image also for each source where it is not beaten.
    """
    labels = {metric.key: metric.label for metric in metrics if metric.judged}
    cases: dict[tuple[str, str], list[Comparison]] = {}
    for comparison in comparisons:
        if comparison.metric in labels:
            cases.setdefault((comparison.baseline, comparison.scope), []).append(comparison)
    found = []
    if (BLIND, OVERALL) not in cases:
        found.append(Verdict(f"The model was not compared with {_OPPONENTS[BLIND]}: no score is proof.", warning=True))
    for (baseline, scope), case in cases.items():
        if scope == OVERALL or baseline == BLIND:
            found += _verdicts_of_case(baseline, scope, case, labels)
    return tuple(sorted(found, key=lambda verdict: not verdict.warning))


def _verdicts_of_case(
    baseline: str, scope: str, case: Sequence[Comparison], labels: Mapping[str, str]
) -> list[Verdict]:
    opponent = _OPPONENTS.get(baseline, f"'{baseline}'")
    place = f"{scope}, n = {max(comparison.n for comparison in case)}"
    lost = [labels[comparison.metric] for comparison in case if not comparison.beaten]
    won = [labels[comparison.metric] for comparison in case if comparison.beaten]
    if not lost:
        words = f"The model beats {opponent} on every measure ({place})."
        return [Verdict(words, warning=False)] if scope == OVERALL else []
    if not won:
        return [Verdict(f"The model does not beat {opponent} on any measure ({place}).", warning=True)]
    rest = f"; it does on {_listed(won)}" if scope == OVERALL else ""
    return [Verdict(f"The model does not beat {opponent} on {_listed(lost)} ({place}){rest}.", warning=True)]


def _listed(words: Sequence[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"


def _without_nan(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_nan(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_without_nan(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
