"""DDI2: ``final_DDI2_Asian_spreadsheet.xlsx`` (or ``.csv``) with the photographs beside it.

The complete header of the spreadsheet is not public, so it is read when the adapter runs; columns are known by their
names but for case, spaces and punctuation.
"""

from __future__ import annotations

import re
from pathlib import Path

from clip_xai.data.captions import CaptionFacts
from clip_xai.data.record import NO_PATIENT, SourceTable
from clip_xai.data.sources.common import SourceReader, labelled, skin_types_of, stated_fields
from clip_xai.data.sources.photograph_files import PhotographIndex, find_table
from clip_xai.data.sources.tables import known, read_table, whole
from clip_xai.errors import UserError

NAME, ROWS = "ddi2", 665

_DIAGNOSES = (
    ("diagnosis_detailed", "diagnosis (detailed)", "detailed diagnosis"),
    ("diagnosis_general", "diagnosis (general)", "general diagnosis", "diagnosis"),
)
_SITES = ("anatomical_site_general", "anatomical site (general)", "anatomical_site", "site", "location")


def read(root: Path) -> SourceTable | None:
    """Read the data set below `root`; None where its spreadsheet is not there."""
    path = find_table(root, r"final_DDI2_Asian_spreadsheet\.(xlsx|csv)")
    if path is None:
        return None
    table = read_table(path, header="photo_id")
    photo = table.named_like("photo_id", "photo", "image_id", "file_name", "filename")
    labels = [name for names in _DIAGNOSES if (name := table.named_like(*names)) is not None]
    if photo is None or not labels:
        missing = "photo_id" if photo is None else "diagnosis_detailed or diagnosis_general"
        found = ", ".join(table.columns) or "none"
        raise UserError(
            f"{path}: column {missing} is missing (found: {found}). Use the file as its publisher ships it."
        )
    columns = {
        "skin": table.named_like("fitzpatrick_skin_type", "skin_type", "fitzpatrick"),
        "malignancy": table.named_like("benign/malignant", "malignant"),
        "site": table.named_like(*_SITES),
    }
    reader = SourceReader(NAME, PhotographIndex(path.parent), expected=ROWS)
    reader.note(f"columns found: {', '.join(name for name in table.columns if name)}")
    reader.count_rows(table)
    for row in table.rows:
        photograph = reader.photograph(whole(row[photo]))
        if photograph is not None:
            cells = {name: known(row[column]) if column else "" for name, column in columns.items()}
            _add(reader, row, photograph, whole(row[photo]), [known(row[name]) for name in labels], cells)
    reader.note(NO_PATIENT)
    return reader.table()


def _add(
    reader: SourceReader, row: dict[str, str], photograph: Path, photo: str, labels: list[str], cells: dict[str, str]
) -> None:
    diagnosis = reader.diagnose(*labels)
    malignancy = cells["malignancy"].casefold()
    stated = malignancy if malignancy in ("benign", "malignant") else None
    site = cells["site"].casefold()
    facts = CaptionFacts(
        name=photograph.name,
        view="clinical photograph",
        site=f"the {site}" if re.fullmatch(r"[a-z][a-z ,'/-]{1,48}", site) else None,
        diagnosis=diagnosis or (f"{stated} lesion" if stated else None),
        skin_types=skin_types_of(cells["skin"]),
        fields=labelled(row, ("photo_id",)),
    )
    keys = [f"ddi2:{photo}"]
    # MRA-MIDAS comes from the same clinic and numbers its photographs in the same way.
    keys += [f"stanford-photo:{digits}" for digits in re.findall(r"\d{9}", photo)]
    reader.add(
        photograph,
        facts,
        keys=keys[::-1],
        diagnosis=diagnosis,
        malignancy=stated,
        fields=stated_fields(row),
        flags=(NO_PATIENT,),
    )
