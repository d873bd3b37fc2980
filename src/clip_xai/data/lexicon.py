"""Reading texts with a vocabulary: the diagnoses and visible attributes that they state.

Reading rule. A text is cut into words of lower-case letters without accents; then all phrases of the vocabulary
(diagnoses, attributes and structures together) compete for its words from left to right, the longest phrase winning
at every word, and words that a phrase has taken are gone. So the "white" of "blue-white veil" belongs to the
structure, "dark skin" is a skin tone, "upper centre" is not "centre", and only what is left over can be a colour.

What is denied ("no sign of melanoma", "not red") or only compared with ("scar-like") is not stated
(`clip_xai.data.statements`). Of the diagnoses that are left those count that the text holds most firmly: concluded
("most likely", "diagnosis:") before supported ("consistent with"), these before plain ones, these before possible
ones. Are they one, or one above the other in the vocabulary, then the most specific is the answer; are they several,
the text is undecided and has none. Of an attribute the first value is the answer, unless an "or" offers another.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

from clip_xai.data.statements import Phrase, Standing, Word, standings
from clip_xai.data.vocabulary import BENIGN, INFLAMMATORY, MALIGNANT, Vocabulary, load_vocabulary

PRESENT, ABSENT, POSSIBLE = "present", "absent", "possible"

# A letter or digit with the accents that follow it; an apostrophe joins an ending to its word.
_WORD = re.compile(r"(?:[^\W_][\u0300-\u036f]*)+(?:['’][^\W\d_]+)?")


def _folded(word: str) -> str:
    """A word as it is compared: lower case, without accents, with a straight apostrophe."""
    letters = unicodedata.normalize("NFKD", word.lower().replace("’", "'"))
    return "".join(letter for letter in letters if not unicodedata.combining(letter))


def _words(text: str) -> tuple[str, ...]:
    return tuple(_folded(word) for word in _WORD.findall(text))


def _plural(words: tuple[str, ...], irregular: Mapping[str, str]) -> tuple[str, ...]:
    last = words[-1]
    return (*words[:-1], irregular.get(last, last if last.endswith("s") else last + "s"))


@lru_cache
def _lexicon(vocabulary: Vocabulary) -> dict[tuple[str, ...], tuple[str, str]]:
    """Words of every known phrase -> (kind, canonical value)."""
    lexicon: dict[tuple[str, ...], tuple[str, str]] = {}
    for entry in vocabulary.diagnoses.values():
        for phrase in (entry.name, *entry.synonyms):
            words = _words(phrase)
            lexicon.setdefault(words, ("diagnosis", entry.name))
            lexicon.setdefault(_plural(words, vocabulary.plurals), ("diagnosis", entry.name))
    for kind in (BENIGN, MALIGNANT, INFLAMMATORY):
        if kind in vocabulary.malignancies:
            lexicon.setdefault((kind,), ("malignancy", kind))
    for attribute, values in {**vocabulary.attributes, "structures": vocabulary.structures}.items():
        for value, phrases in values.items():
            for phrase in phrases:
                lexicon.setdefault(_words(phrase), (attribute, value))
    for phrase in vocabulary.other_phrases:
        lexicon[_words(phrase)] = ("other", phrase)
    return lexicon


@dataclass(frozen=True)
class Found:
    """A known phrase in a text.

    Attributes:
        kind: ``diagnosis``, ``structures``, an attribute, or ``other`` for what only looks like one of them.
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
def _read(text: str, vocabulary: Vocabulary) -> tuple[Found, ...]:
    """Every phrase in the text, by the reading rule of this module."""
    lexicon = _lexicon(vocabulary)
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
    held = standings(text, words, phrases, vocabulary.statements)
    return tuple(
        Found(
            phrase.kind,
            phrase.value,
            words[phrase.first].start,
            words[phrase.last - 1].end,
            standing,
            number > 0 and compared[phrases[number - 1].last : phrase.first] in _OFFERS,
        )
        for number, (phrase, standing) in enumerate(zip(phrases, held, strict=True))
    )


def stated_phrases(text: str, vocabulary: Vocabulary | None = None) -> tuple[Found, ...]:
    """Return every known phrase that the text states, in the order in which they stand.

    >>> [(one.kind, one.value) for one in stated_phrases("a red lesion with a red halo, no crust")]
    [('colour', 'red'), ('structures', 'red halo')]
    """
    return tuple(one for one in _read(text, vocabulary or load_vocabulary()) if one.stated and one.kind != "other")


_OFFERS = frozenset((("or",), ("versus",), ("vs",), ("or", "a"), ("or", "an"), ("and", "or")))


def _held(text: str, vocabulary: Vocabulary) -> list[Found]:
    """The diagnoses that the text holds most firmly, in their order."""
    stated = [found for found in _read(text, vocabulary) if found.kind == "diagnosis" and found.stated]
    most = max((found.standing for found in stated), default=None)
    return [found for found in stated if found.standing == most]


def stated_diagnoses(text: str, vocabulary: Vocabulary | None = None) -> tuple[str, ...]:
    """Canonical names of the diagnoses that the text holds most firmly, each once; several where it is undecided.

    Args:
        text: A caption or report.
        vocabulary: The vocabulary, here and below; that of skin if None.

    >>> stated_diagnoses("scar-like; melanoma or nevus, not psoriasis")
    ('melanoma', 'melanocytic nevus')
    """
    return tuple(dict.fromkeys(found.value for found in _held(text, vocabulary or load_vocabulary())))


def one_of(names: tuple[str, ...], vocabulary: Vocabulary | None = None) -> str | None:
    """The most specific of canonical diagnoses that stand one above the other; None for none and for rivals.

    >>> one_of(("benign keratosis", "seborrheic keratosis")), one_of(("melanoma", "scar"))
    ('seborrheic keratosis', None)
    """
    known = vocabulary or load_vocabulary()
    deepest = max(names, key=lambda name: len(known.lineage(name)), default=None)
    return deepest if deepest is not None and all(known.agree(name, deepest) for name in names) else None


def read_diagnosis(text: str, vocabulary: Vocabulary | None = None) -> str | None:
    """Canonical name of the diagnosis that the text states; None where it states none or is undecided (see above)."""
    return one_of(stated_diagnoses(text, vocabulary), vocabulary)


def read_findings(text: str, vocabulary: Vocabulary | None = None) -> dict[str, str]:
    """What a text says of each diagnosis or finding that it names, of which several can be so at once.

    Returns:
        Canonical name -> ``present``, ``possible`` or ``absent``, in the vocabulary's order. What is said twice counts
        by the firmer of both; what is only compared with, or of the past, is not there.

    >>> read_findings("cardiomegaly, possible edema. No pneumothorax.", load_vocabulary("chest"))
    {'cardiomegaly': 'present', 'pneumothorax': 'absent', 'edema': 'possible'}
    """
    known = vocabulary or load_vocabulary()
    firmest: dict[str, Standing] = {}
    for found in _read(text, known):
        if found.kind == "diagnosis" and found.standing != Standing.ASIDE:
            firmest[found.value] = max(found.standing, firmest.get(found.value, found.standing))
    said = {Standing.DENIED: ABSENT, Standing.HEDGED: POSSIBLE}
    return {name: said.get(firmest[name], PRESENT) for name in known.diagnoses if name in firmest}


def diagnosis_span(text: str, vocabulary: Vocabulary | None = None) -> tuple[int, int] | None:
    """Characters of the phrase that states the text's diagnosis, as the lexicon matched it; None as above.

    >>> diagnosis_span("not a scar: a melanocytic nevus")
    (14, 31)
    """
    answer = read_diagnosis(text, vocabulary)
    held = _held(text, vocabulary or load_vocabulary())
    return next(((found.start, found.end) for found in held if found.value == answer), None)


def mentions_diagnosis(text: str, vocabulary: Vocabulary | None = None) -> bool:
    """Whether the name of any diagnosis stands in the text, whatever is said of it."""
    return any(found.kind == "diagnosis" for found in _read(text, vocabulary or load_vocabulary()))


def read_malignancy(text: str, vocabulary: Vocabulary | None = None) -> str | None:
    """Malignancy of the diagnoses that the text states if they share one, or else the bare word for it.

    A text that names two carcinomas is undecided between them, and says all the same that it is malignant.

    >>> read_malignancy("melanoma or basal cell carcinoma"), read_malignancy("not malignant")
    ('malignant', None)
    """
    known = vocabulary or load_vocabulary()
    names = stated_diagnoses(text, known)
    if names:
        kinds = {known.malignancy(name) for name in names}
    else:
        kinds = {found.value for found in _read(text, known) if found.kind == "malignancy" and found.stated}
    return kinds.pop() if len(kinds) == 1 else None


def read_attribute(text: str, attribute: str, vocabulary: Vocabulary | None = None) -> str | None:
    """Canonical value of the first phrase of this attribute that the text states, or None.

    None also where an 'or' offers another value: who cannot say which has not said it.

    Args:
        text: A caption.
        attribute: An attribute of the vocabulary.
        vocabulary: The vocabulary.

    Raises:
        KeyError: The attribute is not known.
    """
    known = vocabulary or load_vocabulary()
    if attribute not in known.attributes:
        raise KeyError(f"unknown attribute {attribute!r}: choose one of {', '.join(known.attributes)}")
    found = [one for one in _read(text, known) if one.kind == attribute and one.stated]
    offered = len(found) > 1 and found[1].offered and found[1].value != found[0].value
    return found[0].value if found and not offered else None


def read_structures(text: str, vocabulary: Vocabulary | None = None) -> tuple[str, ...]:
    """Canonical names of the visible parts that the text states, in the vocabulary's order, each once."""
    known = vocabulary or load_vocabulary()
    stated = {found.value for found in _read(text, known) if found.kind == "structures" and found.stated}
    return tuple(name for name in known.structures if name in stated)


def canonical_diagnosis(name: str, vocabulary: Vocabulary | None = None) -> str | None:
    """Canonical diagnosis for a publisher's label, or None where the vocabulary has none.

    Case, hyphens, underscores, plurals, synonyms, the publishers' codes ("nv", "ACK") and a leading "benign-",
    "malignant-" or "other-" (MRA-MIDAS) are understood. The whole label must match: nothing is read out of its middle.
    """
    known = vocabulary or load_vocabulary()
    label = re.sub(r"\s+", " ", re.sub(r"[-_\s\u00a0/]+", " ", name.lower())).strip()
    stripped = re.sub(r"^\d+ ", "", label)
    bare = re.sub(r",? nos$", "", re.sub(r"^(benign|malignant|other) ", "", stripped))
    for candidate in (label, stripped, bare):
        if candidate in known.label_codes:
            return known.label_codes[candidate]
        kind, value = _lexicon(known).get(_words(candidate), ("", ""))
        if kind == "diagnosis":
            return value
    return None
