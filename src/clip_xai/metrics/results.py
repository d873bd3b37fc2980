"""What an evaluation found: scores with intervals, comparisons with the baselines, and what they say in words."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import Any

from clip_xai.data.vocabulary import GROUPS
from clip_xai.metrics.intervals import FEWEST
from clip_xai.text import counted, markdown, with_bounds

NOTE = "note"  # before the number of a setting that says what a reader must see
RENDERED = "rendered"  # the setting that says how many of the photographs nobody took
MODEL, BLIND, NEAREST, SHUFFLED, ACROSS = "model", "blind", "nearest", "shuffled", "shuffled_across"
MAJORITY, PRIOR = "majority", "prior"
OVERALL = "overall"
# Systems by key, as a reader sees them in a table.
SYSTEMS: dict[str, str] = {
    MODEL: "Model",
    BLIND: "Majority caption (never saw the image)",
    MAJORITY: "Majority class (never saw the image)",
    PRIOR: "Training frequencies (never saw the image)",
    NEAREST: "Nearest training caption (CLIP)",
    SHUFFLED: "Model, images shuffled within each source",
    ACROSS: "Model, images shuffled across sources",
}


@dataclass(frozen=True)
class MetricInfo:
    """A measure.

    Attributes:
        key: Its name in tables.
        label: Its name for a reader.
        digits: Digits after the point that are worth showing.
        judged: Whether the model has to beat the baselines on it.
        span: Least and largest value that there can be; None where there are no such.
        share: Whether each row is right or wrong, so that the value is a share of rows.
        falling: Whether less is better; the model then has to lie below the baselines.
    """

    key: str
    label: str
    digits: int = 3
    judged: bool = True
    span: tuple[float, float] | None = (0.0, 1.0)
    share: bool = False
    falling: bool = False


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
        low: Lower bound of the 95 % interval; NaN with too few groups for one.
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
        clusters: Effective number of groups (patients, lesions) among them.
        difference: Model minus baseline; baseline minus model where less is better.
        low: Lower bound of the 95 % interval; NaN with too few groups for one.
        high: Upper bound.
    """

    baseline: str
    scope: str
    metric: str
    n: int
    clusters: float
    difference: float
    low: float
    high: float

    @property
    def decidable(self) -> bool:
        """Whether there are groups enough for a verdict."""
        return self.clusters >= FEWEST

    @property
    def beaten(self) -> bool:
        """Whether the whole interval of the difference lies above 0; never so where there is no interval."""
        return self.low > 0


@dataclass(frozen=True)
class Verdict:
    """One sentence for the top of the report.

    Attributes:
        text: The sentence.
        warning: Whether it tells against the model.
        scope: What it is about: a source's name, or ``overall``.
    """

    text: str
    warning: bool
    scope: str = OVERALL


@dataclass(frozen=True)
class Scored:
    """What the results of all tasks have: scores of systems, what they are compared with, and what it means.

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
        group_words: What a group is, singular and plural: ``patient``, ``patients``.
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
    group_words: tuple[str, str] = GROUPS

    @cached_property
    def _scores(self) -> dict[tuple[str, str, str], Score]:
        return {(score.metric, score.system, score.scope): score for score in self.scores}

    def score(self, metric: str, system: str = MODEL, scope: str = OVERALL) -> Score | None:
        """Return one score, or None where no row of this scope counts for the measure."""
        return self._scores.get((metric, system, scope))

    def summary(self) -> dict[str, float]:
        """Return the model's overall value of each measure, by key."""
        return {s.metric: s.value for s in self.scores if s.system == MODEL and s.scope == OVERALL}

    def left_out(self) -> dict[str, str]:
        """Return in words what the measures leave out of the photographs, by name."""
        return {}

    def to_dict(self) -> dict[str, Any]:
        """Return everything but the rows as plain containers; NaN becomes None."""
        parts: dict[str, Any] = {
            "summary": self.summary(),
            **self._further(),
            "verdicts": [asdict(verdict) for verdict in self.verdicts],
            "skipped": dict(self.skipped),
            "set_aside": dict(self.set_aside),
            "settings": dict(self.settings),
            "scores": [asdict(score) for score in self.scores],
            "comparisons": [asdict(comparison) for comparison in self.comparisons],
        }
        return _without_nan(parts)

    def to_markdown(self) -> str:
        """Return the verdicts, the tables with intervals, what was skipped and the settings as Markdown."""
        lines = ["# Evaluation", ""]
        lines += [f"**{markdown(self.settings[RENDERED])}**", ""] if RENDERED in self.settings else []
        said = [(markdown(verdict.text), verdict.warning) for verdict in self.verdicts]
        lines += [f"- **{text}**" if warning else f"- {text}" for text, warning in said]
        for scope in self.scopes:
            lines += ["", f"## {markdown(scope)}", "", *self._table(scope)]
        lines += self._further_markdown()
        lines += ["", "## Not measured", ""] if self.skipped else []
        lines += [f"- {markdown(name)}: {markdown(reason)}" for name, reason in self.skipped.items()]
        lines += ["", "## Truth not known", ""] if self.left_out() else []
        lines += [f"- {markdown(name)}: {words}" for name, words in self.left_out().items()]
        lines += ["", "## Photographs set aside", ""] if self.set_aside else []
        lines += [f"- {markdown(name)}: {markdown(reason)}" for name, reason in self.set_aside.items()]
        lines += [
            "",
            "## Settings",
            "",
            *(f"- {markdown(name)}: {markdown(value)}" for name, value in self.settings.items()),
            "",
        ]
        return "\n".join(lines)

    @property
    def must_see(self) -> list[str]:
        """What a reader must know of data and model, from the settings."""
        return [str(value) for name, value in self.settings.items() if name.startswith(f"{NOTE} ")]

    def cell(self, metric: MetricInfo, system: str, scope: str) -> str:
        """Return a score as ``value [low, high]``, or a dash where no row counts."""
        score = self.score(metric.key, system, scope)
        return "–" if score is None else with_bounds(score.value, score.low, score.high, metric.digits)

    def _further(self) -> dict[str, Any]:
        """What a task's `to_dict` has beyond this."""
        return {}

    def _further_markdown(self) -> list[str]:
        """What a task's `to_markdown` has beyond this, behind the tables."""
        return []

    def _table(self, scope: str) -> list[str]:
        rows = [["measure", "n", *(SYSTEMS.get(system, system) for system in self.systems)]]
        for metric in self.metrics:
            score = self.score(metric.key, self.systems[0], scope)
            if score is not None:
                cells = [self.cell(metric, system, scope) for system in self.systems]
                rows.append([metric.label, str(score.n), *cells])
        return markdown_table(rows)


@dataclass(frozen=True)
class EvaluationResult(Scored):
    """All that an evaluation of captions found, beyond what every task's results have.

    Attributes:
        undecided: Rows that a measure leaves out because their truth is not known or contradicts itself, by its label.
        empty: Captions without a word, by system.
        captions: How many captions each system has.
        rows: The model's value of each measure on each row by itself, by measure; None where a row does not count.
    """

    undecided: dict[str, int] = field(default_factory=dict)
    empty: dict[str, int] = field(default_factory=dict)
    captions: int = 0
    rows: dict[str, list[float | None]] = field(default_factory=dict)

    def summary(self) -> dict[str, float]:
        """Return how many captions of the model are empty, and its overall value of each measure, by key."""
        return {"empty_captions": float(self.empty.get(MODEL, 0)), **super().summary()}

    def left_out(self) -> dict[str, str]:
        """Return in words how many rows each measure leaves out, by its label."""
        return {
            name: f"{count} of {counted(self.captions, 'photograph')} left out: the truth is unknown or contradictory"
            for name, count in self.undecided.items()
        }

    def _further(self) -> dict[str, Any]:
        return {
            "captions": self.captions,
            "empty_captions": dict(self.empty),
            "undecided": dict(self.undecided),
        }


def markdown_table(rows: Sequence[Sequence[str]]) -> list[str]:
    """Return the lines of a Markdown table; the first row is its head."""
    ruled = [rows[0], ["---"] * len(rows[0]), *rows[1:]]
    return ["| " + " | ".join(row) + " |" for row in ruled]


def _without_nan(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_nan(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_without_nan(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
