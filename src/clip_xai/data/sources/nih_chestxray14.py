"""NIH ChestX-ray14: ``Data_Entry_2017*.csv`` above its pictures, in ``images_001/images/`` ... or in one folder.

Beside it, where they are: ``train_val_list.txt`` and ``test_list.txt`` (the official split, by patient), and
``BBox_List_2017.csv`` (boxes of eight findings on the 1024 x 1024 pictures; pictures of another size get them scaled).
"""

from __future__ import annotations

from collections import Counter, defaultdict
from pathlib import Path

from clip_xai.data.boxes import Box
from clip_xai.data.record import SourceTable
from clip_xai.data.regular import read_regular
from clip_xai.data.sources.common import SourceReader
from clip_xai.data.sources.official_splits import held_for_validation
from clip_xai.data.sources.photograph_files import PhotographIndex, find_table
from clip_xai.data.sources.tables import Table, known, number, read_table, whole
from clip_xai.errors import UserError
from clip_xai.text import counted, plural

NAME, ROWS = "nih_chestxray14", 112_120

#: The fourteen findings in the order of the publisher's paper.
FINDINGS = (
    *("Atelectasis", "Cardiomegaly", "Effusion", "Infiltration", "Mass", "Nodule", "Pneumonia", "Pneumothorax"),
    *("Consolidation", "Edema", "Emphysema", "Fibrosis", "Pleural_Thickening", "Hernia"),
)

#: Width and height of the pictures that the boxes were drawn on.
BOX_FRAME = (1024, 1024)

_NONE = "No Finding"
_ALSO_CALLED = {"Infiltrate": "Infiltration", "Pleural Thickening": "Pleural_Thickening"}
_IMAGE, _LABELS, _PATIENT = "Image Index", "Finding Labels", "Patient ID"
_FIELDS = ("Follow-up #", "Patient Age", "Patient Gender", "Patient Sex", "View Position")
_LISTS = {"train_val_list.txt": "train", "test_list.txt": "test"}


def read(root: Path) -> SourceTable | None:
    """Read the data set below `root`; None where its table is not there."""
    path = find_table(root, r"data_entry_2017.*\.csv", columns=(_IMAGE, _LABELS))
    if path is None:
        return None
    table = read_table(path)
    table.require(_IMAGE, _LABELS, _PATIENT)
    photographs = PhotographIndex(path.parent)
    reader = SourceReader(NAME, photographs, expected=ROWS, path=path, compare_looks=False)
    reader.count_rows(table)
    patients = {row[_IMAGE]: whole(row[_PATIENT]) for row in table.rows}
    splits = _official(path, reader, patients)
    boxes = _boxes(path, reader)
    in_both = {patient for patient, stated in splits.items() if len(stated) > 1}
    _reject_patients(reader, in_both, patients)
    validated = held_for_validation(NAME, [patient for patient, stated in splits.items() if stated == {"train"}])
    for row in table.rows:
        patient, drawn = patients[row[_IMAGE]], boxes.pop(row[_IMAGE], ())
        if patient not in in_both:
            stated = next(iter(splits.get(patient, ())), None)
            _add(reader, row, patient, "val" if patient in validated else stated, drawn)
    if boxes:
        left = sum(map(len, boxes.values()))
        reader.note(f"{counted(left, 'box', 'boxes')} of {counted(len(boxes), 'picture')} without a row in {path.name}")
    return reader.table()


def _add(reader: SourceReader, row: dict[str, str], patient: str, split: str | None, boxes: tuple[Box, ...]) -> None:
    name = row[_IMAGE]
    stated = [_ALSO_CALLED.get(label, label) for label in map(str.strip, row[_LABELS].split("|")) if label]
    unknown = [label for label in stated if label not in (*FINDINGS, _NONE)]
    if unknown or not stated or (_NONE in stated and len(stated) > 1):
        why = f"none of the {len(FINDINGS)} findings and {_NONE}" if unknown else "no label, or one beside No Finding"
        reader.reject(name, f"its labels are {row[_LABELS]!r}: {why}", kind="label")
        return
    if not patient:
        reader.reject(name, "the table names no patient, so its split cannot be kept apart from others")
        return
    photograph = reader.photograph(name)
    if photograph is None:
        return
    labels = {finding: finding in stated for finding in FINDINGS}
    for box in boxes:
        if not labels[box.label]:
            reader.reject(name, f"it has a box of {box.label}, which its labels do not name: left out", kind="box")
    reader.add(
        photograph,
        None,
        keys=(f"nih-patient:{patient}",),
        diagnosis=None,
        fields={field: row[field] for field in _FIELDS if known(row.get(field, ""))},
        view="chest radiograph",
        official_split=split,
        labels=labels,
        boxes=[box for box in boxes if labels[box.label]],
        box_frame=BOX_FRAME,
    )


def _official(table: Path, reader: SourceReader, patients: dict[str, str]) -> dict[str, set[str]]:
    """Return patient -> the official lists that name pictures of theirs."""
    splits: dict[str, set[str]] = defaultdict(set)
    strangers: Counter[str] = Counter()
    for name, split in _LISTS.items():
        place = table.parent / name
        if not place.is_file():
            continue
        try:
            text = read_regular(place).decode("utf-8-sig")
        except (OSError, ValueError) as error:
            raise UserError(f"{place}: cannot be read as a list of file names ({error}); download it again.") from error
        for line in filter(None, map(str.strip, text.splitlines())):
            patient = patients.get(line)
            if patient is None:
                strangers[name] += 1
            else:
                splits[patient].add(split)
    for name, count in strangers.items():
        reader.note(f"{name}: {counted(count, 'picture')} without a row in {table.name}")
    listed = [name for name in _LISTS if (table.parent / name).is_file()]
    if len(listed) == 1:
        reader.note(f"only {listed[0]} is there, without {next(name for name in _LISTS if name not in listed)}")
    alone = len({*patients.values()} - set(splits)) if splits else 0
    if alone:
        reader.note(f"{counted(alone, 'patient')} in neither official list")
    return splits


def _reject_patients(reader: SourceReader, refused: set[str], patients: dict[str, str]) -> None:
    pictures = Counter(patients.values())
    for patient in sorted(refused):
        many = counted(pictures[patient], "picture")
        lists = " and ".join(_LISTS)
        it = plural(pictures[patient], "is", "are")
        reader.reject(f"patient {patient}", f"stands in both {lists}: {many} {it} left out")


def _boxes(path: Path, reader: SourceReader) -> dict[str, tuple[Box, ...]]:
    place = find_table(path.parent, r"bbox_list_2017.*\.csv", columns=(_IMAGE, "Finding Label"))
    if place is None:
        return {}
    table = read_table(place)
    edges = _edges(table)
    found: dict[str, tuple[Box, ...]] = {}
    for line, reason in table.broken:
        reader.reject(f"{place.name} line {line}", reason, kind="box")
    for row in table.rows:
        label = _ALSO_CALLED.get(row["Finding Label"], row["Finding Label"])
        values = [number(row[edge]) for edge in edges]
        name = row[_IMAGE]
        if label not in FINDINGS:
            reader.reject(name, f"a box of {label!r}, which is not a finding of this data set", kind="box")
            continue
        try:
            left, top, width, height = (float("nan") if value is None else value for value in values)
            found[name] = (*found.get(name, ()), Box(label, left, top, width, height))
        except ValueError as error:
            reader.reject(name, f"{place.name}: {error}", kind="box")
    return found


def _edges(table: Table) -> list[str]:
    """Return the columns of left, top, width and height: the publisher's ``Bbox [x,y,w,h]`` is cut at its commas."""
    first = next((place for place, name in enumerate(table.columns) if name.casefold().startswith("bbox")), None)
    first = table.columns.index("x") if first is None and "x" in table.columns else first
    if first is None or len(table.columns) < first + 4:
        table.require("Bbox [x", "y", "w", "h]")
        raise AssertionError("unreachable")
    return list(table.columns[first : first + 4])
