"""Measurements of explanations that travel with a tower: found by its fingerprint, for whatever draws its maps."""

from __future__ import annotations

import json
import logging
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from clip_xai.data.vocabulary import load_vocabulary
from clip_xai.explanations.lesion_maps import CONTROLS, RANDOM, TRAINED
from clip_xai.models.backbones.base import VisionBackbone
from clip_xai.report.evidence import Evidence, Localised, Measured
from clip_xai.runs.checkpoints import CAPTIONS, task_of
from clip_xai.runs.directories import NOTED, asked_of
from clip_xai.text import counted

log = logging.getLogger(__name__)
LOCALISATION = "localisation.json"
ASKED_ABOUT = "similarity"  # of the tower alone, so that it holds for every captioner on it


def localisation_of(backbone: VisionBackbone, runs_root: Path) -> Evidence | None:
    """Return the newest localisation that was measured for a tower under a root, or None.

    Args:
        backbone: The tower; runs of other weights do not count.
        runs_root: Its directories are looked through, three levels deep, as the demo lays them.
    """
    places = [place for depth in ("*", "*/*", "*/*/*") for place in runs_root.glob(f"{depth}/{LOCALISATION}")]
    for place in sorted(places, key=lambda path: path.stat().st_mtime, reverse=True):
        asked = asked_of(place.parent) or {}
        if asked.get("model", {}).get("tower") != backbone.fingerprint[:16]:
            continue
        try:
            rows = json.loads(place.read_text(encoding="utf-8"))
            found = evidence_in(rows, asked)
        except (OSError, ValueError, KeyError, TypeError) as error:
            log.warning("%s cannot be read and is skipped: %s", place, error)
            continue
        if found is not None:
            log.info("localisation of the methods for this tower: %s", place)
            return found
    return None


def evidence_in(rows: Sequence[Mapping[str, Any]], asked: Mapping[str, Any]) -> Evidence | None:
    """Return what the rows of a localisation say of each method; None where they have no similarity.

    Args:
        rows: As ``localisation.json`` holds them.
        asked: What was asked of that run.
    """
    measured: dict[tuple[str, str], Measured] = {}
    controls: dict[str, Measured] = {}
    count = 0
    for row in rows:
        if row["what"] not in (ASKED_ABOUT, "any") or "auprc" not in row:
            continue
        auprc = row["auprc"]
        found = Measured(auprc["value"], auprc["low"], auprc["high"])
        if row["method"].startswith("control"):
            controls[CONTROLS.get(row["method"], row["method"]).removeprefix("Control: ")] = found
            continue
        measured[row["method"], row["weights"]] = found
        count = max(count, auprc["n"])
    # Runs of earlier versions do not say so, and were of skin.
    truth = asked.get(NOTED, {}).get("truth", load_vocabulary().truth)
    methods = {
        method: Localised(value, measured.get((method, RANDOM)), truth)
        for (method, weights), value in measured.items()
        if weights == TRAINED
    }
    if not methods:
        return None
    data, split = asked.get(NOTED, {}).get("data.name"), asked.get("settings", {}).get("split")
    of_data = f" of {data}" if data else ""
    of_split = f", split {split}" if split else ""
    where = f"{counted(count, 'photograph')}{of_data}{of_split}, similarity to the text of the true diagnosis"
    return Evidence(where, methods, controls)


def measuring(place: Path | None, ckpt: str) -> str:
    """What to do to learn how well the methods of a page localise.

    Args:
        place: The model's; None for a tower by itself.
        ckpt: How it was named.
    """
    if place is None:
        return "train a captioner on this CLIP, then python -m clip_xai.studies.localise"
    if task_of(place) != CAPTIONS:
        return "explain photographs that have masks or boxes: the table below the pictures is of them"
    return f"python -m clip_xai.studies.localise ckpt={shlex.quote(ckpt)}"
