"""What an evaluation found: scores with intervals, comparisons with the baselines, and what they say in words."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from clip_xai.metrics.intervals import FEWEST
from clip_xai.text import counted, markdown

RENDERED = "rendered"  # the setting that says how many of the photographs nobody took
MODEL, BLIND, NEAREST, SHUFFLED, ACROSS = "model", "blind", "nearest", "shuffled", "shuffled_across"
OVERALL = "overall"
# Systems by key, as a reader sees them in a table.
SYSTEMS: dict[str, str] = {
    MODEL: "Model",
    BLIND: "Majority caption (never saw the image)",
    NEAREST: "Nearest training caption (CLIP)",
    SHUFFLED: "Model, images shuffled within each source",
    ACROSS: "Model, images shuffled across sources",
}
# The caption of another source is known by its style: to beat it says nothing about looking.
_NO_VERDICT = (ACROSS,)
# Baselines by key, as they stand in a sentence.
_OPPONENTS = {
    BLIND: "a caption that never saw the image",
    NEAREST: "the caption of the nearest training image",
    SHUFFLED: "its own captions of other images of the same source",
}


@dataclass(frozen=True)
class MetricInfo:
    """A measure.

    Attributes:
        key: Its name in tables.
        label: Its name for a reader.
        digits: Digits after the point that are worth showing.
        judged: Whether more is better, so that the model has to beat the baselines on it.
        span: Least and largest value that there can be; None where there are no such.
        share: Whether each row is right or wrong, so that the value is a share of rows.
    """

    key: str
    label: str
    digits: int = 3
    judged: bool = True
    span: tuple[float, float] | None = (0.0, 1.0)
    share: bool = False


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
        difference: Model minus baseline.
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
        undecided: Rows that a measure leaves out because their truth is not known or contradicts itself, by its label.
        empty: Captions without a word, by system.
        captions: How many captions each system has.
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
    undecided: dict[str, int] = field(default_factory=dict)
    empty: dict[str, int] = field(default_factory=dict)
    captions: int = 0
    rows: dict[str, list[float | None]] = field(default_factory=dict)

    def score(self, metric: str, system: str = MODEL, scope: str = OVERALL) -> Score | None:
        """Return one score, or None where no row of this scope counts for the measure."""
        wanted = (system, scope, metric)
        return next((score for score in self.scores if (score.system, score.scope, score.metric) == wanted), None)

    def summary(self) -> dict[str, float]:
        """Return how many captions of the model are empty, and its overall value of each measure, by key."""
        values = {s.metric: s.value for s in self.scores if s.system == MODEL and s.scope == OVERALL}
        return {"empty_captions": float(self.empty.get(MODEL, 0)), **values}

    def left_out(self) -> dict[str, str]:
        """Return in words how many rows each measure leaves out, by its label."""
        return {
            name: f"{count} of {counted(self.captions, 'photograph')} left out: the truth is unknown or contradictory"
            for name, count in self.undecided.items()
        }

    def to_dict(self) -> dict[str, Any]:
        """Return everything but the rows as plain containers; NaN becomes None."""
        parts: dict[str, Any] = {
            "summary": self.summary(),
            "captions": self.captions,
            "empty_captions": dict(self.empty),
            "verdicts": [asdict(verdict) for verdict in self.verdicts],
            "undecided": dict(self.undecided),
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
        lines += ["", "## Not measured", ""] if self.skipped else []
        lines += [f"- {markdown(name)}: {markdown(reason)}" for name, reason in self.skipped.items()]
        lines += ["", "## Truth not known", ""] if self.undecided else []
        lines += [f"- {name}: {words}" for name, words in self.left_out().items()]
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


def verdicts(
    comparisons: Iterable[Comparison], metrics: Sequence[MetricInfo], cautions: Sequence[str] = ()
) -> tuple[Verdict, ...]:
    """Say in words which baselines the model beats: cautions first, then all photographs, then single sources.

    The model beats a baseline on a measure when the 95 % interval of their paired difference lies above 0. Every
    baseline is spoken of overall, the one that never saw the image also for each source where it is not beaten. Where
    the photographs come from fewer than ten patients or lesions there is no verdict, only the reason.

    Args:
        comparisons: The model against every baseline.
        metrics: The measures.
        cautions: Sentences that a reader must see before any number.
    """
    labels = {metric.key: metric.label for metric in metrics if metric.judged}
    cases: dict[tuple[str, str], list[Comparison]] = {}
    for comparison in comparisons:
        if comparison.metric in labels and comparison.baseline not in _NO_VERDICT:
            cases.setdefault((comparison.baseline, comparison.scope), []).append(comparison)
    found = []
    if (BLIND, OVERALL) not in cases:
        found.append(Verdict(f"The model was not compared with {_OPPONENTS[BLIND]}: no score is proof.", warning=True))
    for (baseline, scope), case in cases.items():
        if scope == OVERALL or baseline == BLIND:
            found += [replace(one, scope=scope) for one in _verdicts_of_case(baseline, scope, case, labels)]
    first = [Verdict(caution, warning=True) for caution in cautions]
    return (*first, *sorted(found, key=lambda verdict: (verdict.scope != OVERALL, not verdict.warning)))


def _verdicts_of_case(
    baseline: str, scope: str, case: Sequence[Comparison], labels: Mapping[str, str]
) -> list[Verdict]:
    opponent = _OPPONENTS.get(baseline, f"'{baseline}'")
    place = f"{scope}, n = {max(comparison.n for comparison in case)}"
    decidable = [comparison for comparison in case if comparison.decidable]
    found = _undecidable(opponent, scope, [comparison for comparison in case if not comparison.decidable], labels)
    if not decidable:
        return found
    lost = [labels[comparison.metric] for comparison in decidable if not comparison.beaten]
    won = [labels[comparison.metric] for comparison in decidable if comparison.beaten]
    if scope != OVERALL:
        found = []  # of a single source it is said where the model fails, and whether anything can be said at all
    every, any_ = ("every measure", "any measure") if not found else ("every other measure", "any other measure")
    if not lost:
        words = f"The model beats {opponent} on {every} ({place})."
        return [Verdict(words, warning=False), *found] if scope == OVERALL else []
    if not won:
        return [Verdict(f"The model does not beat {opponent} on {any_} ({place}).", warning=True), *found]
    rest = f"; it does on {_listed(won)}" if scope == OVERALL else ""
    words = f"The model does not beat {opponent} on {_listed(lost)} ({place}){rest}."
    return [Verdict(words, warning=True), *found]


def _undecidable(opponent: str, scope: str, case: Sequence[Comparison], labels: Mapping[str, str]) -> list[Verdict]:
    """Say why there is no verdict on some measures."""
    if not case:
        return []
    most = max(comparison.clusters for comparison in case)
    what = "" if len(case) == len(labels) else f" on {_listed([labels[comparison.metric] for comparison in case])}"
    place = f"{scope}, n = {max(comparison.n for comparison in case)}"
    words = (
        f"No verdict{what} against {opponent} ({place}): the photographs come from too few patients or lesions "
        f"(effective number {most:.3g}; {FEWEST} are needed)."
    )
    return [Verdict(words, warning=True)]


def _listed(words: Sequence[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"


def _without_nan(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_nan(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_without_nan(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
