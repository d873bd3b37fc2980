"""Captions composed from a publisher's fields: only what is stated, in words, varied but never at random."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass

#: Names of single growths, of which one says 'a melanoma', unlike 'psoriasis'.
_GROWTH = re.compile(
    r"(oma|nevus|keratosis|lesion|papule|acrochordon|lentigo|keloid|scar|cyst|macule|abscess)( in situ)?$"
)

_NAMED_AFTER = {"kaposi": "Kaposi", "spitz": "Spitz"}

_ROMAN = {1: "I", 2: "II", 3: "III", 4: "IV", 5: "V", 6: "VI"}


@dataclass(frozen=True)
class CaptionFacts:
    """What a composed caption may say; None is left out, never spoken.

    Answers that leak (clinical impressions, pathology text) and private fields have no place here on purpose.

    Attributes:
        name: File name of the photograph; chooses the wording.
        view: What kind of picture, without an article: ``dermoscopic image``.
        site: Place on the body with its article: ``the left cheek``.
        size_mm: One or two diameters in millimetres.
        diagnosis: What is shown, without an article: ``melanoma``, ``benign lesion``.
        confirmed_by: ``histopathology``, ``expert consensus``.
        skin_types: Fitzpatrick types 1 to 6 that apply, in order.
    """

    name: str
    view: str
    site: str | None = None
    size_mm: tuple[float, ...] = ()
    diagnosis: str | None = None
    confirmed_by: str | None = None
    skin_types: tuple[int, ...] = ()


def clinical_caption(facts: CaptionFacts) -> str:
    """Compose a caption of one to three sentences from the facts that are there.

    The wording depends on the file name alone, so a data set reads varied and comes out the same every time.
    """
    choice = int(hashlib.sha256(facts.name.encode()).hexdigest()[:8], 16)
    opening = (_opening_by_view, _opening_by_finding, _opening_by_showing)[choice % 3](facts)
    return " ".join([opening, *_size(facts.size_mm, choice // 3), *_skin(facts.skin_types, choice // 9)])


def size_in_mm(*diameters: float | None) -> tuple[float, ...]:
    """Return the measured diameters, larger first; 0 and missing values are no measurement."""
    measured = [value for value in diameters if value is not None and value > 0]
    return tuple(sorted(measured, reverse=True)) if len(measured) == len(diameters) else tuple(measured[:1])


def _opening_by_view(facts: CaptionFacts) -> str:
    place = f" of {facts.site}" if facts.site else ""
    return f"{_capital(_with_article(facts.view))}{place} showing {_finding(facts)}{_confirmation(facts)}."


def _opening_by_finding(facts: CaptionFacts) -> str:
    return f"{_capital(_with_article(facts.view))} of {_finding(facts)}{_place(facts)}{_confirmation(facts)}."


def _opening_by_showing(facts: CaptionFacts) -> str:
    confirmation = f" The diagnosis was confirmed by {facts.confirmed_by}." if facts.confirmed_by else ""
    return f"This {facts.view} shows {_finding(facts)}{_place(facts)}.{confirmation}"


def _place(facts: CaptionFacts) -> str:
    return f" on {facts.site}" if facts.site else ""


def _confirmation(facts: CaptionFacts) -> str:
    return f", confirmed by {facts.confirmed_by}" if facts.confirmed_by else ""


def _finding(facts: CaptionFacts) -> str:
    """Write the diagnosis as it stands in a sentence: single growths take an article, diseases do not."""
    if facts.diagnosis is None:
        return "a skin lesion"
    phrase = " ".join(_NAMED_AFTER.get(word, word) for word in facts.diagnosis.split())
    return _with_article(phrase) if _GROWTH.search(facts.diagnosis) else phrase


def _size(size_mm: tuple[float, ...], choice: int) -> list[str]:
    if not size_mm:
        return []
    if len(size_mm) == 1 or size_mm[0] == size_mm[1]:
        extent = f"{size_mm[0]:g} mm across"
        return [f"The lesion is {extent}." if choice % 2 else f"The lesion measures {extent}."]
    extent = f"{size_mm[0]:g} x {size_mm[1]:g} mm"
    return [f"The lesion measures {extent}." if choice % 2 else f"The lesion is {extent} in size."]


def _skin(skin_types: tuple[int, ...], choice: int) -> list[str]:
    if not skin_types:
        return []
    types = " to ".join(dict.fromkeys((_ROMAN[skin_types[0]], _ROMAN[skin_types[-1]])))
    return [f"Fitzpatrick skin type {types}." if choice % 2 else f"The skin is of Fitzpatrick type {types}."]


def _with_article(phrase: str) -> str:
    return f"{'an' if phrase[0].lower() in 'aeiou' else 'a'} {phrase}"


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
