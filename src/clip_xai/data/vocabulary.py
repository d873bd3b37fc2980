"""The words of the house: diagnoses, visible attributes, and how they are read back from a text.

Reading rule. A text is lower-cased and hyphens, underscores and slashes become spaces; then all phrases known here
(diagnoses, attributes and structures together) compete for its words from left to right, the longest phrase winning
at every word, and words that a phrase has taken are gone. So the "white" of "blue-white veil" belongs to the
structure, "dark skin" is a skin tone, "upper centre" is not "centre", and only what is left over can be a colour. The
first phrase of the wanted kind is the answer; nothing found is None, never a guess.
"""

from __future__ import annotations

import re
from functools import lru_cache

from clip_xai.data.ontology import BENIGN, DIAGNOSES, INFLAMMATORY, LABEL_CODES, MALIGNANT, Diagnosis

__all__ = [
    "ATTRIBUTES",
    "BENIGN",
    "DIAGNOSES",
    "INFLAMMATORY",
    "LABEL_CODES",
    "MALIGNANT",
    "POSITIONS",
    "STRUCTURES",
    "Diagnosis",
    "canonical_diagnosis",
    "read_attribute",
    "read_diagnosis",
    "read_structures",
]

POSITIONS: tuple[str, ...] = (
    "upper left", "upper centre", "upper right",
    "centre left", "centre", "centre right",
    "lower left", "lower centre", "lower right",
)  # fmt: skip


def _position_phrases(position: str) -> tuple[str, ...]:
    swaps = {"upper": "top", "lower": "bottom", "centre": "middle"}
    first, *rest = position.split()
    phrases = [position, " ".join([swaps[first], *rest])]
    return tuple(dict.fromkeys(phrases + [phrase.replace("centre", "center") for phrase in phrases]))


ATTRIBUTES: dict[str, dict[str, tuple[str, ...]]] = {
    "colour": {
        "light brown": ("light brown", "tan"),
        "dark brown": ("dark brown",),
        "black": ("black",),
        "blue-grey": ("blue-grey", "blue-gray", "bluish grey"),
        "pink": ("pink", "salmon"),
        "red": ("red", "reddish", "erythematous"),
        "purple": ("purple", "violaceous"),
        "white": ("white", "hypopigmented", "depigmented"),
    },
    "position": {position: _position_phrases(position) for position in POSITIONS},
    "size": {
        "small": ("small",),
        "medium": ("medium", "medium-sized"),
        "large": ("large",),
    },
    "border": {
        "well-defined": ("well-defined border", "sharp border", "well demarcated", "sharply demarcated"),
        "ill-defined": ("ill-defined border", "blurred border", "poorly defined", "indistinct border"),
        "irregular": ("irregular border", "notched border", "ragged border", "irregular borders"),
    },
    "shape": {
        "round": ("round", "circular"),
        "oval": ("oval", "ovoid"),
        "asymmetric": ("asymmetric", "asymmetrical"),
    },
    "skin tone": {
        "light": ("light skin", "fair skin"),
        "medium": ("medium skin", "olive skin"),
        "brown": ("brown skin",),
        "dark": ("dark skin",),
    },
    "view": {
        "clinical": ("clinical", "macroscopic"),
        "dermoscopic": ("dermoscopic", "dermoscopy", "dermatoscopic", "dermatoscopy"),
    },
}  # fmt: skip

# Canonical name of a visible sub-structure -> phrases that stand for it.
STRUCTURES: dict[str, tuple[str, ...]] = {
    "pigment network": ("pigment network",),
    "globules": ("globules", "brown globules"),
    "blue-white veil": ("blue-white veil", "blue whitish veil"),
    "streaks": ("streaks",),
    "milia-like cysts": ("milia-like cysts", "milia"),
    "comedo-like openings": ("comedo-like openings",),
    "arborising vessels": ("arborising vessels", "arborizing vessels", "telangiectasia"),
    "dotted vessels": ("dotted vessels",),
    "ulcer": ("ulcer", "ulceration", "ulcerated"),
    "crust": ("crust", "crusting", "crusted"),
    "scale": ("scale", "scaling", "scaly"),
    "scaly ring": ("scaly ring", "scaly border"),
    "lacunae": ("lacunae", "red lacunae"),
    "central white patch": ("central white patch",),
    "red halo": ("red halo", "erythema halo"),
    "papules": ("papules", "red papules"),
    "excoriations": ("excoriations", "excoriation"),
    "pigment islands": ("pigment islands", "islands of pigment"),
}

_SEPARATORS = re.compile(r"[-_/‐-―]+")
_WORD = re.compile(r"[a-z0-9]+(?:'[a-z]+)?")
_IRREGULAR_PLURALS = {"nevus": "nevi", "naevus": "naevi", "keratosis": "keratoses", "lentigo": "lentigines"}


def _words(text: str) -> tuple[str, ...]:
    return tuple(_WORD.findall(_SEPARATORS.sub(" ", text.lower())))


def _plural(words: tuple[str, ...]) -> tuple[str, ...]:
    last = words[-1]
    return (*words[:-1], _IRREGULAR_PLURALS.get(last, last if last.endswith("s") else last + "s"))


@lru_cache(maxsize=1)
def _lexicon() -> dict[tuple[str, ...], tuple[str, str]]:
    """Words of every known phrase -> (kind, canonical value)."""
    lexicon: dict[tuple[str, ...], tuple[str, str]] = {}
    for entry in DIAGNOSES.values():
        for phrase in (entry.name, *entry.synonyms):
            words = _words(phrase)
            lexicon.setdefault(words, ("diagnosis", entry.name))
            lexicon.setdefault(_plural(words), ("diagnosis", entry.name))
    for attribute, values in {**ATTRIBUTES, "structures": STRUCTURES}.items():
        for value, phrases in values.items():
            for phrase in (value, *phrases) if attribute != "skin tone" else phrases:
                lexicon.setdefault(_words(phrase), (attribute, value))
    return lexicon


@lru_cache(maxsize=4096)
def _read(text: str) -> tuple[tuple[str, str], ...]:
    """(kind, value) of every phrase in the text, by the reading rule of this module."""
    lexicon = _lexicon()
    longest = max(len(phrase) for phrase in lexicon)
    words, found, position = _words(text), [], 0
    while position < len(words):
        for length in range(min(longest, len(words) - position), 0, -1):
            hit = lexicon.get(words[position : position + length])
            if hit is not None:
                found.append(hit)
                position += length
                break
        else:
            position += 1
    return tuple(found)


def read_diagnosis(text: str) -> str | None:
    """Canonical name of the first diagnosis that the text states, or None (see the reading rule above)."""
    return next((value for kind, value in _read(text) if kind == "diagnosis"), None)


def read_attribute(text: str, attribute: str) -> str | None:
    """Canonical value of the first phrase of this attribute, or None where the text does not state it.

    Args:
        text: a caption.
        attribute: a key of `ATTRIBUTES`.

    Raises:
        KeyError: the attribute is not known.
    """
    if attribute not in ATTRIBUTES:
        raise KeyError(f"unknown attribute {attribute!r}: choose one of {', '.join(ATTRIBUTES)}")
    return next((value for kind, value in _read(text) if kind == attribute), None)


def read_structures(text: str) -> tuple[str, ...]:
    """Canonical names of the sub-structures that the text states, in the order of `STRUCTURES`, each once."""
    stated = {value for kind, value in _read(text) if kind == "structures"}
    return tuple(name for name in STRUCTURES if name in stated)


def canonical_diagnosis(name: str) -> str | None:
    """Canonical diagnosis for a publisher's label, or None where the ontology has none.

    Case, hyphens, underscores, plurals, synonyms, the publishers' codes ("nv", "ACK") and a leading "benign-",
    "malignant-" or "other-" (MRA-MIDAS) are understood. The whole label must match: nothing is read out of its middle.
    """
    label = re.sub(r"\s+", " ", re.sub(r"[-_\s\u00a0/]+", " ", name.lower())).strip()
    stripped = re.sub(r"^\d+ ", "", label)
    bare = re.sub(r",? nos$", "", re.sub(r"^(benign|malignant|other) ", "", stripped))
    for candidate in (label, stripped, bare):
        if candidate in LABEL_CODES:
            return LABEL_CODES[candidate]
        kind, value = _lexicon().get(_words(candidate), ("", ""))
        if kind == "diagnosis":
            return value
    return None
