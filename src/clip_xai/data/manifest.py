"""The manifest: one row for each photograph, in a parquet file that any tool can open."""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from clip_xai.data.boxes import Box
from clip_xai.data.groups import groups_in_two_splits
from clip_xai.data.record import Record
from clip_xai.data.shared import NOTHING, OneOfEach, SharedMapping
from clip_xai.data.vocabulary import KEY, Vocabulary, load_vocabulary
from clip_xai.errors import UserError
from clip_xai.files import replacing
from clip_xai.text import counted

_ROOT = b"clip_xai.root"
_VOCABULARY = f"clip_xai.{KEY}".encode()

#: Columns whose texts stand in many rows.
_REPEATED = ("source", "group", "split", "diagnosis", "malignancy", "view", "official_split", "duplicate_of")

#: Rows that are turned into Python's objects at a time.
_ROWS = 8192

_BOX = pa.struct([("label", pa.string()), *((edge, pa.float64()) for edge in ("left", "top", "width", "height"))])

_SCHEMA = pa.schema(
    [
        ("image", pa.string()),
        ("name", pa.string()),
        ("source", pa.string()),
        ("group", pa.string()),
        ("split", pa.string()),
        ("caption", pa.string()),
        ("references", pa.list_(pa.string())),
        ("diagnosis", pa.string()),
        ("malignancy", pa.string()),
        ("mask", pa.string()),
        ("sha256", pa.string()),
        ("height", pa.int32()),
        ("width", pa.int32()),
        ("view", pa.string()),
        ("official_split", pa.string()),
        ("duplicate_of", pa.string()),
        ("keys", pa.list_(pa.string())),
        ("skin_types", pa.list_(pa.int32())),
        ("skin_tone", pa.string()),
        ("flags", pa.list_(pa.string())),
        ("fold", pa.int32()),
        ("rendered", pa.bool_()),
        ("mask_values", pa.list_(pa.int32())),
        ("labels", pa.string()),
        ("boxes", pa.list_(_BOX)),
        ("label_masks", pa.string()),
        ("fields", pa.string()),
    ]
)


def write_manifest(path: Path, records: list[Record], root: Path, vocabulary: Vocabulary | None = None) -> None:
    """Write the manifest. Paths are kept relative to the data root, whose place is noted in the file.

    Args:
        path: The parquet file.
        records: Its rows.
        root: The data root.
        vocabulary: The vocabulary that the diagnoses are of, which is noted, too; that of skin if None.
    """
    noted = {
        _ROOT: str(root.absolute()).encode(),
        _VOCABULARY: (vocabulary or load_vocabulary()).packed()[KEY].encode(),
    }
    schema = _SCHEMA.with_metadata(noted)
    with replacing(path) as unfinished, pq.ParquetWriter(unfinished, schema) as writer:
        for start in range(0, max(1, len(records)), _ROWS):  # an empty manifest is a table too
            rows = [_row(record, root) for record in records[start : start + _ROWS]]
            writer.write_table(pa.Table.from_pylist(rows, schema=schema))


def load_manifest(path: Path | str, root: Path | str | None = None) -> list[Record]:
    """Read a manifest.

    Args:
        path: The parquet file.
        root: Folder of the photographs, where it has moved since the manifest was written.

    Raises:
        UserError: The file is missing or no manifest, a path in it leaves the root, or a group stands in two splits.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(
            f"{path}: no such manifest; write it with python -m clip_xai.data data.root=DIR data.output_dir=OUT"
        )
    try:
        with pq.ParquetFile(path) as file:
            records = list(_records(file, path, root))
    except (pa.ArrowException, OSError) as error:
        raise UserError(f"{path}: not a readable manifest ({error}); write it again.") from error
    leaks = groups_in_two_splits(records)
    if leaks:
        group, splits = next(iter(leaks.items()))
        raise UserError(
            f"{path}: {counted(len(leaks), 'group')} in more than one split, such as {group!r} in "
            f"{' and '.join(splits)}; numbers from it would be meaningless. Write the manifest again."
        )
    return records


def _records(file: pq.ParquetFile, path: Path, root: Path | str | None) -> Iterator[Record]:
    """Yield the records of a manifest, of which no more than some rows are in memory beside them."""
    missing = [name for name in _SCHEMA.names if name not in file.schema_arrow.names]
    noted = (file.schema_arrow.metadata or {}).get(_ROOT)
    if missing or noted is None:
        raise UserError(
            f"{path}: not a manifest of this version ({', '.join(missing) or 'data root'} missing); write it again."
        )
    folder = Path(root) if root is not None else Path(noted.decode())
    alike = OneOfEach()
    for batch in file.iter_batches(_ROWS, columns=_SCHEMA.names):
        for row in batch.to_pylist():
            yield _record(row, folder, path, alike)


def _row(record: Record, root: Path) -> dict[str, object]:
    return {
        "image": record.image.relative_to(root).as_posix(),
        "name": record.name,
        "source": record.source,
        "group": record.group,
        "split": record.split,
        "caption": record.caption,
        "references": list(record.references),
        "diagnosis": record.diagnosis,
        "malignancy": record.malignancy,
        "mask": record.mask.relative_to(root).as_posix() if record.mask else None,
        "sha256": record.sha256,
        "height": record.height,
        "width": record.width,
        "view": record.view,
        "official_split": record.official_split,
        "duplicate_of": record.duplicate_of,
        "keys": list(record.keys),
        "skin_types": list(record.skin_types),
        "skin_tone": record.skin_tone,
        "flags": list(record.flags),
        "fold": record.fold,
        "rendered": record.rendered,
        "mask_values": list(record.mask_values),
        "labels": json.dumps(record.labels, ensure_ascii=False),
        "boxes": [asdict(box) for box in record.boxes],
        "label_masks": json.dumps(record.label_masks, ensure_ascii=False),
        "fields": json.dumps(record.fields, ensure_ascii=False, sort_keys=True),
    }


def _record(row: dict[str, Any], root: Path, manifest: Path, alike: OneOfEach) -> Record:
    values = {name: alike.text(said) if name in _REPEATED else said for name, said in row.items()}
    image = path_below(root, str(values.pop("image")), manifest)
    mask = values.pop("mask")
    values.pop("skin_tone")
    return Record(
        image=image,
        mask=path_below(root, str(mask), manifest) if mask else None,
        references=tuple(values.pop("references")),
        keys=tuple(map(alike.text, values.pop("keys"))),
        skin_types=tuple(values.pop("skin_types")),
        flags=tuple(values.pop("flags")),
        mask_values=tuple(values.pop("mask_values")),
        labels=_stated(str(values.pop("labels"))),
        boxes=tuple(Box(**box) for box in values.pop("boxes")),
        label_masks=_stated(str(values.pop("label_masks"))),
        fields=_stated(str(values.pop("fields"))),
        **values,
    )


@lru_cache(maxsize=4096)
def _stated(text: str) -> Mapping[str, Any]:
    """Read what many rows state alike once, and keep it once: records do not change it in place."""
    found = {sys.intern(name): said for name, said in json.loads(text).items()}
    return SharedMapping(found) if found else NOTHING


def path_below(root: Path, relative: str, named_in: Path) -> Path:
    """Join a path that was read from a file to the root.

    Raises:
        UserError: The path is absolute or climbs out of the root.
    """
    path, spread = PurePosixPath(relative), PurePosixPath(relative.replace("\\", "/"))
    drive = re.match(r"[A-Za-z]:([\\/]|$)", relative) or (os.name == "nt" and ":" in relative)
    if spread.is_absolute() or ".." in spread.parts or not spread.parts or drive:
        raise UserError(f"{named_in}: the path {relative!r} leaves the data root; correct it.")
    # A backslash is a part of a name where it is one, and what Windows writes between names elsewhere.
    named = root.joinpath(*path.parts)
    return named if path == spread or os.path.lexists(named) else root.joinpath(*spread.parts)


def unkept(path: Path, root: Path) -> str | None:
    """Say why a path cannot be kept in a manifest, or return None where it can."""
    relative = path.relative_to(root).as_posix()
    try:
        relative.encode("utf-8")
        return None if path_below(root, relative, root) == path else "its path is ambiguous: rename it"
    except UnicodeEncodeError:
        return "its path is not UTF-8: rename it"
    except UserError:
        return "its path reads like one that leaves the data root: rename it"
