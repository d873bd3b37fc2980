"""Small data sets in publishers' layouts with invented rows, for tests."""

from __future__ import annotations

import csv
import os
import zlib
from pathlib import Path

import numpy as np
import openpyxl
from PIL import Image

HAM_COLUMNS = ["lesion_id", "image_id", "dx", "dx_type", "age", "sex", "localization", "dataset"]
PAD_COLUMNS = [
    "patient_id", "lesion_id", "smoke", "drink", "background_father", "background_mother", "age", "pesticide",
    "gender", "skin_cancer_history", "cancer_history", "has_piped_water", "has_sewage_system", "fitspatrick",
    "region", "diameter_1", "diameter_2", "diagnostic", "itch", "grew", "hurt", "changed", "bleed", "elevation",
    "img_id", "biopsed",
]  # fmt: skip
MIDAS_COLUMNS = [
    "", "midas_record_id", "midas_file_name", "midas_iscontrol", "midas_distance", "midas_location", "midas_path",
    "midas_pathreport", "midas_gender", "midas_age", "midas_fitzpatrick", "midas_melanoma", "midas_ethnicity",
    "midas_race", "clinical_impression_1", "clinical_impression_2", "clinical_impression_3", "length_(mm)",
    "width_(mm)",
]  # fmt: skip
SKINCAP_COLUMNS = [
    "id", "skincap_file_path", "ori_file_path", "source", "disease", "caption_zh", "caption_zh_polish",
    "caption_zh_polish_en", "malignant", "three_partition_label",
]  # fmt: skip
DDI_COLUMNS = ["", "DDI_ID", "DDI_file", "skin_tone", "malignant", "disease"]
DDI2_COLUMNS = ["photo_id", "fitzpatrick_skin_type", "diagnosis_detailed", "diagnosis_general", "benign/malignant"]


def photograph(path: Path, seed: int | None = None) -> Path:
    """Write a small picture; the same seed gives the same bytes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(zlib.crc32(os.fsencode(path)) if seed is None else seed)
    kind = "PNG" if path.suffix.lower() == ".png" else "JPEG"
    Image.fromarray(rng.integers(0, 256, (12, 16, 3), dtype=np.uint8)).save(path, kind)
    return path


def table(path: Path, columns: list[str], *rows: dict, encoding: str = "utf-8") -> Path:
    """Write a CSV; columns that a row leaves out are empty."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding=encoding, newline="") as file:
        writer = csv.DictWriter(file, columns, restval="")
        writer.writeheader()
        writer.writerows(rows)
    return path


def spreadsheet(path: Path, columns: list[str], *rows: dict) -> Path:
    """Write an Excel file; columns that a row leaves out are empty."""
    path.parent.mkdir(parents=True, exist_ok=True)
    book = openpyxl.Workbook()
    book.active.append([column or None for column in columns])
    for row in rows:
        book.active.append([row.get(column) for column in columns])
    book.save(path)
    return path


def ham(root: Path, *rows: dict, images: bool = True) -> Path:
    """HAM10000 in the Kaggle mirror's layout."""
    filled = [
        {"lesion_id": f"HAM_{index:07d}", "dx": "nv", "dx_type": "histo", "age": "45.0", "sex": "male",
         "localization": "back", **row}
        for index, row in enumerate(rows)
    ]  # fmt: skip
    for index, row in enumerate(filled if images else []):
        photograph(root / f"HAM10000_images_part_{1 + index % 2}" / f"{row['image_id']}.jpg")
    return table(root / "HAM10000_metadata.csv", HAM_COLUMNS, *filled)
