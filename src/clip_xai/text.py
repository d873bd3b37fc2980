"""Text that came from somebody's files, on its way to a terminal, a page or a spreadsheet."""

from __future__ import annotations

import difflib
import html
import math
import re
import unicodedata
from collections.abc import Sequence

#: Marks that turn the direction of what follows, and the byte-order mark: they show nothing and change what is shown.
_TURNING = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069\ufeff")


def printable(text: str) -> str:
    r"""Return a name with what a terminal would act on written out.

    >>> printable("a\x1b[31m.jpg")
    'a\\x1b[31m.jpg'
    """
    return "".join(_written_out(letter) if _acts(letter) else letter for letter in text)


def without_controls(text: str) -> str:
    r"""Return running text on one line, without characters that show nothing.

    >>> without_controls("A red\x00 plaque.\r\nScaly.")
    'A red plaque. Scaly.'
    """
    spaced = re.sub(r"[^\S\u00a0]+", " ", text)
    return "".join(letter for letter in spaced if not _acts(letter)).strip()


def markdown(text: str) -> str:
    r"""Return a text that Markdown, also in the cell of a table, and HTML show as it is written, on one line.

    >>> markdown("a|b <script>")
    'a\\|b &lt;script&gt;'
    """
    return re.sub(r"([\\`*_\[\]|])", r"\\\1", html.escape(printable(" ".join(text.split())), quote=False))


def counted(count: int, one: str, many: str | None = None) -> str:
    """Return a number with what it counts, in the singular where it is one.

    >>> counted(1, "photograph"), counted(0, "photograph"), counted(2, "diagnosis", "diagnoses")
    ('1 photograph', '0 photographs', '2 diagnoses')
    """
    return f"{count} {plural(count, one, many)}"


def plural(count: int, one: str, many: str | None = None) -> str:
    """Return the form of a word that agrees with a number.

    >>> plural(1, "is", "are"), plural(3, "is", "are"), plural(3, "mask")
    ('is', 'are', 'masks')
    """
    return one if count == 1 else many or f"{one}s"


def decimals(value: float, digits: int = 2, sign: str = "") -> str:
    """Return a number with so many digits behind the point, with a true minus sign, and no sign before a zero.

    >>> decimals(-0.5), decimals(-0.004), decimals(0.5, 1, "+")
    ('−0.50', '0.00', '+0.5')
    """
    text = f"{value:{sign}.{digits}f}"
    return text.replace("-", "−") if float(text) else text.lstrip("+-")


def with_bounds(value: float | None, low: float | None, high: float | None, digits: int = 2, sign: str = "") -> str:
    """Return a value with the bounds of its interval, where it has one; a dash for what was not measured.

    >>> with_bounds(0.8, 0.7, 0.9), with_bounds(-0.001, None, None), with_bounds(float("nan"), None, None)
    ('0.80 [0.70, 0.90]', '0.00', '–')
    """
    if value is None or math.isnan(value):
        return "–"
    text = decimals(value, digits, sign)
    if low is None or high is None or math.isnan(low) or math.isnan(high):
        return text
    return f"{text} [{decimals(low, digits, sign)}, {decimals(high, digits, sign)}]"


def near_matches(name: str, known: Sequence[str]) -> str:
    """Return what to type instead of a name that is unknown: those that are near it, or all.

    >>> near_matches("skim", ["chest", "skin"]), near_matches("heart", ["brain", "skin"])
    ('did you mean skin?', 'choose one of brain, skin')
    """
    near = difflib.get_close_matches(name, known, n=3)
    return f"did you mean {' or '.join(near)}?" if near else f"choose one of {', '.join(known)}"


def spreadsheet_cell(text: str) -> str:
    """Return a text that a spreadsheet shows and does not compute.

    >>> spreadsheet_cell("=1+1"), spreadsheet_cell("-0.5"), spreadsheet_cell("A plaque.")
    ("'=1+1", '-0.5', 'A plaque.')
    """
    if not text.startswith(("=", "+", "-", "@", "\t", "\r")):
        return text
    try:
        float(text)
    except ValueError:
        return f"'{text}"
    return text


def _acts(letter: str) -> bool:
    return unicodedata.category(letter) in ("Cc", "Cs", "Zl", "Zp") or letter in _TURNING


def _written_out(letter: str) -> str:
    return letter.encode("unicode_escape", "surrogatepass").decode("ascii")
