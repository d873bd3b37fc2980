"""Vocabularies: the words of a field of medicine, which every default text is made of and every text is read with.

One YAML file a field: `vocabularies/skin.yaml` and `vocabularies/chest.yaml` come with the package, and any other file
of this form is named by its path: ``data.vocabulary=my_field.yaml``. What a model was trained with travels with its
weights.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import yaml

from clip_xai.data.statement_words import ENGLISH, StatementWords
from clip_xai.data.vocabulary_file import checked
from clip_xai.errors import UserError
from clip_xai.text import near_matches

FOLDER = Path(__file__).parent / "vocabularies"
DEFAULT = "skin"
KEY = "vocabulary"  # of the header of weights, and of checkpoints
GROUPS = ("patient", "patients")  # what records are grouped by, where nothing else is said
BENIGN, MALIGNANT, INFLAMMATORY = "benign", "malignant", "inflammatory"


@dataclass(frozen=True)
class Diagnosis:
    """One diagnosis or finding.

    Attributes:
        name: Canonical name, lower case.
        malignancy: ``benign``, ``malignant`` or ``inflammatory``; empty where the field does not ask for it.
        parent: Name of the entry above, or empty for a root.
        synonyms: Other phrases that stand for it in running text.
    """

    name: str
    malignancy: str = ""
    parent: str = ""
    synonyms: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class Vocabulary:
    """What texts about pictures of a field are made of, and how they are read.

    Attributes:
        name: ``skin``, ``chest``, or the name of a file without its ending.
        diagnoses: The diagnoses or findings by their canonical names.
        templates: Texts with ``{}`` where a class stands, for zero-shot classes.
        comparison: Text with ``{}`` where a diagnosis stands, which similarities are read against.
        probe: Any text of the field, by which an export is tried.
        classes: Classes of ``target=class`` where none are given.
        contrast: The other texts of ``target=contrast`` where none are given.
        alternatives: What could stand in the span's place for ``target=caption_contrast`` where nothing is given.
        specialty: Name of the field, for model cards.
        picture: What a picture is, with its article.
        unnamed: What a caption shows where no diagnosis is known, with its article.
        truth: What localisation is held against: ``lesion``, ``finding``.
        truth_form: How it is marked: by a ``mask`` or a ``box``.
        background: What lies around it.
        groups: What shares a group and is resampled as one, singular and plural: ``patient``, ``patients``.
        several: Whether several diagnoses or findings are so at once, so that captions are judged by all of them.
        limits: What is described worse than the rest, a clause for model cards.
        attributes: Attribute -> its values -> phrases that state them.
        structures: Visible part -> phrases that stand for it.
        other_phrases: Phrases that hold the name of a diagnosis and mean another thing.
        label_codes: Whole labels of publishers' tables -> canonical names; never looked for in running text.
        plurals: Word -> its plural, where that is not the word with an s.
        statements: What this field denies, supports and doubts with, beside plain English.
        content: The file's content, where it is not one of the package's.
    """

    name: str
    diagnoses: Mapping[str, Diagnosis]
    templates: tuple[str, ...]
    comparison: str
    probe: str
    classes: tuple[str, ...]
    contrast: tuple[str, ...]
    alternatives: tuple[str, ...]
    specialty: str = "medicine"
    picture: str = "a picture"
    unnamed: str = "a finding"
    truth: str = "finding"
    truth_form: str = "mask"
    background: str = "the rest"
    groups: tuple[str, str] = GROUPS
    several: bool = False
    limits: str = "What was rare in training is described worse"
    attributes: Mapping[str, Mapping[str, tuple[str, ...]]] = field(default_factory=dict)
    structures: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    other_phrases: tuple[str, ...] = ()
    label_codes: Mapping[str, str] = field(default_factory=dict)
    plurals: Mapping[str, str] = field(default_factory=dict)
    statements: StatementWords = ENGLISH
    content: str | None = None

    @cached_property
    def malignancies(self) -> tuple[str, ...]:
        """The kinds of disease that the diagnoses are of, in the order in which they are met; often none."""
        return tuple(dict.fromkeys(entry.malignancy for entry in self.diagnoses.values() if entry.malignancy))

    def lineage(self, name: str) -> tuple[str, ...]:
        """Return a canonical name and everything above it, nearest first."""
        names = [name]
        while self.diagnoses[names[-1]].parent:
            names.append(self.diagnoses[names[-1]].parent)
        return tuple(names)

    def agree(self, one: str, two: str) -> bool:
        """Tell whether two canonical names can be said of one thing: the same, or one above the other."""
        return one in self.lineage(two) or two in self.lineage(one)

    def malignancy(self, name: str | None) -> str | None:
        """Return the malignancy of a canonical name; None where there is none."""
        return (self.diagnoses[name].malignancy or None) if name else None

    def of_labels(self) -> Vocabulary:
        """Return the words for labels of a table or of folders, which are of any field.

        What nobody chose does not speak of them: the default vocabulary's groups are then called groups.
        """
        return replace(self, groups=("group", "groups")) if self.digest == DEFAULT else self

    @property
    def digest(self) -> str:
        """What tells apart two states of a person's own file; the name of one of the package's."""
        return self.name if self.content is None else hashlib.sha256(self.content.encode()).hexdigest()[:16]

    def packed(self) -> dict[str, str]:
        """The entry in the header of weights: the name, and the content where another machine does not have it."""
        return {KEY: json.dumps({"name": self.name, "content": self.content})}


def load_vocabulary(chosen: str = DEFAULT) -> Vocabulary:
    """Read a vocabulary.

    Args:
        chosen: The name of one of the package's, or the path of a YAML file.

    Raises:
        UserError: There is none, or the file is not a vocabulary.

    Example:
        >>> load_vocabulary("chest").diagnoses["edema"].synonyms[0]
        'pulmonary edema'
    """
    require_known(chosen)
    if not is_path(chosen):
        return _packaged(chosen)
    place = Path(chosen).expanduser()
    try:
        content = place.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not UTF-8"
        raise UserError(f"data.vocabulary={chosen} cannot be read: {reason}") from error
    return _own(place.stem, content, chosen)


def require_known(chosen: str) -> None:
    """Refuse a name that no vocabulary has; whether a file is there is seen when it is read.

    Raises:
        UserError: There is none of that name.
    """
    if not is_path(chosen) and not (FOLDER / f"{chosen}.yaml").is_file():
        known = sorted(path.stem for path in FOLDER.glob("*.yaml"))
        raise UserError(
            f"data.vocabulary={chosen}: there is no vocabulary of that name; {near_matches(chosen, known)}, "
            "or give the path of a .yaml file"
        )


def is_path(chosen: str) -> bool:
    """Tell whether a vocabulary is chosen by the path of a file."""
    return chosen.endswith((".yaml", ".yml")) or "/" in chosen or "\\" in chosen


def unpacked(header: Mapping[str, Any] | None) -> Vocabulary | None:
    """Return the vocabulary that a header of weights, or a checkpoint, names; None where it names none.

    Raises:
        UserError: It names one that this version does not have.
    """
    try:
        found = json.loads((header or {})[KEY])
        name, content = str(found["name"]), found.get("content")
    except (KeyError, TypeError, ValueError):
        return None
    return _packaged(name) if content is None else _own(name, content, f"{name} of the model")


@lru_cache
def _packaged(name: str) -> Vocabulary:
    require_known(name)
    file = FOLDER / f"{name}.yaml"
    return _made(name, file.read_text(encoding="utf-8"), str(file), None)


@lru_cache
def _own(name: str, content: str, said: str) -> Vocabulary:
    return _made(name, content, said, content)


def _made(name: str, content: str, said: str, kept: str | None) -> Vocabulary:
    try:
        loaded = yaml.load(content, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    except yaml.YAMLError as error:
        reason = " ".join(str(error).split())
        raise UserError(f"data.vocabulary={said} is not YAML ({reason}): correct it") from error
    values = checked(loaded, f"data.vocabulary={said}")
    entries = {
        key: Diagnosis(key, one.get("malignancy", ""), one.get("parent", ""), tuple(one.get("synonyms", ())))
        for key, one in values.pop("diagnoses").items()
    }
    words = values.pop("statements", {})
    names = tuple(entries)
    comparison = values.setdefault("comparison", values["templates"][0])
    values.setdefault("classes", names)
    values.setdefault("probe", comparison.replace("{}", names[0]))
    return Vocabulary(name=name, diagnoses=entries, statements=StatementWords(**words), content=kept, **values)
