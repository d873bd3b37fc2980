"""What cards are made of: one heat map with its colour bar, one line of shaded words."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import replace

import numpy as np
from PIL import Image

from clip_xai.report.canvas import QUIET, Canvas, Run, line_height, wrap
from clip_xai.report.explained import ExplainedImage, Explanation, number
from clip_xai.report.figures import (
    DIVERGING,
    colour_bar,
    draw_outline,
    fitted,
    lookup_table,
    mean_colour,
    overlay,
    placed,
    scale_of,
)
from clip_xai.report.fonts import text_width

GAP = 18
LABELS = 240  # width of the words in front of a shaded line
LABEL = 15  # size of the letters above a tile
MOST_LINES = 24
STRONGEST = 6  # words of a text whose interactions are drawn


def draw_tile(canvas: Canvas, x: int, y: int, across: int, picture: Image.Image, image: ExplainedImage,
              explanation: Explanation, index: int, label: str, score: str, lines: int = 1) -> int:  # fmt: skip
    """Draw the heat map of one item under its label, with its colour bar and score below.

    Args:
        canvas: Where to draw.
        x: Left edge.
        y: Top.
        across: Width of the tile.
        picture: The photograph at the tile's size.
        image: What is explained.
        explanation: By which method.
        index: Which item.
        label: Stands above.
        score: Stands below; empty for nothing.
        lines: How many lines are kept for the label, so that the tiles of a row stay level; see `label_lines`.

    Returns:
        The bottom.
    """
    canvas.first_map = y if canvas.first_map is None else canvas.first_map
    values = explanation.values[explanation.items.index(index)]
    scale = scale_of(values, bool((explanation.values < 0).any()))
    used = len(wrap(label, across, LABEL, bold=True)[:lines])
    y = canvas.text(x, y + (lines - used) * line_height(LABEL), label, across, size=LABEL, bold=True, lines=lines)
    tile = overlay(picture, placed(values, image.geometry, picture), scale)
    y = canvas.paste(tile if image.mask is None else draw_outline(tile, image.mask), x, y + 2) + 5
    y = canvas.paste(colour_bar(scale, picture.width, 10, mean_colour(picture)), x, y) + 3
    low, high = scale.ends
    room = picture.width - math.ceil(text_width(high, 13))
    left = canvas.text(x, y, low, room, size=13, ink=QUIET)
    y = max(left, canvas.text(x + room, y, high, picture.width, size=13, ink=QUIET))  # of a constant map, low alone
    return canvas.text(x, y, score, across, size=13) if score else y


def label_lines(labels: Iterable[str], across: int) -> int:
    """Return how many lines the longest label of a row of tiles needs; no more than a text has that a tower reads."""
    return min(MOST_LINES, max((len(wrap(label, across, LABEL, bold=True)) for label in labels), default=1))


def tile_size(image: ExplainedImage, width: int, count: int) -> tuple[int, Image.Image]:
    """Return how wide each of several tiles in a row is, and the photograph at that size."""
    across = (width - (count - 1) * GAP) // count
    return across, fitted(image.photograph, across, round(1.1 * across))


def draw_interactions(
    canvas: Canvas, x: int, y: int, width: int, image: ExplainedImage, explanation: Explanation, index: int
) -> int:
    """Draw the words of one text that go most with some place, each with the places that it goes with.

    Returns:
        The bottom.
    """
    across, picture = tile_size(image, width, STRONGEST)
    row = explanation.items.index(index)
    values, words = explanation.interactions[row], explanation.tokens[row]
    strongest = sorted(np.abs(values).max(axis=(1, 2)).argsort()[::-1][:STRONGEST].tolist())
    lines = label_lines((words[word] for word in strongest), across)
    parts = replace(explanation, values=values, items=tuple(range(len(values))), tokens=(), interactions=())
    return GAP + max(
        draw_tile(canvas, x + column * (across + GAP), y, across, picture, image, parts, word, words[word], "", lines)
        for column, word in enumerate(strongest)
    )


def draw_shaded_line(canvas: Canvas, x: int, y: int, width: int, explanation: Explanation, index: int,
                     label: str) -> int:  # fmt: skip
    """Draw what had been read before an item, shaded by how much that raised (green) or lowered it (purple).

    Returns:
        The bottom; ``y`` itself where the method says nothing about the item.
    """
    row = explanation.items.index(index)
    values = np.asarray(explanation.values[row], dtype=np.float64)
    if not np.isfinite(values).any():
        return y
    scale = scale_of(values, signed=True)
    left = canvas.text(x, y, label, LABELS - 10, size=16, bold=True, lines=MOST_LINES)
    left = canvas.text(x, left, f"±{number(scale.high)}", LABELS - 10, size=13, ink=QUIET)
    runs = _shaded_runs(explanation.tokens[row], scale.position(values))
    bottom = canvas.runs(x + LABELS, y, runs, width - LABELS, size=16)
    return max(bottom, left) + 4


def _shaded_runs(tokens: tuple[str, ...], position: np.ndarray) -> list[Run]:
    table = lookup_table(DIVERGING)
    runs = []
    for token, place in zip(tokens, position, strict=False):
        if token.strip() and np.isfinite(place):
            red, green, blue = (int(part) for part in table[round(255 * float(place))])
            runs.append(Run(token.strip(), (red, green, blue)))
    return runs
