"""Many methods on one card: side by side for what is no single word, in the groups of ``groups``."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from clip_xai.report.canvas import ACCENT, QUIET, Canvas
from clip_xai.report.explained import ExplainedImage, Explanation, short_label
from clip_xai.report.tiles import GAP, draw_interactions, draw_shaded_line, draw_tile, label_lines, tile_size
from clip_xai.xai.explainer import groups

ACROSS = 6
ITEMS = 3


def draw_comparison(canvas: Canvas, x: int, y: int, width: int, image: ExplainedImage, chosen: Sequence[int]) -> int:
    """Draw, for each of a few items, the heat map of every method and the words behind it; return the bottom.

    Args:
        canvas: Where to draw.
        x: Left edge.
        y: Top.
        width: Of everything.
        image: What is explained.
        chosen: The items that a card has room for; those that are not single words of a caption come first.
    """
    wholes = [index for index in chosen if image.items[index].span is None]
    shown = (wholes or list(chosen))[:ITEMS]
    for index in shown:
        y = canvas.rule(x, y + GAP, width) + GAP
        y = canvas.text(x, y, short_label(image, index), width, size=20, bold=True)
        score = f"{image.items[index].score_text}. {image.items[index].context}".rstrip(" .") + "."
        y = canvas.text(x, y, score, width, size=14, ink=QUIET)
        y = canvas.text(x, y, image.items[index].note, width, size=14, ink=ACCENT) + 6
        about = [explanation for explanation in image.explanations if index in explanation.items]
        for group, explanations in _grouped(about):
            y = canvas.text(x, y, group.capitalize(), width, size=15, bold=True, ink=ACCENT) + 4
            y = _draw_group(canvas, x, y, width, image, explanations, index)
    y = canvas.rule(x, y + GAP, width) + GAP
    for line in _legend(image, len(shown)):
        y = canvas.text(x, y, line, width, size=13, ink=QUIET) + 4
    return y


def _grouped(explanations: Iterable[Explanation]) -> list[tuple[str, list[Explanation]]]:
    found: dict[str, list[Explanation]] = {name: [] for name in groups()}
    for explanation in explanations:
        found.setdefault(explanation.group, []).append(explanation)
    return [(name, group) for name, group in found.items() if group]


def _draw_group(
    canvas: Canvas, x: int, y: int, width: int, image: ExplainedImage, explanations: Sequence[Explanation], index: int
) -> int:
    across, picture = tile_size(image, width, ACROSS)
    maps = [explanation for explanation in explanations if explanation.kind == "image"]
    for first in range(0, len(maps), ACROSS):
        places = enumerate(maps[first : first + ACROSS])
        lines = label_lines((one.title for one in maps[first : first + ACROSS]), across)
        y = GAP + max(
            draw_tile(canvas, x + column * (across + GAP), y, across, picture, image, one, index, one.title, "", lines)
            for column, one in places
        )
    for one in explanations:
        if one.interactions:
            y = draw_interactions(canvas, x, y, width, image, one, index)
        if one.kind == "text":
            y = draw_shaded_line(canvas, x, y, width, one, index, one.title)
    return y


def _legend(image: ExplainedImage, shown: int) -> list[str]:
    """How to read the card, what holds for some methods, and all settings."""
    lines = [
        "Each map has its own colour bar, with raw values at its ends; hatched grey: outside of what the model saw. "
        "Words: green raised the score, purple lowered it."
    ]
    if shown < len(image.items):
        lines.append(f"Shown: {shown} of {len(image.items)}; index.html has them all.")
    if image.measurements:
        lines.append(f"index.html shows how each map meets the {image.marked}.")
    holders: dict[str, list[str]] = {}
    for explanation in image.explanations:
        for note in explanation.all_notes:
            holders.setdefault(note, []).append(explanation.title)
    for note, titles in holders.items():
        lines.append(note if len(titles) == len(image.explanations) else f"{', '.join(titles)}: {note}")
    lines += image.left_out
    settings = (f"{one.title} ({one.settings_text})" for one in image.explanations)
    return [*lines, f"Settings: {'; '.join(settings)}."]
