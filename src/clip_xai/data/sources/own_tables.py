"""What a person's own tables have in common: found by name, columns by what they say, patients, splits and masks."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from clip_xai.data.groups import SAME_PHOTOGRAPH
from clip_xai.data.record import NO_PATIENT
from clip_xai.data.sources.common import SourceReader
from clip_xai.data.sources.own_files import NotFoundError, OwnFiles
from clip_xai.data.sources.photograph_files import find_tables
from clip_xai.data.sources.tables import Table, known, whole
from clip_xai.errors import UserError
from clip_xai.text import counted, printable

SPLIT_NAMES = {"train": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}

#: What columns that tell patients are called.
PATIENTS = ("patient", "patient_id", "lesion", "lesion_id", "case", "case_id", "subject", "subject_id", "person")


def own_tables(root: Path, stem: str, taken: Collection[str]) -> list[tuple[Path, str]]:
    """Find a person's own tables below `root`, each with the name of its source: that of its folder.

    Args:
        root: Folder that the user named.
        stem: What the tables are called, without an ending.
        taken: Names that other sources have.

    Raises:
        UserError: One has a format that is not read, or two sources would have one name.
    """
    for path in find_tables(root, rf"{stem}\.(xls|ods|numbers)", other_formats=False):
        raise UserError(f"{path}: this format is not read; save it as {stem}.xlsx or {stem}.csv.")
    found: list[tuple[Path, str]] = []
    for path in find_tables(root, rf"{stem}\.(csv|tsv|tab|txt|xlsx)", other_formats=False):
        name = printable(path.parent.name)
        if path.parent in {other.parent for other, _ in found}:
            raise UserError(f"{path}: a second table of {stem} in one folder; keep one.")
        if name in taken or name in {other for _, other in found}:
            raise UserError(f"{path}: its folder has the name of another source, {name}; rename the folder.")
        found.append((path, name))
    return found


def columns_of(table: Table, named: Mapping[str, str], roles: Sequence[str], required: int) -> dict[str, str]:
    """Return what the columns of a table say: role -> header.

    Args:
        table: The table.
        named: Role -> header, where the person gave it.
        roles: What columns can say.
        required: How many of the first roles must be there.

    Raises:
        UserError: One of them is missing, or which column is meant is open.
    """
    found = {}
    for role in roles:
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
    absent = [
        named.get(role, role) for role in roles if role not in found and (role in named or role in roles[:required])
    ]
    if absent:
        example = ", ".join(f"{role}: ..." for role in roles[:required] if role not in found) or "group: ..."
        raise UserError(
            f"{table.path}: column {', '.join(absent)} is missing (found: {', '.join(table.columns) or 'none'}). "
            f"Name yours: data.columns={{{example}}}"
        )
    return found


def said_in(role: str, cell: str) -> str:
    """Return what a cell says; a number is one whether a spreadsheet has written 7 or 7.0."""
    return known(whole(cell) if role in ("image", "group", "mask", "label") else cell)


def key_of(source: str, group: str) -> str:
    """Name what belongs together. A folder called ``photo`` must not say that all of a patient's are one photograph."""
    key = f"{source}:{printable(group)}"
    return f"captions.csv {key}" if key.startswith(SAME_PHOTOGRAPH) else key


def mask_of(reader: SourceReader, files: OwnFiles, name: str, stated: str) -> Path | None:
    """Find the mask that a row names; report one that is not there."""
    if not stated:
        return None
    try:
        return files.find(stated)
    except NotFoundError as error:
        reader.reject(name, f"its mask {stated} is not used: {error}", kind="mask")
        return None


def note_patients(reader: SourceReader, table: Table, columns: Mapping[str, str], files: OwnFiles) -> None:
    """Say whose photographs the table does not tell apart, and where absolute paths were found."""
    if files.moved:
        reader.note(f"{files.moved} absolute paths of another machine were looked up below the table's folder")
    alone = sum(NO_PATIENT in record.flags for record in reader.records)
    if "group" not in columns:
        likely = table.named_like(*PATIENTS)
        hint = f" (if {likely} tells the patients: data.columns={{group: {likely}}})" if likely else ""
        reader.note(f"no patient column: splits are by photograph{hint}")
    elif alone:
        reader.note(f"{counted(alone, 'photograph')} without a group: each counts as a patient of its own")
