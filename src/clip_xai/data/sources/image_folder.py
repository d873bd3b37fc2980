"""Classes as folders: ``folder/class/picture``, or ``folder/train/class/picture`` with val and test beside it.

Read where nothing else below the root is a data set. All pictures below the folder of a class are of that class, which
is present, and all others are absent. Nothing tells patients: splits are by photograph.
"""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

from clip_xai.data.record import NO_PATIENT, SourceTable
from clip_xai.data.sources.common import SourceReader
from clip_xai.data.sources.official_splits import held_for_validation
from clip_xai.data.sources.own_tables import SPLIT_NAMES, key_of
from clip_xai.data.sources.photograph_files import IMAGE_SUFFIXES, NO_PHOTOGRAPHS, PhotographIndex, walk
from clip_xai.text import counted, plural, printable

#: Folder of a class or of a split -> pictures below it.
Folders = dict[str, list[Path]]


def read(root: Path) -> SourceTable | None:
    """Read the folders of classes below `root`; None where there are none.

    A folder that is the only one with pictures is entered, so that the root may lie above the data set.
    """
    pictures = [
        folder / name for folder, _, names in walk(root) for name in names if name.lower().endswith(IMAGE_SUFFIXES)
    ]
    base = root
    while len(below := _folders(base, pictures)) == 1 and not _loose(base, pictures):
        base = base / next(iter(below))
    by_split = bool(below) and all(name.casefold() in SPLIT_NAMES for name in below)
    parts = {name: _folders(base / name, pictures) for name in below} if by_split else {"": below}
    classes = sorted({name for part in parts.values() for name in part})
    if len(classes) < 2:
        return None
    reader = SourceReader(printable(base.name), PhotographIndex.empty(), compare_looks=True)
    held = _held(base, parts) if by_split else set()
    if held:
        reader.note(f"{counted(len(held), 'picture')} of train validate, as there is no folder val")
    for part, folders in parts.items():
        place = base / part
        for name in classes:
            for picture in folders.get(name, ()):
                split = "val" if picture in held else SPLIT_NAMES.get(part.casefold())
                _add(reader, base, picture, name, classes, split)
        for picture in _loose(place, pictures):
            _reject(reader, base, picture, "it lies in no folder of a class")
        _name_empty(reader, base, place, folders, classes)
    for picture in _loose(base, pictures) if by_split else ():
        _reject(reader, base, picture, "it lies in no folder of a split")
    reader.rows = len(pictures)
    reader.note(f"{counted(len(classes), 'class', 'classes')} by folder: {', '.join(map(printable, classes))}")
    reader.note("nothing tells patients: splits are by photograph")
    return reader.table()


def _held(base: Path, parts: dict[str, Folders]) -> set[Path]:
    """Return the training pictures that validate where there is no folder val: an eighth of each class."""
    splits = {SPLIT_NAMES[part.casefold()]: folders for part, folders in parts.items()}
    if "val" in splits or "train" not in splits:
        return set()
    held: set[Path] = set()
    for name, pictures in splits["train"].items():
        by_name = {picture.relative_to(base).as_posix(): picture for picture in pictures}
        held |= {by_name[one] for one in held_for_validation(f"folder {name}", by_name)}
    return held


def _folders(base: Path, pictures: list[Path]) -> Folders:
    """Return the folders of a folder that hold pictures, at whatever depth."""
    found: Folders = defaultdict(list)
    for picture in pictures:
        if base in picture.parents:
            parts = picture.relative_to(base).parts
            if len(parts) > 1:
                found[parts[0]].append(picture)
    return dict(found)


def _loose(base: Path, pictures: list[Path]) -> list[Path]:
    return [picture for picture in pictures if picture.parent == base]


def _add(reader: SourceReader, base: Path, picture: Path, name: str, classes: list[str], split: str | None) -> None:
    relative = picture.relative_to(base).as_posix()
    record = reader.add(
        picture,
        None,
        keys=(key_of(reader.source, relative),),
        diagnosis=None,
        fields={},
        view="photograph",
        official_split=split,
        flags=(NO_PATIENT,),
        labels={printable(other): other == name for other in classes},
    )
    record.name = printable(relative)


def _reject(reader: SourceReader, base: Path, picture: Path, reason: str) -> None:
    reader.reject(picture.relative_to(base).as_posix(), reason)


def _name_empty(reader: SourceReader, base: Path, place: Path, folders: Folders, classes: list[str]) -> None:
    """Name folders without a picture, classes that a split lacks, and folders whose names say that they hold none."""
    there = sorted(path.name for path in place.iterdir() if path.is_dir() and not path.name.startswith("."))
    inside = "" if place == base else f" of {place.relative_to(base).as_posix()}"
    left_out = [name for name in there if NO_PHOTOGRAPHS.fullmatch(name)]
    for name in dict.fromkeys((*there, *classes)):
        if name not in folders and name not in left_out:
            reader.reject(f"{name}{inside}", "this class has no picture here", kind="label")
    if left_out:
        which = plural(len(left_out), "the folder", "the folders")
        reader.note(f"left out {which} {', '.join(left_out)}{inside}: no photographs of a data set by their names")
