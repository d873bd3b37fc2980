"""PAD-UFES-20: ``metadata.csv`` with the PNGs anywhere below it (``images/``, ``imgs_part_N/``, nested or merged)."""

from __future__ import annotations

from pathlib import Path

from clip_xai.data.captions import CaptionFacts, size_in_mm
from clip_xai.data.lexicon import canonical_diagnosis
from clip_xai.data.record import SourceTable
from clip_xai.data.sources.common import SourceReader, labelled, skin_types_of, stated_fields
from clip_xai.data.sources.photograph_files import PhotographIndex, find_table
from clip_xai.data.sources.tables import known, number, read_table
from clip_xai.data.vocabulary import load_vocabulary
from clip_xai.text import counted

NAME, ROWS = "pad_ufes_20", 2298

_COLUMNS = ("patient_id", "lesion_id", "img_id", "diagnostic", "region", "fitspatrick", "diameter_1", "diameter_2")
_CODES = ("ACK", "BCC", "MEL", "NEV", "SCC", "SEK")
_LABELS = {
    "smoke": "Smokes", "drink": "Alcohol use", "pesticide": "Pesticide exposure", "fitspatrick": "Fitzpatrick",
    "cancer_history": "Cancer history (any)", "has_piped_water": "Piped water", "has_sewage_system": "Sewage system",
    "background_father": "Father background", "background_mother": "Mother background", "diagnostic": "Diagnosis",
    "grew": "Growth", "hurt": "Pain", "changed": "Change", "bleed": "Bleeding", "biopsed": "Biopsied",
}  # fmt: skip


def read(root: Path) -> SourceTable | None:
    """Read the data set below `root`; None where its table is not there."""
    path = find_table(root, r"metadata\.csv", columns=("patient_id", "img_id", "diagnostic"))
    if path is None:
        return None
    table = read_table(path)
    table.require(*_COLUMNS)
    reader = SourceReader(NAME, PhotographIndex(path.parent), expected=ROWS)
    reader.count_rows(table)
    spelled_out = 0
    for row in table.rows:
        code = _code(row["diagnostic"])
        if code is None:
            reader.reject(
                row["img_id"],
                f"diagnostic {row['diagnostic']!r} is none of {', '.join(_CODES)}: an altered copy of the table",
            )
            continue
        spelled_out += code != row["diagnostic"]
        photograph = reader.photograph(row["img_id"])
        if photograph is not None:
            _add(reader, row, code, photograph)
    if spelled_out:
        found = counted(spelled_out, "spelled-out diagnosis", "spelled-out diagnoses")
        reader.note(f"{path.name}: {found}, repaired: an altered copy")
    return reader.table()


def _add(reader: SourceReader, row: dict[str, str], code: str, photograph: Path) -> None:
    diagnosis = reader.diagnose(code)
    region = known(row["region"]).lower()
    facts = CaptionFacts(
        name=photograph.name,
        view="smartphone photograph",
        site=f"the {region}" if region else None,
        size_mm=size_in_mm(number(row["diameter_1"]), number(row["diameter_2"])),
        diagnosis=diagnosis,
        confirmed_by="biopsy" if row.get("biopsed", "").casefold() == "true" else None,
        skin_types=skin_types_of(row["fitspatrick"]),
        concepts=("a raised surface",) if row.get("elevation", "").casefold() == "true" else (),
        fields=labelled(row, ("patient_id", "lesion_id", "img_id"), _LABELS),
    )
    # By patient: byte-identical photographs stand under two lesion ids of one patient.
    key = f"pad_ufes_20-patient:{row['patient_id'] or row['img_id']}"
    reader.add(photograph, facts, keys=(key,), diagnosis=diagnosis, fields=stated_fields(row))


def _code(label: str) -> str | None:
    """Return the publisher's code; an altered copy's spelled-out name stands for one where that is certain."""
    if label.upper() in _CODES:
        return label.upper()
    name = canonical_diagnosis(label)
    skin = load_vocabulary("skin")
    above = skin.lineage(name) if name else ()
    return next((code for code in _CODES if skin.label_codes[code.lower()] in above), None)
