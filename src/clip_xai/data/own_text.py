"""Publishers' own captions: which sentences say more than a photograph can show."""

from __future__ import annotations

import re

from clip_xai.data.lexicon import mentions_diagnosis
from clip_xai.data.vocabulary import Vocabulary

#: Advice, management, tests and follow-up: what is to be done, not what is seen.
_ADVICE = re.compile(
    r"\b(recommend\w*|suggested (?:to|that)|advis\w+|advice|should|must|need(?:s|ed)? to|necessary|consult\w*"
    r"|seek\w*|hospital|clinic|doctor|physician|dermatologist|specialist|medical attention"
    r"|treat(?:ment|ments|ed|ing)?|therap\w+|management|medication|drugs?|ointment|cream|antibiotics?|antifungal"
    r"|corticosteroids?|steroids?|surg\w+|excis\w+|resect\w+|remov(?:e|al)|cryotherapy|laser|phototherapy"
    r"|biops\w+|histopatholog\w+|patholog\w+|laborator\w+|blood tests?|further (?:tests?|examinations?|evaluation)"
    r"|follow[- ]?up|monitor\w*|avoid\w*|prevent\w*|prognosis|differential)\b",
    re.IGNORECASE,
)

#: Where a clause begins that names what the lesion is rather than how it looks.
_ANSWER = re.compile(
    r"[,;:]?\s*(?:and\s+|which\s+(?:is|are)\s+|that\s+(?:is|are)\s+|most\s+|highly\s+|strongly\s+|possibly\s+|likely\s+)*"
    r"\b(?:consistent with|compatible with|suggest(?:ive of|ing|s)|indicat(?:ive of|ing|es)|diagnos\w+"
    r"|characteristic of|typical of|suspicious for|suspected|suspicion of|due to|caused by)\b.*$",
    re.IGNORECASE | re.DOTALL,
)

_SENTENCE = re.compile(r"(?<=[.!?])\s+(?=[A-Z\"'(])")


def gives_advice(text: str) -> bool:
    """Tell whether a text says what is to be done."""
    return _ADVICE.search(text) is not None


def names_a_diagnosis(text: str, vocabulary: Vocabulary | None = None) -> bool:
    """Tell whether a text says what the lesion is."""
    return _ANSWER.search(text) is not None or mentions_diagnosis(text, vocabulary)


def without_answers(text: str, vocabulary: Vocabulary | None = None) -> str:
    """Return a text without its sentences of advice, and without what says which disease it is.

    A clause that names the disease is cut off its sentence ('a red plaque, consistent with psoriasis' keeps 'a red
    plaque'); a sentence that names it in its middle goes whole. The result is empty where nothing is left.
    """
    kept = []
    for sentence in _SENTENCE.split(text.strip()):
        if gives_advice(sentence):
            continue
        cut = _ANSWER.sub("", sentence).strip(" ,;:")
        if len(cut.split()) < 3 or mentions_diagnosis(cut, vocabulary):
            continue
        kept.append(cut if cut[-1] in ".!?" else f"{cut}.")
    return " ".join(kept)
