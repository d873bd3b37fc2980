"""DDI: ``ddi_metadata.csv`` with the PNGs beside it or in ``images/``."""

from __future__ import annotations

from pathlib import Path

from clip_xai.data.captions import CaptionFacts, clinical_caption
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

NAME = "ddi"
EXPECTED = "ddidiversedermatologyimages/ddi_metadata.csv beside its PNGs"

_SKIN_TYPES = {"12": (1, 2), "34": (3, 4), "56": (5, 6)}
_MALIGNANT = {"true": "malignant", "1": "malignant", "false": "benign", "0": "benign"}


def read(root: Path) -> SourceTable | None:
    """Read the data set below `root`; None where its table is not there."""
    path = find_table(root, r"ddi_metadata\.csv")
    if path is None:
        return None
    table = read_table(path)
    table.require("DDI_file", "skin_tone", "disease")
    malignant = table.first_column("malignant", "malignancy(malig=1)")
    reader = SourceReader(NAME, PhotographIndex(path.parent))
    reader.count_rows(table)
    for row in table.rows:
        photograph = reader.photograph(row["DDI_file"])
        if photograph is not None:
            reader.records.append(_record(reader, row, photograph, _MALIGNANT.get(whole(row[malignant]).casefold())))
    return reader.table()


def _record(reader: SourceReader, row: dict[str, str], photograph: Path, malignancy: str | None) -> Record:
    diagnosis = reader.diagnose(row["disease"])
    caption = clinical_caption(
        CaptionFacts(
            name=photograph.name,
            view="clinical photograph",
            diagnosis=diagnosis or row["disease"].replace("-", " ") or None,
            skin_types=_SKIN_TYPES.get(whole(row["skin_tone"]), ()),
        )
    )
    key = f"photo:ddi/{row['DDI_file'].lower()}"
    return Record(
        image=photograph,
        source=NAME,
        name=photograph.name,
        group=key,
        diagnosis=diagnosis,
        malignancy=malignancy_of(diagnosis) or malignancy,
        caption=caption,
        references=(caption,),
        fields=stated_fields(row, leave_out=("_unnamed_var",)),
        view="clinical",
        keys=(key,),
    )
