"""The page of a run: point at a word and see the heat behind it on the whole photograph."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from clip_xai.report.cards import chosen_items
from clip_xai.report.curves import item_picture, svg_uri
from clip_xai.report.evidence import Evidence, opening_method
from clip_xai.report.explained import (
    LOG_PROBABILITY,
    TOTAL_EFFECT,
    ExplainedImage,
    Explanation,
    Item,
    plain,
    short_label,
)
from clip_xai.report.figures import (
    DIVERGING,
    OPACITY,
    SEQUENTIAL,
    STRENGTH_EXPONENT,
    Scale,
    data_uri,
    fitted,
    lookup_table,
    mean_colour,
    outlines,
    scale_of,
)
from clip_xai.report.ledger import FOLLOWS, HEAD, LedgerWord
from clip_xai.report.pages import Section, Table, script_json, write_page

PHOTOGRAPH = 900  # longest side on the page in pixels
THUMBNAIL = 128
NOT_READ = -32768  # 16-bit integer that stands for "no value"
_LEAST_SHARE = 0.05  # Of what the words before bring; smaller parts are left out of the chain.


def write_explanations(
    images: Iterable[ExplainedImage],
    path: Path,
    *,
    title: str,
    subtitle: str = "",
    notes: Sequence[str] = (),
    problems: Sequence[str] = (),
    table: Table | None = None,
    evidence: Evidence | None = None,
    measure_with: str = "python -m clip_xai.studies.localise",
    sections: Sequence[Section] = (),
) -> Path:
    """Write the page of a run: one file that opens from disk, without network.

    The page holds the raw values and colours them itself, so that a legend, a value under the pointer and a change of
    scale are always those of the raw map. ``#image=3&word=5&method=gradeclip`` opens it in a given state.

    Args:
        images: Finished results; taken one by one, so that they need not all be in memory.
        path: Where to write, usually ``index.html``.
        title: Heading.
        subtitle: One line about the run.
        notes: Sentences on it that a reader must see, the details of each behind a colon.
        problems: One line for each photograph that could not be explained.
        table: Measurements over the whole run, such as localisation.
        evidence: What is known of the methods' maps for this model; the page opens with the best, and says so.
        measure_with: The command that measures it where nothing is known.
        sections: More measurements over the whole run, with pictures.
    """
    shown, methods, truth = [], [], ("finding", "mask")
    for image in images:
        shown.append(_image(image, evidence))
        truth = truth if image.mask is None else image.truth
        methods += [explanation.method for explanation in image.explanations if explanation.kind == "image"]
    opening, reason = opening_method(list(dict.fromkeys(methods)), evidence, measure_with)
    return write_page(
        "explanations.html.j2",
        path,
        title=title,
        subtitle=subtitle,
        notes=notes,
        styles=("explanations.css",),
        script="explanations.js",
        problems=list(problems),
        sections=[*([] if table is None else [Section(table)]), *sections],
        truth=truth,
        data=script_json(
            {
                "tables": {
                    "sequential": _base64(lookup_table(SEQUENTIAL)),
                    "diverging": _base64(lookup_table(DIVERGING)),
                },
                "opacity": OPACITY,
                "exponent": STRENGTH_EXPONENT,
                "opening": {"method": opening, "text": reason},
                "images": shown,
            }
        ),
    )


def _image(image: ExplainedImage, evidence: Evidence | None) -> dict[str, object]:
    box, photograph = image.geometry, fitted(image.photograph, PHOTOGRAPH, PHOTOGRAPH)
    if max(image.photograph.size) <= PHOTOGRAPH:
        photograph = image.photograph
    width, height = image.geometry.width, image.geometry.height
    return {
        "name": image.name,
        "width": width,
        "height": height,
        "photo": data_uri(photograph),
        "thumb": data_uri(fitted(image.photograph, THUMBNAIL, THUMBNAIL), quality=80),
        "mean": mean_colour(photograph),
        "box": [box.left / width, box.top / height, box.right / width, box.bottom / height],
        "truth": image.truth,
        "outline": None if image.mask is None else _path(image.mask),
        "caption": image.caption,
        # Python counts characters, JavaScript 16-bit units: the page slices the list, never the string.
        "letters": list(image.caption or ""),
        "references": list(image.references),
        "facts": dict(image.facts),
        "warning": image.warning,
        "measurements": dict(image.measurements),
        "left_out": list(image.left_out),
        "curves": {
            str(index): {
                "picture": svg_uri(item_picture(curves, item)),
                "text": f"Protocol {curves.protocol}: {curves.words}. {curves.note}".strip(),
            }
            for index, (curves, item) in image.curves.items()
        },
        "first": _first(image),
        "items": [
            {
                "label": item.label,
                "short": short_label(image, index),
                "score": item.score,
                "score_name": item.score_name,
                "score_text": item.score_text,
                "span": item.span,
                "note": item.note,
                "context": item.context,
                "rests": _rests(image, item),
                "chain": [] if (word := _word_of(image, item)) is None else _chain(image, word, item.score_name),
            }
            for index, item in enumerate(image.items)
        ],
        "verdicts": _verdicts(image),
        "ledger": _ledger(image),
        "explanations": [_explanation(image, explanation, evidence) for explanation in image.explanations],
    }


def _first(image: ExplainedImage) -> int | None:
    """The item that is shown first: of maps that follow the words, one that has words to follow."""
    follows = [
        index
        for index, item in enumerate(image.items)
        if item.score_name == TOTAL_EFFECT and (word := _word_of(image, item)) is not None and word.verdict == FOLLOWS
    ]
    return follows[-1] if follows else chosen_items(image)[0] if image.items else None


def _word_of(image: ExplainedImage, item: Item) -> LedgerWord | None:
    """The content word of the caption that an item is about."""
    if image.ledger is None or item.score_name not in (LOG_PROBABILITY, TOTAL_EFFECT):
        return None
    return image.ledger.at(item.span, item.label)


def _rests(image: ExplainedImage, item: Item) -> dict[str, str] | None:
    """What a word of the caption rests on, to be read under its own map; None for all else."""
    word = _word_of(image, item) if item.score_name == LOG_PROBABILITY else None
    return None if word is None else {"kind": word.verdict, "text": word.map_note}


def _chain(image: ExplainedImage, word: LedgerWord, score_name: str) -> list[dict[str, object]]:
    """The words that a word follows from, each with the item that explains it alike, the largest part first."""
    assert image.ledger is not None
    shares = image.ledger.shares(image.ledger.words.index(word))
    links: list[dict[str, object]] = []
    for s, share in sorted(shares.items(), key=lambda one: -one[1]):
        if share < _LEAST_SHARE:
            break
        before = image.ledger.words[s]
        links.append({"item": _item_of(image, before, score_name), "text": before.text, "share": f"{share:.0%}"})
    return links


def _item_of(image: ExplainedImage, word: LedgerWord, score_name: str) -> int | None:
    """The last item that is about a word: of the diagnosis, the whole of it and not one of its words."""
    own = (i for i, item in enumerate(image.items) if item.score_name == score_name and _word_of(image, item) == word)
    return max(own, default=None)


def _ledger(image: ExplainedImage) -> dict[str, object] | None:
    """The ledger word by word, each with the item that explains it, where there is one."""
    if image.ledger is None or not image.ledger.words:
        return None
    names = {item.score_name for item in image.items}
    name = LOG_PROBABILITY if LOG_PROBABILITY in names else TOTAL_EFFECT
    words = [
        {
            "item": _item_of(image, word, name),
            "kind": word.verdict,
            "cells": word.cells,
            "chain": _chain(image, word, name) if word.verdict == FOLLOWS and word.carrier else [],
        }
        for word in image.ledger.words
    ]
    return {"head": HEAD, "words": words, "note": image.ledger.note}


def _verdicts(image: ExplainedImage) -> dict[str, dict[str, object]]:
    """By method and item: whether the map has evidence, the line under it, and the numbers behind that."""
    found: dict[str, dict[str, object]] = {}
    for (method, item), one in image.evidence.items():
        found.setdefault(method, {})[str(item)] = {"holds": one.holds, "text": one.verdict, "rows": one.rows()}
    return found


def _explanation(image: ExplainedImage, explanation: Explanation, evidence: Evidence | None) -> dict[str, object]:
    values = np.asarray(explanation.values, dtype=np.float64)
    rows = [row if np.isfinite(row).any() else np.zeros_like(row) for row in values]
    signed = explanation.kind == "text" or bool((values < 0).any())
    units = [image.items[item].score_name for item in explanation.items]
    shared = {
        unit: _scale(scale_of(np.stack([row for row, other in zip(rows, units, strict=True) if other == unit]), signed))
        for unit in set(units)
    }
    return {
        "method": explanation.method,
        "title": explanation.title,
        "reading": explanation.reading,
        "evidence": evidence.of(explanation.method) if evidence and explanation.kind == "image" else "",
        "group": explanation.group,
        "kind": explanation.kind,
        "agnostic": not explanation.text_dependent,
        "notes": list(explanation.all_notes),
        "settings": {key: plain(value) for key, value in explanation.settings.items()},
        "items": list(explanation.items),
        "grid": list(values.shape[1:]),
        "tokens": [list(tokens) for tokens in explanation.tokens],
        "peaks": [_peak(row) for row in values],
        "data": [_packed(row) for row in values],
        "own": [_scale(scale_of(row, signed)) for row in rows],
        "shared": [shared[unit] for unit in units],
        "interactions": [
            _interactions(*one) for one in zip(explanation.interactions, explanation.tokens, strict=False)
        ],
    }


def _interactions(values: NDArray[np.floating], words: Sequence[str]) -> dict[str, object]:
    """The maps of a text's words, all on one scale, so that a faint map is a faint word."""
    scale = _scale(scale_of(values, signed=True))
    return {
        "words": list(words),
        "grid": list(values.shape[1:]),
        "peaks": [_peak(row) for row in values],
        "data": [_packed(row) for row in values],
        "own": [scale] * len(words),
        "shared": [scale] * len(words),
    }


def _scale(scale: Scale) -> dict[str, object]:
    return {"low": scale.low, "high": scale.high, "signed": scale.signed, "ends": scale.ends, "text": scale.text}


def _peak(values: NDArray[np.floating]) -> float:
    """Largest absolute value of a row; 1 for a row of zeros, so that it can be divided by."""
    finite = np.abs(values[np.isfinite(values)])
    return float(finite.max()) if finite.size and finite.max() > 0 else 1.0


def _packed(values: NDArray[np.floating]) -> str:
    """A row as base64 of little-endian 16-bit integers in units of its peak / 32767."""
    steps = np.where(np.isfinite(values), np.round(np.nan_to_num(values) / _peak(values) * 32767), NOT_READ)
    return _base64(steps.astype("<i2"))


def _base64(array: NDArray[np.generic]) -> str:
    return base64.b64encode(np.ascontiguousarray(array).tobytes()).decode("ascii")


def _path(mask: NDArray[np.bool_]) -> str:
    """The outline of a mask as an SVG path in a unit square."""
    return "".join("M" + "L".join(f"{x:.4f} {y:.4f}" for x, y in line) + "Z" for line in outlines(mask))
