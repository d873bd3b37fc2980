"""What else is known of photographs, by which a classifier might tell its classes: fields of records, a table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from clip_xai.data.record import Record
from clip_xai.errors import UserError
from clip_xai.text import counted

RARE = 0.02  # an attribute of fewer photographs, or of all but so few, is not audited
_YES, _NO = {"1", "1.0", "true", "yes"}, {"0", "0.0", "false", "no"}


def known_of(records: Sequence[Record], table: str | None) -> list[dict[str, Any]]:
    """Return what is known of each photograph, by name: the fields of its record, and its row of a table.

    Args:
        records: The photographs.
        table: A ``.csv`` or ``.parquet`` file with a column ``image``: paths below the data root, or file names.

    Raises:
        UserError: The table cannot be read, has no such column, or none of the photographs.
    """
    fields = [dict(record.fields) for record in records]
    if table is None:
        return fields
    rows = _rows(Path(table).expanduser())
    named: dict[str, Record] = {}
    for record, known in zip(records, fields, strict=True):
        key = next((key for key in _keys(record) if key in rows), None)
        if key is None:
            continue
        if key in named:
            raise UserError(
                f"attributes={table}: {key} may be {named[key].identifier} or {record.identifier}; write more of its "
                "path"
            )
        named[key] = record
        known |= rows[key]
    if not named:
        raise UserError(f"attributes={table} names none of {counted(len(records), 'photograph')} in its column image")
    return fields


def attributes_of(known: Sequence[Mapping[str, Any]], name: str) -> dict[str, NDArray[np.float64]]:
    """Return the attributes that a field stands for, each with 1, 0 or NaN (not known) of every photograph.

    A field of yes and no is one attribute; of two values, one; of more values or of lists of them, each value is one,
    against all others.

    Args:
        known: What is known of each photograph.
        name: The field.

    Raises:
        UserError: No photograph has such a field, or all have the same.
    """
    values = [None if _missing(value) else value for value in (known_here.get(name) for known_here in known)]
    if not any(value is not None for value in values):
        there = sorted({field for one in known for field in one})
        raise UserError(f"shortcuts: {name} is not known of any photograph; known are {', '.join(there) or 'none'}")
    sets = [None if value is None else _several(value) for value in values]
    kinds = sorted({kind for one in sets if one is not None for kind in one})
    if kinds and {kind.lower() for kind in kinds} <= _YES | _NO and all(one is None or len(one) == 1 for one in sets):
        columns = {name: _column([None if one is None else {kind.lower() for kind in one} <= _YES for one in sets])}
    else:
        lists = any(one is not None and len(one) != 1 for one in sets)
        chosen = kinds if lists or len(kinds) != 2 else kinds[1:]
        columns = {
            kind if lists else f"{name} {kind}": _column([None if one is None else kind in one for one in sets])
            for kind in chosen
        }
    found = {kind: column for kind, column in columns.items() if RARE <= np.nanmean(column) <= 1 - RARE}
    if not found:
        raise UserError(f"shortcuts: {name} is the same in nearly all photographs, so that it tells nothing apart")
    return found


def _column(values: Sequence[bool | None]) -> NDArray[np.float64]:
    return np.array([np.nan if value is None else float(value) for value in values])


def _several(value: Any) -> set[str]:
    listed = value if isinstance(value, list | tuple | set | np.ndarray) else [value]
    return {str(one) for one in listed}


def _keys(record: Record) -> list[str]:
    parts = record.image.as_posix().split("/")
    return ["/".join(parts[start:]) for start in range(len(parts))] + [record.name]


def _rows(file: Path) -> dict[str, dict[str, Any]]:
    try:
        table = pd.read_parquet(file) if file.suffix == ".parquet" else pd.read_csv(file, dtype=str)
    except (OSError, ValueError, pd.errors.ParserError) as error:
        raise UserError(f"attributes={file} cannot be read as a .csv or .parquet table ({error})") from error
    if "image" not in table.columns:
        raise UserError(f"attributes={file} has no column image; it has {', '.join(map(str, table.columns))}")
    rows: dict[str, dict[str, Any]] = {}
    for row in table.to_dict("records"):
        key = str(row.pop("image"))
        if key in rows:
            raise UserError(f"attributes={file} names {key} twice: keep one row of it")
        rows[key] = {str(name): value for name, value in row.items() if not _missing(value)}
    return rows


def _missing(value: Any) -> bool:
    return value is None or (pd.api.types.is_scalar(value) and bool(pd.isna(value)))
