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
from clip_xai.data.record import NO_PATIENT, SourceTable
from clip_xai.data.sources.common import SourceReader, skin_types_of, stated_fields
from clip_xai.data.sources.own_files import NotFoundError, OwnFiles
from clip_xai.data.sources.own_tables import (
    SPLIT_NAMES,
    columns_of,
    key_of,
    mask_of,
    note_patients,
    own_tables,
    said_in,
)
from clip_xai.data.sources.photograph_files import PhotographIndex
from clip_xai.data.sources.tables import OWN, read_table
from clip_xai.data.vocabulary import Vocabulary, load_vocabulary
from clip_xai.text import printable

FILE = "captions.csv"

#: What a column can say.
ROLES = ("image", "caption", "group", "split", "mask", "diagnosis", "fitzpatrick")


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
    named = {role: header for role, header in (columns or {}).items() if role in ROLES}
    words = vocabulary or load_vocabulary()
    return [_read(path, name, named, words) for path, name in own_tables(root, "captions", taken)]


def _read(path: Path, name: str, named: Mapping[str, str], vocabulary: Vocabulary) -> SourceTable:
    table = read_table(path, header=named.get("image", "image"), advice=OWN)
    columns = columns_of(table, named, ROLES, required=2)
    reader = SourceReader(name, PhotographIndex(path.parent), path=path, vocabulary=vocabulary)
    reader.count_rows(table)
    files = OwnFiles(path.parent)
    photographs: dict[Path, _Photograph] = {}
    for number, row in zip(table.numbers, table.rows, strict=True):
        said = {role: said_in(role, row[column]) for role, column in columns.items()}
        _collect(reader, files, photographs, number, said, {**row, **said})
    for photograph in photographs.values():
        _add(reader, files, photograph, columns)
    note_patients(reader, table, columns, files)
    return reader.table()


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
    if split and split not in SPLIT_NAMES:
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
        keys=(key_of(reader.source, group or name),),
        diagnosis=diagnosis,
        fields=stated_fields(row, leave_out=_told_elsewhere(columns)),
        mask=mask_of(reader, files, name, row.get("mask", "")),
        official_split=SPLIT_NAMES.get(split),
        flags=() if group else (NO_PATIENT,),
    )
    reader.records[-1].name = printable(name)


def _told_elsewhere(columns: Mapping[str, str]) -> set[str]:
    """Return the columns that a record tells of by fields of its own."""
    roles = {"image", "caption", "group", "split", "mask"}
    return roles | {column for role, column in columns.items() if role in roles or column != role}
