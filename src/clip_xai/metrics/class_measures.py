"""The measures of a classifier as functions of sums over groups: each system's answers, and what is counted of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.special import expit, log_softmax

from clip_xai.metrics.attributes import balanced_accuracy
from clip_xai.metrics.intervals import effective_number
from clip_xai.metrics.ranking import Members, Statistic, calibration, mean, ranking
from clip_xai.metrics.results import MetricInfo

Matrix = NDArray[np.float64]

ACCURACY = MetricInfo("accuracy", "accuracy", share=True)
BALANCED = MetricInfo("balanced_accuracy", "balanced accuracy")
AUROC = MetricInfo("auroc", "macro AUROC")
AP = MetricInfo("ap", "macro average precision")
ECE = MetricInfo("ece", "calibration error", judged=False, falling=True)
BRIER = MetricInfo("brier", "Brier score", falling=True)
#: Measures of one label, by key.
OF_LABEL = {
    "auroc": "AUROC",
    "ap": "average precision",
    "recall": "recall",
    "precision": "precision",
    "ece": "calibration error",
    "brier": "Brier score",
}


def label_metric(kind: str, name: str) -> MetricInfo:
    """Return the measure of one label: ``auroc/Nodule``.

    Args:
        kind: Key in `OF_LABEL`.
        name: The label.
    """
    share, falling = kind in ("recall", "precision"), kind in ("ece", "brier")
    return MetricInfo(f"{kind}/{name}", f"{OF_LABEL[kind]}, {name}", judged=False, share=share, falling=falling)


@dataclass(frozen=True)
class Answers:
    """What a system answers to n photographs.

    Attributes:
        order: What ranks the photographs for each label, [n, C].
        probabilities: Probability of each label, [n, C].
    """

    order: Matrix
    probabilities: Matrix

    @classmethod
    def of_logits(cls, logits: NDArray, multiple: bool) -> Answers:
        """Return the answers of a model: independent labels where there may be several, else one class.

        Logits rank in place of probabilities, which are all 0 or 1 where a model is very sure.
        """
        exact = np.asarray(logits, dtype=np.float64)
        if multiple:
            return cls(exact, expit(exact))
        order = log_softmax(exact, axis=1)
        return cls(order, np.exp(order))

    @classmethod
    def of_probabilities(cls, probabilities: NDArray) -> Answers:
        """Return answers that are known as probabilities."""
        return cls(probabilities, probabilities)

    def at(self, rows: NDArray) -> Answers:
        """Return the answers to some photographs."""
        return Answers(self.order[rows], self.probabilities[rows])


@dataclass(frozen=True)
class Taken:
    """One measure of one system on some rows.

    Attributes:
        info: Which measure.
        parts: The statistics whose mean the value is, each with the number of its value that is meant; labels share
            them with their mean, and a label of which a resample has no case takes no part in that resample.
        rows: Rows that count.
        groups: Groups among them.
        clusters: Effective number of the groups that the value hangs on.
    """

    info: MetricInfo
    parts: tuple[tuple[Statistic, int], ...]
    rows: int
    groups: int
    clusters: float


def measures_of_classes(answers: Answers, truth: Matrix, classes: Sequence[str], members: Members) -> list[Taken]:
    """Take every measure of a system that gives each photograph one class.

    Args:
        answers: Its answers to n photographs.
        truth: 1 for the class of each photograph and 0 for the others, [n, C].
        classes: Names of the classes.
        members: Group of each photograph.
    """
    everyone = np.ones(len(truth), dtype=bool)
    true, said = truth.argmax(axis=1), answers.probabilities.argmax(axis=1)
    right = true == said
    confidence = answers.probabilities.max(axis=1)
    squares = ((answers.probabilities - truth) ** 2).sum(axis=1)
    labels = _rankings(answers, truth, members)
    brier = MetricInfo(BRIER.key, BRIER.label, span=(0.0, 2.0), falling=True)
    found = [
        _taken(ACCURACY, mean(right, members), everyone, members),
        _taken(BALANCED, _balanced(true, right, len(classes), members), everyone, members),
        *_macro(labels, members, len(truth)),
        _taken(brier, mean(squares, members), everyone, members),
        _taken(ECE, calibration(confidence, right, members), everyone, members),
    ]
    found += _of_labels(labels, classes)
    for number, name in enumerate(classes):
        for kind, rows in (("recall", true == number), ("precision", said == number)):
            if rows.any():
                statistic = mean(right[rows], members.at(rows))
                found.append(_taken(label_metric(kind, name), statistic, rows, members))
    return found


def measures_of_labels(answers: Answers, truth: Matrix, classes: Sequence[str], members: Members) -> list[Taken]:
    """Take every measure of a system that gives each photograph any number of labels.

    Args:
        answers: Its answers to n photographs.
        truth: 1 present, 0 absent, NaN not counted, [n, C].
        classes: Names of the labels.
        members: Group of each photograph.
    """
    labels = _rankings(answers, truth, members)
    found = _macro(labels, members, int((~np.isnan(truth)).any(axis=1).sum()))
    single: dict[str, list[Taken]] = {"brier": [], "ece": []}
    for number, name in enumerate(classes):
        rows = ~np.isnan(truth[:, number])
        if rows.any():
            probability, state, mine = answers.probabilities[rows, number], truth[rows, number], members.at(rows)
            for kind, statistic in (
                ("brier", mean((probability - state) ** 2, mine)),
                ("ece", calibration(probability, state, mine)),
            ):
                single[kind].append(_taken(label_metric(kind, name), statistic, rows, members))
    for info, kind in ((BRIER, "brier"), (ECE, "ece")):
        if single[kind]:
            known = np.asarray(~np.isnan(truth).all(axis=1))
            found.append(_taken(info, [one.parts[0][0] for one in single[kind]], known, members))
    return found + _of_labels(labels, classes) + [one for kind in ("brier", "ece") for one in single[kind]]


def _rankings(answers: Answers, truth: Matrix, members: Members) -> dict[int, Taken]:
    """Rank the photographs for each label that some of them show and others do not."""
    found = {}
    for number in range(truth.shape[1]):
        rows = ~np.isnan(truth[:, number])
        present = truth[:, number] == 1
        absent = rows & ~present
        if present.any() and absent.any():
            statistic = ranking(answers.order[rows, number], present[rows], members.at(rows))
            # The area hangs on the rarer side: ten thousand healthy persons do not make up for three patients.
            clusters = min(effective_number(members.sizes(present)), effective_number(members.sizes(absent)))
            groups = int((members.sizes(rows) > 0).sum())
            found[number] = Taken(AUROC, ((statistic, 0),), int(rows.sum()), groups, clusters)
    return found


def _of_labels(labels: dict[int, Taken], classes: Sequence[str]) -> list[Taken]:
    return [
        Taken(label_metric(kind, classes[number]), ((one.parts[0][0], index),), one.rows, one.groups, one.clusters)
        for index, kind in enumerate(("auroc", "ap"))
        for number, one in labels.items()
    ]


def _macro(labels: dict[int, Taken], members: Members, rows: int) -> list[Taken]:
    if not labels:
        return []
    sizes = members.sizes(np.ones(len(members.of), dtype=bool))
    groups, clusters = int((sizes > 0).sum()), effective_number(sizes)
    statistics = [one.parts[0][0] for one in labels.values()]
    return [
        Taken(info, tuple((statistic, index) for statistic in statistics), rows, groups, clusters)
        for index, info in enumerate((AUROC, AP))
    ]


def _taken(
    info: MetricInfo, statistic: Statistic | Sequence[Statistic], rows: NDArray[np.bool_], members: Members
) -> Taken:
    sizes = members.sizes(rows)
    parts = [statistic] if isinstance(statistic, Statistic) else statistic
    groups = int((sizes > 0).sum())
    return Taken(info, tuple((part, 0) for part in parts), int(rows.sum()), groups, effective_number(sizes))


def _balanced(true: NDArray, right: NDArray, count: int, members: Members) -> Statistic:
    sums = sparse.vstack([members.summed(true, count, right), members.summed(true, count)], format="csr")
    return Statistic(sums, lambda found: balanced_accuracy(found.T)[None])
