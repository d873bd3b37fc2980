"""The front page of a run: what was made, how well it went, and where to look next."""

from __future__ import annotations

import csv
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from PIL import Image

from clip_xai.metrics.results import Verdict
from clip_xai.report.cards import FIRST_MAP
from clip_xai.report.explained import number
from clip_xai.report.figures import data_uri
from clip_xai.report.pages import Table, write_page

PREVIEW = (640, 360)


@dataclass(frozen=True)
class Link:
    """One place to go to.

    Attributes:
        title: What is there.
        text: One sentence on it.
        path: The file; the page links to it relative to itself.
        picture: A picture file to show, or None.
    """

    title: str
    text: str
    path: Path
    picture: Path | None = None


@dataclass(frozen=True)
class Line:
    """One logged quantity, ``points`` being (step, value) in the order they were logged."""

    name: str
    points: tuple[tuple[float, float], ...]


@dataclass(frozen=True)
class Curve:
    """Lines that share an axis, such as training and validation loss."""

    title: str
    lines: tuple[Line, ...]

    @property
    def ends(self) -> tuple[float, float, float, float]:
        """First and last step, least and largest value."""
        steps = [step for line in self.lines for step, _ in line.points]
        values = [value for line in self.lines for _, value in line.points]
        return min(steps), max(steps), min(values), max(values)

    @property
    def labels(self) -> tuple[str, str, str, str]:
        """The ends as text."""
        first, last, least, most = self.ends
        return f"step {first:g}", f"step {last:g}", number(least), number(most)

    def colour(self, line: Line) -> str:
        """Class of a line's colour: training and validation have the same on every axis of a page."""
        part = line.name.split("/", 1)[0]
        return {"train": "c0", "val": "c1"}.get(part, "c2")

    def path(self, line: Line) -> str:
        """The points of a line in a box of 1000 x 300, y downwards."""
        first, last, least, most = self.ends
        across, down = (last - first) or 1.0, (most - least) or 1.0
        return " ".join(
            f"{1000 * (x - first) / across:.1f},{300 - 300 * (y - least) / down:.1f}" for x, y in line.points
        )


def write_index(
    path: Path,
    links: Sequence[Link],
    *,
    title: str = "CLIP-XAI",
    subtitle: str = "",
    verdicts: Sequence[Verdict] = (),
    tables: Sequence[Table] = (),
    curves: Sequence[Curve] = (),
) -> Path:
    """Write the front page.

    Args:
        path: Where to write, usually ``index.html``.
        links: The parts of the run, in the order of reading.
        title: Heading.
        subtitle: One line about the run.
        verdicts: What came out, in words, warnings first.
        tables: Finished tables, such as localisation.
        curves: Training curves, from :func:`read_curves`.

    Raises:
        ValueError: When a linked file does not exist.
    """
    missing = [link.path for link in links if not link.path.exists()]
    if missing:
        raise ValueError(f"{missing[0]} is linked but does not exist")
    return write_page(
        "demo.html.j2",
        path,
        title=title,
        subtitle=subtitle,
        styles=("evaluation.css",),
        links=[(link, _relative(link.path, path.parent), _preview(link.picture)) for link in links],
        verdicts=list(verdicts),
        tables=list(tables),
        curves=list(curves),
    )


def read_curves(metrics: Path, title: str = "") -> tuple[Curve, ...]:
    """Read the curves of a run from Lightning's ``metrics.csv``: one curve a quantity, one line a stage of it.

    ``train/loss`` and ``val/loss`` become two lines of the curve ``loss``; cells that were not logged are passed over.
    """
    lines: dict[str, list[tuple[float, float]]] = {}
    with metrics.open(newline="") as file:
        for row in csv.DictReader(file):
            for name, cell in row.items():
                if "/" in name and cell:
                    lines.setdefault(name, []).append((float(row["step"]), float(cell)))
    grouped: dict[str, list[Line]] = {}
    for name, points in lines.items():
        grouped.setdefault(name.split("/", 1)[1], []).append(Line(name, tuple(points)))
    return tuple(
        Curve(
            ": ".join(part for part in (title, quantity.replace("_", " ")) if part),
            tuple(sorted(found, key=lambda line: line.name)),
        )
        for quantity, found in grouped.items()
        if any(len(line.points) > 1 for line in found)
    )


def _relative(target: Path, start: Path) -> str:
    """The address of a file as seen from the page's folder, with every special character quoted."""
    return quote(Path(os.path.relpath(target, start)).as_posix())


def _preview(picture: Path | None) -> str | None:
    """A part of a picture, small: of a card from its first heat maps on, of any other its upper part."""
    if picture is None:
        return None
    with Image.open(picture) as opened:
        shown, top = opened.convert("RGB"), int(opened.info.get(FIRST_MAP, 0))
    width, height = PREVIEW
    part = round(shown.width * height / width)
    top = max(0, min(top, shown.height - part))  # the page shows no other shape
    shown = shown.crop((0, top, shown.width, min(top + part, shown.height)))
    return data_uri(shown.resize((width, max(1, round(shown.height * width / shown.width))), Image.Resampling.LANCZOS))
