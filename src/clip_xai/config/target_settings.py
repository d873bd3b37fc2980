"""The settings of ``target``, and the names of the targets, read without importing one.

Written by ``python -m clip_xai.jobs.generate`` from ``xai/targets/question.py``; change that, and run it again.
"""

# fmt: off
from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from clip_xai.ranges import Checked, setting

TARGETS = (
    "caption_word", "caption_span", "caption", "caption_contrast", "caption_total", "similarity", "contrast", "class",
    "logit", "embedding_dimension",
)


@dataclass
class TargetSettings(Checked):
    """What is explained.

    Attributes:
        names: One or several of ``TARGETS``. ``caption_word`` (each word of the caption), ``caption_span`` (some words
            of it, such as the diagnosis) and ``caption`` (the whole) are log-probabilities, and in one question one
            target with several scores, for they share each pass; ``caption_contrast`` is the whole against the same
            with other words in the span's place.
        kind: Of similarities and classes: ``cosine``, ``dot`` or ``logit``; of classes also ``log_probability``; of a
            classifier ``logit``, ``margin`` or ``log_probability``.
        against: The other texts of ``contrast``; what could stand in the span's place for ``caption_contrast``; null
            for the vocabulary's.
        classes: The classes of ``class``, null for the vocabulary's; of ``logit`` names or numbers of the classifier's,
            none for the likeliest.
        templates: Texts with {} where the class stands; null for the vocabulary's.
        dimensions: The dimensions of ``embedding_dimension``.
        word: One word of the caption for ``caption_word``; null for every word.
        span: Words of the caption for ``caption_span`` and ``caption_contrast``; null for the diagnosis it states.
    """

    prefix: ClassVar[str] = "target"

    names: list[str] = setting(
        factory=lambda: ["caption_word", "caption_span", "caption", "similarity"], one_of=TARGETS
    )
    kind: str = setting("cosine", one_of=("cosine", "dot", "logit", "margin", "log_probability"))
    against: list[str] | None = field(default_factory=list)
    classes: list[str] | None = None
    templates: list[str] | None = None
    dimensions: list[int] = setting(factory=list, least=0)
    word: str | None = setting(None, free_text=True)
    span: str | None = setting(None, free_text=True)
