"""Small chest data sets in publishers' layouts with invented rows, for tests."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
from PIL import Image

NIH_COLUMNS = (
    "Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,{sex},View Position,"
    "OriginalImage[Width,Height],OriginalImagePixelSpacing[x,y]"
)
NIH_BOXES = "Image Index,Finding Label,Bbox [x,y,w,h],,,"
CHEXPERT_COLUMNS = (
    "Path,Sex,Age,Frontal/Lateral,AP/PA,No Finding,Enlarged Cardiomediastinum,Cardiomegaly,Lung Opacity,Lung Lesion,"
    "Edema,Consolidation,Pneumonia,Atelectasis,Pneumothorax,Pleural Effusion,Pleural Other,Fracture,Support Devices"
)


def radiograph(path: Path, seed: int, width: int = 32, height: int = 32) -> Path:
    """Write a grey picture; the same seed gives the same pixels."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return path


def lines(path: Path, *rows: str) -> Path:
    """Write lines as they are."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{row}\n" for row in rows), encoding="utf-8")
    return path


def cells(*values: object) -> str:
    """One line of a CSV."""

    class Line(list):
        write = list.append

    line = Line()
    csv.writer(line, lineterminator="").writerow(values)
    return str(line[0])


def nih_row(name: str, labels: str, patient: str, header: str = "v2020") -> str:
    """A row of the table of NIH ChestX-ray14; the earlier one ends in a comma and gives ages such as ``058Y``."""
    age, end = ("058Y", ",") if header == "2017" else ("58", "")
    return f"{name},{labels},0,{patient},{age},M,PA,2682,2749,0.143,0.143{end}"


def nih_header(header: str = "v2020") -> str:
    """The header of one of the two tables that NIH published."""
    if header == "2017":
        return NIH_COLUMNS.format(sex="Patient Gender") + ","
    return NIH_COLUMNS.format(sex="Patient Sex")
