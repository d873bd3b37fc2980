"""Tables of the form and size of NIH ChestX-ray14: ``python -m benchmarks.nih_tables [--rows 112120]``.

Reads the table, the official lists and the boxes, finds every picture on disk (hard links of a few tiny files), puts
patients into groups, splits, writes the manifest and loads it again. Pictures are not decoded here: that takes as long
as the disk and the decoder need, and ``python -m benchmarks.data`` measures it.

All records are held, so memory grows with their number: the table says by how many bytes a record, and how far memory
rises beyond that while a step runs.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks.common import MIB, kept_mib, markdown, timed
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
    for count in (rows // 4, rows):  # each in a process of its own, in which nothing is left to be used again
        with ProcessPoolExecutor(1, get_context("spawn")) as process:
            lines += process.submit(measured, count).result()
    head = ["rows", "step", "s", "bytes kept a record", "MiB beyond that, at most"]
    print(markdown("NIH ChestX-ray14's tables", head, lines))


def measured(count: int) -> list[tuple[object, ...]]:
    """Return the lines of so many rows, after all steps with a few that load and reserve what is always needed."""
    with tempfile.TemporaryDirectory() as few, tempfile.TemporaryDirectory() as folder:
        write_tables(Path(few), 40)
        for step in steps_of(Path(few)).values():
            step()
        write_tables(Path(folder), count)
        return [(f"{count:,}", name, *costs(step, count)) for name, step in steps_of(Path(folder)).items()]


def steps_of(root: Path) -> dict[str, Callable[[], int]]:
    """Return the steps by name; they hand records on to the next, and hold them."""
    records: list[Record] = []
    loaded: list[Record] = []
    return {
        "read tables, find pictures": lambda: _read(root, records),
        "group and split": lambda: _split(records),
        "write the manifest": lambda: _write(root, records),
        "load the manifest": lambda: _load(root, loaded),
    }


def costs(step: Callable[[], int], count: int) -> tuple[float, float | None, float | None]:
    """Return seconds, bytes that are kept for each record, and how many MiB more are taken meanwhile."""
    seconds: list[float] = []
    memory = kept_mib(lambda: seconds.append(timed(step)[0]))
    if memory is None:
        return seconds[0], None, None
    peak, kept = memory
    return seconds[0], max(0.0, kept * MIB / count), peak - kept


def write_tables(root: Path, count: int, seed: int = 0) -> None:
    """Write a table of invented rows with its lists, boxes and pictures."""
    rng = np.random.default_rng(seed)
    patients = np.sort(rng.integers(1, max(2, int(count / _ROWS_A_PATIENT)), count))
    tested = rng.random(patients.max() + 1) < _TESTED
    table, lists, boxes = [_HEADER], {True: [], False: []}, ["Image Index,Finding Label,Bbox [x,y,w,h],,,"]
    several = rng.random((count, len(FINDINGS))) < 0.05
    ages, sexes, views = rng.integers(1, 95, count), rng.choice(["F", "M"], count), rng.choice(["AP", "PA"], count)
    folders = [root / f"images_{number:03d}" / "images" for number in range(1, 13)]
    for folder in folders:
        folder.mkdir(parents=True)
    follow_up, last = 0, -1
    for row, patient in enumerate(patients.tolist()):
        follow_up = follow_up + 1 if patient == last else 0
        last = patient
        name = f"{patient:08d}_{follow_up:03d}.png"
        stated = [FINDINGS[place] for place in np.flatnonzero(several[row])]
        table.append(
            f"{name},{'|'.join(stated) or 'No Finding'},{follow_up},{patient},"
            f"{ages[patient]},{sexes[patient]},{views[row]},2682,2749,0.143,0.143"
        )
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


def _write(root: Path, records: list[Record]) -> int:
    write_manifest(root / "manifest.parquet", records, root)
    return len(records)


def _load(root: Path, loaded: list[Record]) -> int:
    loaded += load_manifest(root / "manifest.parquet")
    return len(loaded)


if __name__ == "__main__":
    main()
