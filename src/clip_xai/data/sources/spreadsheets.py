"""The cells of a spreadsheet as its reader sees them: merged ones filled, computed ones computed, the right sheet."""

from __future__ import annotations

import io
import re
import zipfile
from collections.abc import Callable, Iterable, Iterator
from typing import Any
from xml.etree import ElementTree

import openpyxl
from openpyxl.utils import range_boundaries
from openpyxl.utils.exceptions import InvalidFileException

from clip_xai.private_api import sheet_path

#: A spreadsheet is an archive; unpacked to more than this it is no table of photographs.
MAX_UNPACKED = 512 * 2**20

#: What is told only by a sheet's XML: merged cells, and formulas, of which a program may have kept no value.
_TOLD = re.compile(rb"<(\w+:)?(mergeCell|f)[ />]")


def spreadsheet_rows(
    content: bytes, holds_header: Callable[[list[str]], bool] | None, header_rows: int, own: bool
) -> list[list[str]]:
    """Return the rows of the sheet that is meant: cells as they are shown, of merged ones each with the value of all.

    Args:
        content: The file.
        holds_header: Tells the header's row, where the sheet need not be the first.
        header_rows: In how many of the first rows it may stand.
        own: A person's own: two sheets with the header are refused, and formulas that nobody has computed.

    Raises:
        ValueError: What is meant is open; the message says what to do.
    """
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        unpacked = sum(entry.file_size for entry in archive.infolist())
        if unpacked > MAX_UNPACKED:
            raise InvalidFileException(f"it unpacks to {unpacked:,} bytes")
        book = openpyxl.load_workbook(io.BytesIO(content), read_only=True, data_only=True)
        try:
            sheet = _meant(list(book.worksheets), holds_header, header_rows, own)
            rows = list(_rows(sheet))
            xml = archive.read(sheet_path(sheet))
        finally:
            book.close()
    if _TOLD.search(xml):
        merged, uncomputed = _told(xml)
        if uncomputed and own:
            raise ValueError(
                f"{len(uncomputed)} formulas whose values the file does not hold, such as in cell {uncomputed[0]}: "
                "open it in a spreadsheet program and save it"
            )
        _fill(rows, merged)
    return rows


def _meant(sheets: list[Any], holds_header: Callable[[list[str]], bool] | None, header_rows: int, own: bool) -> Any:
    if holds_header is None:
        return sheets[0]
    fitting = [sheet for sheet in sheets if any(holds_header(cells) for cells in _rows(sheet, header_rows))]
    shown = [sheet for sheet in fitting if sheet.sheet_state == "visible"] or fitting
    if own and len(shown) > 1:
        named = ", ".join(sheet.title for sheet in shown)
        raise ValueError(f"{len(shown)} sheets have such a header ({named}): keep the one that is meant")
    return shown[0] if shown else sheets[0]


def _rows(sheet: Any, most: int | None = None) -> Iterator[list[str]]:
    width = 0
    for cells in sheet.iter_rows(max_row=most):
        texts = [_shown(cell) for cell in cells]
        # Spreadsheets drop empty cells at the end of a row, which a CSV does not.
        width = max(width, len(texts))
        yield texts + [""] * (width - len(texts))


def _shown(cell: Any) -> str:
    value = cell.value
    if isinstance(value, int) and not isinstance(value, bool) and re.fullmatch("0{2,}", str(cell.number_format)):
        return str(value).zfill(len(cell.number_format))  # 1 that is shown as 001
    return "" if value is None else str(value)


def _told(xml: bytes) -> tuple[list[str], list[str]]:
    """Return the merged ranges, and the cells that hold a formula and no value."""
    merged, uncomputed = [], []
    for _, element in ElementTree.iterparse(io.BytesIO(xml)):
        kind = element.tag.rpartition("}")[2]
        if kind == "mergeCell":
            merged.append(element.get("ref", ""))
        elif kind == "c":
            held = {child.tag.rpartition("}")[2]: child.text for child in element}
            # A value that is an empty text is one: it is marked as a text.
            if "f" in held and not held.get("v") and element.get("t") != "str":
                uncomputed.append(element.get("r", "?"))
    return merged, uncomputed


def _fill(rows: list[list[str]], merged: Iterable[str]) -> None:
    """Give the cells of a range below its first the value of all; a title over several columns stays in its first."""
    for reference in merged:
        left, top, _, bottom = range_boundaries(reference)
        assert isinstance(left, int) and isinstance(top, int) and isinstance(bottom, int)
        for row in rows[top:bottom]:
            if left <= len(row) and left <= len(rows[top - 1]):
                row[left - 1] = rows[top - 1][left - 1]
