"""Tables as clean text: CSV with any separator, tab-separated and Excel, read the same way and refused in words."""

from __future__ import annotations

import csv
import math
import re
import unicodedata
from array import array
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import overload

from clip_xai.data.regular import read_regular
from clip_xai.data.shared import OneOfEach
from clip_xai.data.sources.encodings import UnknownEncodingError, decode, lines_of, separator_of
from clip_xai.data.sources.spreadsheets import spreadsheet_rows
from clip_xai.errors import UserError
from clip_xai.text import counted, without_controls

#: Endings of tables that are read alike.
FORMATS = (".csv", ".tsv", ".tab", ".xlsx")

#: What a reader of a publisher's table is told to do, and of a table of her own.
PUBLISHED, OWN = "download it again", "correct it"

#: What files that are not tables begin with.
_STRANGERS = {
    b"\xd0\xcf\x11\xe0": "it is a spreadsheet of Excel's old format: save it as .xlsx or as CSV",
    b"%PDF": "it is a PDF",
    b"version https://git-lfs": "it is a pointer of Git LFS: fetch the file itself",
    b"<!doctype html": "it is a web page",
    b"<html": "it is a web page",
}

#: What stands in a cell of which nothing is known.
_NOT_KNOWN = frozenset(
    (
        *("unknown", "unk", "nan", "none", "n/a", "na", "null", "<na>", "-", "--", "–", "—", "?", "."),
        *("#n/a", "#value!", "#ref!", "#name?", "#div/0!", "#null!", "#num!", "#spill!", "#calc!"),
    )
)

#: A header stands in one of the first rows: some publishers write a title above it.
_HEADER_ROWS = 3


class Rows(Sequence[dict[str, str]]):
    """Rows of a table: the cells are kept, the dictionaries are not, which would take five times the memory."""

    def __init__(self, columns: Sequence[str], cells: Sequence[Sequence[str]]) -> None:
        """Make them of the header and, for each row, as many cells."""
        self._columns, self._cells = columns, cells

    def __len__(self) -> int:
        return len(self._cells)

    @overload
    def __getitem__(self, place: int) -> dict[str, str]: ...

    @overload
    def __getitem__(self, place: slice) -> Rows: ...

    def __getitem__(self, place: int | slice) -> dict[str, str] | Rows:
        if isinstance(place, slice):
            return Rows(self._columns, self._cells[place])
        return dict(zip(self._columns, self._cells[place], strict=True))


@dataclass(frozen=True)
class Table:
    """A table with every cell as clean text; an empty string is a missing value.

    Attributes:
        path: The file.
        columns: Header, surrounding space removed.
        rows: A dictionary for each row, made anew whenever one is taken.
        broken: Numbers of the rows whose number of cells does not match the header, with what is wrong.
        numbers: Number of each of `rows` in the file; the header's is 1 where it comes first.
        encoding: Name of the encoding where it had to be guessed.
    """

    path: Path
    columns: tuple[str, ...]
    rows: Sequence[dict[str, str]]
    broken: tuple[tuple[int, str], ...] = ()
    numbers: tuple[int, ...] = ()
    encoding: str | None = None

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

    def all_like(self, name: str) -> list[str]:
        """Return all columns that have this name but for case, spaces and punctuation."""
        return [column for column in self.columns if column and _plain(column) == _plain(name)]

    def named_like(self, *names: str) -> str | None:
        """Return the first column that has one of these names but for case, spaces and punctuation, or None."""
        plain = {_plain(column): column for column in reversed(self.columns)}
        return next((plain[_plain(name)] for name in names if _plain(name) in plain), None)


def read_table(path: Path, header: str | None = None, advice: str = PUBLISHED) -> Table:
    """Read a CSV, tab-separated or Excel table as text.

    Args:
        path: The file.
        header: A column that the header is known by, where a title may stand above it or the sheet is not the first.
        advice: What the reader of an error is told to do: `PUBLISHED`, or `OWN`, which also takes no stray quotes.

    Raises:
        UserError: The file cannot be read as a table.
    """
    lines, encoding = _read_lines(path, header, advice)
    if not any(map(any, lines)):
        raise UserError(f"{path}: the table is empty; {advice}.")
    first = _header_row(lines, header)
    columns = tuple(lines[first])
    repeated = [name for name, count in Counter(columns).items() if name and count > 1]
    if repeated:
        raise UserError(f"{path}: column {', '.join(repeated)} is there twice; {advice}.")
    rows: list[tuple[str, ...]] = []
    numbers, broken = array("q"), []
    named = max((place + 1 for place, name in enumerate(columns) if name), default=0)
    for number, cells in enumerate(lines[first + 1 :], start=first + 2):
        if not any(cells):
            continue
        if len(cells) >= named and not any(cells[len(columns) :]):
            # Commas at the end of a header or of its rows say nothing.
            cells = [*cells, *[""] * len(columns)][: len(columns)]
        if len(cells) != len(columns):
            broken.append((number, f"{counted(len(cells), 'cell')} under {counted(len(columns), 'column')}"))
            continue
        rows.append(tuple(cells))
        numbers.append(number)
    return Table(path, columns, Rows(columns, rows), tuple(broken), tuple(numbers), encoding)


def header_of(path: Path) -> tuple[str, ...]:
    """Return the first row of a table.

    Raises:
        UserError: The file cannot be read as a table.
    """
    lines, _ = _read_lines(path, None, PUBLISHED, most=_HEADER_ROWS)
    return tuple(lines[_header_row(lines, None)]) if lines else ()


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
    """Return the cell's text, or an empty string where it says 'not known' or is a spreadsheet's error."""
    return "" if text.casefold() in _NOT_KNOWN else text


def _header_row(lines: list[list[str]], header: str | None) -> int:
    first = next((row for row, cells in enumerate(lines) if any(cells)), 0)
    if header is None:
        return first
    nearby = range(first, min(first + _HEADER_ROWS, len(lines)))
    return next((row for row in nearby if _has(lines[row], header)), first)


def _has(cells: list[str], header: str) -> bool:
    return _plain(header) in {_plain(cell) for cell in cells}


def _plain(name: str) -> str:
    return re.sub(r"[\W_]+", "", unicodedata.normalize("NFKC", name).casefold())


def _read_lines(
    path: Path, header: str | None, advice: str, most: int | None = None
) -> tuple[list[list[str]], str | None]:
    try:
        content = read_regular(path)
        strange = next((what for begins, what in _STRANGERS.items() if content[:30].lower().startswith(begins)), None)
        if strange:
            raise ValueError(strange)
        if path.suffix.lower() == ".xlsx" or content.startswith(b"PK\x03\x04"):
            holds_header = None if header is None else lambda cells: _has(cells, header)
            rows = spreadsheet_rows(content, holds_header, _HEADER_ROWS, own=advice == OWN)
            return [[_clean(cell) for cell in cells] for cells in rows], None
        text, encoding = decode(content)
        return list(islice(_csv_lines(text, path, strict=advice == OWN), most)), encoding
    # openpyxl meets damaged archives with whatever exception its XML layers happen to raise.
    except Exception as error:
        said = " ".join(str(error).split()) or type(error).__name__
        also = " or save it as UTF-8" if isinstance(error, UnknownEncodingError) else ""
        raise UserError(f"{path}: cannot be read as a table ({said}); {advice}{also}.") from error


def _csv_lines(text: str, path: Path, strict: bool) -> Iterator[list[str]]:
    named = re.match(r"sep=(.)\r?\n", text)  # Excel's own way to name the separator
    if named:
        separator, text = named[1], text[named.end() :]
    else:
        separator = separator_of(text, "\t" if path.suffix.lower() in (".tab", ".tsv") else ",")
    alike = OneOfEach()
    reader = csv.reader(lines_of(text), delimiter=separator, strict=strict)
    if named:
        yield []  # the rows keep the numbers that a text editor shows
    try:
        for cells in reader:
            yield [alike.text(_clean(cell)) for cell in cells]
    except csv.Error as error:
        raise ValueError(f"line {reader.line_num}: {error}") from error


def _clean(text: str) -> str:
    if text.isascii() and text.isprintable() and "  " not in text:
        return text.strip()  # nearly all cells; millions of them are read
    return without_controls(text.replace("\u00a0", " "))
