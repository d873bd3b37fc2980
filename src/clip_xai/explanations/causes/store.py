"""Measured scenes on disk, one file each, so that a run that was stopped goes on with the next one."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from clip_xai.explanations.causes.games import Coalitions
from clip_xai.explanations.causes.one_scene import SceneCauses, Verdicts
from clip_xai.files import replacing, write_json
from clip_xai.report.ledger import ledger_from_plain

FOLDER = "scenes"
_PLAIN = (
    *("seed", "caption", "parts", "kinds", "hidden", "names", "labels", "seconds", "left_out", "refused"),
    *("measured", "curves"),
)
_LISTS = ("parts", "kinds", "hidden", "names", "labels", "refused", "measured", "curves")


def place_of(run_dir: Path, number: int) -> Path:
    """Return where the n-th scene of a run lies."""
    return run_dir / FOLDER / f"{number:06d}.npz"


def save_scene(scene: SceneCauses, path: Path) -> None:
    """Write one scene."""
    header: dict[str, Any] = {name: getattr(scene, name) for name in _PLAIN}
    header["verdicts"] = [asdict(verdict) for verdict in scene.verdicts]
    header["methods"] = list(scene.masses)
    header["followed"] = list(scene.followed)
    header["ledger"] = None if scene.ledger is None else asdict(scene.ledger)
    arrays: dict[str, Any] = {"present": scene.coalitions.present, "orders": scene.coalitions.orders}
    arrays |= {"values": scene.values, "anew": scene.anew}
    arrays |= {f"masses {number}": masses for number, masses in enumerate(scene.masses.values())}
    arrays |= {f"followed {number}": masses for number, masses in enumerate(scene.followed.values())}
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as unfinished, unfinished.open("wb") as file:
        np.savez_compressed(file, header=np.array(json.dumps(header)), **arrays)


def load_scene(path: Path) -> SceneCauses | None:
    """Read what ``save_scene`` wrote; None where there is no whole file."""
    try:
        with np.load(path) as found:
            header = json.loads(str(found["header"]))
            arrays = {name: found[name] for name in found.files if name != "header"}
    except (OSError, ValueError, zipfile.BadZipFile):
        return None
    methods = [(name, weights) for name, weights in header.pop("methods")]
    followed = [(name, variant) for name, variant in header.pop("followed", ())]
    ledger = ledger_from_plain(header.pop("ledger", None))
    verdicts = tuple(Verdicts(**one) for one in header.pop("verdicts"))
    plain: dict[str, Any] = {name: tuple(value) if name in _LISTS else value for name, value in header.items()}
    return SceneCauses(
        **plain,
        verdicts=verdicts,
        coalitions=Coalitions(arrays["present"], arrays["orders"]),
        values=arrays["values"],
        anew=arrays["anew"],
        ledger=ledger,
        followed={pair: arrays[f"followed {number}"] for number, pair in enumerate(followed)},
        masses={method: arrays[f"masses {number}"] for number, method in enumerate(methods)},
    )


def save_rows(rows: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Write rows of plain values; what is not a number becomes null."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, [{key: None if value != value else value for key, value in row.items()} for row in rows])


def load_rows(path: Path) -> list[dict[str, Any]] | None:
    """Read what ``save_rows`` wrote; None where there is no whole file."""
    try:
        rows: list[dict[str, Any]] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return rows
