"""DDI as downloaded from Stanford AIMI."""

from __future__ import annotations

from pathlib import Path

from clip_xai.data.synthetic.composition import sample_scene
from clip_xai.data.synthetic.layouts.shared import (
    PlannedPhotograph,
    Shares,
    balanced,
    mask_path,
    scene_seed,
    stream,
    write_csv,
)
from clip_xai.data.vocabulary import MALIGNANT, load_vocabulary

NAME, FOLDER, ROWS = "ddi", "ddidiversedermatologyimages", 656
TABLES = ("ddi_metadata.csv",)

_COLUMNS = ("", "DDI_ID", "DDI_file", "skin_tone", "malignant", "disease")
_DISEASES = {
    "melanocytic nevus": "melanocytic-nevi",
    "seborrheic keratosis": "seborrheic-keratosis",
    "basal cell carcinoma": "basal-cell-carcinoma",
    "squamous cell carcinoma": "squamous-cell-carcinoma",
    "melanoma": "melanoma",
    "dermatofibroma": "dermatofibroma",
    "hemangioma": "angioma",
    "actinic keratosis": "actinic-keratosis",
    "eczema": "eczema-spongiotic-dermatitis",
}
_TONES = ("12", "12", "34", "34", "56", "56")


def plan(seed: int, count: int, shares: Shares) -> list[PlannedPhotograph]:
    """Plan `count` clinical photographs, as many of each third of skin tones."""
    rng = stream(seed, NAME)
    diagnoses = balanced(rng, tuple(_DISEASES))
    skin_types = balanced(rng, ("1", "2", "3", "4", "5", "6"))
    planned = []
    for index in range(count):
        scene = sample_scene(
            scene_seed(seed, NAME, index), diagnosis=next(diagnoses), view="clinical", fitzpatrick=int(next(skin_types))
        )
        name = f"{index + 1:06d}.png"
        row = {
            "": index,
            "DDI_ID": index + 1,
            "DDI_file": name,
            "skin_tone": _TONES[scene.fitzpatrick - 1],
            "malignant": load_vocabulary("skin").diagnoses[scene.diagnosis].malignancy == MALIGNANT,
            "disease": _DISEASES[scene.diagnosis],
        }
        planned.append(
            PlannedPhotograph(
                source=NAME,
                path=f"{FOLDER}/{name}",
                row=row,
                scene=scene,
                diagnosis=scene.diagnosis,
                group=f"photo:ddi/{name}",
                mask=mask_path(NAME, name),
            )
        )
    return planned


def write_tables(root: Path, planned: list[PlannedPhotograph]) -> None:
    """Write ``ddi_metadata.csv``."""
    write_csv(root / FOLDER / TABLES[0], _COLUMNS, [photograph.row for photograph in planned])
