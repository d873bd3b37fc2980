"""What may stand in the file of a vocabulary; whatever else stands there is refused with its place."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from clip_xai.errors import UserError
from clip_xai.text import near_matches

_TEXTS = ("comparison", "probe", "specialty", "picture", "unnamed", "truth", "truth_form", "background", "limits")
_LISTS = ("templates", "classes", "contrast", "alternatives", "other_phrases")
_PAIRS = ("label_codes", "plurals")
_STATEMENTS = (
    *("denials", "not_denials", "denied_after", "hedges", "hedged_after"),
    *("asides", "supports", "conclusions"),
)
_OF_DIAGNOSIS = ("malignancy", "parent", "synonyms")
_KINDS = ("benign", "malignant", "inflammatory")
_FORMS = ("mask", "box")


def checked(loaded: Any, said: str) -> dict[str, Any]:
    """Return the content of a vocabulary's file, lists as tuples.

    Args:
        loaded: What YAML made of the file.
        said: How the file was named, for messages.

    Raises:
        UserError: A key is unknown, something necessary is missing, or a value is not what it should be.
    """
    if not isinstance(loaded, dict):
        raise UserError(f"{said} does not hold a vocabulary: give diagnoses and templates, as the page on data shows")
    readers: dict[str, Callable[[Any, str], Any]] = {
        **dict.fromkeys(_TEXTS, _text),
        **dict.fromkeys(_LISTS, _texts),
        **dict.fromkeys(_PAIRS, _pairs),
        "several": _flag,
        "groups": _singular_and_plural,
        "attributes": lambda value, place: {key: _lists(one, f"{place}.{key}") for key, one in _map(value, place)},
        "structures": _lists,
        "diagnoses": _diagnoses,
        "statements": _statements,
    }
    _require_known(loaded, tuple(readers), said)
    for key in ("diagnoses", "templates"):
        if not loaded.get(key):
            raise UserError(f"{said} does not have {key}: add them")
    values = {key: readers[key](value, f"{said}: {key}") for key, value in loaded.items()}
    for key in ("templates", "comparison"):
        for text in [values[key]] if isinstance(values.get(key), str) else values.get(key, ()):
            if text.count("{}") != 1:
                raise UserError(f"{said}: {key}: {text!r} must hold {{}} once, where the diagnosis stands")
    if values.get("truth_form", "mask") not in _FORMS:
        raise UserError(f"{said}: truth_form is {values['truth_form']!r}: choose one of {', '.join(_FORMS)}")
    for label, name in values.get("label_codes", {}).items():
        if name not in values["diagnoses"]:
            raise UserError(f"{said}: label_codes: {label!r} stands for {name!r}, which is not among the diagnoses")
    return {"contrast": (), "alternatives": (), **values}


def _diagnoses(value: Any, place: str) -> dict[str, dict[str, Any]]:
    if isinstance(value, list):  # names alone
        value = dict.fromkeys(_texts(value, place))
    found: dict[str, dict[str, Any]] = {}
    for name, entry in _map(value, place):
        here = f"{place}.{name}"
        given = dict(_map({} if entry is None else entry, here))
        if name != name.lower():
            raise UserError(f"{here}: names are lower case, as texts are compared: write {name.lower()!r}")
        _require_known(given, _OF_DIAGNOSIS, here)
        readers = {"synonyms": _texts}
        found[name] = {key: readers.get(key, _text)(one, f"{here}.{key}") for key, one in given.items()}
        if found[name].get("malignancy", _KINDS[0]) not in _KINDS:
            raise UserError(f"{here}.malignancy is {found[name]['malignancy']!r}: choose one of {', '.join(_KINDS)}")
    for name in found:
        seen = [name]
        while parent := found[seen[-1]].get("parent"):
            if parent not in found:
                raise UserError(f"{place}.{seen[-1]}.parent: {parent!r} is not among them; "
                                f"{near_matches(parent, list(found))}")  # fmt: skip
            if parent in seen:
                raise UserError(f"{place}.{name} is its own ancestor: {' < '.join([*seen, parent])}")
            seen.append(parent)
    return found


def _statements(value: Any, place: str) -> dict[str, tuple[str, ...]]:
    given = _lists(value, place)
    _require_known(given, _STATEMENTS, place)
    return given


def _require_known(given: dict[str, Any], known: tuple[str, ...], place: str) -> None:
    for key in given:
        if key not in known:
            raise UserError(f"{place}: there is no {key!r} in a vocabulary; {near_matches(str(key), known)}")


def _map(value: Any, place: str) -> list[tuple[str, Any]]:
    if not isinstance(value, dict):
        raise UserError(f"{place} is {value!r}: give a mapping of names")
    return [(_text(key, place), one) for key, one in value.items()]


def _lists(value: Any, place: str) -> dict[str, tuple[str, ...]]:
    return {key: _texts(one, f"{place}.{key}") for key, one in _map(value, place)}


def _pairs(value: Any, place: str) -> dict[str, str]:
    return {key: _text(one, f"{place}.{key}") for key, one in _map(value, place)}


def _texts(value: Any, place: str) -> tuple[str, ...]:
    if not isinstance(value, list):
        raise UserError(f"{place} is {value!r}: give a list of texts")
    return tuple(_text(one, place) for one in value)


def _singular_and_plural(value: Any, place: str) -> tuple[str, ...]:
    words = _texts(value, place)
    if len(words) != 2:
        raise UserError(f"{place} is {value!r}: give singular and plural, such as [patient, patients]")
    return words


def _flag(value: Any, place: str) -> bool:
    if not isinstance(value, bool):
        raise UserError(f"{place} is {value!r}: write true or false")
    return value


def _text(value: Any, place: str) -> str:
    if not isinstance(value, str):
        raise UserError(f"{place}: {value!r} is not a text: put it in quotes (YAML reads no, on and numbers otherwise)")
    if not value.strip():
        raise UserError(f"{place} has a blank text in it: leave that out")
    return value
