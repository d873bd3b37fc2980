"""What is classified: which classes there are, and what each record states of them."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from clip_xai.config.training_settings import ClassifyConfig
from clip_xai.data.labels import label_matrix, label_names
from clip_xai.data.record import Record
from clip_xai.data.vocabulary import load_vocabulary
from clip_xai.errors import UserError
from clip_xai.text import counted, plural

log = logging.getLogger(__name__)
POLICIES = {"ignored": "masked", "present": "ones", "absent": "zeros"}  # of uncertain labels
LABELS, DIAGNOSIS, MALIGNANCY = "labels", "diagnosis", "malignancy"


@dataclass(frozen=True)
class Question:
    """What is classified.

    Attributes:
        classes: The classes, in the order of the logits.
        multilabel: Whether a photograph can show several of them at once.
        of: ``labels``, ``diagnosis`` or ``malignancy``.
        uncertain: What an uncertain label counts for.
    """

    classes: tuple[str, ...]
    multilabel: bool
    of: str
    uncertain: str

    def truth(self, records: Sequence[Record]) -> NDArray[np.float32]:
        """Return ``[n, C]``: 1 present, 0 absent, NaN not counted."""
        return label_matrix(labelled(records, self.of, self.classes), self.classes, uncertain=POLICIES[self.uncertain])

    def answered(self, records: Sequence[Record]) -> list[Record]:
        """Return the records that state something: of one class at a time, which of the classes it is."""
        values = self.truth(records)
        stated = ~np.isnan(values)
        one = np.logical_and(stated.all(axis=1), np.nansum(values, axis=1) == 1)
        keep = np.atleast_1d(stated.any(axis=1) if self.multilabel else one)
        return [record for record, kept in zip(records, keep.tolist(), strict=True) if kept]


def group_words(of: str, vocabulary: str) -> tuple[str, str]:
    """Return what a group of photographs is called, singular and plural.

    Args:
        of: What is classified: ``labels``, ``diagnosis`` or ``malignancy``.
        vocabulary: Name or file of the field's words.
    """
    words = load_vocabulary(vocabulary)
    return (words.of_labels() if of == LABELS else words).groups


def question_of(config: ClassifyConfig, train: Sequence[Record]) -> Question:
    """Return what is classified, from the settings and the training records.

    Raises:
        UserError: The data states nothing of it, has no such class, or does not hold one class a photograph.
    """
    of = config.of or (LABELS if any(record.labels for record in train) else DIAGNOSIS)
    known = known_classes(train, of)
    if not known:
        raise UserError(
            f"task.of={of}: no training photograph states any; choose data with labels, or task.of=diagnosis or "
            "malignancy"
        )
    classes = known if config.labels is None else list(config.labels)
    missing = [name for name in classes if name not in known]
    if missing:
        raise UserError(f"task.labels: the data has no {missing[0]!r}; it has {', '.join(known)}")
    if len(set(classes)) < len(classes):
        raise UserError(f"task.labels: a class stands there twice: {', '.join(classes)}")
    every = Question(tuple(known), True, of, config.uncertain).truth(train)
    values = every[:, [known.index(name) for name in classes]]
    classes = _shown(classes, values, chosen=config.labels is not None)
    # Of classes that exclude each other, some were chosen: they still do.
    one_each = bool((~np.isnan(every)).all() and (every.sum(axis=1) == 1).all())
    multilabel = (of == LABELS and not one_each) if config.multilabel is None else config.multilabel
    if not multilabel:
        _require_one_each(classes, values)
    return Question(tuple(classes), multilabel, of, config.uncertain)


def known_classes(records: Sequence[Record], of: str) -> list[str]:
    """Return the names of all that records state."""
    if of == LABELS:
        return list(label_names(records))
    return sorted({name for record in records if (name := _kind_of(record, of))})


def labelled(records: Sequence[Record], of: str, classes: Sequence[str]) -> list[Record]:
    """Return the records with what is classified as their labels: a diagnosis is none of the other classes."""
    if of == LABELS:
        return list(records)
    kinds = [_kind_of(record, of) for record in records]
    return [
        replace(record, labels={name: name == kind for name in classes} if kind else {})
        for record, kind in zip(records, kinds, strict=True)
    ]


def _kind_of(record: Record, of: str) -> str | None:
    return record.diagnosis if of == DIAGNOSIS else record.malignancy


def _shown(classes: Sequence[str], values: NDArray[np.float32], chosen: bool) -> list[str]:
    """Return the classes that a training photograph shows; one that was chosen by name must be among them."""
    counts = np.nansum(values, axis=0).tolist()
    empty = [name for name, count in zip(classes, counts, strict=True) if not count]
    if empty and (chosen or len(empty) == len(classes)):
        raise UserError(f"task.labels: no training photograph shows {', '.join(empty)}; leave it out")
    if empty:
        log.warning("left out, as no training photograph shows them: %s", ", ".join(empty))
    return [name for name in classes if name not in empty]


def _require_one_each(classes: Sequence[str], values: NDArray[np.float32]) -> None:
    several = int((np.nansum(values, axis=1) > 1).sum())
    if several:
        raise UserError(
            f"task.multilabel=false: {counted(several, 'training photograph')} "
            f"{plural(several, 'shows', 'show')} several of the classes at once; leave it out, or choose classes that "
            "exclude each other with task.labels"
        )
    if len(classes) < 2:
        raise UserError(
            f"task.labels: one class alone, {classes[0]!r}, is nothing to tell apart; name another, or set "
            "task.multilabel=true to tell it from all else"
        )


def say_left_out(question: Question, split: str, before: Sequence[Record], after: Sequence[Record]) -> None:
    """Count in the log which records say nothing of what is classified."""
    count = len(before) - len(after)
    if count:
        what = "which one of the classes they show" if not question.multilabel else "anything of the classes"
        log.warning("split %s: %s left out, which do not state %s", split, counted(count, "photograph"), what)
