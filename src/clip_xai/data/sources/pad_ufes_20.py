"""PAD-UFES-20: ``metadata.csv`` with the PNGs anywhere below it (``images/``, ``imgs_part_N/``, nested or merged)."""

from __future__ import annotations

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
    whole,
)

NAME = "pad_ufes_20"
EXPECTED = "metadata.csv (with img_id and diagnostic) above images/ or imgs_part_1/ to imgs_part_3/"

_COLUMNS = ("patient_id", "lesion_id", "img_id", "diagnostic", "region", "fitspatrick", "diameter_1", "diameter_2")
_CODES = ("ACK", "BCC", "MEL", "NEV", "SCC", "SEK")


def read(root: Path) -> SourceTable | None:
    """Read the data set below `root`; None where its table is not there."""
    path = find_table(root, r"metadata\.csv", columns=("patient_id", "img_id", "diagnostic"))
    if path is None:
        return None
    table = read_table(path)
    table.require(*_COLUMNS)
    reader = SourceReader(NAME, PhotographIndex(path.parent))
    reader.count_rows(table)
    for row in table.rows:
        if row["diagnostic"] not in _CODES:
            reader.reject(row["img_id"], f"diagnostic {row['diagnostic']!r} is none of {', '.join(_CODES)}")
            continue
        photograph = reader.photograph(row["img_id"])
        if photograph is not None:
            reader.records.append(_record(reader, row, photograph))
    return reader.table()


def _record(reader: SourceReader, row: dict[str, str], photograph: Path) -> Record:
    diagnosis = reader.diagnose(row["diagnostic"])
    skin_type = whole(row["fitspatrick"])
    region = known(row["region"]).lower()
    caption = clinical_caption(
        CaptionFacts(
            name=photograph.name,
            view="smartphone photograph",
            site=f"the {region}" if region else None,
            size_mm=size_in_mm(number(row["diameter_1"]), number(row["diameter_2"])),
            diagnosis=diagnosis,
            confirmed_by="biopsy" if row.get("biopsed", "").casefold() == "true" else None,
            skin_types=(int(skin_type),) if skin_type in ("1", "2", "3", "4", "5", "6") else (),
        )
    )
    # By patient: byte-identical photographs stand under two lesion ids of one patient.
    key = f"pad_ufes_20-patient:{row['patient_id'] or row['img_id']}"
    return Record(
        image=photograph,
        source=NAME,
        name=photograph.name,
        group=key,
        diagnosis=diagnosis,
        malignancy=malignancy_of(diagnosis),
        caption=caption,
        references=(caption,),
        fields=stated_fields(row),
        view="clinical",
        keys=(key,),
    )
