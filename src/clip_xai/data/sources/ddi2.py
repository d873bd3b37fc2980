"""DDI2: ``final_DDI2_Asian_spreadsheet.xlsx`` (or ``.csv``) with the photographs beside it.

The complete header of the spreadsheet is not public, so it is read when the adapter runs.
"""

from __future__ import annotations

import re
from pathlib import Path

from clip_xai.data.captions import CaptionFacts, clinical_caption
from clip_xai.data.record import Record, SourceTable
from clip_xai.data.sources.common import (
    PhotographIndex,
    SourceReader,
    find_table,
    known,
    malignancy_of,
    read_table,
    stated_fields,
    whole,
)
from clip_xai.data.vocabulary import canonical_diagnosis

NAME = "ddi2"
EXPECTED = "ddi2diversedermatologyimages2/final_DDI2_Asian_spreadsheet.xlsx beside its photographs"


def read(root: Path) -> SourceTable | None:
    """Read the data set below `root`; None where its spreadsheet is not there."""
    path = find_table(root, r"final_DDI2_Asian_spreadsheet\.(xlsx|csv)")
    if path is None:
        return None
    table = read_table(path)
    table.require("photo_id")
    labels = [name for name in ("diagnosis_detailed", "diagnosis_general") if name in table.columns]
    table.first_column("diagnosis_detailed", "diagnosis_general")
    reader = SourceReader(NAME, PhotographIndex(path.parent))
    reader.count_rows(table)
    for row in table.rows:
        photograph = reader.photograph(whole(row["photo_id"]))
        if photograph is not None:
            reader.records.append(_record(reader, row, photograph, [known(row[name]) for name in labels]))
    return reader.table()


def _record(reader: SourceReader, row: dict[str, str], photograph: Path, labels: list[str]) -> Record:
    diagnosis = _diagnose(reader, [label for label in labels if label])
    malignancy = row.get("benign/malignant", "").casefold()
    stated = malignancy if malignancy in ("benign", "malignant") else None
    caption = clinical_caption(
        CaptionFacts(
            name=photograph.name,
            view="clinical photograph",
            diagnosis=diagnosis or (f"{stated} lesion" if stated else None),
            skin_types=tuple(sorted(int(digit) for digit in re.findall("[1-6]", row.get("fitzpatrick_skin_type", "")))),
        )
    )
    keys = [f"ddi2:{whole(row['photo_id'])}"]
    # MRA-MIDAS comes from the same clinic and numbers its photographs in the same way.
    keys += [f"stanford-photo:{digits}" for digits in re.findall(r"\d{9}", row["photo_id"])]
    return Record(
        image=photograph,
        source=NAME,
        name=photograph.name,
        group=keys[-1],
        diagnosis=diagnosis,
        malignancy=malignancy_of(diagnosis) or stated,
        caption=caption,
        references=(caption,),
        fields=stated_fields(row),
        view="clinical",
        keys=tuple(keys),
    )


def _diagnose(reader: SourceReader, labels: list[str]) -> str | None:
    """Return the detailed diagnosis where it is known, else the general one; only when neither is, it is unmapped."""
    for label in labels:
        diagnosis = canonical_diagnosis(label)
        if diagnosis:
            return diagnosis
    return reader.diagnose(labels[0]) if labels else None
