"""Targets from what a job is asked: names and texts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from clip_xai.errors import UserError
from clip_xai.models.backbones.base import VisionBackbone
from clip_xai.models.captioner import Captioner
from clip_xai.xai.targets.base import CAPTION, TEXT, Target, TargetContext, made_of, needing, targets
from clip_xai.xai.targets.caption import WHOLE_CAPTION, CaptionTarget, diagnosis_words
from clip_xai.xai.targets.question import CAPTION_PARTS, Question

Span = tuple[int, int] | None


@dataclass(frozen=True)
class TargetSpecification:
    """One target of a question.

    Attributes:
        name: Its name; ``caption`` for all parts of the caption together.
        target: The target.
        spans: Where each of its scores stands in the generated caption; None for what stands nowhere.
    """

    name: str
    target: Target
    spans: list[Span]


def needs_captioner(question: Question) -> bool:
    """Tell whether a question cannot be answered by the backbone alone."""
    of_text = question.text is None and bool(set(needing(TEXT)) & set(question.names))
    return of_text or bool(set(needing(CAPTION)) & set(question.names))


def targets_of(
    question: Question,
    backbone: VisionBackbone,
    captioner: Captioner | None = None,
    token_ids: Sequence[int] | None = None,
    pixels: Tensor | None = None,
) -> list[TargetSpecification]:
    """Make the targets of a question.

    Args:
        question: What is asked.
        backbone: The tower.
        captioner: Needed for captions, and for texts that are not given.
        token_ids: The generated caption's tokens.
        pixels: The images ``[B, 3, S, S]``, whose likeliest classes are taken where ``logit`` names none.

    Raises:
        UserError: A target is unknown, or lacks what it is made of.
    """
    if not question.names:
        raise UserError(f"target.names: nothing is not of {', '.join(targets)}")
    for name in question.names:
        targets.named(name, "target.names")
    asked: list[TargetSpecification] = []
    for name in dict.fromkeys("caption" if one in CAPTION_PARTS else one for one in question.names):
        made = made_of(TargetContext(name, question, backbone, captioner, token_ids, pixels))
        if not isinstance(made, TargetSpecification):
            made = TargetSpecification(name, made, [None] * len(made.labels))
        asked.append(made)
    return asked


def caption_parts(
    captioner: Captioner, token_ids: Sequence[int], names: Sequence[str] = CAPTION_PARTS, word: str | None = None,
    span: str | None = None,
) -> tuple[CaptionTarget, list[Span]]:  # fmt: skip
    """Make one target of words, a span and the whole of a caption.

    Args:
        captioner: The captioner.
        token_ids: The caption's tokens.
        names: Which of ``CAPTION_PARTS``. Beside other parts, the diagnosis is there where the caption states one.
        word: One word; None for every word.
        span: Neighbouring words; None for the diagnosis.

    Returns:
        The target, and the characters of each word; None for the span and the whole.

    Raises:
        UserError: The caption is empty or lacks the word, the span, or the diagnosis if that alone is asked.
    """
    made: list[tuple[CaptionTarget, list[Span]]] = []
    if "caption_word" in names:
        every = CaptionTarget.words(captioner, token_ids)
        target = every if word is None else CaptionTarget.word(captioner, token_ids, word)
        places = {one.tokens: (one.start, one.end) for one in every.caption_words()}
        made.append((target, [places[part] for part in target.parts]))
    if "caption_span" in names:
        text = captioner.tokenizer.decode(token_ids)
        alone = len(names) == 1 or span is not None
        if alone or diagnosis_words(
            text, CaptionTarget.words(captioner, token_ids).caption_words(), captioner.vocabulary
        ):
            made.append((CaptionTarget.span(captioner, token_ids, span), [None]))
    if "caption" in names:
        made.append((CaptionTarget.whole(captioner, token_ids), [None]))
    parts = [part for target, _ in made for part in target.parts]
    labels = [label for target, _ in made for label in target.labels]
    return CaptionTarget(captioner, token_ids, parts, labels), [place for _, places in made for place in places]


@targets.register("caption_word", needs=CAPTION, order=0)
def caption_word(context: TargetContext) -> TargetSpecification:
    """Make the words of the caption; as every part of it, together with the other parts that are asked."""
    return _parts(context)


@targets.register("caption_span", needs=CAPTION, order=1)
def caption_span(context: TargetContext) -> TargetSpecification:
    """Make some words of the caption, such as the diagnosis."""
    return _parts(context)


@targets.register("caption", needs=CAPTION, order=2)
def whole_caption(context: TargetContext) -> TargetSpecification:
    """Make the whole caption."""
    return _parts(context)


def _parts(context: TargetContext) -> TargetSpecification:
    question = context.question
    names = [name for name in CAPTION_PARTS if name in question.names]
    return TargetSpecification("caption", *caption_parts(*context.caption(), names, question.word, question.span))


__all__ = ["WHOLE_CAPTION", "TargetSpecification", "caption_parts", "needs_captioner", "targets_of"]
