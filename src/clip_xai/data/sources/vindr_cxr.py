"""VinDr-CXR: labels and boxes of several radiologists a picture, in the layout of PhysioNet or of Kaggle.

PhysioNet: ``annotations/annotations_train.csv`` and ``annotations_test.csv`` (boxes), ``image_labels_train.csv`` and
``image_labels_test.csv`` (findings), pictures in ``train/`` and ``test/``. Kaggle: ``train.csv`` alone. A finding is
present where any radiologist names it; how many did is kept in the fields. No table names patients.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from clip_xai.data.boxes import Box
from clip_xai.data.record import NO_PATIENT, SourceTable
from clip_xai.data.sources.common import SourceReader
from clip_xai.data.sources.photograph_files import PhotographIndex, find_table, find_tables
from clip_xai.data.sources.tables import Table, number, read_table

NAME = "vindr_cxr"

_EDGES = ("x_min", "y_min", "x_max", "y_max")
_BOXED = ("image_id", "class_name", *_EDGES)
_NONE = "no finding"
_READERS = ("rad_id", "rad_ID")
_NOT_LABELS = ("image_id", *_READERS, "fold")


@dataclass
class _Picture:
    """What the tables say of one picture."""

    split: str | None
    labels: dict[str, bool] = field(default_factory=dict)
    boxes: list[Box] = field(default_factory=list)
    votes: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))
    readers: set[str] = field(default_factory=set)


def read(root: Path) -> SourceTable | None:
    """Read the data set below `root`; None where none of its tables is there."""
    boxed = find_tables(root, r"(annotations_(train|test)|train)\.csv", columns=_BOXED)
    labelled = find_tables(root, r"image_labels_(train|test)\.csv", columns=("image_id", "No finding"))
    if not boxed and not labelled:
        return None
    top = min((path.parent for path in (*boxed, *labelled)), key=lambda folder: len(folder.parts))
    top = top.parent if top.name.casefold() == "annotations" and top != root else top
    reader = SourceReader(NAME, PhotographIndex(top), path=(*boxed, *labelled)[0], compare_looks=False)
    pictures: dict[str, _Picture] = {}
    for path in labelled:
        _collect_labels(reader, _counted(reader, path), pictures, _split(path))
    for path in boxed:
        _collect_boxes(reader, _counted(reader, path), pictures, _split(path))
    reader.rows = len(pictures)
    names = _names(pictures.values())
    frames = _frames(root)
    for name, picture in pictures.items():
        _add(reader, name, picture, names, frames.get(name))
    reader.note("no table names patients: splits are by photograph")
    return reader.table()


def _counted(reader: SourceReader, path: Path) -> Table:
    table = read_table(path)
    reader.count_rows(table)
    return table


def _split(path: Path) -> str | None:
    """Return the official split; Kaggle's one table of the training pictures says nothing of others."""
    return next((split for split in ("train", "test") if path.stem.casefold().endswith(f"_{split}")), None)


def _collect_labels(reader: SourceReader, table: Table, pictures: dict[str, _Picture], split: str | None) -> None:
    names = [name for name in table.columns if name and name not in _NOT_LABELS]
    for row in table.rows:
        wrong = next((name for name in names if number(row[name]) not in (0, 1)), None)
        if wrong is not None:
            reason = f"its label {wrong} is {row[wrong]!r}, not 1 or 0: the row is left out"
            reader.reject(row["image_id"], reason, kind="label")
            continue
        picture = pictures.setdefault(row["image_id"], _Picture(split))
        who = _who(row)
        picture.readers.add(who)
        for name in names:
            present = float(row[name]) == 1
            picture.labels[name] = picture.labels.get(name, False) or present
            if present and name.casefold() != _NONE:
                picture.votes[name].add(who)


def _collect_boxes(reader: SourceReader, table: Table, pictures: dict[str, _Picture], split: str | None) -> None:
    for row in table.rows:
        picture = pictures.setdefault(row["image_id"], _Picture(split))
        name, who = row["class_name"], _who(row)
        picture.readers.add(who)
        if not name or name.casefold() == _NONE:
            continue
        picture.labels[name] = True
        picture.votes[name].add(who)
        values = [number(row[edge]) for edge in _EDGES]
        try:
            left, top, right, bottom = (float("nan") if value is None else value for value in values)
            box = Box(name, left, top, right - left, bottom - top)
        except ValueError as error:
            reader.reject(row["image_id"], f"{name}: {error}", kind="box")
            continue
        if box not in picture.boxes:
            picture.boxes.append(box)


def _who(row: dict[str, str]) -> str:
    return next((row[column] for column in _READERS if row.get(column)), "consensus")


def _names(pictures: Iterable[_Picture]) -> list[str]:
    """Return all findings; a picture that any table names is read for each of them."""
    return sorted({name for picture in pictures for name in picture.labels if name.casefold() != _NONE})


def _frames(root: Path) -> dict[str, tuple[int, int]]:
    """Return the width and height of the pictures that the boxes were drawn on, where copies of another size say so."""
    path = find_table(root, r"(train_meta|.*meta.*)\.csv", columns=("image_id", "dim0", "dim1"))
    rows = read_table(path).rows if path else ()
    sides = {row["image_id"]: (number(row["dim1"]), number(row["dim0"])) for row in rows}
    return {name: (int(width), int(height)) for name, (width, height) in sides.items() if width and height}


def _add(reader: SourceReader, name: str, picture: _Picture, names: list[str], frame: tuple[int, int] | None) -> None:
    photograph = reader.photograph(name)
    if photograph is None:
        return
    fields: dict[str, object] = {"radiologists": len(picture.readers)}
    if picture.votes:
        fields["named by"] = dict(sorted(Counter({label: len(who) for label, who in picture.votes.items()}).items()))
    reader.add(
        photograph,
        None,
        keys=(f"vindr-picture:{name}",),
        diagnosis=None,
        fields=fields,
        view="chest radiograph",
        official_split=picture.split,
        flags=(NO_PATIENT,),
        labels={label: picture.labels.get(label, False) for label in names},
        boxes=picture.boxes,
        box_frame=frame,
    )
