"""SkinCAP as downloaded from its hub repository; most of DDI is in it under other file names."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from clip_xai.data.synthetic.composition import Scene, sample_scene
from clip_xai.data.synthetic.describe import describe
from clip_xai.data.synthetic.layouts.shared import (
    PlannedPhotograph,
    Shares,
    balanced,
    mask_path,
    scene_seed,
    stream,
    write_csv,
)
from clip_xai.data.synthetic.profiles import PROFILES
from clip_xai.data.vocabulary import load_vocabulary

NAME, FOLDER, ROWS = "skincap", "SkinCAP", 4000
TABLES = ("skincap_v240623.csv",)

_DDI_SHARE = 635 / 656
_DESCRIBED = (
    "id", "skincap_file_path", "ori_file_path", "source", "disease", "caption_zh", "caption_zh_polish",
    "caption_zh_polish_en", "fitzpatrick_scale", "skin_tone", "malignant", "nine_partition_label",
    "three_partition_label",
)  # fmt: skip
_CONCEPTS = (
    "Vesicle", "Papule", "Macule", "Plaque", "Abscess", "Pustule", "Bulla", "Patch", "Nodule", "Ulcer", "Crust",
    "Erosion", "Excoriation", "Atrophy", "Exudate", "Purpura/Petechiae", "Fissure", "Induration", "Xerosis",
    "Telangiectasia", "Scale", "Scar", "Friable", "Sclerosis", "Pedunculated", "Exophytic/Fungating",
    "Warty/Papillomatous", "Dome-shaped", "Flat topped", "Brown(Hyperpigmentation)", "Translucent",
    "White(Hypopigmentation)", "Purple", "Yellow", "Black", "Erythema", "Comedo", "Lichenification", "Blue",
    "Umbilicated", "Poikiloderma", "Salmon", "Wheal", "Acuminate", "Burrow", "Gray", "Pigmented", "Cyst",
)  # fmt: skip
_EXCLUDED = "Do not consider this image"
_SEEN_AS = {
    "ulcer": "Ulcer",
    "crust": "Crust",
    "scale": "Scale",
    "scaly ring": "Scale",
    "papules": "Papule",
    "excoriations": "Excoriation",
    "arborising vessels": "Telangiectasia",
    "light brown": "Brown(Hyperpigmentation)",
    "dark brown": "Brown(Hyperpigmentation)",
    "black": "Black",
    "purple": "Purple",
    "white": "White(Hypopigmentation)",
    "red": "Erythema",
    "blue-grey": "Blue",
}
_DISEASES = {"melanocytic nevus": "nevocytic nevus"}
_PARTITIONS = {
    "benign": ("benign", "benign dermal"),
    "malignant": ("malignant", "malignant epidermal"),
    "inflammatory": ("non-neoplastic", "inflammatory"),
}
_CHINESE = "合成的皮肤病变图像。"


def plan(seed: int, count: int, shares: Shares) -> list[PlannedPhotograph]:
    """Plan `count` clinical photographs, among them copies of DDI's photographs with captions."""
    rng = stream(seed, NAME)
    diagnoses = balanced(rng, tuple(PROFILES))
    copies = shares["ddi"][: int(len(shares["ddi"]) * _DDI_SHARE + 0.5)]
    places = dict(
        zip(sorted(int(place) for place in rng.choice(count, len(copies), replace=False)), copies, strict=True)
    )
    planned = []
    for index in range(count):
        original = places.get(index)
        if original is None:
            scene = sample_scene(scene_seed(seed, NAME, index), diagnosis=next(diagnoses), view="clinical")
            key = hashlib.md5(f"{seed}/{index}".encode(), usedforsecurity=False).hexdigest()
            row = _row(index + 1, scene, f"{key}.jpg", "fitzpatrick17k")
            group = f"fitzpatrick17k:{key}"
        else:
            scene, group = original.scene, original.group
            row = _row(index + 1, scene, original.name, "ddi")
            row.update(skin_tone=original.row["skin_tone"], malignant=int(original.row["malignant"]))
        name = f"{index + 1}.png"
        planned.append(
            PlannedPhotograph(
                source=NAME,
                path=f"{FOLDER}/skincap/{name}",
                row=row,
                scene=scene,
                diagnosis=scene.diagnosis,
                group=group,
                mask=mask_path(NAME, name),
                copy_of=original.path if original else None,
            )
        )
    return planned


def write_tables(root: Path, planned: list[PlannedPhotograph]) -> None:
    """Write the table, with the byte-order mark that the real one has."""
    rows = [photograph.row for photograph in planned]
    columns = [*_DESCRIBED, _EXCLUDED, *_CONCEPTS]
    write_csv(root / FOLDER / TABLES[0], columns, rows, encoding="utf-8-sig")


def _row(number: int, scene: Scene, original: str, source: str) -> dict[str, Any]:
    three, nine = _PARTITIONS[load_vocabulary("skin").diagnoses[scene.diagnosis].malignancy]
    seen = {_SEEN_AS[fact] for fact in (*scene.structures, scene.colour) if fact in _SEEN_AS}
    return {
        "id": number,
        "skincap_file_path": f"{number}.png",
        "ori_file_path": original,
        "source": source,
        "disease": _DISEASES.get(scene.diagnosis, scene.diagnosis),
        "caption_zh": _CHINESE,
        "caption_zh_polish": _CHINESE,
        "caption_zh_polish_en": describe(scene)[0],
        "fitzpatrick_scale": scene.fitzpatrick,
        "skin_tone": None,
        "malignant": None,
        "nine_partition_label": None if source == "ddi" else nine,
        "three_partition_label": None if source == "ddi" else three,
        _EXCLUDED: 0,
        **{concept: int(concept in seen) for concept in _CONCEPTS},
    }
