"""Labels of records as names and numbers: present, absent, uncertain, not stated."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from clip_xai.data.record import Record


def label_names(records: Iterable[Record]) -> tuple[str, ...]:
    """Return the labels that any of the records states anything of, in the order in which they first appear."""
    return tuple(dict.fromkeys(name for record in records for name in record.labels))


def label_matrix(records: Sequence[Record], names: Sequence[str]) -> NDArray[np.float32]:
    """Return the labels as numbers.

    Args:
        records: The rows.
        names: The labels, one for each column.

    Returns:
        Float32 ``[records, names]``: 1 present, 0 absent, NaN uncertain or not stated.
    """
    values = np.full((len(records), len(names)), np.nan, dtype=np.float32)
    for row, record in enumerate(records):
        for column, name in enumerate(names):
            stated = record.labels.get(name)
            if stated is not None:
                values[row, column] = stated
    return values


def with_diagnoses_as_labels(records: Sequence[Record]) -> list[Record]:
    """Return copies of the records whose diagnosis is their one label that is present; all others are absent.

    Records without a diagnosis get no label. Labels that a record states itself are replaced.
    """
    names = sorted({record.diagnosis for record in records if record.diagnosis})
    return [
        replace(record, labels={name: name == record.diagnosis for name in names} if record.diagnosis else {})
        for record in records
    ]
