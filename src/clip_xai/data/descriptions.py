"""A user's own captions and masks: ``descriptions.parquet`` in the data root."""

from __future__ import annotations

import os
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from clip_xai.data.manifest import path_below
from clip_xai.data.record import Problem, Record
from clip_xai.data.regular import is_regular, kind_of
from clip_xai.errors import UserError
from clip_xai.text import without_controls

FILE = "descriptions.parquet"

SCHEMA = pa.schema(
    [("source", pa.string()), ("image", pa.string()), ("captions", pa.list_(pa.string())), ("mask", pa.string())]
)


def apply_descriptions(root: Path, records: list[Record]) -> list[Problem]:
    """Let captions and masks from ``descriptions.parquet`` take the place of composed ones, in place.

    Columns: ``source``, ``image`` (file name), ``captions`` (the first is learnt, all are references), ``mask`` (path
    below the root, or null).

    Returns:
        Rows that could not be used.

    Raises:
        UserError: The file is there but no such table.
    """
    path = root / FILE
    if not os.path.lexists(path):
        return []
    if not is_regular(path):
        raise UserError(f"{path}: not a file but a {kind_of(path)}; remove it or give the table of that name.")
    try:
        rows = pq.read_table(path).select(SCHEMA.names).cast(SCHEMA).to_pylist()
    except (pa.ArrowException, KeyError, OSError, ValueError) as error:
        raise UserError(f"{path}: expected the columns {', '.join(SCHEMA.names)} ({error})") from error
    by_name = {(record.source, record.name): record for record in records}
    problems = []
    for row in rows:
        record = by_name.get((row["source"], row["image"]))
        if record is None:
            reason = f"{FILE} describes it, but there is no such photograph"
            problems.append(Problem(str(row["source"]), str(row["image"]), "description", reason))
            continue
        texts = (without_controls(caption) for caption in row["captions"] or () if caption)
        captions = tuple(text for text in texts if text)
        if captions:
            record.caption, record.references = captions[0], captions
        if row["mask"]:
            record.mask = path_below(root, row["mask"], path)
    return problems
