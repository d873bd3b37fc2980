"""Summaries of measures as tables for a reader."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from clip_xai.explanations.causes.maps import CONTROL
from clip_xai.explanations.causes.weights import BLIND, RANDOM
from clip_xai.explanations.measures.base import Measure
from clip_xai.explanations.measures.summary import EVERY, Summary
from clip_xai.metrics.intervals import FEWEST
from clip_xai.report.explained import number, title_of
from clip_xai.report.pages import Table
from clip_xai.xai.curve_protocols import REMOVALS

_TABLES = (
    ("Does the score follow the heat?", ("relevance_gain", "insertion", "deletion", "sensitivity_n", "infidelity")),
    ("Does the heat lie where it ought to?", ("pointing", "auprc", "energy", "mass", "rank", "overlap_otsu")),
    (
        "Does the map need the model and the question, and what does it cost?",
        ("randomised", "emprt", "bottom_up", "smprt", "random_text", "run_to_run", "completeness", "f_fidelity",
         "sensitivity_max", "seconds", "forwards", "backwards", "memory"),
    ),
)  # fmt: skip
_NOTES = (
    "Relevance gain (SRG): the area under the score while the coldest places go first, less that while the hottest do; "
    "insertion is better where it is higher, deletion where it is lower. Sensitivity-n: correlation of the heat of "
    "random sets of cells with what taking them away does; infidelity: the share of it that their heat does not "
    "foresee. In nats, but for shares and correlations.",
    "On what is named where its place is known, else on the whole region.",
    "Likeness is rank correlation, of maps as they are; a map that stays at random parameters, or whatever is asked, "
    "does not show what the model knows. eMPRT: relative rise of the map's entropy over 100 bins at random parameters, "
    "higher is better. For bottom-up checks maps are divided by the root of their mean square and compared by SSIM.",
)


def measure_tables(
    found: Sequence[Summary], measures: Sequence[Measure], pictures: str, target: str = EVERY
) -> list[Table]:
    """Return the tables of a page: methods, their twins and controls, by every measure.

    Args:
        found: Summaries.
        measures: What was measured.
        pictures: What intervals are over: ``scenes``, ``patients or lesions``.
        target: What was asked; ``any`` for all of it.
    """
    by_key = {measure.key: measure for measure in measures}
    tables = []
    for (name, kinds), note in zip(_TABLES, _NOTES, strict=True):
        keys = [key for key, measure in by_key.items() if measure.name in kinds]
        chosen = {
            (one.measure, one.method): one for one in found if one.target == target and one.measure in keys
        }  # fmt: skip
        keys = [key for key in keys if any(measure == key for measure, _ in chosen)]
        methods = list(dict.fromkeys(method for _, method in chosen))
        if not keys or not methods:
            continue
        methods.sort(key=lambda method, first=keys[0]: _order(method, chosen, first))  # type: ignore[misc]
        rows = tuple(
            (
                title(method[0]) + (" (random weights)" if method[1] == RANDOM else ""),
                *(_cell(chosen.get((key, method))) for key in keys),
            )
            for method in methods
        )
        head = ("method", *(_head(by_key[key]) for key in keys))
        groups = max(one.mean.groups for one in chosen.values())
        said = (
            f"{note} Mean [95 % interval over {pictures}] of {groups} of them at most; in brackets the rank among the "
            "methods with 95 % of its ranks on resamples; * better than the method itself at random weights for sure, "
            "corrected for all methods (Holm). Maps at random weights are held against the trained model."
        )
        if groups < FEWEST:
            said += f" Fewer than {FEWEST}: no range of ranks, and none is better for sure."
        tables.append(Table(name, head, rows, said))
    return tables


def title(method: str) -> str:
    """A method or a control for people."""
    return method.removeprefix(CONTROL) if method.startswith(CONTROL) else title_of(method)


def _order(
    method: tuple[str, str], chosen: Mapping[tuple[str, tuple[str, str]], Summary], first: str
) -> tuple[bool, bool, float]:
    summary = chosen.get((first, method))
    rank = float(summary.rank) if summary is not None and summary.rank is not None else float("inf")
    return method[1] == BLIND, method[1] == RANDOM, rank


def _cell(summary: Summary | None) -> str:
    if summary is None or not summary.mean.n:
        return "–"
    sure = " *" if summary.above_random is not None and summary.above_random[1] else ""
    spread = "" if summary.ranks is None else f"; {summary.ranks[0]}–{summary.ranks[1]}"
    rank = "" if summary.rank is None else f" ({summary.rank}{spread})"
    found = summary.mean
    bounds = "" if found.low != found.low else f" [{number(found.low)}, {number(found.high)}]"
    return f"{number(found.value)}{bounds}{sure}{rank}"


def _head(measure: Measure) -> str:
    removal = getattr(measure, "removal", None)
    if removal is None:
        return measure.title
    return f"{measure.title}, {removal.replace('_', ' ') if removal in REMOVALS else removal}"
