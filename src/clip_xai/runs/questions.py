"""What is asked of each photograph: from the settings of ``target`` to the targets of one photograph."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from clip_xai.data.vocabulary import read_diagnosis
from clip_xai.errors import UserError
from clip_xai.models.backbones.base import Backbone
from clip_xai.models.captioner import Caption, Captioner
from clip_xai.report.explained import LOG_PROBABILITY, POOLED_NOTE
from clip_xai.xai.target import CaptionTarget, SimilarityTarget, Target
from clip_xai.xai.words import Word

WHOLE_CAPTION = "whole caption"


@dataclass(frozen=True)
class Question:
    """What is asked of each photograph.

    Attributes:
        names: ``caption``: the log-probability of each word of the generated caption, of the diagnosis it states and of
            the whole; ``similarity``: between the photograph and a text.
        kind: The similarity: ``cosine``, ``dot`` or ``logit``.
        text: The text; None for the generated caption.
    """

    names: tuple[str, ...] = ("caption", "similarity")
    kind: str = "cosine"
    text: str | None = None

    @property
    def needs_captioner(self) -> bool:
        """Whether anything of it is about a generated caption."""
        return "caption" in self.names or self.text is None


@dataclass(frozen=True)
class Asked:
    """One target of one photograph.

    Attributes:
        target: The target.
        spans: Where each of its scores stands in the caption, None for what is no single word of it.
        score_name: What its scores are.
        notes: Sentences that a reader must see beside every answer.
    """

    target: Target
    spans: list[tuple[int, int] | None]
    score_name: str
    notes: tuple[str, ...] = ()


def ask(
    question: Question, backbone: Backbone, captioner: Captioner | None, caption: Caption | None
) -> dict[str, Asked]:
    """Return the targets of one photograph, by the name of the question.

    Raises:
        UserError: There is no text to compare with, or no word to explain.
    """
    asked = {}
    for name in question.names:
        if name == "caption":
            assert captioner is not None and caption is not None
            target, spans = caption_target(captioner, caption.token_ids)
            asked[name] = Asked(target, spans, LOG_PROBABILITY, (POOLED_NOTE,) if target.reads == "pooled" else ())
            continue
        text = question.text if question.text is not None else (caption.text if caption is not None else "")
        if not text.strip():
            raise UserError("the generated caption is empty; train the captioner further, or give text=...")
        asked[name] = Asked(SimilarityTarget.from_texts(backbone, [text], question.kind), [None], question.kind)
    return asked


def caption_target(
    captioner: Captioner, token_ids: Sequence[int]
) -> tuple[CaptionTarget, list[tuple[int, int] | None]]:
    """The words of a caption, the diagnosis it states (where it states one) and the whole, as one target.

    Returns:
        The target, and the characters of each word; None for the diagnosis and the whole.
    """
    words = CaptionTarget.words(captioner, token_ids).caption_words()
    parts = [word.tokens for word in words]
    labels = [word.text for word in words]
    spans: list[tuple[int, int] | None] = [(word.start, word.end) for word in words]
    text = captioner.tokenizer.decode(token_ids)
    stated = diagnosis_words(text, words)
    if stated:
        parts.append(tuple(token for word in stated for token in word.tokens))
        labels.append(f"diagnosis: {text[stated[0].start : stated[-1].end]}")
        spans.append(None)
    parts.append(tuple(range(len(token_ids))))
    labels.append(WHOLE_CAPTION)
    spans.append(None)
    return CaptionTarget(captioner, token_ids, parts, labels), spans


def diagnosis_words(text: str, words: Sequence[Word]) -> list[Word]:
    """The fewest neighbouring words that state the same diagnosis as the whole text; none where it states none."""
    diagnosis = read_diagnosis(text)
    if diagnosis is None:
        return []
    for length in range(1, len(words) + 1):
        for first in range(len(words) - length + 1):
            run = list(words[first : first + length])
            if read_diagnosis(text[run[0].start : run[-1].end]) == diagnosis:
                return run
    return list(words)
