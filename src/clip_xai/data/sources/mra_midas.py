"""MRA-MIDAS: ``release_midas.xlsx`` (or a ``.csv`` of it) with the photographs beside it."""

from __future__ import annotations

import re
from pathlib import Path

from clip_xai.data.captions import CaptionFacts, size_in_mm
from clip_xai.data.record import SourceTable
from clip_xai.data.sources.common import SourceReader, labelled, skin_types_of, stated_fields
from clip_xai.data.sources.photograph_files import PhotographIndex, find_table
from clip_xai.data.sources.tables import known, number, read_table
from clip_xai.data.vocabulary import load_vocabulary

NAME, ROWS = "mra_midas", 3416

_COLUMNS = (
    "midas_record_id", "midas_file_name", "midas_distance", "midas_location", "midas_path", "midas_fitzpatrick",
    "length_(mm)", "width_(mm)",
)  # fmt: skip
_VIEWS = {
    "6in": "close-up photograph",
    "1ft": "overview photograph",
    "dscope": "dermoscopic image",
}
_SIDES = {"l": "left", "lt": "left", "r": "right", "rt": "right"}
_LABELS = {
    "midas_iscontrol": "Is control", "midas_distance": "Distance", "midas_location": "Location", "midas_path": "Path",
    "midas_pathreport": "Pathology report", "midas_gender": "Gender", "midas_age": "Age",
    "midas_fitzpatrick": "Fitzpatrick", "midas_melanoma": "Melanoma", "midas_ethnicity": "Ethnicity",
    "midas_race": "Race", "length_(mm)": "Length (mm)", "width_(mm)": "Width (mm)",
}  # fmt: skip


def read(root: Path) -> SourceTable | None:
    """Read the data set below `root`; None where its spreadsheet is not there."""
    path = find_table(root, r"release_midas\.(xlsx|csv)")
    if path is None:
        return None
    table = read_table(path, header="midas_file_name")
    table.require(*_COLUMNS)
    reader = SourceReader(NAME, PhotographIndex(path.parent), expected=ROWS)
    reader.count_rows(table)
    for row in table.rows:
        photograph = reader.photograph(row["midas_file_name"])
        if photograph is not None:
            _add(reader, row, photograph)
    return reader.table()


def _add(reader: SourceReader, row: dict[str, str], photograph: Path) -> None:
    # 0 stands for a missing class, as does an empty cell: both occur on photographs of controls only.
    label = "" if row["midas_path"] in ("0", "0.0") else known(row["midas_path"])
    diagnosis = reader.diagnose(label)
    malignancy = load_vocabulary("skin").malignancy(diagnosis) if diagnosis else _stated_malignancy(label)
    # Measured once for the lesion; 0 x 0 is an unfilled form.
    size = size_in_mm(number(row["length_(mm)"]), number(row["width_(mm)"]))
    left_out = _not_kept(row, size)
    facts = CaptionFacts(
        name=photograph.name,
        view=_VIEWS.get(row["midas_distance"], "clinical photograph"),
        site=_site(row["midas_location"]),
        size_mm=size,
        diagnosis=diagnosis or (f"{malignancy} lesion" if malignancy in ("benign", "malignant") else None),
        confirmed_by="histopathology" if label else None,
        skin_types=skin_types_of(row["midas_fitzpatrick"].split(" ")[0]),
        fields=labelled(row, ("midas_record_id", "midas_file_name", *left_out), _LABELS),
    )
    keys = [f"mra_midas-patient:{row['midas_record_id'] or row['midas_file_name']}"]
    keys += [f"stanford-photo:{digits}" for digits in re.findall(r"\d{9}", row["midas_file_name"])]
    reader.add(
        photograph,
        facts,
        keys=keys,
        diagnosis=diagnosis,
        malignancy=malignancy,
        fields=stated_fields(row, leave_out=left_out),
        view="dermoscopic" if row["midas_distance"] == "dscope" else "clinical",
    )


def _not_kept(row: dict[str, str], size: tuple[float, ...]) -> tuple[str, ...]:
    """Return columns that are an index, a missing value, or contradict themselves within a patient (sex)."""
    unmeasured = () if size else ("length_(mm)", "width_(mm)")
    no_class = ("midas_path",) if row["midas_path"] in ("0", "0.0") else ()
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
