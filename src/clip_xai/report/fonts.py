"""Letters on cards: DejaVu Sans, for what it lacks another font of this machine, or the names of what is missing."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path

from matplotlib import font_manager
from matplotlib.ft2font import FT2Font
from PIL import ImageDraw, ImageFont, features

# Slanted, heavy and narrow cuts of a family look odd among upright letters.
_OTHER_CUT = re.compile(r"bold|italic|oblique|light|thin|black|heavy|medium|condensed|narrow|mono", re.IGNORECASE)
# Scripts whose letters join or change their order: they need a layout engine and not only a font.
_JOINED = ("ARABIC", "SYRIAC", "HEBREW", "DEVANAGARI", "BENGALI", "TAMIL", "TELUGU", "THAANA", "NKO", "MONGOLIAN")
_SHOWN = 12


@lru_cache(maxsize=64)
def font(size: int, bold: bool = False, path: str | None = None) -> ImageFont.FreeTypeFont:
    """A font of this machine; by default DejaVu Sans, which matplotlib brings along, so that cards look the same."""
    return ImageFont.truetype(path or _dejavu(bold), size)


def text_width(text: str, size: int, bold: bool = False) -> float:
    """Width of a text in pixels, in the fonts that have its letters."""
    return sum(font(size, bold, path).getlength(part) for part, path in parts(text, bold))


def write(pen: ImageDraw.ImageDraw, place: tuple[float, float], text: str, ink: tuple[int, int, int], size: int,
          bold: bool = False) -> None:  # fmt: skip
    """Write a text from its upper left corner, every letter in a font that has it, all on one base line."""
    x, y = place
    ascent, _ = font(size, bold).getmetrics()
    for part, path in parts(text, bold):
        face = font(size, bold, path)
        pen.text((x, y + ascent), part, fill=ink, font=face, anchor="ls")
        x += face.getlength(part)


def parts(text: str, bold: bool = False) -> list[tuple[str, str | None]]:
    """Cut a text where its font changes; None stands for DejaVu Sans, which also draws the box for what is missing."""
    found: list[tuple[str, str | None]] = []
    for letter in text:
        path = None if _in(_dejavu(bold), letter) else font_of(letter)
        if found and (found[-1][1] == path or letter.isspace() or unicodedata.combining(letter)):
            found[-1] = (found[-1][0] + letter, found[-1][1])
        else:
            found.append((letter, path))
    return found


def missing(letters: Iterable[str]) -> str:
    """Say which letters cannot be drawn as they are written, and what would help; empty where all can."""
    lacking = sorted({letter for letter in letters if not _in(_dejavu(False), letter) and font_of(letter) is None})
    joined = sorted({letter for letter in letters if _script(letter) in _JOINED})
    sentences = []
    if lacking:
        scripts = ", ".join(dict.fromkeys(_script(letter).capitalize() for letter in lacking))
        codes = " ".join(f"U+{ord(letter):04X}" for letter in lacking[:_SHOWN])
        codes += " ..." if len(lacking) > _SHOWN else ""
        sentences.append(
            f"No font of this machine has {len(lacking)} of the letters here ({scripts}: {codes}): they are boxes. "
            "Install one that has, such as Noto Sans CJK, and draw again; index.html shows them by the reader's fonts."
        )
    if joined and not features.check("raqm"):
        scripts = ", ".join(dict.fromkeys(_script(letter).capitalize() for letter in joined))
        sentences.append(
            f"{scripts} letters are unjoined and from left to right: this Pillow has no Raqm; index.html is right."
        )
    return " ".join(sentences)


@lru_cache(maxsize=8192)
def font_of(letter: str) -> str | None:
    """Path of an upright font of this machine that has a letter, None where none has."""
    return next((path for path in fonts_here() if _in(path, letter)), None)


@lru_cache(maxsize=1)
def fonts_here() -> tuple[str, ...]:
    """Paths of the upright fonts of this machine in regular weight, those of Noto first."""
    paths = (path for path in font_manager.findSystemFonts() if not _OTHER_CUT.search(Path(path).stem))
    return tuple(sorted(paths, key=lambda path: ("noto" not in Path(path).stem.lower(), path)))


@lru_cache(maxsize=65536)
def _in(path: str, letter: str) -> bool:
    """Whether a font has a letter; what is not drawn by itself (spaces, joiners, accents) does not matter."""
    if letter.isspace() or unicodedata.category(letter) in ("Cf", "Cc", "Mn"):
        return True
    return _face(path).get_char_index(ord(letter)) != 0


@lru_cache(maxsize=32)
def _face(path: str) -> FT2Font:
    return FT2Font(path)


@lru_cache(maxsize=2)
def _dejavu(bold: bool) -> str:
    weight = "bold" if bold else "normal"
    return str(font_manager.findfont(font_manager.FontProperties(family="DejaVu Sans", weight=weight)))


def _script(letter: str) -> str:
    """First word of a letter's name, which is its script: 'CJK', 'ARABIC', 'THAI'."""
    return unicodedata.name(letter, "unnamed").split()[0].split("-")[0]
