"""SkinCAP: ``SkinCAP/skincap_v240623.csv`` and ``SkinCAP/skincap/<id>.png``; ``not_include/`` is left out."""

from __future__ import annotations

import os
from pathlib import Path

from clip_xai.data.record import Record, SourceTable
from clip_xai.data.sources.common import (
    PhotographIndex,
    SourceReader,
    find_table,
    malignancy_of,
    read_table,
    stated_fields,
    whole,
)

NAME = "skincap"
EXPECTED = "SkinCAP/skincap_v240623.csv beside SkinCAP/skincap/*.png"


def read(root: Path) -> SourceTable | None:
    """Read the data set below `root`; None where its table is not there."""
    path = find_table(root, r"skincap_v\d+\.csv")
    if path is None:
        return None
    table = read_table(path)
    table.require("skincap_file_path", "ori_file_path", "source", "disease")
    english = table.first_column("caption_zh_polish_en", "caption_en")
    reader = SourceReader(NAME, PhotographIndex(path.parent))
    reader.count_rows(table)
    for row in table.rows:
        if not row[english]:
            reader.reject(row["skincap_file_path"], f"no English caption ({english} is empty)")
            continue
        photograph = reader.photograph(row["skincap_file_path"])
        if photograph is not None:
            reader.records.append(_record(reader, row, photograph, row[english]))
    return reader.table()


def _record(reader: SourceReader, row: dict[str, str], photograph: Path, caption: str) -> Record:
    diagnosis = reader.diagnose(row["disease"])
    keys = _keys(row)
    return Record(
        image=photograph,
        source=NAME,
        name=photograph.name,
        group=keys[0],
        diagnosis=diagnosis,
        malignancy=malignancy_of(diagnosis) or _stated_malignancy(row),
        caption=caption,
        references=(caption,),
        fields=stated_fields(row, leave_out=("caption_zh", "caption_zh_polish", "caption_zh_polish_en", "caption_en")),
        view="clinical",
        keys=keys,
    )


def _keys(row: dict[str, str]) -> tuple[str, ...]:
    """Return the keys of the original photograph; ``photo:`` keys say that it is the very same picture."""
    original = row["ori_file_path"].replace("\\", "/").rsplit("/", 1)[-1].lower()
    if not original:
        return (f"skincap:{row['skincap_file_path']}",)
    if row["source"].casefold() == "ddi":
        return (f"photo:ddi/{original}",)
    return (f"fitzpatrick17k:{os.path.splitext(original)[0]}",)


def _stated_malignancy(row: dict[str, str]) -> str | None:
    """Return what the table says of a disease that the ontology does not know."""
    by_partition = {"malignant": "malignant", "benign": "benign", "non-neoplastic": "inflammatory"}
    by_flag = {"1": "malignant", "0": "benign", "true": "malignant", "false": "benign"}
    partition = by_partition.get(row.get("three_partition_label", "").casefold())
    return partition or by_flag.get(whole(row.get("malignant", "")).casefold())
