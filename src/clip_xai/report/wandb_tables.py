"""Tables for Weights & Biases, built from finished results: columns and rows for ``wandb.Table``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import wandb

from clip_xai.data.images import read_image
from clip_xai.report.explained import ExplainedImage, number, short_label
from clip_xai.report.figures import fitted

PHOTOGRAPH = 320
CAPTION_COLUMNS = ("photograph", "name", "source", "generated", "reference", "diagnosis read", "diagnosis")
EXPLANATION_COLUMNS = ("card", "name", "method", "explained", "score name", "score", "least", "largest", "settings")


def caption_rows(examples: Sequence[Mapping[str, Any]]) -> list[list[Any]]:
    """Rows of the table of sample captions, one a photograph; see ``CAPTION_COLUMNS``.

    Args:
        examples: As for :func:`clip_xai.report.evaluation_page.write_evaluation_page`.
    """
    return [
        [
            wandb.Image(fitted(read_image(example["image"]), PHOTOGRAPH, PHOTOGRAPH)),
            str(example["name"]),
            str(example["source"]),
            example["captions"]["model"],
            example["references"][0],
            str(example["diagnosis_read"] or "none"),
            str(example["diagnosis_true"] or "unknown"),
        ]
        for example in examples
    ]


def explanation_rows(image: ExplainedImage, card: Path) -> list[list[Any]]:
    """Rows of the table of explanations, one for each method and item; see ``EXPLANATION_COLUMNS``.

    Args:
        image: A finished result.
        card: Its card; shown in the first row alone, because a table with the same picture in each row is heavy.
    """
    rows: list[list[Any]] = []
    for explanation in image.explanations:
        for row, item in enumerate(explanation.items):
            values = explanation.values[row]
            known = values[values == values]
            rows.append(
                [
                    None if rows else wandb.Image(str(card)),
                    image.name,
                    explanation.method,
                    short_label(image, item),
                    image.items[item].score_name,
                    image.items[item].score,
                    number(float(known.min())) if known.size else "",
                    number(float(known.max())) if known.size else "",
                    explanation.settings_text,
                ]
            )
    return rows
