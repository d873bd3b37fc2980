"""PAD-UFES-20 as unpacked from Mendeley Data."""

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
    write_csv,
)

NAME, FOLDER, ROWS = "pad_ufes_20", "pad_ufes_20/zr7vgbcyr2-1", 2298
TABLES = ("metadata.csv",)

_COLUMNS = (
    "patient_id", "lesion_id", "smoke", "drink", "background_father", "background_mother", "age", "pesticide",
    "gender", "skin_cancer_history", "cancer_history", "has_piped_water", "has_sewage_system", "fitspatrick",
    "region", "diameter_1", "diameter_2", "diagnostic", "itch", "grew", "hurt", "changed", "bleed", "elevation",
    "img_id", "biopsed",
)  # fmt: skip
_CODES = {
    "actinic keratosis": "ACK",
    "basal cell carcinoma": "BCC",
    "melanoma": "MEL",
    "melanocytic nevus": "NEV",
    "squamous cell carcinoma": "SCC",
    "seborrheic keratosis": "SEK",
}
_BIOPSIED = {"ACK": 0.24, "BCC": 1.0, "MEL": 1.0, "NEV": 0.25, "SCC": 1.0, "SEK": 0.06}
_REGIONS = (
    "ABDOMEN", "ARM", "BACK", "CHEST", "EAR", "FACE", "FOOT", "FOREARM", "HAND", "LIP", "NECK", "NOSE", "SCALP",
    "THIGH",
)  # fmt: skip
_FLAGS = (
    "smoke", "drink", "pesticide", "skin_cancer_history", "cancer_history", "has_piped_water", "has_sewage_system",
)  # fmt: skip
_SYMPTOMS = ("itch", "grew", "hurt", "changed", "bleed")
_ORIGINS = ("POMERANIA", "GERMANY", "BRAZIL", "BRASIL", "ITALY", "UNK")
_MILLIMETRES = {"small": 5.0, "medium": 9.0, "large": 15.0}
_LESIONS_PER_PATIENT = {1: 80, 2: 15, 3: 5}
_IMAGES_PER_LESION = {1: 70, 2: 25, 3: 5}


def plan(seed: int, count: int, shares: Shares) -> list[PlannedPhotograph]:
    """Plan `count` smartphone photographs, some with an alpha channel."""
    rng = stream(seed, NAME)
    diagnoses = balanced(rng, tuple(_CODES))
    planned: list[PlannedPhotograph] = []
    patient, lesions_left, patient_row = 0, 0, {}
    for lesion, images in enumerate(family_sizes(rng, _IMAGES_PER_LESION, count), start=1):
        if not lesions_left:
            patient, lesions_left = patient + 1, int(pick(rng, _LESIONS_PER_PATIENT))
            patient_row = _patient_row(rng, f"PAT_{patient}")
        lesions_left -= 1
        number = len(planned)
        scene = sample_scene(scene_seed(seed, NAME, number), diagnosis=next(diagnoses), view="clinical")
        row = {**patient_row, **_lesion_row(rng, scene, lesion)}
        if not row["biopsed"] and rng.random() < 0.84:
            row.update(_without_questionnaire())
        for image in range(images):
            if image:
                scene = photographed_again(scene, scene_seed(seed, NAME, number + image), int(rng.integers(1, 4)))
            name = f"PAT_{patient}_{lesion}_{100 * (image + 1) + int(rng.integers(100))}.png"
            part = 1 + 3 * len(planned) // count
            planned.append(
                PlannedPhotograph(
                    source=NAME,
                    path=f"{FOLDER}/images/imgs_part_{part}/{name}",
                    row={**row, "img_id": name},
                    scene=scene,
                    diagnosis=scene.diagnosis,
                    group=f"pad_ufes_20-patient:PAT_{patient}",
                    mask=mask_path(NAME, name),
                    transparent=bool(rng.random() < 0.6),
                )
            )
    return planned


def write_tables(root: Path, planned: list[PlannedPhotograph]) -> None:
    """Write ``metadata.csv``."""
    write_csv(root / FOLDER / TABLES[0], _COLUMNS, [photograph.row for photograph in planned])


def _patient_row(rng: np.random.Generator, patient_id: str) -> dict[str, Any]:
    return {
        "patient_id": patient_id,
        "background_father": _ORIGINS[int(rng.integers(len(_ORIGINS)))],
        "background_mother": _ORIGINS[int(rng.integers(len(_ORIGINS)))],
        "age": int(np.clip(rng.normal(60, 15), 6, 94)),
        "gender": ("FEMALE", "MALE")[int(rng.integers(2))],
        **{flag: bool(rng.random() < 0.5) for flag in _FLAGS},
    }


def _lesion_row(rng: np.random.Generator, scene: Scene, lesion: int) -> dict[str, Any]:
    code = _CODES[scene.diagnosis]
    longer = _MILLIMETRES[scene.size] + float(rng.integers(-1, 4))
    symptoms = {name: pick(rng, {"True": 40, "False": 55, "UNK": 5}) for name in _SYMPTOMS}
    return {
        "lesion_id": lesion,
        "fitspatrick": float(scene.fitzpatrick),
        "region": _REGIONS[int(rng.integers(len(_REGIONS)))],
        "diameter_1": longer,
        "diameter_2": longer - float(rng.integers(0, 3)),
        "diagnostic": code,
        "biopsed": bool(rng.random() < _BIOPSIED[code]),
        "elevation": pick(rng, {"True": 50, "False": 48, "UNK": 2}),
        **symptoms,
    }


def _without_questionnaire() -> dict[str, None]:
    """Return the columns that stay blank for most lesions that were not biopsied."""
    measured = ("gender", "fitspatrick", "diameter_1", "diameter_2")
    return dict.fromkeys((*_FLAGS, "background_father", "background_mother", *measured))
