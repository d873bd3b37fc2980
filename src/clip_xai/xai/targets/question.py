"""What is asked of each photograph, as plain values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from clip_xai.data.vocabulary import Vocabulary, load_vocabulary

CAPTION_PARTS = ("caption_word", "caption_span", "caption")


@dataclass(frozen=True)
class Question:
    """What is asked of each photograph.

    Attributes:
        names: Names of targets, keys of ``targets``. ``caption_word``, ``caption_span`` and ``caption`` of one question
            are one target with several scores, for they share each pass.
        kind: The similarity: ``cosine``, ``dot`` or ``logit``; for classes also ``log_probability``. Of a classifier
            ``logit``, ``margin`` or ``log_probability``.
        text: The text, or the texts, of ``similarity`` and ``contrast``; None for the generated caption.
        against: The other texts of ``contrast``; for ``caption_contrast``, what could stand in the span's place;
            None for the vocabulary's.
        classes: Texts for ``class``, None for the vocabulary's; for ``logit`` a classifier's names or numbers, none of
            them for the likeliest.
        templates: Texts with ``{}`` where the class stands; None for the vocabulary's.
        dimensions: The dimensions of ``embedding_dimension``.
        word: The word of ``caption_word``; None for every word.
        span: The words of ``caption_span`` and ``caption_contrast``; None for the diagnosis that the caption states.
        options: Settings that single targets have of their own.
        vocabulary: What is taken where nothing is given, and what captions are read with. A captioner brings its own.
    """

    names: tuple[str, ...] = (*CAPTION_PARTS, "similarity")
    kind: str = "cosine"
    text: str | tuple[str, ...] | None = None
    against: tuple[str, ...] | None = None
    classes: tuple[str, ...] | None = None
    templates: tuple[str, ...] | None = None
    dimensions: tuple[int, ...] = ()
    word: str | None = None
    span: str | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    vocabulary: Vocabulary = field(default_factory=load_vocabulary)
