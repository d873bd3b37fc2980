"""Does an attribute that is no finding (a chest tube, the hospital) give a label away, and does the model use it?"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from clip_xai.data.vocabulary import GROUPS
from clip_xai.metrics.intervals import (
    FEWEST,
    SAMPLES,
    Interval,
    bounds_of_counts,
    effective_number,
    group_numbers,
)
from clip_xai.metrics.multiplicity import above, holm
from clip_xai.metrics.ranking import Members, Statistic, pair_counts, ranking, resampled, stratified
from clip_xai.metrics.verdicts import listed
from clip_xai.text import markdown, with_bounds

__all__ = ["LabelShortcut", "ShortcutAudit", "shortcut"]


@dataclass(frozen=True)
class LabelShortcut:
    """What an attribute has to do with one label; every value is an AUROC with its interval, None without one.

    Attributes:
        label: The label.
        n: Photographs whose label and attribute are known.
        overall: The model on all of them.
        without: The model on those that do not have the attribute.
        within: The model on those that have it.
        stratified: The model over pairs of photographs that agree in the attribute.
        alone: The attribute in place of the model.
        fall: Overall minus stratified, on the same resamples.
        follows: How well the model's score tells who has the attribute, over pairs of photographs that agree in the
            label; .5 where the score follows nothing but the label.
        found: Whether ``follows`` and ``alone`` lie off .5 on the same side, corrected for all labels, and the area
            falls; None where there are too few patients for a verdict.
    """

    label: str
    n: int
    overall: Interval
    without: Interval | None
    within: Interval | None
    stratified: Interval | None
    alone: Interval
    fall: Interval | None
    follows: Interval | None
    found: bool | None


@dataclass(frozen=True)
class ShortcutAudit:
    """What an attribute has to do with every label.

    Attributes:
        attribute: Its name.
        labels: Label by label.
        left_out: Labels that were not audited, with the reason.
    """

    attribute: str
    labels: tuple[LabelShortcut, ...]
    left_out: dict[str, str]

    def sentences(self, group_words: tuple[str, str] = GROUPS) -> list[tuple[str, bool]]:
        """Return what was found in sentences, each with whether it warns.

        Args:
            group_words: What a group is, singular and plural.
        """
        found = [one for one in self.labels if one.found]
        undecided = [one.label for one in self.labels if one.found is None]
        said = []
        if found:
            falls = [
                f"{one.label} (AUROC {one.overall.value:.3f}, but {one.stratified.value:.3f} within pairs of "
                f"photographs that agree in it; the attribute alone {one.alone.value:.3f})"
                for one in found
                if one.stratified is not None
            ]
            said.append((f"Part of the model's score follows '{self.attribute}': {listed(falls)}.", True))
        elif len(undecided) < len(self.labels):
            said.append((f"The model's scores are not found to follow '{self.attribute}'.", False))
        if undecided:
            which = f"too few {group_words[1]} have it, or too few do not"
            words = f"No verdict on '{self.attribute}' for {listed(undecided)}: {which}"
            said.append((f"{words} (effective number under {FEWEST}).", True))
        return said

    def table(self) -> tuple[tuple[str, ...], tuple[tuple[str, ...], ...]]:
        """Return the AUROCs as head and rows of text."""
        head = (
            *("label", "n", "all", "attribute absent", "attribute present", "agreeing pairs", "fall"),
            *("attribute alone", "attribute by the score, label alike", "follows it"),
        )
        said = {True: "yes", False: "no", None: "–"}
        rows = tuple(
            (
                one.label,
                str(one.n),
                *(_cell(value) for value in (one.overall, one.without, one.within, one.stratified, one.fall)),
                _cell(one.alone),
                _cell(one.follows),
                said[one.found],
            )
            for one in self.labels
        )
        return head, rows

    def to_dict(self) -> dict[str, Any]:
        """Return the audit as plain containers."""
        return {
            "attribute": self.attribute,
            "labels": [asdict(one) for one in self.labels],
            "left_out": dict(self.left_out),
        }

    def to_markdown(self) -> str:
        """Return the sentences as Markdown."""
        return "\n".join(f"- {markdown(text)}" for text, _ in self.sentences())


def shortcut(
    scores: ArrayLike,
    truth: ArrayLike,
    classes: Sequence[str],
    attribute: ArrayLike,
    groups: Sequence[str],
    name: str,
    *,
    samples: int = SAMPLES,
    seed: int = 0,
) -> ShortcutAudit:
    """Compare a model's AUROC among all photographs with that among photographs that agree in an attribute.

    A model that looks at the finding ranks as well where everyone or nobody has the attribute. One that looks at the
    attribute falls there. Where the attribute nearly always goes with the label few photographs are left to show the
    fall, so the verdict rests on the other side of the same statement: does the score tell who has the attribute among
    photographs that agree in the label? If it does not, nothing of the area comes from the attribute. An attribute that
    goes with the severity of a finding is told by the score as well: the verdict says where to look, not why.

    Args:
        scores: The model's scores, [n, C].
        truth: 1 present, 0 absent, NaN not counted, [n, C].
        classes: Names of the labels.
        attribute: 1 where a photograph has the attribute, 0 where it does not, NaN where that is not known, [n].
        groups: Group (patient) of each photograph.
        name: Name of the attribute.
        samples: Resamples behind each interval.
        seed: Seed of the resamples.
    """
    matrix, states = np.asarray(scores, dtype=np.float64), np.asarray(truth, dtype=np.float64)
    has = np.asarray(attribute, dtype=np.float64)
    if matrix.shape != states.shape or has.shape != matrix.shape[:1] or len(groups) != len(has):
        raise ValueError(f"scores {matrix.shape}, truth {states.shape}, attribute {has.shape}, {len(groups)} groups")
    if np.isin(has, [0, 1]).sum() + np.isnan(has).sum() < len(has):
        raise ValueError(f"The attribute '{name}' is 0, 1 or NaN for each photograph.")
    members = Members(*group_numbers(groups))
    audited, left_out, p_values = [], {}, []
    for number, label in enumerate(classes):
        rows = np.flatnonzero(~np.isnan(states[:, number]) & ~np.isnan(has))
        present = states[rows, number] == 1
        reason = _unfit(present, has[rows] == 1)
        if reason:
            left_out[label] = reason
            continue
        one, p_value = _audited(
            label, matrix[rows, number], present, has[rows] == 1, members.at(rows), samples=samples, seed=seed
        )
        audited.append(one)
        p_values.append(p_value)
    decided = holm(p_values)
    labels = tuple(
        LabelShortcut(**{**vars(one), "found": None if math.isnan(p) else bool(yes)})
        for one, p, yes in zip(audited, p_values, decided, strict=True)
    )
    return ShortcutAudit(name, labels, left_out)


def _audited(
    label: str,
    scores: NDArray[np.float64],
    present: NDArray[np.bool_],
    has: NDArray[np.bool_],
    members: Members,
    samples: int,
    seed: int,
) -> tuple[LabelShortcut, float]:
    everyone = np.ones(len(present), dtype=bool)
    parts = {"overall": everyone, "without": ~has, "within": has}
    statistics = {
        key: ranking(scores[rows], present[rows], members.at(rows))
        for key, rows in parts.items()
        if present[rows].any() and not present[rows].all()
    }
    clusters = {key: _clusters(present, parts[key], members) for key in statistics}
    strata = [key for key in ("without", "within") if key in statistics]
    if strata:
        pairs = [pair_counts(present[parts[key]], members.at(parts[key])) for key in strata]
        statistics["stratified"] = stratified([statistics[key] for key in strata], pairs)
        clusters["stratified"] = max(clusters[key] for key in strata)
    alike = [rows for rows in (~present, present) if has[rows].any() and not has[rows].all()]
    if alike:
        areas = [ranking(scores[rows], has[rows], members.at(rows)) for rows in alike]
        statistics["follows"] = stratified(areas, [pair_counts(has[rows], members.at(rows)) for rows in alike])
        clusters["follows"] = max(_clusters(has, rows, members) for rows in alike)
    statistics["alone"] = ranking(has.astype(np.float64), present, members)
    clusters["alone"] = clusters["overall"]
    values, draws = _drawn(statistics, members.count, samples, seed)
    found: dict[str, Interval | None] = {
        key: _interval(values[key], draws[key], parts.get(key, everyone), members, clusters[key]) for key in statistics
    }
    if strata:
        values["fall"] = values["overall"] - values["stratified"]
        draws["fall"] = draws["overall"] - draws["stratified"]
        fewest = clusters["stratified"]
        found["fall"] = _interval(values["fall"], draws["fall"], everyone, members, fewest, (-1.0, 1.0))
    p_value = float("nan")
    if strata and alike and clusters["follows"] >= FEWEST:
        # Both have to hold, so that the larger of the two counts. The attribute may also speak against the label.
        side = 1.0 if values["alone"] >= 0.5 else -1.0
        p_value = max(
            above(side * (values[key] - 0.5), side * (draws[key] - 0.5), clusters[key], -0.5)
            for key in ("alone", "follows")
        )
        p_value = p_value if values["fall"] > 0 else 1.0
    parts_found = {key: found.get(key) for key in ("without", "within", "stratified", "fall", "follows")}
    overall, alone_found = found["overall"], found["alone"]
    assert overall is not None and alone_found is not None
    return LabelShortcut(label, len(present), overall, alone=alone_found, found=None, **parts_found), p_value


def _drawn(
    statistics: dict[str, Statistic], count: int, samples: int, seed: int
) -> tuple[dict[str, float], dict[str, NDArray[np.float64]]]:
    """The first value of each statistic, on the data and on the resamples."""
    draws = resampled(list(statistics.values()), count, samples, seed)
    values, of, start = {}, {}, 0
    for key, statistic in statistics.items():
        whole = statistic.whole()
        values[key], of[key] = float(whole[0]), draws[start]
        start += len(whole)
    return values, of


def _interval(
    value: float,
    draws: NDArray[np.float64],
    rows: NDArray[np.bool_],
    members: Members,
    clusters: float,
    span: tuple[float, float] = (0.0, 1.0),
) -> Interval:
    groups = int((members.sizes(rows) > 0).sum())
    return bounds_of_counts(value, draws[np.isfinite(draws)], int(rows.sum()), groups, clusters, span=span)


def _clusters(present: NDArray[np.bool_], rows: NDArray[np.bool_], members: Members) -> float:
    return min(effective_number(members.sizes(present & rows)), effective_number(members.sizes(~present & rows)))


def _unfit(present: NDArray[np.bool_], has: NDArray[np.bool_]) -> str:
    if not len(present) or present.all() or not present.any():
        return "every photograph whose attribute is known agrees in it"
    if has.all() or not has.any():
        return "every photograph whose label is known agrees in the attribute"
    return ""


def _cell(found: Interval | None) -> str:
    return "–" if found is None else with_bounds(found.value, found.low, found.high, 3)
