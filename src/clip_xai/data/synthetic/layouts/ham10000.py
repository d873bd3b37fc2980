"""HAM10000 as the Dataverse ships it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from clip_xai.data.synthetic.composition import sample_scene
from clip_xai.data.synthetic.layouts.shared import (
    PlannedPhotograph,
    Shares,
    balanced,
    family_sizes,
    photographed_again,
    pick,
    scene_seed,
    stream,
    write_csv,
)

NAME, FOLDER, ROWS = "ham10000", "ham10000", 11720
TABLES = ("HAM10000_metadata.csv", "ISIC2018_Task3_Test_GroundTruth.csv")

_TEST_SHARE = 1512 / 11720
_COLUMNS = ("lesion_id", "image_id", "dx", "dx_type", "age", "sex", "localization", "dataset")
_CODES = {
    "melanocytic nevus": "nv",
    "melanoma": "mel",
    "seborrheic keratosis": "bkl",
    "basal cell carcinoma": "bcc",
    "actinic keratosis": "akiec",
    "hemangioma": "vasc",
    "dermatofibroma": "df",
}
_COARSER = {"seborrheic keratosis": "benign keratosis", "hemangioma": "vascular lesion"}
_ALWAYS_HISTOLOGY = ("mel", "bcc", "akiec")
_IMAGES_PER_LESION = {1: 5514, 2: 1423, 3: 490, 4: 34}
_CONFIRMATIONS = {"histo": 24, "follow_up": 37, "consensus": 9, "confocal": 1}
_SEXES = {"male": 54, "female": 45, "unknown": 1}
_SITES = {
    "back": 22,
    "lower extremity": 21,
    "trunk": 14,
    "upper extremity": 11,
    "abdomen": 10,
    "face": 7,
    "chest": 4,
    "foot": 3,
    "unknown": 2,
    "neck": 2,
    "scalp": 1,
    "hand": 1,
    "ear": 0.6,
    "genital": 0.5,
    "acral": 0.1,
}
_COLLECTIONS = {"vidir_molemax": 40, "vidir_modern": 34, "rosendahl": 23, "vienna_dias": 4}


def plan(seed: int, count: int, shares: Shares) -> list[PlannedPhotograph]:
    """Plan `count` dermoscopic photographs: lesions of the training table first, those of the test table after them."""
    rng = stream(seed, NAME)
    diagnoses = balanced(rng, tuple(_CODES))
    tests = int(count * _TEST_SHARE + 0.5)
    planned: list[PlannedPhotograph] = []
    for official_split, size, first_id, prefix in (
        ("train", count - tests, 24306, "HAM"),
        ("test", tests, 34524, "HAMTEST"),
    ):
        for lesion, images in enumerate(family_sizes(rng, _IMAGES_PER_LESION, size)):
            diagnosis = next(diagnoses)
            row = _lesion_row(rng, diagnosis, f"{prefix}_{lesion:07d}")
            number = len(planned)
            scene = sample_scene(scene_seed(seed, NAME, number), diagnosis=diagnosis, view="dermoscopic")
            for image in range(images):
                if image:
                    scene = photographed_again(scene, scene_seed(seed, NAME, number + image), int(rng.integers(1, 4)))
                done = len(planned) - (0 if official_split == "train" else count - tests)
                image_id = f"ISIC_{first_id + done:07d}"
                planned.append(
                    PlannedPhotograph(
                        source=NAME,
                        path=f"{FOLDER}/{_image_folder(official_split, done, size)}/{image_id}.jpg",
                        row={**row, "image_id": image_id},
                        scene=scene,
                        diagnosis=_COARSER.get(diagnosis, diagnosis),
                        group=f"ham10000-lesion:{row['lesion_id']}",
                        mask=f"{FOLDER}/HAM10000_segmentations_lesion_tschandl/{image_id}_segmentation.png",
                        official_split=official_split,
                    )
                )
    return planned


def write_tables(root: Path, planned: list[PlannedPhotograph]) -> None:
    """Write the metadata of the training images and the test images' table of the same columns."""
    for official_split, name in zip(("train", "test"), TABLES, strict=True):
        rows = [photograph.row for photograph in planned if photograph.official_split == official_split]
        write_csv(root / FOLDER / name, _COLUMNS, rows)


def _image_folder(official_split: str, number: int, count: int) -> str:
    if official_split == "test":
        return "ISIC2018_Task3_Test_Images"
    return "HAM10000_images_part_1" if number < count / 2 else "HAM10000_images_part_2"


def _lesion_row(rng: np.random.Generator, diagnosis: str, lesion_id: str) -> dict[str, Any]:
    code = _CODES[diagnosis]
    age: float | None = float(5 * int(np.clip(round(rng.normal(52, 17) / 5), 1, 17)))
    return {
        "lesion_id": lesion_id,
        "dx": code,
        "dx_type": "histo" if code in _ALWAYS_HISTOLOGY else pick(rng, _CONFIRMATIONS),
        # The real table has both ways of not knowing an age.
        "age": pick(rng, {age: 97.0, 0.0: 1.5, None: 1.5}),
        "sex": pick(rng, _SEXES),
        "localization": pick(rng, _SITES),
        "dataset": pick(rng, _COLLECTIONS),
    }
