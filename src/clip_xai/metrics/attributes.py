"""Whether a caption says what is so: its diagnosis and its attributes (colour, position ...), read from its words.

A row counts where the truth is known: where the record has a diagnosis, or a reference states the attribute. A caption
that says nothing on it is wrong, as it tells the reader nothing; how many captions say anything is counted beside.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torchmetrics import Metric

from clip_xai.data.vocabulary import ATTRIBUTES, DIAGNOSES, read_attribute, read_diagnosis

LEVELS = ("exact", "family", "malignancy")


@dataclass(frozen=True)
class Reading:
    """What captions say against what is so.

    Attributes:
        rows: Numbers of the rows whose truth is known, [n].
        truth: The true value of each of these rows.
        said: What the caption of each says, or None.
    """

    rows: NDArray[np.int64]
    truth: tuple[str, ...]
    said: tuple[str | None, ...]

    @property
    def right(self) -> NDArray[np.float64]:
        """1 where the caption says the truth, 0 where it says anything else or nothing, [n]."""
        return np.asarray([said == truth for said, truth in zip(self.said, self.truth, strict=True)], dtype=np.float64)

    @property
    def stated(self) -> NDArray[np.float64]:
        """1 where the caption says anything, [n]."""
        return np.asarray([said is not None for said in self.said], dtype=np.float64)


def true_diagnosis(diagnosis: str | None, references: Sequence[str]) -> str | None:
    """Return the canonical diagnosis of a record: its own, unless a reference states one below it in the ontology.

    Publishers' classes can be umbrellas (HAM10000's ``bkl`` holds seborrheic keratosis and others), so that a
    description may know better. A record without a diagnosis has the first that a reference states.

    >>> true_diagnosis("Melanoma", ["a photo of psoriasis"])
    'melanoma'
    >>> true_diagnosis("benign keratosis", ["typical of seborrheic keratosis"])
    'seborrheic keratosis'
    """
    own = read_diagnosis(diagnosis) if diagnosis else None
    stated = [name for name in map(read_diagnosis, references) if name is not None]
    if own is None:
        return stated[0] if stated else None
    return next((name for name in stated if own in diagnosis_line(name)), own)


def diagnosis_line(name: str) -> tuple[str, ...]:
    """Return a canonical diagnosis and everything above it in the ontology.

    >>> diagnosis_line("seborrheic keratosis")
    ('seborrheic keratosis', 'benign keratosis')
    """
    parent = DIAGNOSES[name].parent
    return (name, *diagnosis_line(parent)) if parent else (name,)


def diagnosis_family(name: str) -> str:
    """Return the root of the ontology above a canonical diagnosis, itself if it has nothing above it.

    >>> diagnosis_family("melanoma in situ")
    'melanoma'
    """
    return diagnosis_line(name)[-1]


def true_attribute(references: Sequence[str], attribute: str) -> str | None:
    """Return the value of the first reference that states the attribute, or None."""
    return next((value for text in references if (value := read_attribute(text, attribute)) is not None), None)


def read_diagnoses(captions: Sequence[str], truths: Sequence[str | None], level: str = "exact") -> Reading:
    """Compare the diagnoses that captions state with the true ones.

    Args:
        captions: N captions.
        truths: N canonical diagnoses from `true_diagnosis`, or None where unknown.
        level: ``exact``, ``family`` (the root of the ontology above it: a melanoma in situ is a melanoma) or
            ``malignancy`` (benign, malignant, inflammatory).
    """
    if level not in LEVELS:
        raise ValueError(f"The level of a diagnosis is one of {', '.join(LEVELS)}, not {level!r}.")

    def at_level(name: str | None) -> str | None:
        if name is None or level == "exact":
            return name
        return diagnosis_family(name) if level == "family" else DIAGNOSES[name].malignancy

    return _reading([read_diagnosis(caption) for caption in captions], truths, at_level)


def read_attributes(captions: Sequence[str], references: Sequence[Sequence[str]], attribute: str) -> Reading:
    """Compare an attribute that captions state with what their references state.

    Args:
        captions: N captions.
        references: N lists of references.
        attribute: One of `clip_xai.data.vocabulary.ATTRIBUTES`.
    """
    if attribute not in ATTRIBUTES:
        raise ValueError(f"The attributes are {', '.join(ATTRIBUTES)}, not {attribute!r}.")
    truths = [true_attribute(options, attribute) for options in references]
    return _reading([read_attribute(caption, attribute) for caption in captions], truths, lambda value: value)


def balanced_statistics(reading: Reading) -> NDArray[np.float64]:
    """Return what balanced accuracy sums: right and all per class, [n, 2C], classes in the order of their names."""
    classes = {name: number for number, name in enumerate(sorted(set(reading.truth)))}
    statistics = np.zeros((len(reading.truth), 2, len(classes)))
    number = [classes[name] for name in reading.truth]
    statistics[np.arange(len(number)), 0, number] = reading.right
    statistics[np.arange(len(number)), 1, number] = 1
    return statistics.reshape(len(number), 2 * len(classes))


def balanced_accuracy(sums: NDArray) -> NDArray[np.float64]:
    """Mean over classes of the share of right answers, from summed `balanced_statistics` [..., 2C].

    A class of which a resample has no row takes no part in that resample.
    """
    right, count = np.split(np.asarray(sums, dtype=np.float64), 2, axis=-1)
    share = np.divide(right, count, out=np.zeros_like(right), where=count > 0)
    return share.sum(axis=-1) / (count > 0).sum(axis=-1)


class _Accuracy(Metric):
    """Share of right captions among those whose truth is known."""

    higher_is_better = True
    is_differentiable = False
    full_state_update = False
    right: torch.Tensor
    stated: torch.Tensor
    count: torch.Tensor

    def __init__(self) -> None:
        super().__init__()
        for name in ("right", "stated", "count"):
            self.add_state(name, torch.zeros((), dtype=torch.long), dist_reduce_fx="sum")

    def _add(self, reading: Reading) -> None:
        self.right += int(reading.right.sum())
        self.stated += int(reading.stated.sum())
        self.count += len(reading.truth)

    def compute(self) -> torch.Tensor:
        """Return the accuracy in 0 to 1; NaN where no row's truth was known."""
        return self.right / self.count


class DiagnosisAccuracy(_Accuracy):
    """Accuracy of the stated diagnosis.

    Args:
        level: ``exact``, ``family`` or ``malignancy``.
    """

    def __init__(self, level: str = "exact") -> None:
        super().__init__()
        self.level = level

    def update(self, captions: Sequence[str], truths: Sequence[str | None]) -> None:
        """Add captions and the canonical diagnoses of their records."""
        self._add(read_diagnoses(captions, truths, self.level))


class AttributeAccuracy(_Accuracy):
    """Accuracy of one stated attribute.

    Args:
        attribute: One of `clip_xai.data.vocabulary.ATTRIBUTES`.
    """

    def __init__(self, attribute: str) -> None:
        super().__init__()
        self.attribute = attribute

    def update(self, captions: Sequence[str], references: Sequence[Sequence[str]]) -> None:
        """Add captions and their references."""
        self._add(read_attributes(captions, references, self.attribute))


def _reading(
    said: Sequence[str | None], truths: Sequence[str | None], at_level: Callable[[str | None], str | None]
) -> Reading:
    if len(said) != len(truths):
        raise ValueError(f"{len(said)} captions stand against {len(truths)} records.")
    known = [(row, truth) for row, truth in enumerate(at_level(truth) for truth in truths) if truth is not None]
    rows = np.asarray([row for row, _ in known], dtype=np.int64)
    return Reading(rows, tuple(truth for _, truth in known), tuple(at_level(said[row]) for row in rows))
