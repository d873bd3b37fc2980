"""Publishers' tables as clean text: CSV, tab-separated and Excel, read the same way and refused in words."""

from __future__ import annotations

import csv
import math
import re
import zipfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import openpyxl
from openpyxl.utils.exceptions import InvalidFileException

from clip_xai.errors import UserError

#: A spreadsheet is an archive; unpacked to more than this it is no table of photographs.
MAX_UNPACKED = 512 * 2**20

#: A header stands in one of the first rows: some publishers write a title above it.
_HEADER_ROWS = 3


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

    def named_like(self, *names: str) -> str | None:
        """Return the first column that has one of these names but for case, spaces and punctuation, or None."""
        plain = {_plain(column): column for column in reversed(self.columns)}
        return next((plain[_plain(name)] for name in names if _plain(name) in plain), None)


def read_table(path: Path, header: str | None = None) -> Table:
    """Read a CSV, tab-separated or Excel table as text.

    Args:
        path: The file.
        header: A column that the header is known by, where a title may stand above it or the sheet is not the first.

    Raises:
        UserError: The file cannot be read as a table.
    """
    try:
        lines = list(_xlsx_lines(path, header) if path.suffix.lower() == ".xlsx" else _csv_lines(path))
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not UTF-8 text ({error.reason}); download it again or save it as UTF-8.") from error
    # openpyxl meets damaged archives with whatever exception its XML layers happen to raise.
    except Exception as error:
        said = " ".join(str(error).split()) or type(error).__name__
        raise UserError(f"{path}: cannot be read as a table ({said}); download it again.") from error
    if not lines:
        raise UserError(f"{path}: the table is empty; download it again.")
    first = _header_row(lines, header)
    columns = tuple(lines[first])
    repeated = [name for name, count in Counter(columns).items() if name and count > 1]
    if repeated:
        raise UserError(f"{path}: column {', '.join(repeated)} stands there twice; download it again.")
    rows, broken = [], []
    for number, cells in enumerate(lines[first + 1 :], start=first + 2):
        if not any(cells):
            continue
        if len(cells) != len(columns):
            broken.append((number, f"{len(cells)} cells under {len(columns)} columns"))
            continue
        rows.append(dict(zip(columns, cells, strict=True)))
    return Table(path=path, columns=columns, rows=tuple(rows), broken=tuple(broken))


def header_of(path: Path) -> tuple[str, ...]:
    """Return the first line of a CSV, or nothing where it cannot be read as one."""
    try:
        return tuple(next(_csv_lines(path), ()))
    except (UnicodeDecodeError, csv.Error, OSError):
        return ()


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
    return str(int(value)) if value is not None and value == int(value) and "." in text else text


def known(text: str) -> str:
    """Return the cell's text, or an empty string for the publishers' ways of saying 'not known'."""
    return "" if text.casefold() in {"unknown", "unk", "nan", "none", "n/a", "na", "null"} else text


def _header_row(lines: list[list[str]], header: str | None) -> int:
    if header is None:
        return 0
    return next((row for row, cells in enumerate(lines[:_HEADER_ROWS]) if _has(cells, header)), 0)


def _has(cells: list[str], header: str) -> bool:
    return _plain(header) in {_plain(cell) for cell in cells}


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "", name.casefold())


def _csv_lines(path: Path) -> Iterator[list[str]]:
    delimiter = "\t" if path.suffix.lower() == ".tab" else ","
    # SkinCAP begins with a byte-order mark; utf-8-sig reads files without one just the same.
    with path.open(encoding="utf-8-sig", newline="") as file:
        for cells in csv.reader(file, delimiter=delimiter):
            yield [_clean(cell) for cell in cells]


def _xlsx_lines(path: Path, header: str | None) -> Iterator[list[str]]:
    with zipfile.ZipFile(path) as archive:
        unpacked = sum(entry.file_size for entry in archive.infolist())
        if unpacked > MAX_UNPACKED:
            raise InvalidFileException(f"it unpacks to {unpacked:,} bytes")
    book = openpyxl.load_workbook(path, read_only=True, data_only=True)
    try:
        sheets = list(book.worksheets)
        if header is not None:
            sheets.sort(key=lambda sheet: not any(_has(cells, header) for cells in _cells(sheet, _HEADER_ROWS)))
        yield from _cells(sheets[0])
    finally:
        book.close()


def _cells(sheet: openpyxl.worksheet.worksheet.Worksheet, rows: int | None = None) -> Iterator[list[str]]:
    width = 0
    for cells in sheet.iter_rows(values_only=True, max_row=rows):
        texts = [_clean("" if cell is None else str(cell)) for cell in cells]
        # Spreadsheets drop empty cells at the end of a row, which a CSV does not.
        width = max(width, len(texts))
        yield texts + [""] * (width - len(texts))


def _clean(text: str) -> str:
    return re.sub(r"\s+", " ", text.replace("\u00a0", " ")).strip()
