"""RSNA pneumonia detection challenge: ``stage_2_train_labels.csv`` above its pictures, DICOM, JPEG or PNG.

A row for each box, or one without a box where there is no opacity. The challenge's mapping to NIH ChestX-ray14, where
it is there, tells whose pictures they are: a patient of both data sets stays in one group.
"""

from __future__ import annotations

import json
from pathlib import Path

from clip_xai.data.boxes import Box
from clip_xai.data.groups import SAME_PHOTOGRAPH
from clip_xai.data.record import NO_PATIENT, SourceTable
from clip_xai.data.regular import read_regular
from clip_xai.data.sources.common import SourceReader
from clip_xai.data.sources.photograph_files import PATIENTS_OF_RSNA, PhotographIndex, find_files, find_table, only
from clip_xai.data.sources.tables import number, read_table
from clip_xai.errors import UserError

NAME, ROWS = "rsna_pneumonia", 26_684

#: The finding that the boxes are of.
FINDING = "Lung Opacity"

#: Width and height of the pictures that the boxes were drawn on.
BOX_FRAME = (1024, 1024)

_EDGES = ("x", "y", "width", "height")


def read(root: Path) -> SourceTable | None:
    """Read the data set below `root`; None where its table is not there."""
    path = find_table(root, r"stage_2_train_labels\.csv", columns=("patientId", "Target", *_EDGES))
    if path is None:
        return None
    table = read_table(path)
    reader = SourceReader(NAME, PhotographIndex(path.parent), expected=ROWS, path=path, compare_looks=False)
    reader.count_rows(table)
    boxes: dict[str, list[Box]] = {}
    targets: dict[str, set[float | None]] = {}
    for row in table.rows:
        name, target = row["patientId"], number(row["Target"])
        boxes.setdefault(name, [])
        targets.setdefault(name, set()).add(target)
        if not any(row[edge] for edge in _EDGES):
            continue
        values = [number(row[edge]) for edge in _EDGES]
        try:
            left, top, width, height = (float("nan") if value is None else value for value in values)
            boxes[name].append(Box(FINDING, left, top, width, height))
        except ValueError as error:
            reader.reject(name, str(error), kind="box")
    reader.rows = len(targets) + len(table.broken)
    classes, originals = _classes(path.parent), _originals(root)
    for name, stated in targets.items():
        if stated not in ({0.0}, {1.0}):
            reader.reject(name, "its Target is not 1 or 0, the same in all of its rows", kind="label")
            continue
        _add(reader, name, stated == {1.0}, boxes[name], classes.get(name, ""), originals.get(name))
    if not originals:
        reader.note("no mapping to NIH ChestX-ray14 tells the patients: splits are by photograph")
    return reader.table()


def _add(reader: SourceReader, name: str, present: bool, boxes: list[Box], kind: str, original: str | None) -> None:
    if boxes and not present:
        reader.reject(name, f"it has a box, and its Target says that there is no {FINDING}: boxes left out", kind="box")
        boxes = []
    photograph = reader.photograph(name)
    if photograph is None:
        return
    keys: tuple[str, ...] = (f"rsna-picture:{name}",)
    if original:
        patient = original.partition("_")[0].lstrip("0") or "0"
        keys = (f"nih-patient:{patient}", f"{SAME_PHOTOGRAPH}nih:{original}")
    reader.add(
        photograph,
        None,
        keys=keys,
        diagnosis=None,
        fields={"class": kind} if kind else {},
        view="chest radiograph",
        flags=() if original else (NO_PATIENT,),
        labels={FINDING: present},
        boxes=boxes,
        box_frame=BOX_FRAME,
    )


def _classes(folder: Path) -> dict[str, str]:
    path = find_table(folder, r"stage_2_detailed_class_info\.csv", columns=("patientId", "class"))
    return {row["patientId"]: row["class"] for row in read_table(path).rows} if path else {}


def _originals(root: Path) -> dict[str, str]:
    """Return picture -> the picture of NIH ChestX-ray14 that it was made of."""
    path = only(root, find_files(root, PATIENTS_OF_RSNA))
    if path is None:
        return {}
    try:
        listed = json.loads(read_regular(path))
        return {str(row["subset_img_id"]): str(row["img_id"]) for row in listed}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path}: not the challenge's mapping ({error}); download it again.") from error
