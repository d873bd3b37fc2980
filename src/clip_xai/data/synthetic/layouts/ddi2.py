"""DDI2 as downloaded from Stanford AIMI, as far as its layout is known."""

from __future__ import annotations

from pathlib import Path

from clip_xai.data.synthetic.composition import sample_scene
from clip_xai.data.synthetic.layouts.shared import (
    PlannedPhotograph,
    Shares,
    balanced,
    mask_path,
    pick,
    scene_seed,
    stream,
    write_xlsx,
)
from clip_xai.data.synthetic.profiles import PROFILES
from clip_xai.data.vocabulary import MALIGNANT, load_vocabulary

NAME, FOLDER, ROWS = "ddi2", "ddi2diversedermatologyimages2", 665
TABLES = ("final_DDI2_Asian_spreadsheet.xlsx",)

_COLUMNS = ("photo_id", "fitzpatrick_skin_type", "diagnosis_detailed", "diagnosis_general", "benign/malignant")
_SKIN_TYPES = {2: 10, 3: 40, 4: 40, 5: 10}


def plan(seed: int, count: int, shares: Shares) -> list[PlannedPhotograph]:
    """Plan `count` clinical photographs."""
    rng = stream(seed, NAME)
    diagnoses = balanced(rng, tuple(PROFILES))
    # Numbers of nine digits like those of MRA-MIDAS, which comes from the same clinic and uses others here.
    taken = {number for photograph in shares["mra_midas"] for number in [photograph.row["midas_file_name"][6:15]]}
    planned: list[PlannedPhotograph] = []
    while len(planned) < count:
        number = f"{int(rng.integers(500_000_000, 800_000_000))}"
        if number in taken:
            continue
        taken.add(number)
        scene = sample_scene(
            scene_seed(seed, NAME, len(planned)),
            diagnosis=next(diagnoses),
            view="clinical",
            fitzpatrick=int(pick(rng, _SKIN_TYPES)),
        )
        stem = f"{number}_cropped" if rng.random() < 0.8 else number
        neighbours = f"{scene.fitzpatrick}, {scene.fitzpatrick + 1}" if rng.random() < 0.3 else f"{scene.fitzpatrick}"
        malignant = load_vocabulary("skin").diagnoses[scene.diagnosis].malignancy == MALIGNANT
        row = {
            "photo_id": int(stem) if stem.isdigit() else stem,
            "fitzpatrick_skin_type": neighbours,
            "diagnosis_detailed": scene.diagnosis.capitalize(),
            "diagnosis_general": load_vocabulary("skin").diagnoses[scene.diagnosis].parent or scene.diagnosis,
            "benign/malignant": "malignant" if malignant else "benign",
        }
        planned.append(
            PlannedPhotograph(
                source=NAME,
                path=f"{FOLDER}/{stem}.jpg",
                row=row,
                scene=scene,
                diagnosis=scene.diagnosis,
                group=f"stanford-photo:{number}",
                mask=mask_path(NAME, stem + ".jpg"),
            )
        )
    return planned


def write_tables(root: Path, planned: list[PlannedPhotograph]) -> None:
    """Write the spreadsheet."""
    rows = [photograph.row for photograph in planned]
    write_xlsx(root / FOLDER / TABLES[0], _COLUMNS, rows)
