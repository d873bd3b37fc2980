"""Any data set without code: a folder with ``captions.csv``, named after its folder.

Columns ``image`` (path below the folder) and ``caption``; optional ``group`` (patient or lesion), ``split`` (``train``,
``val`` or ``test``), ``mask`` (path below the folder) and ``diagnosis``. Several rows of one image give it several
reference captions. Every other column is kept in the manifest's ``fields``.
"""

from __future__ import annotations

from pathlib import Path

from clip_xai.data.captions import CaptionFacts
from clip_xai.data.record import SourceTable
from clip_xai.data.sources.common import SourceReader, skin_types_of, stated_fields
from clip_xai.data.sources.files import IMAGE_SUFFIXES, PhotographIndex, find_tables
from clip_xai.data.sources.tables import known, read_table
from clip_xai.errors import UserError

FILE = "captions.csv"

_SPLITS = {"train": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}
_OWN = ("image", "caption", "group", "split", "mask")


def read_all(root: Path, taken: tuple[str, ...]) -> list[SourceTable]:
    """Read every ``captions.csv`` below `root`.

    Args:
        root: Folder that the user named.
        taken: Names that other sources have.

    Raises:
        UserError: A table lacks a column, or two sources would have one name.
    """
    tables: list[SourceTable] = []
    for path in find_tables(root, FILE):
        name = path.parent.name
        if name in taken or name in {table.source for table in tables}:
            raise UserError(f"{path}: its folder has the name of another source, {name}; rename the folder.")
        tables.append(_read(path, name))
    return tables


def _read(path: Path, name: str) -> SourceTable:
    table = read_table(path)
    table.require("image", "caption")
    reader = SourceReader(name, PhotographIndex(path.parent))
    reader.count_rows(table)
    texts: dict[str, list[str]] = {}
    rows: dict[str, dict[str, str]] = {}
    for row in table.rows:
        image = row["image"].replace("\\", "/").removeprefix("./")
        if not image or not row["caption"]:
            reader.reject(image or "a row without image", "image or caption is empty")
            continue
        rows.setdefault(image, row)
        texts.setdefault(image, []).append(row["caption"])
        reader.rows -= len(texts[image]) > 1
    for image, row in rows.items():
        _add(reader, path.parent, image, row, tuple(dict.fromkeys(texts[image])))
    return reader.table()


def _add(reader: SourceReader, folder: Path, image: str, row: dict[str, str], texts: tuple[str, ...]) -> None:
    photograph = _below(folder, image)
    if photograph is None:
        reader.reject(image, "its path leaves the folder of the table, or is no path")
        return
    if not _is_file(photograph):
        reader.reject(image, "listed in the table, not on disk", kind="missing")
        return
    if photograph.suffix.lower() not in IMAGE_SUFFIXES:
        reader.reject(image, f"no picture by its name (known: {', '.join(IMAGE_SUFFIXES)})")
        return
    mask = _below(folder, row["mask"]) if row.get("mask") else None
    if row.get("mask") and (mask is None or not _is_file(mask)):
        reader.reject(image, f"its mask {row['mask']} is not there", kind="mask")
        mask = None
    split = known(row.get("split", "")).casefold()
    if split and split not in _SPLITS:
        reader.reject(image, f"split {row['split']!r} is none of train, val, test")
        return
    diagnosis = reader.diagnose(known(row.get("diagnosis", "")))
    facts = CaptionFacts(
        name=image,
        view="photograph",
        diagnosis=diagnosis,
        skin_types=skin_types_of(row.get("fitzpatrick", "")),
        own_text=texts,
    )
    key = f"{reader.source}:{known(row.get('group', '')) or image}"
    reader.add(
        photograph,
        facts,
        keys=(key,),
        diagnosis=diagnosis,
        fields=stated_fields(row, leave_out=_OWN),
        mask=mask,
        official_split=_SPLITS.get(split),
    )
    reader.records[-1].name = image


def _below(folder: Path, relative: str) -> Path | None:
    """Join a path from a table to its folder, or None where it would leave it."""
    parts = relative.replace("\\", "/").split("/")
    if "\0" in relative or ".." in parts or not parts[0] or ":" in parts[0]:
        return None
    return folder.joinpath(*parts)


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:
        return False
