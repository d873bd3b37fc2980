"""Vocabularies: the words of a field of medicine that texts are made of where nobody gives others."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import yaml

from clip_xai.errors import UserError

FOLDER = Path(__file__).parent / "vocabularies"
DEFAULT = "skin"


@dataclass(frozen=True)
class Vocabulary:
    """What texts about photographs of a field are made of.

    Attributes:
        name: The file's name.
        templates: Texts with ``{}`` where a class stands, for zero-shot classes.
        comparison: Text with ``{}`` where a diagnosis stands, which similarities are read against.
    """

    name: str
    templates: tuple[str, ...]
    comparison: str


@lru_cache
def vocabulary(name: str = DEFAULT) -> Vocabulary:
    """Read a vocabulary by its name.

    Raises:
        UserError: There is none of that name.
    """
    file = FOLDER / f"{name}.yaml"
    if not file.is_file():
        known = ", ".join(sorted(path.stem for path in FOLDER.glob("*.yaml")))
        raise UserError(f"there is no vocabulary {name!r}: choose one of {known}")
    said = yaml.safe_load(file.read_text(encoding="utf-8"))
    return Vocabulary(name, tuple(said["templates"]), str(said["comparison"]))
