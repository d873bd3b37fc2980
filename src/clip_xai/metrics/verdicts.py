"""What comparisons with the baselines say in words."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from clip_xai.data.vocabulary import GROUPS
from clip_xai.metrics.intervals import FEWEST
from clip_xai.metrics.results import ACROSS, BLIND, NEAREST, OVERALL, SHUFFLED, Comparison, MetricInfo, Verdict

# The caption of another source is known by its style: to beat it says nothing about looking.
_NO_VERDICT = (ACROSS,)
_BRACKETS = re.compile(r"\([^)]*\)")
# Baselines by key, as they stand in a sentence.
OPPONENTS = {
    BLIND: "a caption that never saw the image",
    NEAREST: "the caption of the nearest training image",
    SHUFFLED: "its own captions of other images of the same source",
}


def verdicts(
    comparisons: Iterable[Comparison],
    metrics: Sequence[MetricInfo],
    cautions: Sequence[str] = (),
    opponents: Mapping[str, str] = OPPONENTS,
    blind: str = BLIND,
    group_words: tuple[str, str] = GROUPS,
) -> tuple[Verdict, ...]:
    """Say in words which baselines the model beats: cautions first, then all photographs, then single sources.

    The model beats a baseline on a measure when the 95 % interval of their paired difference lies above 0. Every
    baseline is spoken of overall, the one that never saw the image also for each source where it is not beaten. Where
    the photographs come from fewer than ten groups (patients) there is no verdict, only the reason.

    Args:
        comparisons: The model against every baseline.
        metrics: The measures.
        cautions: Sentences that a reader must see before any number.
        opponents: Baselines by key, as they stand in a sentence.
        blind: The baseline that never saw the image.
        group_words: What a group is, singular and plural.
    """
    labels = {metric.key: metric.label for metric in metrics if metric.judged}
    cases: dict[tuple[str, str], list[Comparison]] = {}
    for comparison in comparisons:
        if comparison.metric in labels and comparison.baseline not in _NO_VERDICT:
            cases.setdefault((comparison.baseline, comparison.scope), []).append(comparison)
    found = []
    if (blind, OVERALL) not in cases:
        found.append(Verdict(f"The model was not compared with {opponents[blind]}: no score is proof.", warning=True))
    for (baseline, scope), case in cases.items():
        if scope == OVERALL or baseline == blind:
            found += [
                replace(one, scope=scope)
                for one in _verdicts_of_case(
                    opponents.get(baseline, f"'{baseline}'"), scope, case, labels, group_words[1]
                )
            ]
    first = [Verdict(caution, warning=True) for caution in cautions]
    return (*first, *sorted(found, key=lambda verdict: (verdict.scope != OVERALL, not verdict.warning)))


def _verdicts_of_case(
    opponent: str, scope: str, case: Sequence[Comparison], labels: Mapping[str, str], groups: str
) -> list[Verdict]:
    place = f"{scope}, n = {max(comparison.n for comparison in case)}"
    decidable = [comparison for comparison in case if comparison.decidable]
    open_ = [comparison for comparison in case if not comparison.decidable]
    found = _undecidable(opponent, scope, open_, labels, groups)
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
    rest = f"; it does on {listed(won)}" if scope == OVERALL else ""
    words = f"The model does not beat {opponent} on {listed(lost)} ({place}){rest}."
    return [Verdict(words, warning=True), *found]


def _undecidable(
    opponent: str, scope: str, case: Sequence[Comparison], labels: Mapping[str, str], groups: str
) -> list[Verdict]:
    """Say why there is no verdict on some measures."""
    if not case:
        return []
    most = max(comparison.clusters for comparison in case)
    what = "" if len(case) == len(labels) else f" on {listed([labels[comparison.metric] for comparison in case])}"
    place = f"{scope}, n = {max(comparison.n for comparison in case)}"
    words = (
        f"No verdict{what} against {opponent} ({place}): the photographs come from too few {groups} "
        f"(effective number {most:.3g}; {FEWEST} are needed)."
    )
    return [Verdict(words, warning=True)]


def listed(words: Sequence[str]) -> str:
    """Return words as a list in a sentence; one with a comma outside of brackets is quoted.

    >>> listed(["accuracy", "AUROC", "AP"]), listed(["cyst, benign", "nevus"])
    ('accuracy, AUROC and AP', "'cyst, benign' and nevus")
    """
    shown = [f"'{word}'" if "," in _BRACKETS.sub("", word) else word for word in words]
    return shown[0] if len(shown) == 1 else f"{', '.join(shown[:-1])} and {shown[-1]}"
