"""What is asked of each photograph, as plain values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from clip_xai.data.vocabulary import Vocabulary, load_vocabulary
from clip_xai.ranges import setting

CAPTION_PARTS = ("caption_word", "caption_span", "caption")
CONFIGURED = "configured"  # in a field's metadata: the default that its setting has, where that is another


@dataclass(frozen=True)
class Question:
    """What is asked of each photograph.

    The settings of ``target`` are generated from these fields; what ``configured`` says is their default there.

    Attributes:
        names: One or several of ``TARGETS``. ``caption_word`` (each word of the caption), ``caption_span`` (some words
            of it, such as the diagnosis) and ``caption`` (the whole) are log-probabilities, and in one question one
            target with several scores, for they share each pass; ``caption_contrast`` is the whole against the same
            with other words in the span's place.
        kind: Of similarities and classes: ``cosine``, ``dot`` or ``logit``; of classes also ``log_probability``; of
            a classifier ``logit``, ``margin`` or ``log_probability``.
        text: The text, or the texts, of ``similarity`` and ``contrast``; None for the generated caption.
        against: The other texts of ``contrast``; what could stand in the span's place for ``caption_contrast``; null
            for the vocabulary's.
        classes: The classes of ``class``, null for the vocabulary's; of ``logit`` names or numbers of the classifier's,
            none for the likeliest.
        templates: Texts with {} where the class stands; null for the vocabulary's.
        dimensions: The dimensions of ``embedding_dimension``.
        word: One word of the caption for ``caption_word``; null for every word.
        span: Words of the caption for ``caption_span`` and ``caption_contrast``; null for the diagnosis it states.
        options: Settings that single targets have of their own.
        vocabulary: What is taken where nothing is given, and what captions are read with. A captioner brings its own.
    """

    names: tuple[str, ...] = (*CAPTION_PARTS, "similarity")
    kind: str = setting("cosine", one_of=("cosine", "dot", "logit", "margin", "log_probability"))
    text: str | tuple[str, ...] | None = None
    # On the command line the vocabulary's texts join a contrast only where it is told so: two typed texts are enough.
    against: tuple[str, ...] | None = field(default=None, metadata={CONFIGURED: ()})
    classes: tuple[str, ...] | None = None
    templates: tuple[str, ...] | None = None
    dimensions: tuple[int, ...] = setting((), least=0)
    word: str | None = setting(None, free_text=True)
    span: str | None = setting(None, free_text=True)
    options: Mapping[str, Any] = field(default_factory=dict)
    vocabulary: Vocabulary = field(default_factory=load_vocabulary)
