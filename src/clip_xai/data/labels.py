"""Labels of records as names and numbers: present, absent, uncertain, not stated."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from clip_xai.data.record import Record

#: What labels that are neither present nor absent may become.
POLICIES = {"masked": float("nan"), "ones": 1.0, "zeros": 0.0}


def label_names(records: Iterable[Record]) -> tuple[str, ...]:
    """Return the labels that any of the records states anything of, in the order in which they first appear."""
    return tuple(dict.fromkeys(name for record in records for name in record.labels))


def label_matrix(
    records: Sequence[Record], names: Sequence[str], uncertain: str = "masked", not_stated: str = "masked"
) -> NDArray[np.float32]:
    """Return the labels as numbers.

    Args:
        records: The rows.
        names: The labels, one for each column.
        uncertain: What a label that is uncertain becomes, of `POLICIES`: ``masked`` (NaN), ``ones`` or ``zeros``.
        not_stated: What a label that a row says nothing of becomes, of `POLICIES`.

    Returns:
        Float32 ``[records, names]``: 1 present, 0 absent, NaN masked.

    Raises:
        ValueError: There is no such policy.
    """
    for policy in (uncertain, not_stated):
        if policy not in POLICIES:
            raise ValueError(f"{policy!r} is not a policy; choose one of {', '.join(POLICIES)}")
    numbers = {True: 1.0, False: 0.0, None: POLICIES[uncertain]}
    values = np.full((len(records), len(names)), POLICIES[not_stated], dtype=np.float32)
    columns = {name: column for column, name in enumerate(names)}
    for row, record in enumerate(records):
        for name, said in record.labels.items():
            if name in columns:
                values[row, columns[name]] = numbers[said]
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
