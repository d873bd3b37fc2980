"""Planted records whose captions state their facts, so that the right answer of every measure is known."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

DIAGNOSES = ("melanoma", "basal cell carcinoma", "melanocytic nevus", "psoriasis")
COLOURS = ("black", "red", "light brown", "pink")
POSITIONS = ("upper left", "centre", "lower right")


@dataclass(frozen=True)
class Planted:
    source: str
    group: str
    caption: str
    references: tuple[str, ...]
    diagnosis: str | None
    sha256: str | None = None


def described(diagnosis: str, colour: str, position: str) -> str:
    return f"a {colour} lesion in the {position} of the picture; this is most likely {diagnosis}."


def planted_records(count: int, seed: int = 0, source: str = "drawn", per_group: int = 2) -> list[Planted]:
    """Records with facts drawn at random; one reference more says the same in other words."""
    generator = np.random.default_rng(seed)
    records = []
    for index in range(count):
        diagnosis, colour, position = (str(generator.choice(names)) for names in (DIAGNOSES, COLOURS, POSITIONS))
        caption = described(diagnosis, colour, position)
        other = f"{diagnosis} is the most likely diagnosis of this {colour} lesion in the {position}."
        group = f"{source}-{seed}-{index // per_group}"
        records.append(Planted(source, group, caption, (caption, other), diagnosis, f"{source}{seed}{index}"))
    return records
