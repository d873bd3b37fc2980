"""Any data set without code: a folder with ``captions.csv``, named after its folder.

Columns ``image`` (path below the folder) and ``caption``; optional ``group`` (patient or lesion), ``split`` (``train``,
``val`` or ``test``), ``mask`` (path below the folder), ``diagnosis`` and ``fitzpatrick``; ``data.columns`` gives other
headers. Several rows of one image give it several reference captions. Every other column is kept in the manifest's
``fields``. ``captions.xlsx`` and tab-separated files are read alike.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from clip_xai.data.captions import CaptionFacts
from clip_xai.data.groups import SAME_PHOTOGRAPH
from clip_xai.data.record import NO_PATIENT, SourceTable
from clip_xai.data.sources.common import SourceReader, skin_types_of, stated_fields
from clip_xai.data.sources.own_files import NotFoundError, OwnFiles
from clip_xai.data.sources.photograph_files import PhotographIndex, find_tables
from clip_xai.data.sources.tables import OWN, Table, known, read_table, whole
from clip_xai.data.vocabulary import Vocabulary, load_vocabulary
from clip_xai.errors import UserError
from clip_xai.text import counted, printable

FILE = "captions.csv"

#: What a column can say.
ROLES = ("image", "caption", "group", "split", "mask", "diagnosis", "fitzpatrick")

_SPLITS = {"train": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}
_PATIENTS = ("patient", "patient_id", "lesion", "lesion_id", "case", "case_id", "subject", "subject_id", "person")


@dataclass
class _Photograph:
    """What all rows of one photograph say."""

    path: Path
    number: int
    row: dict[str, str]
    texts: list[str] = field(default_factory=list)


def read_all(
    root: Path, taken: tuple[str, ...], columns: Mapping[str, str] | None = None, vocabulary: Vocabulary | None = None
) -> list[SourceTable]:
    """Read every table of captions below `root`.

    Args:
        root: Folder that the user named.
        taken: Names that other sources have.
        columns: What a column says -> its header, where that is another than its own name.
        vocabulary: The vocabulary that its diagnoses are of; that of skin if None.

    Raises:
        UserError: A table lacks a column or cannot be read, or two sources would have one name.
    """
    tables: list[SourceTable] = []
    for path in find_tables(root, r"captions\.(xls|ods|numbers)", other_formats=False):
        raise UserError(f"{path}: this format is not read; save it as captions.xlsx or {FILE}.")
    for path in find_tables(root, r"captions\.(csv|tsv|tab|txt|xlsx)", other_formats=False):
        name = printable(path.parent.name)
        if any(path.parent == other for other in (table.path.parent for table in tables if table.path)):
            raise UserError(f"{path}: a second table of captions in one folder; keep one.")
        if name in taken or name in {table.source for table in tables}:
            raise UserError(f"{path}: its folder has the name of another source, {name}; rename the folder.")
        tables.append(_read(path, name, columns or {}, vocabulary or load_vocabulary()))
    return tables


def _read(path: Path, name: str, named: Mapping[str, str], vocabulary: Vocabulary) -> SourceTable:
    table = read_table(path, header=named.get("image", "image"), advice=OWN)
    columns = _columns(table, named)
    reader = SourceReader(name, PhotographIndex(path.parent), path=path, vocabulary=vocabulary)
    reader.count_rows(table)
    files = OwnFiles(path.parent)
    photographs: dict[Path, _Photograph] = {}
    for number, row in zip(table.numbers, table.rows, strict=True):
        said = {role: _said(role, row[column]) for role, column in columns.items()}
        _collect(reader, files, photographs, number, said, {**row, **said})
    for photograph in photographs.values():
        _add(reader, files, photograph, columns)
    _note(reader, table, columns, files)
    return reader.table()


def _columns(table: Table, named: Mapping[str, str]) -> dict[str, str]:
    """Return what the columns of a table say: role -> header."""
    found = {}
    for role in ROLES:
        column = table.named_like(*([named[role]] if role in named else []), role)
        if column is None:
            continue
        alike = table.all_like(column)
        if len(alike) > 1 and named.get(role) not in alike:
            raise UserError(
                f"{table.path}: each of the columns {', '.join(alike)} may be the {role}: name one, as in "
                f"data.columns={{{role}: {alike[0]}}}, or rename the others"
            )
        found[role] = named[role] if named.get(role) in alike else column
    absent = [named.get(role, role) for role in ROLES if role not in found and (role in named or role in ROLES[:2])]
    if absent:
        example = ", ".join(f"{role}: ..." for role in ("image", "caption") if role not in found) or "group: ..."
        raise UserError(
            f"{table.path}: column {', '.join(absent)} is missing (found: {', '.join(table.columns) or 'none'}). "
            f"Name yours: data.columns={{{example}}}"
        )
    return found


def _said(role: str, cell: str) -> str:
    """Return what a cell says; a number is one whether a spreadsheet has written 7 or 7.0."""
    return known(whole(cell) if role in ("image", "group", "mask") else cell)


def _collect(
    reader: SourceReader,
    files: OwnFiles,
    photographs: dict[Path, _Photograph],
    number: int,
    said: dict[str, str],
    row: dict[str, str],
) -> None:
    """Put a row to its photograph, or leave it out and say why."""
    image = said["image"]
    where = f"row {number}: "
    if not image or not said["caption"]:
        reader.reject(image or f"row {number}", f"{where}image or caption is empty")
        return
    try:
        path = files.find(image)
    except NotFoundError as error:
        reader.reject(image, f"{where}{error}", kind="missing" if error.missing else "row")
        return
    photograph = photographs.get(path)
    if photograph is None:
        photographs[path] = _Photograph(path, number, row, [said["caption"]])
        return
    for role in ("group", "split", "mask", "diagnosis", "fitzpatrick"):
        if said.get(role) and photograph.row.get(role) and said[role] != photograph.row[role]:
            reader.reject(image, f"{where}its {role} is {said[role]!r}, in row {photograph.number} it is another")
            return
        photograph.row[role] = photograph.row.get(role) or said.get(role, "")
    photograph.texts.append(said["caption"])
    reader.rows -= 1


def _add(reader: SourceReader, files: OwnFiles, photograph: _Photograph, columns: Mapping[str, str]) -> None:
    row, name = photograph.row, photograph.path.relative_to(files.folder).as_posix()
    split = row.get("split", "").casefold()
    if split and split not in _SPLITS:
        reader.reject(name, f"row {photograph.number}: split {row['split']!r} is none of train, val, test")
        return
    texts = tuple(dict.fromkeys(photograph.texts))
    diagnosis = reader.diagnose(row.get("diagnosis", ""))
    skin_types = skin_types_of(row.get("fitzpatrick", ""))
    group = row.get("group", "")
    facts = CaptionFacts(name=name, view="photograph", diagnosis=diagnosis, skin_types=skin_types, own_text=texts)
    reader.add(
        photograph.path,
        facts,
        keys=(_key(reader.source, group or name),),
        diagnosis=diagnosis,
        fields=stated_fields(row, leave_out=_told_elsewhere(columns)),
        mask=_mask(reader, files, name, row.get("mask", "")),
        official_split=_SPLITS.get(split),
        flags=() if group else (NO_PATIENT,),
    )
    reader.records[-1].name = printable(name)


def _key(source: str, group: str) -> str:
    """Name what belongs together. A folder called ``photo`` must not say that all of a patient's are one photograph."""
    key = f"{source}:{printable(group)}"
    return f"{FILE} {key}" if key.startswith(SAME_PHOTOGRAPH) else key


def _told_elsewhere(columns: Mapping[str, str]) -> set[str]:
    """Return the columns that a record tells of by fields of its own."""
    roles = {"image", "caption", "group", "split", "mask"}
    return roles | {column for role, column in columns.items() if role in roles or column != role}


def _mask(reader: SourceReader, files: OwnFiles, name: str, stated: str) -> Path | None:
    if not stated:
        return None
    try:
        return files.find(stated)
    except NotFoundError as error:
        reader.reject(name, f"its mask {stated} is not used: {error}", kind="mask")
        return None


def _note(reader: SourceReader, table: Table, columns: Mapping[str, str], files: OwnFiles) -> None:
    if files.moved:
        reader.note(f"{files.moved} absolute paths of another machine were looked up below the table's folder")
    alone = sum(NO_PATIENT in record.flags for record in reader.records)
    if "group" not in columns:
        likely = table.named_like(*_PATIENTS)
        hint = f" (if {likely} tells the patients: data.columns={{group: {likely}}})" if likely else ""
        reader.note(f"no patient column: splits are by photograph{hint}")
    elif alone:
        reader.note(f"{counted(alone, 'photograph')} without a group: each counts as a patient of its own")
