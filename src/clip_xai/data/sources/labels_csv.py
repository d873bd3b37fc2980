"""Labels of any data set without code: a folder with ``labels.csv``, named after its folder.

Column ``image`` (path below the folder), and either a column ``label`` that names one label or several (``mass;edema``
or ``mass|edema``; what a row does not name is absent), or one column for each label with 1 (present), 0 (absent), -1
(uncertain) or nothing (not stated). Optional: ``group`` or ``patient``, ``split``, ``mask``, ``diagnosis``; every other
column is kept in the manifest's ``fields``. Beside a ``captions.csv`` the labels join its photographs.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from clip_xai.data.record import NO_PATIENT, Record, SourceTable
from clip_xai.data.sources.common import SourceReader, stated_fields
from clip_xai.data.sources.own_files import NotFoundError, OwnFiles
from clip_xai.data.sources.own_tables import (
    PATIENTS,
    SPLIT_NAMES,
    columns_of,
    key_of,
    mask_of,
    note_patients,
    own_tables,
    said_in,
)
from clip_xai.data.sources.photograph_files import PhotographIndex
from clip_xai.data.sources.tables import OWN, Table, known, number, read_table
from clip_xai.errors import UserError
from clip_xai.text import counted, printable

FILE = "labels.csv"
ROLES = ("image", "label", "group", "split", "mask", "diagnosis")

_STATED = {1.0: True, 0.0: False, -1.0: None}
_WORDS = {"true": 1.0, "yes": 1.0, "false": 0.0, "no": 0.0}

#: A column of which at least this share of the cells are labels is one of labels; its other cells are mistakes.
_MOSTLY = 0.8

Labels = dict[str, bool | None]


@dataclass
class _Photograph:
    """What all rows of one photograph say."""

    path: Path
    number: int
    row: dict[str, str]
    labels: Labels = field(default_factory=dict)


def read_all(
    root: Path, taken: Collection[str], columns: Mapping[str, str], captioned: Collection[SourceTable]
) -> list[SourceTable]:
    """Read every table of labels below `root`.

    Args:
        root: Folder that the user named.
        taken: Names that other sources have.
        columns: What a column says -> its header, where that is another than its own name.
        captioned: Tables of captions; one in the same folder takes the labels over, in place.

    Raises:
        UserError: A table lacks a column or cannot be read, or two sources would have one name.
    """
    beside = {table.path.parent: table for table in captioned if table.path}
    named = {role: header for role, header in columns.items() if role in ROLES}
    tables = []
    for path, name in own_tables(root, "labels", taken):
        table = _read(path, name, named if path.parent not in beside else {})
        if path.parent in beside:
            _join(beside[path.parent], table)
        else:
            tables.append(table)
    names = [*(table.source for table in captioned), *(table.source for table in tables)]
    twice = next((table for table in tables if names.count(table.source) > 1), None)
    if twice is not None:
        raise UserError(f"{twice.path}: its folder has the name of another source, {twice.source}; rename the folder.")
    return tables


def _read(path: Path, name: str, named: Mapping[str, str]) -> SourceTable:
    table = read_table(path, header=named.get("image", "image"), advice=OWN)
    columns = columns_of(table, named, ROLES, required=1)
    patients = table.named_like(*PATIENTS)
    if "group" not in columns and patients:
        columns["group"] = patients
    reader = SourceReader(name, PhotographIndex.empty(), path=path)
    reader.count_rows(table)
    labels = _label_columns(table, columns)
    files = OwnFiles(path.parent)
    photographs: dict[Path, _Photograph] = {}
    for line, row in zip(table.numbers, table.rows, strict=True):
        said = {role: said_in(role, row[column]) for role, column in columns.items()}
        stated = _stated(reader, line, said, row, labels)
        if stated is not None:
            _collect(reader, files, photographs, line, said, {**row, **said}, stated)
    every = dict.fromkeys(label for photograph in photographs.values() for label in photograph.labels)
    for photograph in photographs.values():
        if not labels:  # of one column, what a row does not name is absent
            photograph.labels = {label: photograph.labels.get(label, False) for label in sorted(every)}
        _add(reader, files, photograph, columns, labels)
    note_patients(reader, table, columns, files)
    reader.note(f"labels: {', '.join(sorted(every)) or 'none'}")
    return reader.table()


def _label_columns(table: Table, columns: dict[str, str]) -> list[str]:
    """Return the columns that are labels of 1, 0, -1 and nothing; none where one column names labels.

    Raises:
        UserError: Nothing in the table is a label.
    """
    by_name = columns.get("label")
    if by_name is not None:
        if not _is_label(table, by_name):
            return []
        del columns["label"]
    told = set(columns.values())
    found = [name for name in table.columns if name and name not in told and _is_label(table, name)]
    if not found:
        raise UserError(
            f"{table.path}: neither a column label nor a column of 1, 0, -1 and blank cells "
            f"(found: {', '.join(table.columns)}); add one, or name yours: data.columns={{label: ...}}. "
            "A table of captions is called captions.csv."
        )
    return found


def _is_label(table: Table, column: str) -> bool:
    cells = [row[column] for row in table.rows if known(row[column])]
    return bool(cells) and sum(_value(cell) in _STATED for cell in cells) >= _MOSTLY * len(cells)


def _value(cell: str) -> float | None:
    return _WORDS.get(cell.casefold(), number(cell))


def _stated(
    reader: SourceReader, line: int, said: dict[str, str], row: dict[str, str], columns: list[str]
) -> Labels | None:
    """Return what a row states of labels, or None where it is left out."""
    name = said["image"] or f"row {line}"
    if not columns:
        names = [label for label in (known(part.strip()) for part in re.split(r"[|;]", said["label"])) if label]
        if not names:
            reader.reject(name, f"row {line}: label is empty; name what it shows, such as normal", kind="label")
            return None
        return dict.fromkeys(map(printable, names), True)
    stated: Labels = {}
    for column in columns:
        cell = known(row[column])
        value = _value(cell) if cell else None
        if cell and value not in _STATED:
            reason = f"row {line}: label {column} is {cell!r}, not 1, 0, -1 or blank"
            reader.reject(name, reason, kind="label")
            return None
        if value is not None:
            stated[column] = _STATED[value]
    return stated


def _collect(
    reader: SourceReader,
    files: OwnFiles,
    photographs: dict[Path, _Photograph],
    line: int,
    said: dict[str, str],
    row: dict[str, str],
    stated: Labels,
) -> None:
    """Put a row to its photograph, or leave it out and say why."""
    image, where = said["image"], f"row {line}: "
    if not image:
        reader.reject(f"row {line}", f"{where}image is empty")
        return
    try:
        path = files.find(image)
    except NotFoundError as error:
        reader.reject(image, f"{where}{error}", kind="missing" if error.missing else "row")
        return
    photograph = photographs.setdefault(path, _Photograph(path, line, row, stated))
    if photograph.number == line:
        return
    for role in ("group", "split", "mask", "diagnosis"):
        if said.get(role) and photograph.row.get(role) and said[role] != photograph.row[role]:
            reader.reject(image, f"{where}its {role} is {said[role]!r}, in row {photograph.number} it is another")
            return
    opposite = [name for name, value in stated.items() if photograph.labels.get(name, value) is not value]
    if opposite:
        reason = f"{where}its label {opposite[0]} is another than in row {photograph.number}"
        reader.reject(image, reason, kind="label")
        return
    for role in ("group", "split", "mask", "diagnosis"):
        photograph.row[role] = photograph.row.get(role) or said.get(role, "")
    photograph.labels = {**photograph.labels, **stated}
    reader.rows -= 1


def _add(
    reader: SourceReader, files: OwnFiles, photograph: _Photograph, columns: Mapping[str, str], labels: Collection[str]
) -> None:
    row, name = photograph.row, photograph.path.relative_to(files.folder).as_posix()
    split, group = row.get("split", "").casefold(), row.get("group", "")
    if split and split not in SPLIT_NAMES:
        reader.reject(name, f"row {photograph.number}: split {row['split']!r} is none of train, val, test")
        return
    told = {*ROLES, *columns.values(), *labels}
    record = reader.add(
        photograph.path,
        None,
        keys=(key_of(reader.source, group or name),),
        diagnosis=reader.diagnose(row.get("diagnosis", "")),
        fields=stated_fields(row, leave_out=told),
        view="photograph",
        mask=mask_of(reader, files, name, row.get("mask", "")),
        official_split=SPLIT_NAMES.get(split),
        flags=() if group else (NO_PATIENT,),
        labels=photograph.labels,
    )
    record.name = printable(name)


def _join(captions: SourceTable, labels: SourceTable) -> None:
    """Give the photographs of a table of captions the labels of the table beside it; the others follow them."""
    by_image: dict[Path, Record] = {record.image: record for record in captions.records}
    others = []
    for record in labels.records:
        known_as = by_image.get(record.image)
        if known_as is None:
            others.append(record)
            continue
        known_as.labels = record.labels
        known_as.fields = {**record.fields, **known_as.fields}
        known_as.mask = known_as.mask or record.mask
        known_as.keys = tuple(dict.fromkeys((*known_as.keys, *record.keys)))
    captions.records += others
    captions.problems += labels.problems
    captions.rows += len(others) + len(labels.problems)
    captions.notes += [note for note in labels.notes if note not in captions.notes]
    if others:
        captions.notes.append(f"{counted(len(others), 'photograph')} of {FILE} without a caption")
