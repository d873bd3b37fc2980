"""SkinCAP: ``SkinCAP/skincap_v240623.csv`` and ``SkinCAP/skincap/<id>.png``; ``not_include/`` is left out.

A newer spreadsheet, ``skincap_v240715.xlsx``, has the experts' own translation: alone it gives the captions, beside the
CSV it gives a second reference.
"""

from __future__ import annotations

import os
from pathlib import Path

from clip_xai.data.captions import CaptionFacts
from clip_xai.data.own_text import gives_advice, names_a_diagnosis
from clip_xai.data.record import NO_PATIENT, SourceTable
from clip_xai.data.sources.common import SourceReader, labelled, skin_types_of, stated_fields
from clip_xai.data.sources.photograph_files import PhotographIndex, find_tables, only
from clip_xai.data.sources.tables import number, read_table, whole

NAME, ROWS = "skincap", 4000

_TEXTS = ("caption_zh", "caption_zh_polish", "caption_zh_polish_en", "caption_en")
_ENGLISH = ("caption_zh_polish_en", "caption_en")
_EXCLUDED = "Do not consider this image"

#: SkinCon's concepts, as they stand in a list.
_CONCEPTS = {
    "Vesicle": "vesicles", "Papule": "papules", "Macule": "a macule", "Plaque": "a plaque", "Abscess": "an abscess",
    "Pustule": "pustules", "Bulla": "bullae", "Patch": "a patch", "Nodule": "a nodule", "Ulcer": "ulceration",
    "Crust": "crust", "Erosion": "erosion", "Excoriation": "excoriations", "Atrophy": "atrophy", "Exudate": "exudate",
    "Purpura/Petechiae": "purpura", "Fissure": "fissures", "Induration": "induration", "Xerosis": "dry skin",
    "Telangiectasia": "telangiectasia", "Scale": "scale", "Scar": "scarring", "Friable": "friable tissue",
    "Sclerosis": "sclerosis", "Pedunculated": "a pedunculated form", "Exophytic/Fungating": "an exophytic form",
    "Warty/Papillomatous": "a warty surface", "Dome-shaped": "a dome-shaped form", "Flat topped": "a flat top",
    "Brown(Hyperpigmentation)": "brown pigmentation", "Translucent": "a translucent surface",
    "White(Hypopigmentation)": "white areas", "Purple": "purple colour", "Yellow": "yellow colour",
    "Black": "black colour", "Erythema": "erythema", "Comedo": "comedones", "Lichenification": "lichenification",
    "Blue": "blue colour", "Umbilicated": "an umbilicated centre", "Poikiloderma": "poikiloderma",
    "Salmon": "salmon colour", "Wheal": "wheals", "Acuminate": "an acuminate form", "Burrow": "burrows",
    "Gray": "grey colour", "Pigmented": "pigmentation", "Cyst": "a cystic form",
}  # fmt: skip


def read(root: Path) -> SourceTable | None:
    """Read the data set below `root`; None where its table is not there."""
    table_path, newer_path = (
        only(root, find_tables(root, rf"skincap_v\d+\.{ending}", other_formats=False)) for ending in ("csv", "xlsx")
    )
    path = table_path or newer_path
    if path is None:
        return None
    table = read_table(path, header="skincap_file_path")
    table.require("skincap_file_path", "ori_file_path", "source", "disease")
    english = table.first_column(*_ENGLISH)
    second = _second_captions(newer_path) if table_path is not None and newer_path is not None else {}
    reader = SourceReader(NAME, PhotographIndex(path.parent), expected=ROWS)
    reader.count_rows(table)
    for row in table.rows:
        if not row[english]:
            reader.reject(row["skincap_file_path"], f"no English caption ({english} is empty)")
            continue
        photograph = reader.photograph(row["skincap_file_path"])
        if photograph is not None:
            texts = (row[english], second.get(row["skincap_file_path"], ""))
            _add(reader, row, photograph, tuple(text for text in texts if text))
    reader.note(NO_PATIENT)
    return reader.table()


def _second_captions(path: Path) -> dict[str, str]:
    table = read_table(path, header="skincap_file_path")
    table.require("skincap_file_path")
    english = table.first_column(*_ENGLISH[::-1])
    return {row["skincap_file_path"]: row[english] for row in table.rows}


def _add(reader: SourceReader, row: dict[str, str], photograph: Path, texts: tuple[str, ...]) -> None:
    diagnosis = reader.diagnose(row["disease"])
    text = " ".join(texts)
    flags = {
        "excluded by SkinCon": number(row.get(_EXCLUDED, "")) == 1 or row.get(_EXCLUDED, "").casefold() == "true",
        "caption gives advice": gives_advice(text),
        "caption names a diagnosis": names_a_diagnosis(text),
    }
    shown = (*_TEXTS, *_CONCEPTS, _EXCLUDED, "id", "skincap_file_path", "ori_file_path")
    facts = CaptionFacts(
        name=photograph.name,
        view="clinical photograph",
        diagnosis=diagnosis,
        skin_types=skin_types_of(row.get("fitzpatrick_scale", "")) or skin_types_of(row.get("skin_tone", "")),
        concepts=tuple(words for name, words in _CONCEPTS.items() if number(row.get(name, "")) == 1),
        own_text=texts,
        fields=labelled(row, shown),
    )
    reader.add(
        photograph,
        facts,
        keys=_keys(row),
        diagnosis=diagnosis,
        malignancy=_stated_malignancy(row),
        fields=stated_fields(row, leave_out=_TEXTS),
        flags=[NO_PATIENT, *(flag for flag, holds in flags.items() if holds)],
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
    """Return what the table says of a disease that the vocabulary does not know."""
    by_partition = {"malignant": "malignant", "benign": "benign", "non-neoplastic": "inflammatory"}
    by_flag = {"1": "malignant", "0": "benign", "true": "malignant", "false": "benign"}
    partition = by_partition.get(row.get("three_partition_label", "").casefold())
    return partition or by_flag.get(whole(row.get("malignant", "")).casefold())
