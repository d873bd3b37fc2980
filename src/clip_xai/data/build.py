"""From publishers' folders to one manifest: read, check every photograph, group, split, write, report."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from PIL import Image

from clip_xai.data.descriptions import apply_descriptions
from clip_xai.data.groups import assign_groups, conflicting_duplicates, mark_duplicates
from clip_xai.data.images import FORMATS, UnreadableImageError, inspect_image
from clip_xai.data.manifest import write_manifest
from clip_xai.data.record import Problem, Record, SourceTable
from clip_xai.data.report import write_report
from clip_xai.data.sources import SOURCES
from clip_xai.data.sources.common import LEFT_OVERS, walk
from clip_xai.data.splits import DEFAULT_FRACTIONS, assign_splits
from clip_xai.errors import UserError
from clip_xai.progress import track

#: Raise it when a change here must rebuild manifests of data that did not change.
VERSION = 1


def build_manifest(
    root: Path | str,
    output_dir: Path | str,
    *,
    seed: int = 0,
    fractions: Mapping[str, float] = DEFAULT_FRACTIONS,
    workers: int | None = None,
) -> Path:
    """Write ``manifest.parquet``, ``report.json`` and ``report.html`` for the data sets below a folder.

    Returns at once when neither a file below the root (by name, size and time) nor an argument has changed.

    Args:
        root: Folder with one or more of the six data sets, each as its publisher ships it.
        output_dir: Where the files are written.
        seed: Seed of the splits.
        fractions: Share of each split.
        workers: Photographs checked at a time; the number of cores when None.

    Returns:
        Path of ``manifest.parquet``.

    Raises:
        UserError: No data set is there, or one of its tables cannot be used.
    """
    # Not resolved: users link data sets from other disks into one folder.
    root, output_dir = Path(root).absolute(), Path(output_dir).absolute()
    if not root.is_dir():
        raise UserError(f"data.root={root} is no folder; {_expected()}")
    manifest, stamp_file = output_dir / "manifest.parquet", output_dir / "manifest.stamp"
    stamp = _stamp(root, output_dir, seed, fractions)
    if manifest.is_file() and stamp_file.is_file() and stamp_file.read_text() == stamp:
        return manifest
    tables = _read_sources(root)
    records = [record for table in tables for record in table.records]
    problems = [problem for table in tables for problem in table.problems]
    problems += apply_descriptions(root, records)
    records, unreadable = _readable(records, workers)
    problems += unreadable + _drop_unusable_masks(records)
    assign_groups(records)
    mark_duplicates(records)
    conflicts = conflicting_duplicates(records)
    assign_splits(records, seed, fractions, withheld={record.identifier for pair in conflicts for record in pair})
    output_dir.mkdir(parents=True, exist_ok=True)
    stamp_file.unlink(missing_ok=True)
    write_manifest(manifest, records, root)
    write_report(output_dir, tables, records, problems, conflicts)
    stamp_file.write_text(stamp)
    return manifest


def _read_sources(root: Path) -> list[SourceTable]:
    tables = [source.read(root) for source in SOURCES.values()]
    found = [table for table in tables if table is not None]
    if not found:
        raise UserError(f"data.root={root} holds none of the six data sets; {_expected()}")
    if not any(table.records for table in found):
        named = ", ".join(table.source for table in found)
        raise UserError(f"data.root={root} holds the tables of {named}, but none of their photographs; {_expected()}")
    return found


def _expected() -> str:
    return "expected below it: " + "; ".join(f"{name}: {source.expected}" for name, source in SOURCES.items())


def _readable(records: list[Record], workers: int | None) -> tuple[list[Record], list[Problem]]:
    """Decode every photograph once; return the rows that can be shown, and the others as problems."""
    readable, problems = [], []
    # Threads suffice: Pillow decodes and hashlib digests outside of the interpreter's lock.
    with ThreadPoolExecutor(workers or os.cpu_count()) as pool:
        for record, outcome in track(pool.map(_inspect, records), "Checking photographs", total=len(records)):
            if isinstance(outcome, Problem):
                problems.append(outcome)
            else:
                record.sha256, record.height, record.width = outcome
                readable.append(record)
    return readable, problems


def _inspect(record: Record) -> tuple[Record, tuple[str, int, int] | Problem]:
    try:
        facts = inspect_image(record.image)
    except UnreadableImageError as error:
        reason = str(error).removeprefix(f"{record.image}: ")
        return record, Problem(record.source, record.name, "unreadable", reason)
    return record, (facts.sha256, facts.height, facts.width)


def _drop_unusable_masks(records: list[Record]) -> list[Problem]:
    """Take away masks that do not lie on their photograph, and report them."""
    problems = []
    for record in records:
        reason = _mask_fault(record) if record.mask else None
        if reason:
            record.mask = None
            problems.append(Problem(record.source, record.name, "mask", reason))
    return problems


def _mask_fault(record: Record) -> str | None:
    assert record.mask is not None
    try:
        with Image.open(record.mask, formats=FORMATS) as mask:
            size = (mask.height, mask.width)
    except (OSError, ValueError, SyntaxError) as error:
        return f"its mask {record.mask.name} cannot be read ({error})"
    if size == (record.height, record.width):
        return None
    return f"its mask is {size[1]} x {size[0]}, the photograph {record.width} x {record.height}"


def _stamp(root: Path, output_dir: Path, seed: int, fractions: Mapping[str, float]) -> str:
    """Digest of everything the manifest depends on: each file's name, size and time, and the arguments."""
    digest = hashlib.sha256(json.dumps([VERSION, str(root), seed, sorted(fractions.items())]).encode())
    for parent, folders, names in walk(root, leave_out=LEFT_OVERS):
        folders[:] = [name for name in folders if parent / name != output_dir]
        for name in names if parent != output_dir else ():
            state = (parent / name).stat() if (parent / name).exists() else None
            seen = (state.st_size, state.st_mtime_ns) if state else None
            digest.update(f"{(parent / name).relative_to(root)}\0{seen}\n".encode())
    return digest.hexdigest()
