"""HAM10000: Dataverse files or the Kaggle mirror with the same folders.

``HAM10000_metadata.csv`` (or ``.tab``), ``HAM10000_images_part_1/``, ``HAM10000_images_part_2/``,
``HAM10000_segmentations_lesion_tschandl/``, ``ISIC2018_Task3_Test_Images/`` and
``ISIC2018_Task3_Test_GroundTruth.csv`` (the file with all columns).
"""

from __future__ import annotations

import re
from pathlib import Path

from clip_xai.data.captions import CaptionFacts, clinical_caption
from clip_xai.data.record import Record, SourceTable
from clip_xai.data.sources.common import (
    LEFT_OVERS,
    PhotographIndex,
    SourceReader,
    Table,
    find_table,
    known,
    malignancy_of,
    number,
    read_table,
    stated_fields,
    walk,
)

NAME = "ham10000"
EXPECTED = "HAM10000_metadata.csv beside HAM10000_images_part_1/ and HAM10000_images_part_2/"

_COLUMNS = ("lesion_id", "image_id", "dx", "dx_type", "age", "sex", "localization")
_CODES = ("akiec", "bcc", "bkl", "df", "mel", "nv", "vasc")
_CONFIRMED_BY = {
    "histo": "histopathology",
    "follow_up": "follow-up without change",
    "consensus": "expert consensus",
    "confocal": "confocal microscopy",
}
_SITES = {"acral": "acral skin", "genital": "the genital area"}
_MASK = re.compile(r"(ISIC_\d{7})_segmentation\.png", re.IGNORECASE)


def read(root: Path) -> SourceTable | None:
    """Read the data set below `root`; None where its metadata table is not there."""
    train = find_table(root, r"HAM10000_metadata(\.csv|\.tab)?")
    if train is None:
        return None
    folder = train.parent
    reader = SourceReader(NAME, PhotographIndex(folder))
    masks = _masks(folder)
    _read_rows(reader, read_table(train), masks, "train")
    test = find_table(folder, r"ISIC2018_Task3_Test_GroundTruth\.(csv|tab)")
    if test is not None:
        _read_test(reader, test, masks)
    return reader.table()


def _read_test(reader: SourceReader, path: Path, masks: dict[str, Path]) -> None:
    table = read_table(path)
    if "lesion_id" not in table.columns:
        # Two publishers' files share this name; the one-hot one has no lesion ids, so lesions could not be kept apart.
        reader.reject(path.name, "the challenge's one-hot table; put the Dataverse table of the same name in its place")
        return
    _read_rows(reader, table, masks, "test")


def _read_rows(reader: SourceReader, table: Table, masks: dict[str, Path], official_split: str) -> None:
    table.require(*_COLUMNS)
    reader.count_rows(table)
    seen: set[str] = set()
    for row in table.rows:
        image_id = re.sub(r"\.jpe?g$", "", row["image_id"], flags=re.IGNORECASE)
        if not re.fullmatch(r"ISIC_\d{7}", image_id):
            reader.reject(repr(row["image_id"]), "no ISIC image id (ISIC_ and seven digits)")
        elif row["dx"] not in _CODES:
            reader.reject(image_id, f"dx {row['dx']!r} is none of {', '.join(_CODES)}: an altered copy of the table")
        elif image_id in seen:
            reader.reject(image_id, "listed twice")
        else:
            seen.add(image_id)
            path = reader.photograph(f"{image_id}.jpg")
            if path is not None:
                reader.records.append(_record(reader, row, image_id, path, masks.get(image_id), official_split))


def _record(
    reader: SourceReader, row: dict[str, str], image_id: str, path: Path, mask: Path | None, official_split: str
) -> Record:
    diagnosis = reader.diagnose(row["dx"])
    site = known(row["localization"])
    caption = clinical_caption(
        CaptionFacts(
            name=path.name,
            view="dermoscopic image",
            site=_SITES.get(site, f"the {site}") if site else None,
            diagnosis=diagnosis,
            confirmed_by=_CONFIRMED_BY.get(row["dx_type"]),
        )
    )
    # Age 0 stands for a missing value in this table.
    fields = stated_fields(row, leave_out=() if number(row["age"]) else ("age",))
    key = f"ham10000-lesion:{row['lesion_id'] or image_id}"
    return Record(
        image=path,
        source=NAME,
        name=path.name,
        group=key,
        diagnosis=diagnosis,
        malignancy=malignancy_of(diagnosis),
        caption=caption,
        references=(caption,),
        mask=mask,
        official_split=official_split,
        fields=fields,
        view="dermoscopic",
        keys=(key,),
    )


def _masks(folder: Path) -> dict[str, Path]:
    """Return image id -> mask. The publisher's archive also holds macOS stubs that look like masks."""
    found: dict[str, Path] = {}
    for parent, _, names in walk(folder, leave_out=LEFT_OVERS):
        for name in names:
            match = _MASK.fullmatch(name)
            if match:
                found.setdefault(match[1].upper(), parent / name)
    return found
