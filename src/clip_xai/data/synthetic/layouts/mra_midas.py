"""MRA-MIDAS as downloaded from Stanford AIMI."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from clip_xai.data.synthetic.composition import Scene, sample_scene
from clip_xai.data.synthetic.layouts.shared import (
    PlannedPhotograph,
    Shares,
    balanced,
    family_sizes,
    mask_path,
    photographed_again,
    pick,
    scene_seed,
    stream,
    write_xlsx,
)

NAME, FOLDER, ROWS = "mra_midas", "midasmultimodalimagedatasetforaibasedskincancer", 3416
TABLES = ("release_midas.xlsx",)

_INDEX = ""
_COLUMNS = (
    "midas_record_id", "midas_file_name", "midas_iscontrol", "midas_distance", "midas_location", "midas_path",
    "midas_pathreport", "midas_gender", "midas_age", "midas_fitzpatrick", "midas_melanoma", "midas_ethnicity",
    "midas_race", "clinical_impression_1", "clinical_impression_2", "clinical_impression_3", "length_(mm)",
    "width_(mm)",
)  # fmt: skip
_CLASSES = {
    "basal cell carcinoma": "malignant- bcc",
    "melanocytic nevus": "benign-melanocytic nevus",
    "seborrheic keratosis": "benign-seborrheic keratosis",
    "melanoma": "malignant- melanoma",
    "squamous cell carcinoma": "malignant- scc",
    "actinic keratosis": "malignant- ak",
    "dermatofibroma": "benign-dermatofibroma",
    "hemangioma": "benign-hemangioma",
}
_IMPRESSIONS = (
    "1-benign-melanocytic nevus",
    "2-benign-seborrheic keratosis",
    "7-malignant-bcc",
    "8-malignant-scc",
    "11-malignant-melanoma",
    None,
)
_SKIN = {
    1: "i pale white skin, blue/green eyes, blond/red hair",
    2: "ii fair skin, blue eyes",
    3: "iii darker white skin",
    4: "iv light brown skin",
    5: "v brown skin",
    6: "vi dark brown or black skin",
}
_PLACES = (
    "back", "cheek", "chest", "forearm", "neck", "thigh", "arm", "leg", "shoulder", "scalp", "calf", "abdomen",
    "forehead", "shin", "temple", "hand",
)  # fmt: skip
_RACES = {"white": 86, "asian": 5, "other": 5, "unknown": 3, "black or african american": 1}
_MILLIMETRES = {"small": 4.0, "medium": 7.0, "large": 12.0}
_IMAGES_PER_LESION = {3: 86, 2: 6, 1: 8}
_NO_CLASS, _MISSING, _RENAMED, _OTHER_ENDING = 0.04, 12 / 3416, 47 / 3416, 32 / 3416
_NBSP = "\u00a0"


def plan(seed: int, count: int, shares: Shares) -> list[PlannedPhotograph]:
    """Plan `count` rows: each lesion from 30 cm, from 15 cm and through the dermoscope, one lesion a patient."""
    rng = stream(seed, NAME)
    diagnoses = balanced(rng, tuple(_CLASSES))
    numbers = iter(sorted(int(value) for value in rng.choice(900_000_000, count, replace=False) + 100_000_000))
    faults = _faults(rng, count)
    planned: list[PlannedPhotograph] = []
    for record, images in enumerate(family_sizes(rng, _IMAGES_PER_LESION, count), start=1):
        number = len(planned)
        scene = sample_scene(scene_seed(seed, NAME, number), diagnosis=next(diagnoses), view="clinical")
        row = _lesion_row(rng, scene, record)
        views = ("1ft", "6in", "dscope") if images > 1 else ("n/a - virtual",)
        for image in range(images):
            if image:
                view = "dermoscopic" if views[image] == "dscope" else "clinical"
                scene = photographed_again(
                    scene, scene_seed(seed, NAME, number + image), int(rng.integers(1, 4)), view=view
                )
            listed = f"s-prd-{next(numbers)}.{pick(rng, {'jpg': 94, 'jpeg': 6})}"
            name = _name_on_disk(listed, faults.get(len(planned)))
            planned.append(
                PlannedPhotograph(
                    source=NAME,
                    path=f"{FOLDER}/{name}",
                    row={**row, _INDEX: len(planned), "midas_file_name": listed, "midas_distance": views[image]},
                    scene=scene,
                    diagnosis=scene.diagnosis if row["midas_path"] not in (None, 0) else None,
                    group=f"mra_midas-patient:{record}",
                    mask=mask_path(NAME, name),
                    on_disk=faults.get(len(planned)) != "missing",
                )
            )
    return planned


def write_tables(root: Path, planned: list[PlannedPhotograph]) -> None:
    """Write ``release_midas.xlsx``."""
    rows = [photograph.row for photograph in planned]
    write_xlsx(root / FOLDER / TABLES[0], [_INDEX, *_COLUMNS], rows)


def _faults(rng: np.random.Generator, count: int) -> dict[int, str]:
    """Return which rows have a photograph that is missing or named otherwise than the spreadsheet says."""
    kinds = {"missing": _MISSING, "cropped": _RENAMED, "ending": _OTHER_ENDING}
    names = [kind for kind, share in kinds.items() for _ in range(max(1, int(share * count + 0.5)))]
    return dict(zip((int(row) for row in rng.permutation(count)), names, strict=False))


def _name_on_disk(listed: str, fault: str | None) -> str:
    stem, ending = listed.rsplit(".", 1)
    if fault == "cropped":
        return f"{stem}_cropped.{ending}"
    return f"{stem}.{'JPG' if ending == 'jpg' else 'jpg'}" if fault == "ending" else listed


def _lesion_row(rng: np.random.Generator, scene: Scene, record: int) -> dict[str, Any]:
    control = rng.random() < _NO_CLASS
    label = pick(rng, {None: 6.0, 0: 1.0}) if control else _CLASSES[scene.diagnosis]
    side = ("l ", "r ", "left ", "right ", "")[int(rng.integers(5))]
    longer = _MILLIMETRES[scene.size] + float(rng.integers(0, 4))
    measured = rng.random() > 60 / 3416 + 0.02
    return {
        "midas_record_id": record,
        "midas_iscontrol": "yes" if control else "no",
        "midas_location": f"{side}{_PLACES[int(rng.integers(len(_PLACES)))]}{pick(rng, {'': 9, _NBSP: 1, ' ': 1})}",
        "midas_path": label,
        "midas_pathreport": None if control else f"{scene.diagnosis},{_NBSP}margins free in the planes examined",
        "midas_gender": pick(rng, {"male": 65, "female": 35}),
        "midas_age": int(np.clip(rng.normal(62, 15), 21, 99)),
        "midas_fitzpatrick": pick(rng, {_SKIN[scene.fitzpatrick]: 99, None: 1}),
        "midas_melanoma": pick(rng, {"no": 80, "yes": 19, None: 1}),
        "midas_ethnicity": pick(rng, {"no": 93, "yes": 4, "unknown": 3}),
        "midas_race": pick(rng, _RACES),
        **{f"clinical_impression_{rank}": _IMPRESSIONS[int(rng.integers(len(_IMPRESSIONS)))] for rank in (1, 2, 3)},
        "length_(mm)": longer if measured else 0.0,
        "width_(mm)": longer - float(rng.integers(0, 3)) if measured else 0.0,
    }
