"""Text of tables as spreadsheets write it: which encoding, and which sign between the cells."""

from __future__ import annotations

import codecs
import csv
import re
from collections.abc import Iterator
from itertools import islice

SEPARATORS = (",", ";", "\t", "|")

#: Byte-order marks; the longer ones first, since one of them begins like a shorter one.
_MARKS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)

_WESTERN = {"cp1252": "Windows-1252", "mac_roman": "Mac Roman"}
_LETTERS = set("ÀÁÂÃÄÅÆÇÈÉÊËÌÍÎÏÑÒÓÔÕÖØÙÚÛÜßàáâãäåæçèéêëìíîïñòóôõöøùúûüÿŒœŸªº")
_SIGNS = set("’‘“”„‚–—…•·°±×÷µ²³¹½¼¾«»€£¢§©®™¿¡\u00a0‰†")

_LINE = re.compile(r"[^\r\n]*(?:\r\n|\r|\n)|[^\r\n]+")

#: Rows that are looked at to tell the separator, and how many of them may be a title and the header.
_SAMPLED_ROWS, _HEADER_ROWS = 20, 3


class UnknownEncodingError(ValueError):
    """Text in an encoding that cannot be told with certainty."""


def decode(content: bytes) -> tuple[str, str | None]:
    """Return the text of a table, and the name of its encoding where that had to be guessed.

    Without a byte-order mark: UTF-8, UTF-16 where every other byte is 0, or one of the two Western encodings that
    spreadsheets write, and these only where all that they give are letters and signs in their places.

    Raises:
        UnknownEncodingError: None of them fits.
    """
    for mark, encoding in _MARKS:
        if content.startswith(mark):
            return _strictly(content[len(mark) :], encoding), None
    zeros = [content[start:4096:2].count(0) / max(1, len(content[start:4096:2])) for start in (0, 1)]
    if max(zeros) > 0.3 and min(zeros) < 0.1:
        return _strictly(content, "utf-16-le" if zeros[1] > zeros[0] else "utf-16-be"), None
    try:
        return content.decode("utf-8"), None
    except UnicodeDecodeError:
        for encoding, name in _WESTERN.items():
            try:
                text = content.decode(encoding)
            except UnicodeDecodeError:
                continue
            if not _odd(text):
                return text, name
    raise UnknownEncodingError("not UTF-8 text")


def lines_of(text: str) -> Iterator[str]:
    r"""Yield the lines of a text, endings kept, as ``io.StringIO(text, newline="")`` does, but without a copy of it.

    Example:
        >>> list(lines_of("one\r\ntwo\n\nthree"))
        ['one\r\n', 'two\n', '\n', 'three']
    """
    return (found[0] for found in _LINE.finditer(text))


def separator_of(text: str, preferred: str = ",") -> str:
    """Return the sign between the cells: the one that cuts the header into most cells, and the rows into as many.

    Args:
        text: The table.
        preferred: The sign to take where two do equally well, or none does.
    """

    def fitness(separator: str) -> tuple[bool, float, int, bool]:
        try:
            sampled = islice(csv.reader(lines_of(text), delimiter=separator), _SAMPLED_ROWS)
            rows = [len(cells) for cells in sampled if cells]
        except csv.Error:
            return False, 0.0, 0, False
        # A title of one cell may stand above the header.
        width = next((cells for cells in rows[:_HEADER_ROWS] if cells > 1), 0)
        fitting = rows.count(width) / len(rows) if width else 0.0
        return bool(rows) and rows[0] > 1, fitting, width, separator == preferred

    return max(SEPARATORS, key=fitness)


def _strictly(content: bytes, encoding: str) -> str:
    try:
        text = content.decode(encoding)
    except UnicodeDecodeError as error:
        raise UnknownEncodingError(f"not {encoding.upper()} text") from error
    if encoding != "utf-8" and not any(separator in text for separator in SEPARATORS):
        raise UnknownEncodingError(f"no table in {encoding.upper()}")  # any two bytes are a letter of UTF-16
    return text


def _odd(text: str) -> bool:
    """Tell whether a text holds signs inside of words, unusual letters, or words of foreign letters alone."""
    foreign = {letter for letter in text if ord(letter) > 127}
    if foreign - _LETTERS - _SIGNS:
        return True
    letters, signs = re.escape("".join(_LETTERS)), re.escape("".join(_SIGNS - {"’", "–", "—", "·", "\u00a0", "•", "…"}))
    inside_a_word = rf"[a-zA-Z{letters}][{signs}][a-z{letters}]"
    return re.search(rf"{inside_a_word}|[{letters}]{{4}}", text) is not None
