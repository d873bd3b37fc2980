"""Captions composed from a publisher's fields by one of three policies: only what is stated, never at random.

- ``visible``: only what a photograph can show: view, site, size where measured, morphology, skin type.
- ``clinical``: the same with the diagnosis and how it was confirmed.
- ``fields``: every field that says something as 'Label: value', to reproduce numbers of that form.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from clip_xai.data.own_text import without_answers
from clip_xai.data.vocabulary import Vocabulary, load_vocabulary
from clip_xai.errors import UserError

POLICIES = ("visible", "clinical", "fields")

#: Names of single growths, of which one says 'a melanoma', unlike 'psoriasis'.
_GROWTH = re.compile(
    r"(oma|nevus|keratosis|lesion|papule|acrochordon|lentigo|keloid|scar|cyst|macule|abscess|stain|spot|milium)"
    r"( in situ)?$"
)

_NAMED_AFTER = {name: name.capitalize() for name in ("kaposi", "spitz", "becker", "darier", "behcet", "lyme")}

_ROMAN = {1: "I", 2: "II", 3: "III", 4: "IV", 5: "V", 6: "VI"}

_VIEWS = {
    "dermoscopic image": ("dermoscopic image", "dermoscopy image", "dermoscopic photograph"),
    "clinical photograph": ("clinical photograph", "clinical image", "photograph"),
}


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
        concepts: Morphology that was annotated, in words that may stand in a list: ``scale``, ``brown pigmentation``.
        own_text: The publisher's own caption or captions, which take the place of composed ones.
        fields: Label -> value, for the policy ``fields``.
    """

    name: str
    view: str
    site: str | None = None
    size_mm: tuple[float, ...] = ()
    diagnosis: str | None = None
    confirmed_by: str | None = None
    skin_types: tuple[int, ...] = ()
    concepts: tuple[str, ...] = ()
    own_text: tuple[str, ...] = ()
    fields: Mapping[str, str] = field(default_factory=dict)


def compose(facts: CaptionFacts, policy: str = "clinical", vocabulary: Vocabulary | None = None) -> tuple[str, ...]:
    """Return the captions of a photograph: the first is learnt, all are references.

    Args:
        facts: What they may say.
        policy: Of `POLICIES`.
        vocabulary: The vocabulary, here and below; that of skin if None.

    Raises:
        UserError: There is no such policy.
    """
    if policy not in POLICIES:
        raise UserError(f"data.captions={policy} is no caption policy; choose one of {', '.join(POLICIES)}.")
    if facts.own_text:
        cut = [without_answers(text, vocabulary) if policy == "visible" else text.strip() for text in facts.own_text]
        texts = tuple(dict.fromkeys(text for text in cut if text))
        if texts:
            return texts
    if policy == "fields" and facts.fields:
        return (", ".join(f"{label}: {value}" for label, value in facts.fields.items()),)
    return ((visible_caption if policy == "visible" else clinical_caption)(facts, vocabulary),)


def clinical_caption(facts: CaptionFacts, vocabulary: Vocabulary | None = None) -> str:
    """Compose a caption of one to four sentences from the facts that are there.

    The wording depends on the file name alone, so a data set reads varied and comes out the same every time.
    """
    known = vocabulary or load_vocabulary()
    finding = known.unnamed if facts.diagnosis is None else _finding(facts.diagnosis)
    return _compose(facts, finding, facts.confirmed_by, known.truth)


def visible_caption(facts: CaptionFacts, vocabulary: Vocabulary | None = None) -> str:
    """Compose a caption that a person who sees nothing but the photograph could have written."""
    known = vocabulary or load_vocabulary()
    return _compose(facts, known.unnamed, None, known.truth)


def size_in_mm(*diameters: float | None) -> tuple[float, ...]:
    """Return the measured diameters, larger first; 0 and missing values are no measurement."""
    measured = [value for value in diameters if value is not None and value > 0]
    return tuple(sorted(measured, reverse=True)) if len(measured) == len(diameters) else tuple(measured[:1])


class _Choices:
    """Independent choices that depend on a name alone."""

    def __init__(self, name: str) -> None:
        self._left = int(hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest(), 16)

    def one(self, options: Iterable[str]) -> str:
        listed = list(options)
        self._left, place = divmod(self._left, len(listed))
        return listed[place]


def _compose(facts: CaptionFacts, finding: str, confirmed_by: str | None, thing: str) -> str:
    choices = _Choices(facts.name)
    view = choices.one(_VIEWS.get(facts.view, (facts.view,)))
    opening = _opening(choices, view, finding, facts.site, confirmed_by)
    details = [
        *_morphology(choices, facts.concepts),
        *_size(choices, facts.size_mm, thing),
        *_skin(choices, facts.skin_types),
    ]
    if len(details) > 1 and choices.one(("as listed", "turned")) == "turned":
        details.reverse()
    return " ".join([opening, *details])


def _opening(choices: _Choices, view: str, finding: str, site: str | None, confirmed_by: str | None) -> str:
    a_view = _with_article(view)
    on, of = (f" on {site}", f" of {site}") if site else ("", "")
    clause = f", confirmed by {confirmed_by}" if confirmed_by else ""
    sentence = (
        f" {choices.one(('The diagnosis was confirmed', 'It was confirmed'))} by {confirmed_by}." if clause else ""
    )
    patterns = [
        f"{_capital(a_view)}{of} showing {finding}{clause}.",
        f"{_capital(a_view)} of {finding}{on}{clause}.",
        f"This {view} shows {finding}{on}.{sentence}",
        f"{_capital(finding)}{on}, seen in {a_view}.{sentence}",
    ]
    if site:
        patterns.append(f"{_capital(site)} with {finding} in {a_view}.{sentence}")
    return choices.one(patterns)


def _finding(diagnosis: str) -> str:
    """Write the diagnosis as it stands in a sentence: single growths take an article, diseases do not."""
    phrase = " ".join(_NAMED_AFTER.get(word, word) for word in diagnosis.split())
    return _with_article(phrase) if _GROWTH.search(diagnosis) else phrase


def _morphology(choices: _Choices, concepts: tuple[str, ...]) -> list[str]:
    if not concepts:
        return []
    *first, last = concepts
    listed = f"{', '.join(first)} and {last}" if first else last
    lead = choices.one(("Seen are", "Visible features are") if first else ("Seen is", "A visible feature is"))
    return [f"{lead} {listed}."]


def _size(choices: _Choices, size_mm: tuple[float, ...], thing: str) -> list[str]:
    if not size_mm:
        return []
    if len(size_mm) == 1 or size_mm[0] == size_mm[1]:
        extent = f"{size_mm[0]:g} mm across"
        return [
            choices.one(
                (f"The {thing} is {extent}.", f"The {thing} measures {extent}.", f"The {thing} is about {extent}.")
            )
        ]
    extent = f"{size_mm[0]:g} x {size_mm[1]:g} mm"
    return [
        choices.one(
            (
                f"The {thing} measures {extent}.",
                f"The {thing} is {extent} in size.",
                f"The {thing} extends over {extent}.",
            )
        )
    ]


def _skin(choices: _Choices, skin_types: tuple[int, ...]) -> list[str]:
    if not skin_types:
        return []
    types = " to ".join(dict.fromkeys((_ROMAN[skin_types[0]], _ROMAN[skin_types[-1]])))
    return [
        choices.one(
            (
                f"Fitzpatrick skin type {types}.",
                f"The skin is of Fitzpatrick type {types}.",
                f"The surrounding skin is Fitzpatrick type {types}.",
            )
        )
    ]


def _with_article(phrase: str) -> str:
    return f"{'an' if phrase[0].lower() in 'aeiou' else 'a'} {phrase}"


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
