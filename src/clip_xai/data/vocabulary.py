"""The controlled vocabulary: diagnoses, visible attributes, and how they are read back from a text.

Reading rule. A text is cut into words of lower-case letters without accents; then all phrases known here
(diagnoses, attributes and structures together) compete for its words from left to right, the longest phrase winning
at every word, and words that a phrase has taken are gone. So the "white" of "blue-white veil" belongs to the
structure, "dark skin" is a skin tone, "upper centre" is not "centre", and only what is left over can be a colour.

What is denied ("no sign of melanoma", "not red") or only compared with ("scar-like") is not stated
(`clip_xai.data.statements`). Of the diagnoses that are left those count that the text holds most firmly: concluded
("most likely", "diagnosis:") before supported ("consistent with"), these before plain ones, these before possible
ones. Are they one, or one above the other in the ontology, then the most specific is the answer; are they several, the
text is undecided and has none. Of an attribute the first value is the answer, unless an "or" offers another.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from functools import lru_cache

from clip_xai.data.ontology import (
    BENIGN,
    DIAGNOSES,
    INFLAMMATORY,
    LABEL_CODES,
    MALIGNANT,
    Diagnosis,
    agree,
    lineage,
)
from clip_xai.data.statements import Phrase, Standing, Word, standings

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
    "diagnosis_span",
    "mentions_diagnosis",
    "one_of",
    "read_attribute",
    "read_diagnosis",
    "read_malignancy",
    "read_structures",
    "stated_diagnoses",
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
        "brown": ("brown skin", "light brown skin"),
        "dark": ("dark skin", "dark brown skin", "black skin"),
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

# A letter or digit with the accents that follow it; an apostrophe joins an ending to its word.
_WORD = re.compile(r"(?:[^\W_][\u0300-\u036f]*)+(?:['’][^\W\d_]+)?")
_IRREGULAR_PLURALS = {"nevus": "nevi", "naevus": "naevi", "keratosis": "keratoses", "lentigo": "lentigines"}


def _folded(word: str) -> str:
    """A word as it is compared: lower case, without accents, with a straight apostrophe."""
    letters = unicodedata.normalize("NFKD", word.lower().replace("’", "'"))
    return "".join(letter for letter in letters if not unicodedata.combining(letter))


def _words(text: str) -> tuple[str, ...]:
    return tuple(_folded(word) for word in _WORD.findall(text))


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
    for kind in (BENIGN, MALIGNANT, INFLAMMATORY):
        lexicon.setdefault((kind,), ("malignancy", kind))
    for attribute, values in {**ATTRIBUTES, "structures": STRUCTURES}.items():
        for value, phrases in values.items():
            for phrase in (value, *phrases) if attribute != "skin tone" else phrases:
                lexicon.setdefault(_words(phrase), (attribute, value))
    return lexicon


@dataclass(frozen=True)
class Found:
    """A known phrase in a text.

    Attributes:
        kind: ``diagnosis``, ``structures`` or a key of `ATTRIBUTES`.
        value: Its canonical value.
        start: Its first character in the text.
        end: One past its last character.
        standing: How firmly the text holds it.
        offered: Whether 'or' stands between it and the phrase before it.
    """

    kind: str
    value: str
    start: int
    end: int
    standing: Standing
    offered: bool

    @property
    def stated(self) -> bool:
        """Whether the text says that it is so, or may be."""
        return self.standing >= Standing.HEDGED


@lru_cache(maxsize=4096)
def _read(text: str) -> tuple[Found, ...]:
    """Every phrase in the text, by the reading rule of this module."""
    lexicon = _lexicon()
    longest = max(len(phrase) for phrase in lexicon)
    words = [Word(_folded(match.group()), match.start(), match.end()) for match in _WORD.finditer(text)]
    compared = tuple(word.text for word in words)
    phrases, position = [], 0
    while position < len(words):
        for length in range(min(longest, len(words) - position), 0, -1):
            hit = lexicon.get(compared[position : position + length])
            if hit is not None:
                phrases.append(Phrase(*hit, position, position + length))
                position += length
                break
        else:
            position += 1
    return tuple(
        Found(
            phrase.kind,
            phrase.value,
            words[phrase.first].start,
            words[phrase.last - 1].end,
            standing,
            number > 0 and compared[phrases[number - 1].last : phrase.first] in _OFFERS,
        )
        for number, (phrase, standing) in enumerate(zip(phrases, standings(text, words, phrases), strict=True))
    )


_OFFERS = frozenset((("or",), ("versus",), ("vs",), ("or", "a"), ("or", "an"), ("and", "or")))


def _held(text: str) -> list[Found]:
    """The diagnoses that the text holds most firmly, in their order."""
    stated = [found for found in _read(text) if found.kind == "diagnosis" and found.stated]
    most = max((found.standing for found in stated), default=None)
    return [found for found in stated if found.standing == most]


def stated_diagnoses(text: str) -> tuple[str, ...]:
    """Canonical names of the diagnoses that the text holds most firmly, each once; several where it is undecided.

    >>> stated_diagnoses("scar-like; melanoma or nevus, not psoriasis")
    ('melanoma', 'melanocytic nevus')
    """
    return tuple(dict.fromkeys(found.value for found in _held(text)))


def one_of(names: tuple[str, ...]) -> str | None:
    """The most specific of canonical diagnoses that stand one above the other; None for none and for rivals.

    >>> one_of(("benign keratosis", "seborrheic keratosis")), one_of(("melanoma", "scar"))
    ('seborrheic keratosis', None)
    """
    deepest = max(names, key=lambda name: len(lineage(name)), default=None)
    return deepest if deepest is not None and all(agree(name, deepest) for name in names) else None


def read_diagnosis(text: str) -> str | None:
    """Canonical name of the diagnosis that the text states; None where it states none or is undecided (see above)."""
    return one_of(stated_diagnoses(text))


def diagnosis_span(text: str) -> tuple[int, int] | None:
    """Characters of the phrase that states the text's diagnosis, as the lexicon matched it; None as above.

    >>> diagnosis_span("not a scar: a melanocytic nevus")
    (14, 31)
    """
    answer = read_diagnosis(text)
    return next(((found.start, found.end) for found in _held(text) if found.value == answer), None)


def mentions_diagnosis(text: str) -> bool:
    """Whether the name of any diagnosis stands in the text, whatever is said of it."""
    return any(found.kind == "diagnosis" for found in _read(text))


def read_malignancy(text: str) -> str | None:
    """Malignancy of the diagnoses that the text states if they share one, or else the bare word for it.

    A text that names two carcinomas is undecided between them, and says all the same that it is malignant.

    >>> read_malignancy("melanoma or basal cell carcinoma"), read_malignancy("not malignant")
    ('malignant', None)
    """
    names = stated_diagnoses(text)
    if names:
        kinds = {DIAGNOSES[name].malignancy for name in names}
    else:
        kinds = {found.value for found in _read(text) if found.kind == "malignancy" and found.stated}
    return kinds.pop() if len(kinds) == 1 else None


def read_attribute(text: str, attribute: str) -> str | None:
    """Canonical value of the first phrase of this attribute that the text states, or None.

    None also where an 'or' offers another value: who cannot say which has not said it.

    Args:
        text: a caption.
        attribute: a key of `ATTRIBUTES`.

    Raises:
        KeyError: the attribute is not known.
    """
    if attribute not in ATTRIBUTES:
        raise KeyError(f"unknown attribute {attribute!r}: choose one of {', '.join(ATTRIBUTES)}")
    found = [one for one in _read(text) if one.kind == attribute and one.stated]
    offered = len(found) > 1 and found[1].offered and found[1].value != found[0].value
    return found[0].value if found and not offered else None


def read_structures(text: str) -> tuple[str, ...]:
    """Canonical names of the sub-structures that the text states, in the order of `STRUCTURES`, each once."""
    stated = {found.value for found in _read(text) if found.kind == "structures" and found.stated}
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
