"""Whether a caption says what is so: its diagnosis and its attributes (colour, position ...), read from its words.

A row counts where the truth is known: where the record has a diagnosis, or its references state one and the same. A
caption that says nothing on it, or names several without saying which, is not right, as it tells the reader nothing;
the share of captions that answer stands beside every accuracy. Rows of undecided truth alone are left out, and counted.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from clip_xai.data.lexicon import (
    PRESENT,
    canonical_diagnosis,
    one_of,
    read_attribute,
    read_diagnosis,
    read_findings,
    read_malignancy,
    stated_diagnoses,
)
from clip_xai.data.vocabulary import Vocabulary, load_vocabulary

LEVELS = ("exact", "family", "malignancy")


@dataclass(frozen=True)
class Reading:
    """What captions say against what is so.

    Attributes:
        rows: Numbers of the rows whose truth is known, [n].
        truth: The true value of each of these rows.
        said: What the caption of each says; None where it says nothing, or several things and not which.
        undecided: How many rows are left out because nothing, or no one thing, is known to be true.
    """

    rows: NDArray[np.int64]
    truth: tuple[str, ...]
    said: tuple[str | None, ...]
    undecided: int = 0

    @property
    def right(self) -> NDArray[np.float64]:
        """1 where the caption says the truth, 0 where it says anything else or nothing, [n]."""
        return np.asarray([said == truth for said, truth in zip(self.said, self.truth, strict=True)], dtype=np.float64)

    @property
    def answered(self) -> NDArray[np.float64]:
        """1 where the caption says one thing, right or wrong, [n]."""
        return np.asarray([said is not None for said in self.said], dtype=np.float64)


def true_diagnosis(
    diagnosis: str | None, references: Sequence[str], vocabulary: Vocabulary | None = None
) -> str | None:
    """Return the canonical diagnosis of a record: its own, unless a reference states one below it in the vocabulary.

    Publishers' classes can be umbrellas (HAM10000's ``bkl`` holds seborrheic keratosis and others), so that a
    description may know better. A record without a diagnosis has the one that its references state; where they
    contradict each other, the truth is undecided: None.

    Args:
        diagnosis: The record's.
        references: Its captions.
        vocabulary: The vocabulary, here and below; that of skin if None.

    >>> true_diagnosis("Melanoma", ["a photo of psoriasis"])
    'melanoma'
    >>> true_diagnosis("benign keratosis", ["typical of seborrheic keratosis"])
    'seborrheic keratosis'
    """
    known = vocabulary or load_vocabulary()
    own = canonical_diagnosis(diagnosis, known) or read_diagnosis(diagnosis, known) if diagnosis else None
    stated = [name for text in references if (name := read_diagnosis(text, known)) is not None]
    if own is None:
        return one_of(tuple(stated), known)
    return next((name for name in stated if own in known.lineage(name)), own)


def diagnosis_family(name: str, vocabulary: Vocabulary | None = None) -> str:
    """Return the root of the vocabulary above a canonical diagnosis, itself if it has nothing above it.

    >>> diagnosis_family("melanoma in situ")
    'melanoma'
    """
    return (vocabulary or load_vocabulary()).lineage(name)[-1]


def true_attribute(references: Sequence[str], attribute: str, vocabulary: Vocabulary | None = None) -> str | None:
    """Return the value that the references state; None where none does, or where they contradict each other."""
    values = {value for text in references if (value := read_attribute(text, attribute, vocabulary)) is not None}
    return values.pop() if len(values) == 1 else None


def read_diagnoses(
    captions: Sequence[str],
    truths: Sequence[str | None],
    level: str = "exact",
    vocabulary: Vocabulary | None = None,
) -> Reading:
    """Compare the diagnoses that captions state with the true ones.

    Args:
        captions: N captions.
        truths: N canonical diagnoses from `true_diagnosis`, or None where unknown.
        level: ``exact``, ``family`` (the root of the vocabulary above it: a melanoma in situ is a melanoma) or
            ``malignancy`` (benign, malignant, inflammatory). A caption that names two carcinomas is undecided
            between them, and says all the same that it is malignant.
        vocabulary: The vocabulary.
    """
    if level not in LEVELS:
        raise ValueError(f"The level of a diagnosis is one of {', '.join(LEVELS)}, not {level!r}.")

    known = vocabulary or load_vocabulary()
    said = [_said(caption, level, known) for caption in captions]
    return _reading(said, [_true(name, level, known) for name in truths])


def read_attributes(
    captions: Sequence[str],
    references: Sequence[Sequence[str]],
    attribute: str,
    vocabulary: Vocabulary | None = None,
) -> Reading:
    """Compare an attribute that captions state with what their references state.

    Args:
        captions: N captions.
        references: N lists of references.
        attribute: One of the vocabulary's.
        vocabulary: The vocabulary.
    """
    known = vocabulary or load_vocabulary()
    if attribute not in known.attributes:
        raise ValueError(f"The attributes are {', '.join(known.attributes)}, not {attribute!r}.")
    truths = [true_attribute(options, attribute, known) for options in references]
    return _reading([read_attribute(caption, attribute, known) for caption in captions], truths)


def stated_findings(
    captions: Sequence[str], references: Sequence[Sequence[str]], vocabulary: Vocabulary | None = None
) -> tuple[NDArray[np.int64], NDArray[np.float64], int]:
    """Count the findings that captions state as present against those that their references state.

    Args:
        captions: N captions.
        references: N lists of references.
        vocabulary: The vocabulary.

    Returns:
        Numbers of the rows whose references agree with each other, [n]; their findings that are right, wrongly stated
        and missed, [n, 3]; how many rows are left out.
    """
    known = vocabulary or load_vocabulary()
    rows, counts = [], []
    for row, (caption, options) in enumerate(zip(captions, references, strict=True)):
        truths = {_present(text, known) for text in options}
        if len(truths) != 1:
            continue
        said, true = _present(caption, known), truths.pop()
        rows.append(row)
        counts.append((len(said & true), len(said - true), len(true - said)))
    return (
        np.asarray(rows, dtype=np.int64),
        np.asarray(counts, dtype=np.float64).reshape(-1, 3),
        len(captions) - len(rows),
    )


def f1_of_counts(sums: NDArray) -> NDArray[np.float64]:
    """F1 from summed counts of right, wrongly stated and missed findings [..., 3]; 1 where there is none of all.

    >>> f1_of_counts(np.array([[2.0, 1.0, 1.0], [0.0, 0.0, 0.0]])).round(2).tolist()
    [0.67, 1.0]
    """
    right, wrong, missed = np.moveaxis(np.asarray(sums, dtype=np.float64), -1, 0)
    every = 2 * right + wrong + missed
    return np.divide(2 * right, every, out=np.ones_like(every), where=every > 0)


def _present(text: str, vocabulary: Vocabulary) -> frozenset[str]:
    return frozenset(name for name, said in read_findings(text, vocabulary).items() if said == PRESENT)


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


def _said(caption: str, level: str, vocabulary: Vocabulary) -> str | None:
    """What a caption states at a level: rivals that are one at this level are an answer to it."""
    if level == "exact":
        return read_diagnosis(caption, vocabulary)
    if level == "malignancy":
        return read_malignancy(caption, vocabulary)
    families = {diagnosis_family(name, vocabulary) for name in stated_diagnoses(caption, vocabulary)}
    return families.pop() if len(families) == 1 else None


def _true(name: str | None, level: str, vocabulary: Vocabulary) -> str | None:
    if name is None or level == "exact":
        return name
    return diagnosis_family(name, vocabulary) if level == "family" else vocabulary.malignancy(name)


def _reading(said: Sequence[str | None], truths: Sequence[str | None]) -> Reading:
    if len(said) != len(truths):
        raise ValueError(f"{len(said)} captions stand against {len(truths)} records.")
    known = [(row, truth) for row, truth in enumerate(truths) if truth is not None]
    return Reading(
        np.asarray([row for row, _ in known], dtype=np.int64),
        tuple(truth for _, truth in known),
        tuple(said[row] for row, _ in known),
        len(truths) - len(known),
    )
