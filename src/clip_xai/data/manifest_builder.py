"""From publishers' folders to one manifest: read, check every photograph, group, split, write, report."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import time
from collections import Counter
from dataclasses import asdict
from pathlib import Path

from clip_xai.data.box_placing import place_findings
from clip_xai.data.captions import compose
from clip_xai.data.descriptions import apply_descriptions
from clip_xai.data.file_formats import has_ending_of
from clip_xai.data.groups import assign_groups, flag_conflicts, groups_that_differ_by_case, mark_duplicates
from clip_xai.data.images import ImageFacts, MaskFacts
from clip_xai.data.inspection import inspect_files, inspect_masks
from clip_xai.data.manifest import unkept, write_manifest
from clip_xai.data.near import near_pairs
from clip_xai.data.record import CONFLICT, EMPTY_MASK, FULL_MASK, Problem, Record, SourceTable
from clip_xai.data.report import Findings, write_report
from clip_xai.data.settings import BuildSettings
from clip_xai.data.source_reading import read_sources, what_is_expected
from clip_xai.data.sources import SOURCES
from clip_xai.data.sources.photograph_files import JSON_OF_SOURCES, LEFT_OVERS, is_ours
from clip_xai.data.splits import assign_splits
from clip_xai.data.synthetic.marker import MARKER, drawn_by_earlier_version
from clip_xai.data.vocabulary import Vocabulary, load_vocabulary
from clip_xai.errors import UserError
from clip_xai.files import write_text
from clip_xai.text import counted, plural, printable

log = logging.getLogger(__name__)

#: Raise it when a change here must rebuild manifests of data that did not change.
VERSION = 6

#: Size, time of writing, time of change.
State = tuple[int, int, int]

_WRITTEN = ("manifest.parquet", "report.json", "report.html")
_OWN_MARKS = ("manifest.stamp", "inspected.sqlite")

#: What no source reads, such as the features that a run keeps: its changes change no manifest.
_NO_SOURCE = (".npy", ".json", ".part", ".ckpt", ".safetensors")

_FAULTS = {
    "missing": ("photograph", "not there"),
    "unreadable": ("photograph", "that cannot be read"),
    "mask": ("mask", "that cannot be used"),
    "box": ("box", "clipped or left out"),
    "label": ("label", "that cannot be used"),
    "description": ("description", "that cannot be used"),
    "row": ("row", "that cannot be used"),
}


def build_manifest(root: Path | str, output_dir: Path | str, settings: BuildSettings | None = None) -> Path:
    """Write ``manifest.parquet``, ``report.json`` and ``report.html`` for the data sets below a folder.

    Returns at once when neither a file below the root (by name, size and times) nor a setting has changed. Otherwise
    the files that changed are read anew, and no others; a run that was killed goes on where it stopped.

    Args:
        root: Folder with one or more of the known data sets, each as its publisher ships it, and folders with a
            ``captions.csv`` or ``labels.csv``, or else folders of classes. What our own commands wrote below it is left
            out.
        output_dir: Where the files are written; not the root itself.
        settings: Captions, splits and what counts as looking alike.

    Returns:
        Path of ``manifest.parquet``.

    Raises:
        UserError: No data set is there, one of its tables cannot be used, or something else would be overwritten.
    """
    settings = settings or BuildSettings()
    vocabulary = load_vocabulary(settings.vocabulary)
    # Not resolved: users link data sets from other disks into one folder.
    root, output_dir = Path(root).absolute(), Path(output_dir).absolute()
    if not root.is_dir():
        raise UserError(f"data.root={root} is not a folder; {what_is_expected()}")
    for setting, place in (("data.root", root), ("data.output_dir", output_dir)):
        if printable(str(place)) != str(place):
            raise UserError(f"{setting}={place} holds a control character or is not UTF-8; rename it.")
    _claim(output_dir, root)
    manifest, stamp_file = output_dir / "manifest.parquet", output_dir / "manifest.stamp"
    states, left_out = _states(root, output_dir)
    stamp = _stamp(root, states, settings, vocabulary)
    if _is_current(output_dir, stamp):
        return manifest
    started = time.monotonic()
    tables = read_sources(root, settings, vocabulary)
    _make(output_dir)
    write_text(stamp_file, "unfinished\n")  # not removed: it also says whose the folder is
    found = _checked(root, output_dir, tables, settings, vocabulary)
    found.left_out = [str(Path(folder).relative_to(root)) for folder in left_out]
    assign_groups(found.records, found.near)
    _note_identifiers_by_case(found)
    # Conflicts first: a row does not take over captions of one that it disagrees with.
    found.conflicts = flag_conflicts(found.records, found.near, vocabulary)
    mark_duplicates(found.records, vocabulary)
    assign_splits(
        found.records,
        settings,
        withheld={record.identifier for record in found.records if CONFLICT in record.flags},
        evaluation_sets=[name for name, source in SOURCES.items() if source.evaluation_set],
    )
    write_manifest(manifest, found.records, root, vocabulary)
    write_report(output_dir, found, settings, seconds=time.monotonic() - started)
    write_text(stamp_file, " ".join((stamp, *_digests_of_written(output_dir))) + "\n")
    _say_what_is_left_out(found, output_dir)
    return manifest


def _say_what_is_left_out(found: Findings, output_dir: Path) -> None:
    counts = Counter((problem.source, problem.kind) for problem in found.problems)
    for (source, kind), count in counts.items():
        report = output_dir / "report.html"
        what, why = _FAULTS.get(kind, ("row", f"left out ({kind})"))
        it = plural(count, "it", "them")
        log.warning("%s: %s %s; %s names %s", source, counted(count, what), why, report, it)
    for flag in (EMPTY_MASK, FULL_MASK):
        flagged = sum(flag in record.flags for record in found.records)
        if flagged:
            log.warning("of %s %s", counted(flagged, "photograph"), flag)


def _note_identifiers_by_case(found: Findings) -> None:
    """Say, in the log and in the report, which identifiers may be of one patient whom a table spells in two ways."""
    for table in found.tables:
        alike = groups_that_differ_by_case(record for record in found.records if record.source == table.source)
        if not alike:
            continue
        some = "; ".join(" and ".join(spellings) for spellings in alike[:3]) + ("; ..." if len(alike) > 3 else "")
        note = (
            f"{counted(len(alike), 'identifier is', 'identifiers are')} spelled in ways that differ by upper and lower "
            f"case alone ({some}): each spelling counts as a patient of its own; if they are the same patient, spell "
            "them alike in the table, or their photographs can stand in two splits"
        )
        table.notes.append(note)
        log.warning("%s: %s", table.source, note)


def _claim(output_dir: Path, root: Path) -> None:
    """Refuse an output folder in which something else would be overwritten, or taken for data."""
    if output_dir.is_dir() and output_dir.samefile(root):
        raise UserError(
            f"data.output_dir={output_dir} is data.root itself; name a folder for what is written, such as "
            f"data.output_dir={root.with_name(f'{root.name}_manifest')}"
        )
    if output_dir.exists() and not output_dir.is_dir():
        raise UserError(
            f"data.output_dir={output_dir} is a file, not a folder; name another, such as "
            f"data.output_dir={output_dir.with_name(f'{output_dir.name}_manifest')}"
        )
    if any((output_dir / name).exists() for name in _OWN_MARKS):
        return
    # Below the root our folders are left out of the data: one with photographs in it would take them along.
    if root in output_dir.parents and output_dir.is_dir():
        others = sorted(path.name for path in output_dir.iterdir() if not path.name.startswith("."))
        if others:
            raise UserError(
                f"data.output_dir={output_dir} lies in data.root and holds {others[0]}: what is written there is left "
                "out of the data, and so would be all else in it; name an empty folder, such as "
                f"data.output_dir={root.with_name(f'{root.name}_manifest')}"
            )
    for name in _WRITTEN:
        if (output_dir / name).exists():
            raise UserError(
                f"data.output_dir={output_dir} holds a {name} that no build wrote; name another folder, such as "
                f"data.output_dir={output_dir.with_name(f'{output_dir.name}_manifest')}"
            )


def _is_current(output_dir: Path, stamp: str) -> bool:
    """Tell whether the files that an earlier build wrote are all there, whole, and made of the same data."""
    if not all((output_dir / name).is_file() for name in (*_WRITTEN, "manifest.stamp")):
        return False
    told = (output_dir / "manifest.stamp").read_bytes().split()
    return told == [digest.encode() for digest in (stamp, *_digests_of_written(output_dir))]


def _digests_of_written(output_dir: Path) -> list[str]:
    return [hashlib.sha256((output_dir / name).read_bytes()).hexdigest() for name in _WRITTEN]


def _checked(
    root: Path, output_dir: Path, tables: list[SourceTable], settings: BuildSettings, vocabulary: Vocabulary
) -> Findings:
    """Put captions on the rows, decode every photograph and mask once, and find what looks alike."""
    records = [record for table in tables for record in table.records]
    problems = [problem for table in tables for problem in table.problems]
    for record in records:
        if record.facts is not None:
            record.references = compose(record.facts, settings.captions, vocabulary)
            record.caption = record.references[0]
    problems += apply_descriptions(root, records)
    records = _with_names(records, root, problems)
    kept, values = output_dir / "inspected.sqlite", tuple(settings.mask_values or ())
    seen = inspect_files([record.image for record in records], kept, settings.workers)
    masks = inspect_masks([record.mask for record in records if record.mask], kept, values, settings.workers)
    _require_values(records, masks, values)
    drawn_before = drawn_by_earlier_version(root)
    readable: list[Record] = []
    looks: list[tuple[int, bytes]] = []
    compared, places = {table.source for table in tables if table.compare_looks}, list[int]()
    for record in records:
        outcome = seen[record.image]
        if isinstance(outcome, str):
            problems.append(Problem(record.source, record.name, "unreadable", outcome))
            continue
        _note_facts(record, outcome)
        record.rendered = outcome.rendered or drawn_before
        fault = _note_mask(record, masks[record.mask], values) if record.mask else None
        if fault:
            record.mask = None
            problems.append(Problem(record.source, record.name, "mask", fault))
        problems += place_findings(record)
        if record.source in compared:
            looks.append((outcome.phash, outcome.thumbnail))
            places.append(len(readable))
        readable.append(record)
    bits = settings.near_bits
    pairs = near_pairs(looks, bits, settings.near_difference) if bits is not None and looks else []
    near = [(places[one], places[other]) for one, other in pairs]
    read = {path: facts for path, facts in masks.items() if isinstance(facts, MaskFacts)}
    return Findings(tables=tables, records=readable, problems=problems, near=near, masks=read)


def _require_values(records: list[Record], masks: dict[Path, MaskFacts | str], values: tuple[int, ...]) -> None:
    """Refuse values that are lesion in no mask of a source: each would be read as empty."""
    shares: dict[str, list[float]] = {}
    for record in records:
        facts = masks.get(record.mask) if record.mask else None
        if isinstance(facts, MaskFacts):
            shares.setdefault(record.source, []).append(facts.share)
    for source, found in shares.items():
        if values and not any(found):
            raise UserError(
                f"data.mask_values=[{','.join(map(str, values))}]: none of {counted(len(found), 'mask')} of {source} "
                "holds any of them; name values that they hold, or leave the setting out where masks say so themselves"
            )


def _with_names(records: list[Record], root: Path, problems: list[Problem]) -> list[Record]:
    """Return the rows whose paths a manifest can keep; report the others, and drop masks whose it cannot."""
    kept = []
    for record in records:
        if fault := unkept(record.image, root):
            problems.append(Problem(record.source, record.name, "row", fault))
            continue
        if record.mask and (fault := unkept(record.mask, root)):
            problems.append(Problem(record.source, record.name, "mask", f"its mask {record.mask.name}: {fault}"))
            record.mask = None
        kept.append(record)
    return kept


def _note_facts(record: Record, facts: ImageFacts) -> None:
    record.sha256, record.height, record.width = facts.sha256, facts.height, facts.width
    if facts.photometric:
        record.fields = {**record.fields, "photometric interpretation": facts.photometric}
    if facts.study:
        record.keys = (*record.keys, f"dicom-study:{facts.study}")  # pictures of one study are of one patient
    if not has_ending_of(record.image, facts.format):
        record.flags = (*record.flags, f"wrong extension: a {facts.format} file")


def _note_mask(record: Record, outcome: MaskFacts | str, values: tuple[int, ...]) -> str | None:
    """Note what is to be known of a row's mask; return what is wrong with it."""
    assert record.mask is not None
    if isinstance(outcome, str):
        return f"its mask {record.mask.name} cannot be used ({outcome})"
    if (outcome.height, outcome.width) != (record.height, record.width):
        return f"its mask is {outcome.width} x {outcome.height}, the photograph {record.width} x {record.height}"
    record.mask_values = values
    if outcome.share in (0, 1):
        record.flags = (*record.flags, FULL_MASK if outcome.share else EMPTY_MASK)
    return None


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"data.output_dir={folder} cannot be written to ({error.strerror}); name another.") from error


def _stamp(root: Path, states: list[tuple[str, State | None]], settings: BuildSettings, vocabulary: Vocabulary) -> str:
    """Digest of everything the manifest depends on: each file's name, size and times, and the settings."""
    chosen = {name: value for name, value in asdict(settings).items() if name != "workers"}
    chosen |= {"vocabulary": vocabulary.digest}
    digest = hashlib.sha256(json.dumps([VERSION, str(root), chosen], sort_keys=True).encode())
    digest.update(SOURCES.code().encode())
    for path, state in states:
        digest.update(f"{path}\0{state}\n".encode("utf-8", "surrogatepass"))
    return digest.hexdigest()


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False


def _states(root: Path, output_dir: Path) -> tuple[list[tuple[str, State | None]], list[str]]:
    """Return every file below the root with its state, in a fixed order, and the folders of ours that are left out."""
    found: list[tuple[str, State | None]] = []
    left_out: list[str] = []
    waiting, entered = [str(root)], {os.path.realpath(output_dir)}
    while waiting:
        folder = waiting.pop()
        real = os.path.realpath(folder)
        if real in entered:
            continue
        entered.add(real)
        try:
            with os.scandir(folder) as entries:
                listed = list(entries)
        except OSError as error:
            raise UserError(f"{folder} cannot be read ({error.strerror}); give yourself permission to.") from error
        if folder != str(root) and is_ours(entry.name for entry in listed):
            left_out.append(folder)
            continue
        for entry in listed:
            read = entry.name == MARKER or JSON_OF_SOURCES.fullmatch(entry.name)
            if entry.name.startswith((".", "~$")) or (entry.name.endswith(_NO_SOURCE) and not read):
                continue
            if _is_folder(entry):
                waiting.extend(() if LEFT_OVERS.fullmatch(entry.name) else (entry.path,))
                continue
            try:
                state = entry.stat()
                found.append((entry.path, (state.st_size, state.st_mtime_ns, state.st_ctime_ns)))
            except OSError:
                found.append((entry.path, None))
    return sorted(found, key=lambda item: item[0]), sorted(left_out)
