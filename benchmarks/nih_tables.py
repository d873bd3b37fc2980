"""Tables of the form and size of NIH ChestX-ray14: ``python -m benchmarks.nih_tables [--rows 112120]``.

Reads the table, the official lists and the boxes, finds every picture on disk (hard links of a few tiny files), puts
patients into groups, splits, writes the manifest and loads it again. Pictures are not decoded here: that takes as long
as the disk and the decoder need, and ``python -m benchmarks.data`` measures it.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks.common import markdown, peak_mib, timed
from clip_xai.data.box_placing import place_findings
from clip_xai.data.groups import assign_groups, mark_duplicates
from clip_xai.data.manifest import load_manifest, write_manifest
from clip_xai.data.record import Record
from clip_xai.data.settings import BuildSettings
from clip_xai.data.sources.nih_chestxray14 import FINDINGS, read
from clip_xai.data.splits import assign_splits

_HEADER = (
    "Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Sex,View Position,"
    "OriginalImage[Width,Height],OriginalImagePixelSpacing[x,y]"
)

#: Rows a patient, and share of the patients that test, as in the real tables.
_ROWS_A_PATIENT, _TESTED = 112_120 / 30_805, 0.09

#: A file may have only so many names on some disks.
_NAMES_A_FILE = 30_000


def main() -> None:
    """Write tables, read them, print seconds and memory."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=112_120, help="rows of the table")
    rows = parser.parse_args().rows
    lines = []
    for count in (rows // 4, rows):
        with tempfile.TemporaryDirectory() as folder:
            root = Path(folder)
            write_tables(root, count)
            records: list[Record] = []
            steps = {
                "read tables, find pictures": lambda root=root, records=records: _read(root, records),
                "group and split": lambda records=records: _split(records),
                "write and load the manifest": lambda root=root, records=records: _keep(root, records),
            }
            for name, step in steps.items():
                seconds: list[float] = []
                peak = peak_mib(lambda step=step, seconds=seconds: seconds.append(timed(step)[0]))
                lines.append((f"{count:,}", name, seconds[0], peak))
    print(markdown("NIH ChestX-ray14's tables", ["rows", "step", "s", "MiB above the start"], lines))


def write_tables(root: Path, count: int, seed: int = 0) -> None:
    """Write a table of invented rows with its lists, boxes and pictures."""
    rng = np.random.default_rng(seed)
    patients = np.sort(rng.integers(1, max(2, int(count / _ROWS_A_PATIENT)), count))
    tested = rng.random(patients.max() + 1) < _TESTED
    table, lists, boxes = [_HEADER], {True: [], False: []}, ["Image Index,Finding Label,Bbox [x,y,w,h],,,"]
    several = rng.random((count, len(FINDINGS))) < 0.05
    folders = [root / f"images_{number:03d}" / "images" for number in range(1, 13)]
    for folder in folders:
        folder.mkdir(parents=True)
    follow_up, last = 0, -1
    for row, patient in enumerate(patients.tolist()):
        follow_up = follow_up + 1 if patient == last else 0
        last = patient
        name = f"{patient:08d}_{follow_up:03d}.png"
        stated = [FINDINGS[place] for place in np.flatnonzero(several[row])]
        table.append(f"{name},{'|'.join(stated) or 'No Finding'},{follow_up},{patient},58,M,PA,2682,2749,0.143,0.143")
        lists[bool(tested[patient])].append(name)
        if stated and tested[patient] and len(boxes) <= 984:
            boxes.append(f"{name},{stated[0]},225.084745762712,547.019216763771,86.7796610169491,79.1864406779661")
        if row % _NAMES_A_FILE == 0:
            picture = root / f"picture_{row}.bin"
            Image.new("L", (8, 8), row % 251).save(picture, "PNG")
        os.link(picture, folders[row * len(folders) // count] / name)
    (root / "Data_Entry_2017_v2020.csv").write_text("\n".join(table) + "\n")
    (root / "test_list.txt").write_text("\n".join(lists[True]) + "\n")
    (root / "train_val_list.txt").write_text("\n".join(lists[False]) + "\n")
    (root / "BBox_List_2017.csv").write_text("\n".join(boxes) + "\n")


def _read(root: Path, records: list[Record]) -> int:
    found = read(root)
    assert found is not None and not found.problems, found.problems[:3] if found else None
    records += found.records
    for record in records:
        record.height = record.width = 1024
        place_findings(record)
    return len(records)


def _split(records: list[Record]) -> int:
    assign_groups(records)
    mark_duplicates(records)
    for split in ("official", "stratified"):
        assign_splits(records, BuildSettings(split=split))
    return len(records)


def _keep(root: Path, records: list[Record]) -> int:
    write_manifest(root / "manifest.parquet", records, root)
    return len(load_manifest(root / "manifest.parquet"))


if __name__ == "__main__":
    main()
