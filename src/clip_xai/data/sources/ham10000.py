"""HAM10000 in every form it is handed out, alone or together; rows of one photograph are merged by its ISIC id.

- The Dataverse files and the Kaggle mirrors: ``HAM10000_metadata.csv`` (or ``.tab``) and the test table that has all
  columns, ``ISIC2018_Task3_Test_GroundTruth.csv``.
- The ISIC 2018 challenge: one-hot ``ISIC2018_Task3_*_GroundTruth.csv`` (the test one has the very name of the table
  above; the header tells them apart) and ``ISIC2018_Task3_Training_LesionGroupings.csv``.
- The ISIC Archive's collection 212: ``metadata.csv`` with ``isic_id``.

Photographs are found by their ids wherever they lie; ``HAM10000_segmentations_lesion_tschandl/`` gives masks.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from clip_xai.data.captions import CaptionFacts
from clip_xai.data.lexicon import canonical_diagnosis
from clip_xai.data.record import NO_PATIENT, SourceTable
from clip_xai.data.sources.common import SourceReader, labelled, stated_fields
from clip_xai.data.sources.photograph_files import LEFT_OVERS, PhotographIndex, find_tables, home_of, only, walk
from clip_xai.data.sources.tables import Table, header_of, known, number, read_table
from clip_xai.data.vocabulary import load_vocabulary
from clip_xai.text import counted

NAME = "ham10000"

_COLUMNS = ("lesion_id", "image_id", "dx", "dx_type", "age", "sex", "localization")
_CODES = ("akiec", "bcc", "bkl", "df", "mel", "nv", "vasc")
_TRAIN_ROWS, _VALIDATION_ROWS, _TEST_ROWS = 10015, 193, 1512
_SPLITS = {"training": "train", "validation": "val", "test": "test"}
_CONFIRMED_BY = {
    "histo": "histopathology",
    "histopathology": "histopathology",
    "follow_up": "follow-up without change",
    "serial imaging showing no change": "follow-up without change",
    "consensus": "expert consensus",
    "single image expert consensus": "expert consensus",
    "confocal": "confocal microscopy",
    "confocal microscopy with consensus dermoscopy": "confocal microscopy",
}
_SITES = {
    "acral": "acral skin",
    "genital": "the genital area",
    "oral/genital": "the genital area",
    "palms/soles": "acral skin",
    "head/neck": "the head or neck",
}
_ID = re.compile(r"ISIC_\d{7}")
_MASK = re.compile(r"(ISIC_\d{7})_segmentation\.png", re.IGNORECASE)
_PHOTOGRAPH = re.compile(r"ISIC_\d{7}\.\w+", re.IGNORECASE)
_TRAINING_TABLE = r"HAM10000_metadata(\.csv|\.tab)?"
_CHALLENGE_TABLE = r"(ISIC2018_Task3_(Training|Validation|Test)_)?GroundTruth.*\.(csv|tab)"


@dataclass
class _Row:
    """What all tables together say of one photograph."""

    labels: list[str] = field(default_factory=list)
    code: str | None = None
    lesion: str = ""
    confirmed: str = ""
    site: str = ""
    split: str = "train"
    fields: dict[str, object] = field(default_factory=dict)
    shown: dict[str, str] = field(default_factory=dict)


def read(root: Path) -> SourceTable | None:
    """Read the data set below `root`; None where none of its tables is there."""
    train = only(root, find_tables(root, _TRAINING_TABLE))
    tests = find_tables(root, _CHALLENGE_TABLE)
    full = only(root, [path for path in tests if "lesion_id" in header_of(path)])
    one_hot = [path for path in tests if {"image", "MEL", "NV"} <= set(header_of(path))]
    groupings = only(root, find_tables(root, r"ISIC2018_Task3_Training_LesionGroupings\.csv"))
    archive = only(root, [path for path in find_tables(root, r".*metadata.*\.csv", ("isic_id",)) if _is_ham(path)])
    found = [path for path in (train, full, *one_hot, groupings, archive) if path is not None]
    if not found or found == [groupings]:
        return None
    home = home_of(root, found, lambda name: _PHOTOGRAPH.fullmatch(name) is not None)
    reader = SourceReader(NAME, PhotographIndex(home))
    rows: dict[str, _Row] = {}
    for path, split in ((train, "train"), (full, "test")):
        if path is not None:
            _read_full(reader, rows, read_table(path), split)
    for path in one_hot:
        _read_one_hot(reader, rows, read_table(path))
    if archive is not None:
        _read_archive(reader, rows, read_table(archive))
    if groupings is not None:
        _read_groupings(reader, rows, read_table(groupings))
    _expect(reader, train, full, one_hot, archive)
    _records(reader, rows, _masks(home))
    return reader.table()


def _read_full(reader: SourceReader, rows: dict[str, _Row], table: Table, split: str) -> None:
    """Read a table of the Dataverse; ids and codes that were altered are repaired where their meaning is certain."""
    table.require(*_COLUMNS)
    listed = len(table.rows) + len(table.broken)
    reader.count_rows(table)
    publishers = _TRAIN_ROWS if split == "train" else _TEST_ROWS
    if listed > publishers:
        reader.note(f"{table.path.name} has {counted(listed, 'row')}, the publisher's {publishers}: an altered copy")
    repaired: Counter[tuple[str, str]] = Counter()
    for row in table.rows:
        image_id = re.sub(r"\.(jpe?g|png)$", "", row["image_id"], flags=re.IGNORECASE)
        repaired["image id with an extension", "image ids with an extension"] += image_id != row["image_id"]
        code = row["dx"] if row["dx"] in _CODES else _code(row["dx"])
        repaired["spelled-out diagnosis", "spelled-out diagnoses"] += code is not None and code != row["dx"]
        if not _ID.fullmatch(image_id):
            reader.reject(repr(row["image_id"]), "no ISIC image id (ISIC_ and seven digits)")
        elif code is None:
            reader.reject(image_id, f"dx {row['dx']!r} is none of {', '.join(_CODES)}: an altered copy of the table")
        elif image_id in rows:
            reader.reject(image_id, "listed twice")
        else:
            # Age 0 stands for a missing value in this table.
            no_age = () if number(row["age"]) else ("age",)
            rows[image_id] = _Row(
                labels=[row["dx"]],
                code=code,
                lesion=row["lesion_id"],
                confirmed=row["dx_type"],
                site=row["localization"],
                split=split,
                fields=stated_fields(row, leave_out=no_age),
                shown=labelled(row, ("lesion_id", "image_id", "dataset", *no_age), _LABELS),
            )
    for forms, count in repaired.items():
        if count:
            reader.note(f"{table.path.name}: {counted(count, *forms)}, repaired: an altered copy")


_LABELS = {"dx": "Diagnosis", "dx_type": "Diagnosis confirm type", "age": "Age (approx)", "localization": "Site"}


def _read_one_hot(reader: SourceReader, rows: dict[str, _Row], table: Table) -> None:
    """Read a table of the challenge: one column for each class."""
    table.require("image", *(code.upper() for code in _CODES))
    match = re.search("training|validation|test", table.path.name.casefold())
    for line, reason in table.broken:
        reader.rows += 1
        reader.reject(f"{table.path.name} line {line}", reason)
    for row in table.rows:
        image_id = re.sub(r"\.(jpe?g|png)$", "", row["image"], flags=re.IGNORECASE)
        marked = [code for code in _CODES if number(row[code.upper()]) == 1]
        known_row = rows.get(image_id)
        # A photograph that a table with more columns lists as well is counted once.
        reader.rows += known_row is None
        if not _ID.fullmatch(image_id):
            reader.reject(repr(row["image"]), "no ISIC image id (ISIC_ and seven digits)")
        elif len(marked) != 1:
            reader.reject(image_id, f"one class should be marked, and {len(marked)} are")
            rows.pop(image_id, None)
        elif known_row is None:
            split = _SPLITS[match[0]] if match else _split_of(image_id) or "train"
            rows[image_id] = _Row(labels=marked, code=marked[0], split=split, fields={"dx": marked[0]},
                                  shown={"Diagnosis": marked[0]})  # fmt: skip
        elif known_row.code is not None and known_row.code != marked[0]:
            reader.reject(image_id, f"two tables disagree on its diagnosis: {known_row.code} and {marked[0]}")
            del rows[image_id]


def _read_archive(reader: SourceReader, rows: dict[str, _Row], table: Table) -> None:
    """Read an export of the ISIC Archive, whose columns have changed over the years."""
    levels = [f"diagnosis_{level}" for level in (5, 4, 3, 2, 1)] + ["diagnosis"]
    sites = ["anatom_site_special", "anatom_site_general", "anatom_site_1", "anatom_site"]
    for line, reason in table.broken:
        reader.rows += 1
        reader.reject(f"{table.path.name} line {line}", reason)
    for row in table.rows:
        image_id = row["isic_id"].upper()
        known_row = rows.get(image_id)
        reader.rows += known_row is None
        split = known_row.split if known_row is not None else _split_of(image_id)
        if split is None:
            reader.reject(row["isic_id"], "not one of HAM10000's ids: from another collection of the ISIC Archive")
            continue
        no_age = () if number(row.get("age_approx", "")) else ("age_approx",)
        left_out = ("isic_id", "attribution", "copyright_license", "lesion_id", "patient_id", *no_age)
        site = next((row[name] for name in sites if known(row.get(name, ""))), "")
        said = _Row(
            labels=[row[name] for name in levels if row.get(name)],
            lesion=row.get("lesion_id", ""),
            confirmed=row.get("diagnosis_confirm_type", "").casefold(),
            site=site.split(":")[-1].casefold(),
            split=split,
            fields=stated_fields(row, leave_out=("attribution", "copyright_license", *no_age)),
            shown=labelled(row, left_out, {"age_approx": "Age (approx)"}),
        )
        if known_row is None:
            rows[image_id] = said
            continue
        # The Dataverse's words come first; the archive adds what it alone knows (the validation set's age, sex, site).
        known_row.lesion = known_row.lesion or said.lesion
        known_row.confirmed = known_row.confirmed or said.confirmed
        known_row.site = known(known_row.site) or said.site
        known_row.fields = {**said.fields, **known_row.fields}
        known_row.shown = {**said.shown, **known_row.shown}


def _read_groupings(reader: SourceReader, rows: dict[str, _Row], table: Table) -> None:
    """Read which training photographs of the challenge show one lesion."""
    table.require("image", "lesion_id")
    for row in table.rows:
        known_row = rows.get(row["image"])
        if known_row is not None:
            known_row.lesion = known_row.lesion or row["lesion_id"]
            known_row.confirmed = known_row.confirmed or row.get("diagnosis_confirm_type", "")


def _expect(
    reader: SourceReader, train: Path | None, full: Path | None, one_hot: list[Path], archive: Path | None
) -> None:
    parts = {name: any(name in path.name.casefold() for path in one_hot) for name in _SPLITS}
    reader.expected = (
        (_TRAIN_ROWS if train or parts["training"] or archive else 0)
        + (_VALIDATION_ROWS if parts["validation"] or archive else 0)
        + (_TEST_ROWS if full or parts["test"] or archive else 0)
    )


def _records(reader: SourceReader, rows: dict[str, _Row], masks: dict[str, Path]) -> None:
    alone = 0
    for image_id, row in rows.items():
        path = reader.photograph(f"{image_id}.jpg")
        if path is None:
            continue
        diagnosis = reader.diagnose(*([row.code] if row.code else row.labels))
        alone += not row.lesion
        key = f"ham10000-lesion:{row.lesion or image_id}"
        reader.add(
            path,
            CaptionFacts(
                name=path.name,
                view="dermoscopic image",
                site=_site(row.site),
                diagnosis=diagnosis,
                confirmed_by=_CONFIRMED_BY.get(row.confirmed.casefold()),
                fields=row.shown,
            ),
            keys=(key,),
            diagnosis=diagnosis,
            malignancy=_stated_malignancy(row),
            fields=row.fields,
            view="dermoscopic",
            mask=masks.get(image_id),
            official_split=row.split,
            flags=() if row.lesion else (NO_PATIENT,),
        )
    if alone:
        reader.note(
            f"{counted(alone, 'photograph')} with no lesion id: only looks can tell whether two show one lesion. "
            "HAM10000_metadata.csv or ISIC2018_Task3_Training_LesionGroupings.csv names the lesions of the training "
            "set, the Dataverse's table those of the test set, and the ISIC Archive alone those of the validation set"
        )


def _site(text: str) -> str | None:
    site = known(text).casefold()
    return _SITES.get(site, f"the {site}") if site else None


def _stated_malignancy(row: _Row) -> str | None:
    stated = {
        str(value).casefold() for name, value in row.fields.items() if name in ("diagnosis_1", "benign_malignant")
    }
    return next(iter(stated & {"benign", "malignant"}), None)


def _code(label: str) -> str | None:
    """Return the code that stands for a spelled-out class, or None where that is not certain."""
    name = canonical_diagnosis(label)
    skin = load_vocabulary("skin")
    above = skin.lineage(name) if name else ()
    return next((code for code in _CODES if skin.label_codes[code] in above), None)


def _split_of(image_id: str) -> str | None:
    """Return the split that an ISIC id belongs to, or None where it is none of HAM10000's."""
    number = int(image_id[5:]) if _ID.fullmatch(image_id) else 0
    ranges: Iterator[tuple[str, range]] = iter(
        (("train", range(24306, 34321)), ("val", range(34321, 34524)), ("test", range(34524, 36065)))
    )
    return next((split for split, numbers in ranges if number in numbers), None)


def _is_ham(path: Path) -> bool:
    """Tell whether an export of the ISIC Archive holds HAM10000 and not only another collection."""
    return any(_split_of(row.get("isic_id", "").upper()) for row in read_table(path).rows)


def _masks(folder: Path) -> dict[str, Path]:
    """Return image id -> mask. The publisher's archive also holds macOS stubs that look like masks."""
    found: dict[str, Path] = {}
    for parent, _, names in walk(folder, leave_out=LEFT_OVERS):
        for name in names:
            match = _MASK.fullmatch(name)
            if match:
                found.setdefault(match[1].upper(), parent / name)
    return found
