"""What all adapters share: finding a publisher's table and photographs, reading cells, reporting what is left out."""

from __future__ import annotations

import csv
import math
import os
import re
import zipfile
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import openpyxl
from openpyxl.utils.exceptions import InvalidFileException

from clip_xai.data.record import Problem, Record, SourceTable
from clip_xai.data.vocabulary import DIAGNOSES, canonical_diagnosis
from clip_xai.errors import UserError

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp")

#: Folders that tools leave behind.
LEFT_OVERS = re.compile(r"\..*|__macosx", re.IGNORECASE)

#: Folders whose pictures are no photographs of a data set.
NO_PHOTOGRAPHS = re.compile(r"\..*|__macosx|not_include|masks|structures|.*segmentations?.*", re.IGNORECASE)

#: How far below `data.root` a publisher's table may lie.
TABLE_DEPTH = 3


@dataclass(frozen=True)
class Table:
    """A publisher's table with every cell as clean text; an empty string is a missing value.

    Attributes:
        path: The file.
        columns: Header, surrounding space removed.
        rows: One dictionary for each row.
        broken: Line numbers whose number of cells does not match the header, with what is wrong.
    """

    path: Path
    columns: tuple[str, ...]
    rows: tuple[dict[str, str], ...]
    broken: tuple[tuple[int, str], ...] = ()

    def require(self, *names: str) -> None:
        """Refuse a table that lacks one of these columns, and say which columns it has.

        Raises:
            UserError: A column is missing.
        """
        missing = [name for name in names if name not in self.columns]
        if missing:
            found = ", ".join(self.columns) or "none"
            raise UserError(
                f"{self.path}: column {', '.join(missing)} is missing (found: {found}). "
                "Use the file as its publisher ships it."
            )

    def first_column(self, *names: str) -> str:
        """Return the first of these columns that the table has.

        Raises:
            UserError: It has none of them.
        """
        for name in names:
            if name in self.columns:
                return name
        self.require(names[0])
        raise AssertionError("unreachable")


def walk(
    root: Path, depth: int | None = None, leave_out: re.Pattern[str] = NO_PHOTOGRAPHS
) -> Iterator[tuple[Path, list[str], list[str]]]:
    """Walk like `os.walk` in a fixed order: links followed, each real folder once, hidden and lock files left out.

    Args:
        root: Where to start.
        depth: How many folders below the root to go; None for all.
        leave_out: Names of folders that are not entered.
    """
    seen = set()
    for parent, folders, names in os.walk(root, followlinks=True):
        here = os.path.realpath(parent)
        if here in seen:
            folders.clear()
            continue
        seen.add(here)
        level = len(Path(parent).relative_to(root).parts)
        folders[:] = sorted(name for name in folders if not leave_out.fullmatch(name))
        if depth is not None and level >= depth:
            folders.clear()
        yield Path(parent), folders, sorted(name for name in names if not name.startswith((".", "~$")))


def find_table(root: Path, pattern: str, columns: Iterable[str] = ()) -> Path | None:
    """Find a publisher's table by its file name, up to three folders below the root.

    Args:
        root: Folder that the user named.
        pattern: Regular expression for the whole file name; case is ignored.
        columns: When given, files that lack one of these columns are somebody else's and passed over. For names that
            several publishers use, such as ``metadata.csv``.

    Returns:
        The file nearest to the root, or None.

    Raises:
        UserError: Two tables fit; which one is meant cannot be known.
    """
    wanted = re.compile(pattern, re.IGNORECASE)
    found = [
        folder / name
        for folder, _, names in walk(root, depth=TABLE_DEPTH)
        for name in names
        if wanted.fullmatch(name) and set(columns) <= set(_header(folder / name) if columns else ())
    ]
    if len(found) > 1:
        listed = ", ".join(str(path.relative_to(root)) for path in sorted(found))
        raise UserError(f"{root} holds the same table more than once ({listed}); keep one.")
    return found[0] if found else None


def read_table(path: Path) -> Table:
    """Read a CSV, tab-separated or Excel table as text.

    Raises:
        UserError: The file cannot be read as a table.
    """
    try:
        lines = list(_xlsx_lines(path) if path.suffix.lower() == ".xlsx" else _csv_lines(path))
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not UTF-8 text ({error.reason}); download it again or save it as UTF-8.") from error
    except (csv.Error, zipfile.BadZipFile, InvalidFileException, KeyError, ValueError, OSError) as error:
        raise UserError(f"{path}: cannot be read as a table ({error}); download it again.") from error
    if not lines:
        raise UserError(f"{path}: the table is empty; download it again.")
    columns = tuple(lines[0])
    repeated = [name for name, count in Counter(columns).items() if name and count > 1]
    if repeated:
        raise UserError(f"{path}: column {', '.join(repeated)} stands there twice; download it again.")
    rows, broken = [], []
    for number, cells in enumerate(lines[1:], start=2):
        if not any(cells):
            continue
        if len(cells) != len(columns):
            broken.append((number, f"{len(cells)} cells under {len(columns)} columns"))
            continue
        rows.append(dict(zip(columns, cells, strict=True)))
    return Table(path=path, columns=columns, rows=tuple(rows), broken=tuple(broken))


def number(text: str) -> float | None:
    """Return the finite number in a cell, or None."""
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def whole(text: str) -> str:
    """Return a number without the ``.0`` that spreadsheets append; other text unchanged."""
    value = number(text)
    return str(int(value)) if value is not None and value == int(value) else text


def known(text: str) -> str:
    """Return the cell's text, or an empty string for the publishers' ways of saying 'not known'."""
    return "" if text.casefold() in {"unknown", "unk", "nan", "none", "n/a", "na", "null"} else text


class PhotographIndex:
    """Photographs below a folder by file name. Only files that were found there are ever returned.

    A name from a table is looked up, never joined to a path, so no row can point outside of the folder.
    """

    def __init__(self, folder: Path) -> None:
        """Index a folder and everything below it, tools' left-overs and mask folders excepted."""
        self._by_name: dict[str, Path] = {}
        self._by_stem: dict[str, Path] = {}
        for parent, _, names in walk(folder):
            for name in names:
                stem, suffix = os.path.splitext(name.lower())
                if suffix in IMAGE_SUFFIXES:
                    self._by_name.setdefault(name.lower(), parent / name)
                    self._by_stem.setdefault(stem, parent / name)

    def find(self, name: str) -> Path | None:
        """Find a photograph by file name: exactly but for case, with another extension, or renamed to ``_cropped``."""
        lowered = name.lower()
        stem, suffix = os.path.splitext(lowered)
        stem = stem if suffix in IMAGE_SUFFIXES else lowered
        return self._by_name.get(lowered) or self._by_stem.get(stem) or self._by_stem.get(f"{stem}_cropped")


@dataclass
class SourceReader:
    """Collects the records and problems of one source, row by row.

    Attributes:
        source: Name of the data set.
        photographs: Where its photographs are looked up.
    """

    source: str
    photographs: PhotographIndex
    records: list[Record] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    unmapped: Counter[str] = field(default_factory=Counter)
    rows: int = 0
    _taken: dict[Path, str] = field(default_factory=dict)

    def count_rows(self, table: Table) -> None:
        """Count a table's rows and report those that do not fit its header."""
        self.rows += len(table.rows) + len(table.broken)
        for line, reason in table.broken:
            self.reject(f"{table.path.name} line {line}", reason)

    def reject(self, file: str, reason: str, kind: str = "row") -> None:
        """Leave a row out and say why."""
        self.problems.append(Problem(self.source, file, kind, reason))

    def photograph(self, name: str) -> Path | None:
        """Find the photograph of a row; report and return None where it is missing or already belongs to a row."""
        if not name or "/" in name or "\\" in name or "\0" in name:
            self.reject(repr(name), "the table names no plain file name here")
            return None
        path = self.photographs.find(name)
        if path is None:
            self.reject(name, "listed in the table, not on disk", kind="missing")
        elif path in self._taken:
            self.reject(name, f"its photograph is already used by the row of {self._taken[path]}")
            return None
        else:
            self._taken[path] = name
        return path

    def diagnose(self, label: str) -> str | None:
        """Return the canonical name of a publisher's label; labels that have none are counted, not guessed."""
        name = canonical_diagnosis(label) if label else None
        if label and name is None:
            self.unmapped[label] += 1
        return name

    def table(self) -> SourceTable:
        """Return everything that was read."""
        unmapped = dict(sorted(self.unmapped.items()))
        return SourceTable(self.source, self.records, self.problems, self.rows, unmapped)


def malignancy_of(diagnosis: str | None) -> str | None:
    """Return the ontology's ``benign``, ``malignant`` or ``inflammatory`` for a canonical diagnosis."""
    return DIAGNOSES[diagnosis].malignancy if diagnosis else None


def stated_fields(row: dict[str, str], leave_out: Iterable[str] = ()) -> dict[str, object]:
    """Return the publisher's fields of a row that say something."""
    dropped = set(leave_out)
    return {name: text for name, text in row.items() if name and known(text) and name not in dropped}


def _header(path: Path) -> tuple[str, ...]:
    try:
        return tuple(next(_csv_lines(path), ()))
    except (UnicodeDecodeError, csv.Error, OSError):
        return ()


def _csv_lines(path: Path) -> Iterator[list[str]]:
    delimiter = "\t" if path.suffix.lower() == ".tab" else ","
    # SkinCAP begins with a byte-order mark; utf-8-sig reads files without one just the same.
    with path.open(encoding="utf-8-sig", newline="") as file:
        for cells in csv.reader(file, delimiter=delimiter):
            yield [_clean(cell) for cell in cells]


def _xlsx_lines(path: Path) -> Iterator[list[str]]:
    book = openpyxl.load_workbook(path, read_only=True, data_only=True)
    try:
        width = 0
        for cells in book.worksheets[0].iter_rows(values_only=True):
            texts = [_clean("" if cell is None else str(cell)) for cell in cells]
            # Spreadsheets drop empty cells at the end of a row, which a CSV does not.
            width = width or len(texts)
            yield texts + [""] * (width - len(texts))
    finally:
        book.close()


def _clean(text: str) -> str:
    return re.sub(r"\s+", " ", text.replace("\u00a0", " ")).strip()
