"""One card a photograph: a PNG to look at, to send and to print."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from clip_xai.files import replacing
from clip_xai.page import DISCLAIMER
from clip_xai.report.canvas import ACCENT, PAPER, QUIET, Canvas, Run, mix
from clip_xai.report.comparison import draw_comparison
from clip_xai.report.evidence import UNMEASURED, Evidence
from clip_xai.report.explained import LOG_PROBABILITY, TOTAL_EFFECT, ExplainedImage, Explanation, short_label
from clip_xai.report.figures import draw_outline, fitted, placed
from clip_xai.report.tiles import (
    GAP,
    MOST_LINES,
    draw_interactions,
    draw_shaded_line,
    draw_tile,
    label_lines,
    tile_size,
)

WIDTH = 1240
MARGIN = 36
PHOTOGRAPH = (560, 460)
TILES_PER_ROW, FEWEST_TILES = 5, 3
ITEMS_PER_CARD = 10
METHODS_PER_CARD = 8  # of more, a card compares
FIRST_MAP = "first map"  # key of a card's note: y of its first row of heat maps
# Words that carry a sentence and not its content. The page shows them all; a card has room for the others.
FUNCTION_WORDS = frozenset(
    (
        "a",
        "an",
        "and",
        "are",
        "as",
        "at",
        "by",
        "for",
        "from",
        "has",
        "have",
        "image",
        "in",
        "is",
        "it",
        "its",
        "no",
        "not",
        "of",
        "on",
        "or",
        "photo",
        "photograph",
        "picture",
        "showing",
        "shows",
        "that",
        "the",
        "there",
        "this",
        "to",
        "which",
        "with",
    )
)


def draw_card(image: ExplainedImage, evidence: Evidence | None = None) -> Image.Image:
    """Draw the card of one photograph.

    The whole photograph, the generated and reference captions, and for each method one heat map a word or text, each
    with its own colour bar of raw values. Where there are many methods, they stand side by side for what is no single
    word. Nothing is cropped; what the model did not see is hatched. Letters that no font of this machine has are named.

    Args:
        image: What is explained.
        evidence: What is known of the methods' maps for this model.
    """
    canvas = Canvas(WIDTH)
    y = _draw_head(canvas, image)
    chosen = chosen_items(image)
    if len(image.explanations) > METHODS_PER_CARD:
        y = draw_comparison(canvas, MARGIN, y, WIDTH - 2 * MARGIN, image, chosen)
    else:
        shared = shared_notes(image)
        for note in (*shared, *image.left_out):
            y = canvas.text(MARGIN, y + 4, note, WIDTH - 2 * MARGIN, size=14, ink=ACCENT)
        for explanation in image.explanations:
            y = canvas.rule(MARGIN, y + GAP, WIDTH - 2 * MARGIN) + GAP
            own = [note for note in explanation.all_notes if note not in shared]
            known = evidence.of(explanation.method) if evidence and explanation.kind == "image" else ""
            draw = _draw_heat_maps if explanation.kind == "image" else _draw_text_shading
            y = draw(canvas, y, image, explanation, chosen, (known, *own))
    y = canvas.rule(MARGIN, y + GAP, WIDTH - 2 * MARGIN) + GAP
    if canvas.missing:
        y = canvas.text(MARGIN, y, canvas.missing, WIDTH - 2 * MARGIN, size=14, bold=True)
    if evidence is None:
        y = canvas.text(MARGIN, y, UNMEASURED, WIDTH - 2 * MARGIN, size=14, ink=QUIET) + 4
    y = canvas.text(MARGIN, y, DISCLAIMER, WIDTH - 2 * MARGIN, size=14, ink=QUIET)
    card = canvas.finished(y + MARGIN)
    if canvas.first_map is not None:
        card.info[FIRST_MAP] = str(canvas.first_map)
    return card


def shared_notes(image: ExplainedImage) -> tuple[str, ...]:
    """What has to be said of every method of a photograph, so that it is said once."""
    if len(image.explanations) < 2:
        return ()
    first, *others = image.explanations
    return tuple(note for note in first.all_notes if all(note in other.all_notes for other in others))


def write_card(image: ExplainedImage, path: Path, evidence: Evidence | None = None) -> Path:
    """Draw a card and write it as PNG, with a note of where its heat maps begin; see :func:`draw_card`."""
    card, notes = draw_card(image, evidence), PngInfo()
    if FIRST_MAP in card.info:
        notes.add_text(FIRST_MAP, card.info[FIRST_MAP])
    with replacing(path) as unfinished:
        card.save(unfinished, "PNG", compress_level=4, pnginfo=notes)
    return path


def chosen_items(image: ExplainedImage) -> list[int]:
    """The items that fit on a card: content words of a caption in reading order, then whatever is not a single word."""
    wholes = [index for index, item in enumerate(image.items) if item.span is None]
    words = [index for index, item in enumerate(image.items) if item.span and _is_content(item.label)]
    return [*words[: max(0, ITEMS_PER_CARD - len(wholes))], *wholes] or list(range(len(image.items)))[:ITEMS_PER_CARD]


def _draw_head(canvas: Canvas, image: ExplainedImage) -> int:
    y = canvas.text(MARGIN, MARGIN, image.name, WIDTH - 2 * MARGIN, size=24, bold=True, lines=2)
    y = canvas.text(MARGIN, y + 2, image.warning, WIDTH - 2 * MARGIN, size=17, bold=True, ink=ACCENT)
    facts = "   ·   ".join(f"{key}: {value}" for key, value in image.facts.items())
    y = canvas.text(MARGIN, y + 2, facts, WIDTH - 2 * MARGIN, size=15, ink=QUIET) + GAP
    photograph = fitted(image.photograph, *PHOTOGRAPH)
    shown = photograph if image.mask is None else draw_outline(photograph, image.mask)
    left = canvas.paste(shown, MARGIN, y)
    legend = (
        "The whole photograph." if image.mask is None else f"The whole photograph; white line: {' '.join(image.truth)}."
    )
    left = canvas.text(MARGIN, left + 6, legend, photograph.width, size=14, ink=QUIET)
    x = MARGIN + photograph.width + 2 * GAP
    return max(left, _draw_captions(canvas, x, y, WIDTH - MARGIN - x, image))


def _draw_captions(canvas: Canvas, x: int, y: int, width: int, image: ExplainedImage) -> int:
    if image.caption is not None:
        y = canvas.text(x, y, "Generated caption", width, size=15, bold=True, ink=ACCENT) + 4
        y = canvas.runs(x, y, _caption_runs(image), width)
        if _shades_words(image):
            y = canvas.text(x, y, "Darker words: higher probability, given the photograph and the words before.", width,
                            size=13, ink=QUIET)  # fmt: skip
        y += GAP
    if image.ledger is not None and image.ledger.words:
        y = canvas.text(x, y, "What each word rests on", width, size=15, bold=True, ink=ACCENT) + 4
        for line in image.ledger.in_short:
            y = canvas.text(x, y, line, width, size=14)
        y += GAP
    others = [index for index, item in enumerate(image.items) if item.span is None]
    if others:
        words = all(image.items[index].score_name == TOTAL_EFFECT for index in others)
        title = "Explained words" if words else "Explained as a whole"
        y = canvas.text(x, y, title, width, size=15, bold=True, ink=ACCENT) + 4
        for index in others:
            y = canvas.text(x, y, short_label(image, index), width, size=16, lines=MOST_LINES)
            y = canvas.text(x, y, image.items[index].score_text, width, size=14, ink=QUIET)
            y = canvas.text(x, y, image.items[index].context, width, size=14, ink=QUIET) + 6
        y += GAP - 6
    if image.references:
        title = "Reference caption" if len(image.references) == 1 else "Reference captions"
        y = canvas.text(x, y, title, width, size=15, bold=True, ink=ACCENT) + 4
        for reference in image.references:
            y = canvas.text(x, y, reference, width, size=16) + 6
    if image.measurements and len(image.explanations) <= METHODS_PER_CARD:
        y = (
            canvas.text(
                x, y + GAP - 6, f"Heat against the {' '.join(image.truth)}", width, size=15, bold=True, ink=ACCENT
            )
            + 4
        )
        for name, text in image.measurements.items():
            y = canvas.text(x, y, f"{name}: {text}", width, size=14, ink=QUIET)
    return y


def _shades_words(image: ExplainedImage) -> bool:
    return any(item.span and item.score_name == LOG_PROBABILITY for item in image.items)


def _caption_runs(image: ExplainedImage) -> list[Run]:
    """The caption in pieces: explained words on a ground that deepens with their probability, the rest plain."""
    caption, cursor = image.caption or "", 0
    runs: list[Run] = []
    for item in sorted((item for item in image.items if item.span), key=lambda item: item.span or (0, 0)):
        start, end = item.span or (0, 0)
        runs.extend(Run(text) for text in caption[cursor:start].split())
        shade = mix(PAPER, ACCENT, 0.55 * math.exp(min(item.score, 0.0))) if _shades_words(image) else None
        runs.append(Run(caption[start:end], shade))
        cursor = max(cursor, end)
    return runs + [Run(text) for text in caption[cursor:].split()]


def _draw_method(canvas: Canvas, y: int, explanation: Explanation, shown: str, notes: Sequence[str]) -> int:
    width = WIDTH - 2 * MARGIN
    y = canvas.text(MARGIN, y, explanation.title, width, size=20, bold=True)
    y = canvas.text(MARGIN, y, explanation.reading, width, size=14, ink=QUIET)
    y = canvas.text(MARGIN, y, f"Settings: {explanation.settings_text}", width, size=14, ink=QUIET)
    for note in (*notes, shown):
        y = canvas.text(MARGIN, y, note, width, size=14, ink=QUIET if note == shown else ACCENT)
    return y + 10


def _draw_heat_maps(canvas: Canvas, y: int, image: ExplainedImage, explanation: Explanation, chosen: list[int],
                    notes: Sequence[str]) -> int:  # fmt: skip
    shown = [index for index in chosen if index in explanation.items]
    if not explanation.text_dependent:
        shown = [explanation.items[0]]
    in_a_row = min(TILES_PER_ROW, max(FEWEST_TILES, len(chosen)))  # of few texts, the maps are larger
    across, picture = tile_size(image, WIDTH - 2 * MARGIN, in_a_row)
    y = _draw_method(canvas, y, explanation, _map_key(image, explanation, len(shown), picture), notes)
    labels = [short_label(image, index) if explanation.text_dependent else "every word or text" for index in shown]
    for first in range(0, len(shown), in_a_row):
        lines = label_lines(labels[first : first + in_a_row], across)
        bottoms = [
            draw_tile(
                canvas,
                MARGIN + column * (across + GAP),
                y,
                across,
                picture,
                image,
                explanation,
                index,
                labels[first + column],
                image.items[index].score_text if explanation.text_dependent else "",
                lines,
            )
            for column, index in enumerate(shown[first : first + in_a_row])
        ]
        y = max(bottoms) + GAP
    for index in shown if explanation.interactions else ():
        y = draw_interactions(canvas, MARGIN, y, WIDTH - 2 * MARGIN, image, explanation, index)
    return y - GAP


def _map_key(image: ExplainedImage, explanation: Explanation, count: int, picture: Image.Image) -> str:
    """How to read the maps of one method, in sentences."""
    sentences = ["Each map has its own colour bar, with raw values at its ends."]
    if explanation.text_dependent and count < len(explanation.items):
        sentences.append(f"Shown: {count} of {len(explanation.items)}; index.html has them all.")
    if np.isnan(placed(explanation.values[0], image.geometry, picture)).any():
        sentences.append("Hatched grey: outside of what the model saw.")
    return " ".join(sentences)


def _draw_text_shading(canvas: Canvas, y: int, image: ExplainedImage, explanation: Explanation,
                       chosen: list[int], notes: Sequence[str]) -> int:  # fmt: skip
    """One line a word."""
    shown = "Each line is about the word in front: green raised it, purple lowered it. Each line has its own scale."
    y = _draw_method(canvas, y, explanation, shown, notes)
    for index in chosen:
        if index in explanation.items:
            label = short_label(image, index)
            y = draw_shaded_line(canvas, MARGIN, y, WIDTH - 2 * MARGIN, explanation, index, label)
    return y


def _is_content(label: str) -> bool:
    word = label.strip(" .,;:!?()'\"").lower()
    return bool(word) and word not in FUNCTION_WORDS
