"""What planted shortcuts came to for one model, kept beside its checkpoint for the page of its explainers."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

from clip_xai.explanations.evidence_calibration import folder_of
from clip_xai.files import write_json
from clip_xai.report.pages import Table

log = logging.getLogger(__name__)
FILE = "shortcuts.json"
STUDY = "python -m clip_xai.studies.shortcuts ckpt=..."


def save_tables(place: Path, model: Mapping[str, str], tables: Sequence[Table]) -> Path:
    """Write finished tables beside a model.

    Args:
        place: The exported model's directory, or a ``.ckpt`` file.
        model: Fingerprints of the model.
        tables: The tables.
    """
    file = folder_of(place) / FILE
    write_json(file, {"model": dict(model), "tables": [asdict(table) for table in tables]})
    return file


def tables_beside(place: Path, model: Mapping[str, str]) -> list[Table]:
    """Return the tables beside a model if they are of this very model; none where there are none.

    Args:
        place: The exported model's directory, or a ``.ckpt`` file.
        model: Fingerprints of the model.
    """
    file = folder_of(place) / FILE
    if not file.is_file():
        return []
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
        of_model = dict(found["model"])
        tables = [
            Table(one["title"], tuple(one["head"]), tuple(tuple(row) for row in one["rows"]), one["note"])
            for one in found["tables"]
        ]
    except (OSError, ValueError, KeyError, TypeError) as error:
        log.warning("%s cannot be read and is skipped: %s", file, error)
        return []
    if of_model != dict(model):
        log.warning("%s is of another model and is skipped: plant again with %s", file, STUDY)
        return []
    return tables
