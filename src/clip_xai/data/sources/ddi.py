"""DDI: ``ddi_metadata.csv`` with the PNGs beside it or in ``images/``."""

from __future__ import annotations

from pathlib import Path

from clip_xai.data.captions import CaptionFacts
from clip_xai.data.record import NO_PATIENT, SourceTable
from clip_xai.data.sources.common import SourceReader, labelled, skin_types_of, stated_fields
from clip_xai.data.sources.photograph_files import PhotographIndex, find_table
from clip_xai.data.sources.tables import read_table, whole

NAME, ROWS = "ddi", 656

_MALIGNANT = {"true": "malignant", "1": "malignant", "false": "benign", "0": "benign"}
_INDEX = ("_unnamed_var", "DDI_ID")


def read(root: Path) -> SourceTable | None:
    """Read the data set below `root`; None where its table is not there."""
    path = find_table(root, r"ddi_metadata\.csv")
    if path is None:
        return None
    table = read_table(path)
    table.require("DDI_file", "skin_tone", "disease")
    malignant = table.first_column("malignant", "malignancy(malig=1)")
    reader = SourceReader(NAME, PhotographIndex(path.parent), expected=ROWS)
    reader.count_rows(table)
    for row in table.rows:
        photograph = reader.photograph(row["DDI_file"])
        if photograph is None:
            continue
        diagnosis = reader.diagnose(row["disease"])
        facts = CaptionFacts(
            name=photograph.name,
            view="clinical photograph",
            diagnosis=diagnosis or row["disease"].replace("-", " ") or None,
            skin_types=skin_types_of(row["skin_tone"]),
            fields=labelled(row, (*_INDEX, "DDI_file")),
        )
        reader.add(
            photograph,
            facts,
            keys=(f"photo:ddi/{row['DDI_file'].lower()}",),
            diagnosis=diagnosis,
            malignancy=_MALIGNANT.get(whole(row[malignant]).casefold()),
            fields=stated_fields(row, leave_out=_INDEX[:1]),
            flags=(NO_PATIENT,),
        )
    reader.note(NO_PATIENT)
    return reader.table()
