"""CheXpert (also -small) and CheXlocalize: tables of labels above the pictures, masks of findings as run lengths.

``train.csv``, ``valid.csv`` and ``test.csv`` (or ``val_labels.csv``, ``test_labels.csv``) name pictures such as
``CheXpert-v1.0-small/train/patient00001/study1/view1_frontal.jpg``; 1 is present, 0 absent, -1 uncertain, and of a
blank nothing is stated, unless the row says that there is no finding. ``gt_segmentations_val.json`` and
``gt_segmentations_test.json`` of CheXlocalize give masks; pictures of another size than theirs get them resized.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from clip_xai.data.record import SourceTable
from clip_xai.data.regular import is_regular, read_regular
from clip_xai.data.run_lengths import pack_counts
from clip_xai.data.sources.common import SourceReader
from clip_xai.data.sources.photograph_files import MASKS_OF_CHEXLOCALIZE, PhotographIndex, find_files, find_tables
from clip_xai.data.sources.tables import known, number, read_table
from clip_xai.errors import UserError
from clip_xai.text import counted

NAME = "chexpert"

FINDINGS = (
    *("No Finding", "Enlarged Cardiomediastinum", "Cardiomegaly", "Lung Opacity", "Lung Lesion", "Edema"),
    *("Consolidation", "Pneumonia", "Atelectasis", "Pneumothorax", "Pleural Effusion", "Pleural Other", "Fracture"),
    "Support Devices",
)
_HEALTHY = "No Finding"
_ALSO_CALLED = {"Airspace Opacity": "Lung Opacity"}
_SPLITS = {"train": "train", "valid": "val", "val": "val", "test": "test"}
_STATED = {1.0: True, 0.0: False, -1.0: None}
_FIELDS = ("Sex", "Age", "Frontal/Lateral", "AP/PA")

#: Masks of one picture: finding -> height and width, and packed run lengths.
Masks = dict[str, tuple[tuple[int, int], str]]


def read(root: Path) -> SourceTable | None:
    """Read the data set below `root`; None where none of its tables is there."""
    tables = find_tables(root, r"(train|valid|val|test)(_labels)?\.csv", columns=("Path", "Enlarged Cardiomediastinum"))
    if not tables:
        return None
    reader = SourceReader(NAME, PhotographIndex.empty(), path=tables[0], compare_looks=False)
    masks = _masks(root, reader)
    seen: set[Path] = set()
    for path in tables:
        table = read_table(path)
        findings = [finding for finding in FINDINGS if finding in table.columns]
        reader.count_rows(table)
        split = _SPLITS[path.stem.casefold().removesuffix("_labels")]
        for row in table.rows:
            _add(reader, root, path, row, findings, split, masks, seen)
    if masks:
        reader.note(f"masks of {counted(len(masks), 'picture')} that no table names")
    return reader.table()


def _add(
    reader: SourceReader,
    root: Path,
    table: Path,
    row: dict[str, str],
    findings: list[str],
    split: str,
    masks: dict[str, Masks],
    seen: set[Path],
) -> None:
    name = row["Path"]
    parts = [part for part in name.replace("\\", "/").split("/") if part not in ("", ".")]
    patient = next((part for part in parts if re.fullmatch(r"patient\d+", part)), None)
    if patient is None or ".." in parts or "\0" in name:
        reader.reject(name, "its path names no patient, or leaves the folder")
        return
    stated = {finding: row[finding] for finding in findings if known(row[finding])}
    wrong = next((finding for finding, cell in stated.items() if number(cell) not in _STATED), None)
    if wrong is not None:
        reader.reject(name, f"its label {wrong} is {stated[wrong]!r}, not 1, 0, -1 or blank", kind="label")
        return
    drawn = masks.pop("_".join(parts[parts.index(patient) :]).rsplit(".", 1)[0], {})
    picture = _found(root, table.parent, parts, patient)
    if picture is None:
        reader.reject(name, "listed in the table, not on disk", kind="missing")
        return
    if picture in seen:
        reader.reject(name, "an earlier row is of the same picture")
        return
    seen.add(picture)
    labels = {finding: _STATED[float(cell)] for finding, cell in stated.items()}
    if labels.get(_HEALTHY):
        # It is given where no finding but a device is, so that of a blank the absence is stated.
        labels |= {finding: False for finding in findings if finding not in (*labels, "Support Devices")}
    record = reader.add(
        picture,
        None,
        keys=(f"chexpert-patient:{patient}",),
        diagnosis=None,
        fields={field: row[field] for field in _FIELDS if known(row.get(field, ""))},
        view="chest radiograph",
        official_split=split,
        labels=labels,
        label_masks={finding: runs for finding, (_, runs) in drawn.items()},
    )
    record.name = "/".join(parts[parts.index(patient) :])
    record.mask_sizes = {finding: size for finding, (size, _) in drawn.items()}


def _found(root: Path, folder: Path, parts: list[str], patient: str) -> Path | None:
    """Find a picture by the end of its path, the longest first, in the table's folder or up to the root."""
    places = [folder, *(parent for parent in folder.parents if parent == root or root in parent.parents)]
    for place in places if folder != root else [root]:
        for first in range(parts.index(patient) + 1):
            path = place.joinpath(*parts[first:])
            if is_regular(path):
                return path
    return None


def _masks(root: Path, reader: SourceReader) -> dict[str, Masks]:
    """Return picture -> its masks, by the names of CheXlocalize: ``patient64541_study1_view1_frontal``."""
    found: dict[str, Masks] = {}
    for path in find_files(root, MASKS_OF_CHEXLOCALIZE):
        try:
            listed = json.loads(read_regular(path))
            for picture, findings in listed.items():
                found[picture] = {}
                for finding, mask in findings.items():
                    size, runs = _mask(mask)
                    if runs is not None:
                        found[picture][_ALSO_CALLED.get(finding, finding)] = (size, runs)
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise UserError(
                f"{path}: not the masks of CheXlocalize ({' '.join(str(error).split())}); download it again."
            ) from error
    return found


def _mask(mask: dict[str, Any]) -> tuple[tuple[int, int], str | None]:
    """Return height, width and packed run lengths; None for a mask that marks nothing."""
    height, width = (int(side) for side in mask["size"])
    counts = mask["counts"]
    runs = counts if isinstance(counts, str) else pack_counts([int(count) for count in counts])
    return (height, width), None if runs == pack_counts([height * width]) else runs
