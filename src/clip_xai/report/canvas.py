"""Drawing text on cards: measured, wrapped, never overlapping."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from PIL import Image, ImageDraw

from clip_xai.report.fonts import font, missing, text_width, write

Colour = tuple[int, int, int]

PAPER: Colour = (255, 255, 255)
INK: Colour = (28, 30, 36)
BLACK: Colour = (0, 0, 0)
QUIET: Colour = (98, 104, 116)
RULE: Colour = (222, 225, 231)
ACCENT: Colour = (15, 98, 106)


@dataclass(frozen=True)
class Run:
    """A piece of text that is not broken, with the colour behind it (None: the paper)."""

    text: str
    ground: Colour | None = None
    bold: bool = False


class Canvas:
    """A sheet of fixed width that grows downwards; what draws returns the y at which the next thing may start."""

    def __init__(self, width: int, height: int = 4000) -> None:
        self.picture = Image.new("RGB", (width, height), PAPER)
        self.pen = ImageDraw.Draw(self.picture)
        self.letters: set[str] = set()
        self.first_map: int | None = None  # y of the first row of heat maps

    def text(self, x: int, y: int, text: str, width: int, *, size: int = 17, bold: bool = False,
             ink: Colour = INK, lines: int | None = None) -> int:  # fmt: skip
        """Write wrapped text; with ``lines`` the rest is cut and marked by an ellipsis."""
        wrapped = wrap(text, width, size, bold)
        if lines is not None and len(wrapped) > lines:
            wrapped = [*wrapped[: lines - 1], ellipsis(" ".join(wrapped[lines - 1 :]), width, size, bold)]
        for line in wrapped:
            self._reserve(y + line_height(size))
            self._write(x, y, line, ink, size, bold)
            y += line_height(size)
        return y

    def runs(self, x: int, y: int, runs: Iterable[Run], width: int, *, size: int = 19) -> int:
        """Write pieces one after the other, each on its own ground, wrapped between pieces."""
        step = line_height(size) + 8
        cursor = x
        for run in runs:
            for part in cut(run.text, width - 10, size, run.bold):
                across = math.ceil(text_width(part, size, run.bold)) + 8
                if cursor > x and cursor + across > x + width:
                    cursor, y = x, y + step
                self._reserve(y + step)
                if run.ground is not None:
                    box = (cursor, y, cursor + across, y + line_height(size) + 2)
                    self.pen.rounded_rectangle(box, radius=4, fill=run.ground)
                ink = INK if run.ground is None else readable_on(run.ground)
                self._write(cursor + 4, y + 1, part, ink, size, run.bold)
                cursor += across + 2
        return y + step

    def paste(self, picture: Image.Image, x: int, y: int) -> int:
        """Lay a picture on the sheet."""
        self._reserve(y + picture.height)
        self.picture.paste(picture, (x, y))
        return y + picture.height

    def rule(self, x: int, y: int, width: int) -> int:
        """A thin line between sections."""
        self._reserve(y + 2)
        self.pen.line((x, y, x + width, y), fill=RULE, width=2)
        return y + 2

    def finished(self, height: int) -> Image.Image:
        """The sheet, cut to what was used."""
        return self.picture.crop((0, 0, self.picture.width, height))

    @property
    def missing(self) -> str:
        """Which of the letters that were written cannot be drawn here; empty where all could."""
        return missing(self.letters)

    def _write(self, x: int, y: int, text: str, ink: Colour, size: int, bold: bool) -> None:
        self.letters.update(text)
        write(self.pen, (x, y), text, ink, size, bold)

    def _reserve(self, height: int) -> None:
        """Make the sheet longer when something reaches below its end."""
        if height <= self.picture.height:
            return
        longer = Image.new("RGB", (self.picture.width, max(height, 2 * self.picture.height)), PAPER)
        longer.paste(self.picture)
        self.picture, self.pen = longer, ImageDraw.Draw(longer)


def line_height(size: int) -> int:
    """Distance between base lines, independent of which letters stand in a line."""
    ascent, descent = font(size).getmetrics()
    return ascent + descent + round(0.15 * size)


def wrap(text: str, width: int, size: int, bold: bool = False) -> list[str]:
    """Break text into lines that fit ``width`` pixels, at spaces where possible, inside a word where not."""
    lines: list[str] = []
    for word in text.split():
        joined = f"{lines[-1]} {word}" if lines else word
        if lines and text_width(joined, size, bold) <= width:
            lines[-1] = joined
        else:
            lines.extend(cut(word, width, size, bold))
    return lines


def cut(word: str, width: int, size: int, bold: bool = False) -> list[str]:
    """Break a word that is wider than ``width`` pixels into parts that are not."""
    parts = [""]
    for letter in word:
        if parts[-1] and text_width(parts[-1] + letter, size, bold) > width:
            parts.append("")
        parts[-1] += letter
    return parts


def ellipsis(text: str, width: int, size: int, bold: bool = False) -> str:
    """The beginning of a text that fits ``width`` pixels, marked where it was cut."""
    if text_width(text, size, bold) <= width:
        return text
    while text and text_width(text + "…", size, bold) > width:
        text = text[:-1]
    return text.rstrip() + "…"


def mix(ground: Sequence[int], colour: Sequence[int], share: float) -> Colour:
    """``share`` of a colour laid over a ground."""
    red, green, blue = (round(g + (c - g) * share) for g, c in zip(ground, colour, strict=True))
    return red, green, blue


def contrast(one: Sequence[int], other: Sequence[int]) -> float:
    """Contrast ratio of two colours (WCAG 2.1), 1 to 21."""
    light, dark = sorted((luminance(one), luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def readable_on(ground: Sequence[int]) -> Colour:
    """Black or white, whichever stands out more from a ground: never less than 4.5 to 1."""
    return max((BLACK, PAPER), key=lambda ink: contrast(ink, ground))


def luminance(colour: Sequence[int]) -> float:
    """Relative luminance (WCAG 2.1), 0 for black to 1 for white."""
    linear = [c / 255 / 12.92 if c <= 10 else ((c / 255 + 0.055) / 1.055) ** 2.4 for c in colour]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
