"""Insertion and deletion curves as pictures: what they are on one photograph, and their means over a run, as SVG."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

import numpy as np
from numpy.typing import NDArray

from clip_xai.report.explained import number, title_of
from clip_xai.report.measured_curves import HEAT, RANDOM, MeasuredCurves

# Okabe and Ito's colours, which colour-blind readers tell apart; dashes go on where there are more methods.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#7a5195", "#003f5c")
DASHES = ("", "7 3", "2 3", "9 3 2 3")
GREY = "#767676"
MOST_POINTS = 60  # of a line; a protocol may have a thousand
_WIDTH, _HEIGHT, _LEFT, _TOP, _BOTTOM, _GAP = 330, 200, 62, 30, 44, 26


@dataclass(frozen=True)
class Line:
    """One line of a panel.

    Attributes:
        label: What it is of.
        heights: ``[K]``.
        low: Lower edge of its band, ``[K]``; None for none.
        high: Upper edge.
        control: Drawn grey.
    """

    label: str
    heights: NDArray[np.floating]
    low: NDArray[np.floating] | None = None
    high: NDArray[np.floating] | None = None
    control: bool = False


def item_picture(curves: MeasuredCurves, item: int) -> str:
    """Draw the curves of one item of one photograph: every method, and random maps by their mean and their range."""
    panels = []
    for heights in (curves.insertion, curves.deletion):
        random = heights[curves.chosen(item, RANDOM)]
        lines = []
        if len(random):
            label = f"random maps: mean and range of {len(random)}"
            lines.append(Line(label, random.mean(axis=0), random.min(axis=0), random.max(axis=0), control=True))
        for row in curves.chosen(item, HEAT):
            lines.append(Line(title_of(curves.rows[row].method), heights[row]))
        panels.append(lines)
    return picture(curves.shares, panels[0], panels[1], curves.score_name)


def picture(shares: NDArray[np.floating], insertion: Sequence[Line], deletion: Sequence[Line], score_name: str) -> str:
    """Draw two panels on one scale, with one legend below.

    Args:
        shares: ``[K]``.
        insertion: Lines of the left panel.
        deletion: Lines of the right panel, with the same labels.
        score_name: What the heights are.

    Returns:
        A whole SVG document.
    """
    drawn = [*insertion, *deletion]
    ends = np.concatenate([part for line in drawn for part in (line.heights, line.low, line.high) if part is not None])
    ends = ends[np.isfinite(ends)]
    low, high = (float(ends.min()), float(ends.max())) if ends.size else (0.0, 1.0)
    margin = 0.04 * (high - low) or max(abs(high), 1.0) * 0.1
    low, high = low - margin, high + margin
    styles = _styles(insertion)
    across = 2 * (_LEFT + _WIDTH + _GAP)
    legend, rows = _legend(styles, across)
    height = _TOP + _HEIGHT + _BOTTOM + 20 * rows
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {across} {height}" width="{across}" height="{height}" '
        'font-family="system-ui, sans-serif" font-size="12" fill="#222">',
        f'<rect width="{across}" height="{height}" fill="#fff"/>',
    ]
    for column, (title, lines) in enumerate((("Insertion", insertion), ("Deletion", deletion))):
        x = _LEFT + column * (_LEFT + _WIDTH + _GAP)
        verb = "inserted" if column == 0 else "deleted"
        parts += _panel(x, title, verb, shares, lines, (low, high), score_name, styles)
    return "".join([*parts, *legend, "</svg>"])


def svg_uri(svg: str) -> str:
    """Return an SVG as a ``data:`` address: as an image it runs no script, whatever a label holds."""
    return f"data:image/svg+xml;base64,{base64.b64encode(svg.encode()).decode('ascii')}"


def round_values(low: float, high: float, most: int = 6) -> list[float]:
    """Return round numbers between two bounds, evenly spaced, for the lines of an axis.

    >>> round_values(-0.094, 1.09)
    [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]
    """
    least = (high - low) / most
    power = 10.0 ** np.floor(np.log10(least))
    step = next(factor * power for factor in (1, 2, 2.5, 5, 10) if factor * power >= least)
    first, last = int(np.ceil(low / step)), int(np.floor(high / step))
    return [float(f"{place * step:.10g}") for place in range(first, last + 1)]


def _styles(lines: Sequence[Line]) -> dict[str, tuple[str, str]]:
    """Colour and dashes of each label."""
    found, count = {}, 0
    for line in lines:
        if line.control:
            found[line.label] = (GREY, "4 3")
        else:
            found[line.label] = (COLOURS[count % len(COLOURS)], DASHES[count // len(COLOURS) % len(DASHES)])
            count += 1
    return found


def _panel(x: int, title: str, verb: str, shares: NDArray[np.floating], lines: Sequence[Line],
           span: tuple[float, float], score_name: str, styles: dict[str, tuple[str, str]]) -> list[str]:  # fmt: skip
    low, high = span
    last = float(shares[-1])
    kept = np.unique(np.linspace(0, len(shares) - 1, min(len(shares), MOST_POINTS)).round().astype(int))

    def points(heights: NDArray[np.floating]) -> list[str]:
        return [
            f"{x + _WIDTH * share / last:.1f},{_TOP + _HEIGHT * (high - value) / (high - low):.1f}"
            for share, value in zip(shares[kept].tolist(), np.asarray(heights)[kept].tolist(), strict=True)
            if np.isfinite(value)
        ]

    parts = [f'<text x="{x}" y="{_TOP - 12}" font-weight="600" font-size="14">{title}</text>']
    for value in round_values(low, high):
        y = _TOP + _HEIGHT * (high - value) / (high - low)
        parts.append(f'<path d="M{x} {y:.1f}h{_WIDTH}" stroke="#e2e2e2"/>')
        parts.append(f'<text x="{x - 6}" y="{y + 4:.1f}" text-anchor="end" font-size="11">{number(value)}</text>')
    for step in range(5):
        at = x + _WIDTH * step / 4
        percent = f"{100 * last * step / 4:.0f}%"
        parts.append(
            f'<text x="{at:.1f}" y="{_TOP + _HEIGHT + 16}" text-anchor="middle" font-size="11">{percent}</text>'
        )
    middle = x + _WIDTH / 2
    label = f"share of the picture {verb}, hottest first"
    parts.append(f'<text x="{middle}" y="{_TOP + _HEIGHT + 33}" text-anchor="middle">{label}</text>')
    turned, side = _TOP + _HEIGHT / 2, x - 50
    parts.append(
        f'<text x="{side}" y="{turned}" text-anchor="middle" transform="rotate(-90 {side} {turned})">'
        f"{escape(score_name)}</text>"
    )
    for line in lines:
        colour, dashes = styles[line.label]
        if line.low is not None and line.high is not None:
            band = [*points(line.low), *points(line.high)[::-1]]
            parts.append(f'<polygon points="{" ".join(band)}" fill="{colour}" fill-opacity=".16"/>')
        dash = f' stroke-dasharray="{dashes}"' if dashes else ""
        parts.append(
            f'<polyline points="{" ".join(points(line.heights))}" fill="none" stroke="{colour}" '
            f'stroke-width="1.8"{dash}/>'
        )
    return parts


def _legend(styles: dict[str, tuple[str, str]], across: int) -> tuple[list[str], int]:
    parts, x, row = [], _LEFT, 0
    for label, (colour, dashes) in styles.items():
        width = 36 + 7 * len(label)
        if x > _LEFT and x + width > across:
            x, row = _LEFT, row + 1
        y = _TOP + _HEIGHT + _BOTTOM + 8 + 20 * row
        dash = f' stroke-dasharray="{dashes}"' if dashes else ""
        parts.append(f'<path d="M{x} {y - 4}h24" stroke="{colour}" stroke-width="2.4"{dash}/>')
        parts.append(f'<text x="{x + 30}" y="{y}">{escape(label)}</text>')
        x += width + 14
    return parts, row + 1
