"""MRA-MIDAS: ``release_midas.xlsx`` with the photographs beside it."""

from __future__ import annotations

import re
from pathlib import Path

from clip_xai.data.captions import CaptionFacts, clinical_caption, size_in_mm
from clip_xai.data.record import Record, SourceTable
from clip_xai.data.sources.common import (
    PhotographIndex,
    SourceReader,
    find_table,
    known,
    malignancy_of,
    number,
    read_table,
    stated_fields,
)

NAME = "mra_midas"
EXPECTED = "midasmultimodalimagedatasetforaibasedskincancer/release_midas.xlsx beside its photographs"

_COLUMNS = (
    "midas_record_id",
    "midas_file_name",
    "midas_distance",
    "midas_location",
    "midas_path",
    "midas_fitzpatrick",
    "length_(mm)",
    "width_(mm)",
)
_VIEWS = {
    "6in": "close-up photograph",
    "1ft": "overview photograph",
    "dscope": "dermoscopic image",
}
_SIDES = {"l": "left", "lt": "left", "r": "right", "rt": "right"}
_ROMAN = {"i": 1, "ii": 2, "iii": 3, "iv": 4, "v": 5, "vi": 6}


def read(root: Path) -> SourceTable | None:
    """Read the data set below `root`; None where its spreadsheet is not there."""
    path = find_table(root, r"release_midas\.xlsx")
    if path is None:
        return None
    table = read_table(path)
    table.require(*_COLUMNS)
    reader = SourceReader(NAME, PhotographIndex(path.parent))
    reader.count_rows(table)
    for row in table.rows:
        photograph = reader.photograph(row["midas_file_name"])
        if photograph is not None:
            reader.records.append(_record(reader, row, photograph))
    return reader.table()


def _record(reader: SourceReader, row: dict[str, str], photograph: Path) -> Record:
    # 0 stands for a missing class, as does an empty cell: both occur on photographs of controls only.
    label = "" if row["midas_path"] == "0" else known(row["midas_path"])
    diagnosis = reader.diagnose(label)
    malignancy = malignancy_of(diagnosis) or _stated_malignancy(label)
    # Measured once for the lesion; 0 x 0 is an unfilled form.
    size = size_in_mm(number(row["length_(mm)"]), number(row["width_(mm)"]))
    skin_type = _ROMAN.get(row["midas_fitzpatrick"].split(" ")[0].casefold())
    caption = clinical_caption(
        CaptionFacts(
            name=photograph.name,
            view=_VIEWS.get(row["midas_distance"], "clinical photograph"),
            site=_site(row["midas_location"]),
            size_mm=size,
            diagnosis=diagnosis or (f"{malignancy} lesion" if malignancy in ("benign", "malignant") else None),
            confirmed_by="histopathology" if label else None,
            skin_types=(skin_type,) if skin_type else (),
        )
    )
    keys = [f"mra_midas-patient:{row['midas_record_id']}"]
    keys += [f"stanford-photo:{digits}" for digits in re.findall(r"\d{9}", row["midas_file_name"])]
    return Record(
        image=photograph,
        source=NAME,
        name=photograph.name,
        group=keys[0],
        diagnosis=diagnosis,
        malignancy=malignancy,
        caption=caption,
        references=(caption,),
        fields=stated_fields(row, leave_out=_not_kept(row, size)),
        view="dermoscopic" if row["midas_distance"] == "dscope" else "clinical",
        keys=tuple(keys),
    )


def _not_kept(row: dict[str, str], size: tuple[float, ...]) -> tuple[str, ...]:
    """Return columns that are an index, a missing value, or contradict themselves within a patient (sex)."""
    unmeasured = () if size else ("length_(mm)", "width_(mm)")
    no_class = ("midas_path",) if row["midas_path"] == "0" else ()
    return ("Unnamed: 0", "midas_gender", *unmeasured, *no_class)


def _stated_malignancy(label: str) -> str | None:
    """Return what a class without a single diagnosis still says ('malignant- other')."""
    word = label.split("-")[0].strip().casefold()
    return word if word in ("benign", "malignant") else None


def _site(text: str) -> str | None:
    """Write a location out: 'l  cheek' becomes 'the left cheek'. Free text that is more than a place is left out."""
    words = [_SIDES.get(word, word) for word in known(text).casefold().split()]
    site = " ".join(words)
    return f"the {site}" if re.fullmatch(r"[a-z][a-z ,'/-]{1,48}", site) else None
