"""What is classified: which classes there are, and what each record states of them."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from clip_xai.config.training_settings import ClassifyConfig
from clip_xai.data.labels import label_matrix, label_names, with_diagnoses_as_labels
from clip_xai.data.record import Record
from clip_xai.errors import UserError
from clip_xai.text import counted

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
        found = labelled(records, self.of)
        values = label_matrix(found, self.classes, uncertain=POLICIES[self.uncertain])
        return values

    def answered(self, records: Sequence[Record]) -> list[Record]:
        """Return the records that state something: of one class at a time, which of the classes it is."""
        values = self.truth(records)
        stated = ~np.isnan(values)
        one = np.logical_and(stated.all(axis=1), np.nansum(values, axis=1) == 1)
        keep = np.atleast_1d(stated.any(axis=1) if self.multilabel else one)
        return [record for record, kept in zip(records, keep.tolist(), strict=True) if kept]


def question_of(config: ClassifyConfig, train: Sequence[Record]) -> Question:
    """Return what is classified, from the settings and the training records.

    Raises:
        UserError: The data states nothing of it, has no such class, or does not hold one class a photograph.
    """
    of = config.of or (LABELS if any(record.labels for record in train) else DIAGNOSIS)
    found = labelled(train, of)
    if of == LABELS:
        known = list(label_names(found))
    else:
        known = sorted({name for record in found for name, stated in record.labels.items() if stated})
    if not known:
        raise UserError(
            f"task.of={of}: no training photograph states any; choose data with labels, or task.of=diagnosis or "
            "malignancy"
        )
    classes = known if config.labels is None else list(config.labels)
    missing = [name for name in classes if name not in known]
    if missing:
        raise UserError(f"task.labels: the data has no {missing[0]!r}; it has {', '.join(known)}")
    shown = np.nansum(label_matrix(found, classes), axis=0)
    empty = [name for name, count in zip(classes, shown.tolist(), strict=True) if not count]
    if empty and config.labels is not None:
        raise UserError(f"task.labels: no training photograph shows {', '.join(empty)}; leave it out")
    if empty:
        log.warning("left out, as no training photograph shows them: %s", ", ".join(empty))
        classes = [name for name in classes if name not in empty]
    if len(set(classes)) < len(classes):
        raise UserError(f"task.labels: a class stands there twice: {', '.join(classes)}")
    values = label_matrix(found, classes)
    one_each = bool((~np.isnan(values)).all() and (np.nansum(values, axis=1) == 1).all())
    multilabel = (not one_each if of == LABELS else False) if config.multilabel is None else config.multilabel
    question = Question(tuple(classes), multilabel, of, config.uncertain)
    if not multilabel and len(classes) < 2:
        raise UserError(f"task.labels: one class alone, {classes[0]!r}, is nothing to tell apart; name another")
    return question


def labelled(records: Sequence[Record], of: str) -> list[Record]:
    """Return the records with what is classified as their labels."""
    if of == LABELS:
        return list(records)
    if of == DIAGNOSIS:
        return with_diagnoses_as_labels(records)
    return with_diagnoses_as_labels([replace(record, diagnosis=record.malignancy) for record in records])


def say_left_out(question: Question, split: str, before: Sequence[Record], after: Sequence[Record]) -> None:
    """Count in the log which records say nothing of what is classified."""
    count = len(before) - len(after)
    if count:
        what = "which one of the classes they show" if not question.multilabel else "anything of the classes"
        log.warning("split %s: %s left out, which do not state %s", split, counted(count, "photograph"), what)
