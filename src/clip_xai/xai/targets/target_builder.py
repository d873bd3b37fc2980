"""Targets from what a job is asked: names and texts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from torch import Tensor

from clip_xai.data.vocabulary import Vocabulary, load_vocabulary
from clip_xai.errors import UserError
from clip_xai.models.backbones.base import VisionBackbone
from clip_xai.models.backbones.clip import with_texts
from clip_xai.models.captioner import Captioner
from clip_xai.xai.targets.base import Target
from clip_xai.xai.targets.caption import WHOLE_CAPTION, CaptionContrastTarget, CaptionTarget, diagnosis_words
from clip_xai.xai.targets.classes import ClassifierTarget, ClassTarget
from clip_xai.xai.targets.embedding import EmbeddingDimensionTarget
from clip_xai.xai.targets.similarity import ContrastTarget, SimilarityTarget

CAPTION_PARTS = ("caption_word", "caption_span", "caption")
OF_CAPTIONS = (*CAPTION_PARTS, "caption_contrast")
OF_TEXTS = ("similarity", "contrast")
TARGETS = (*OF_CAPTIONS, *OF_TEXTS, "class", "logit", "embedding_dimension")
Span = tuple[int, int] | None


@dataclass(frozen=True)
class Question:
    """What is asked of each photograph.

    Attributes:
        names: Names of targets, out of ``TARGETS``. ``caption_word``, ``caption_span`` and ``caption`` of one question
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
    vocabulary: Vocabulary = field(default_factory=load_vocabulary)

    @property
    def needs_captioner(self) -> bool:
        """Whether it cannot be answered by the backbone alone."""
        of_text = self.text is None and bool(set(OF_TEXTS) & set(self.names))
        return of_text or bool(set(OF_CAPTIONS) & set(self.names))


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
    unknown = [name for name in question.names if name not in TARGETS]
    if unknown or not question.names:
        raise UserError(f"target.names: {', '.join(unknown) or 'nothing'} is not of {', '.join(TARGETS)}")
    words = question.vocabulary if captioner is None else captioner.vocabulary
    asked: list[TargetSpecification] = []
    for name in dict.fromkeys("caption" if one in CAPTION_PARTS else one for one in question.names):
        if name in OF_CAPTIONS:
            if captioner is None or token_ids is None:
                raise UserError(
                    f"target={name} needs a captioner: train one, or choose target=similarity with text=..."
                )
            if name == "caption":
                asked.append(_parts(question, captioner, token_ids))
            else:
                others = words.alternatives if question.against is None else question.against
                target: Target = CaptionContrastTarget(captioner, token_ids, others, question.span)
                asked.append(TargetSpecification(name, target, [None] * len(target.labels)))
            continue
        if name == "logit":
            target = ClassifierTarget.of(backbone, question.classes or (), question.kind, pixels)
        else:
            target = _of_backbone(name, question, backbone, captioner, token_ids, words)
        asked.append(TargetSpecification(name, target, [None] * len(target.labels)))
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


def _parts(question: Question, captioner: Captioner, token_ids: Sequence[int]) -> TargetSpecification:
    names = [name for name in CAPTION_PARTS if name in question.names]
    return TargetSpecification("caption", *caption_parts(captioner, token_ids, names, question.word, question.span))


def _of_backbone(
    name: str,
    question: Question,
    backbone: VisionBackbone,
    captioner: Captioner | None,
    token_ids: Sequence[int] | None,
    vocabulary: Vocabulary,
) -> Target:
    if name == "class":
        classes = vocabulary.classes if question.classes is None else question.classes
        templates = vocabulary.templates if question.templates is None else question.templates
        return ClassTarget.from_classes(with_texts(backbone), classes, templates, question.kind)
    if name == "embedding_dimension":
        return EmbeddingDimensionTarget(question.dimensions, embed_dim=backbone.embed_dim)
    texts = (question.text,) if isinstance(question.text, str) else question.text
    if texts is None:
        if captioner is None or token_ids is None:
            raise UserError(f"without a captioner target={name} needs a text: add text=...")
        texts = (captioner.tokenizer.decode(token_ids),)
        if not texts[0].strip():
            raise UserError("the generated caption is empty; train the captioner further, or give text=...")
    if not all(text.strip() for text in texts):
        raise UserError(f'text= is blank: give a text, such as text="{vocabulary.probe}"')
    if name == "similarity":
        return SimilarityTarget.from_texts(with_texts(backbone), texts, question.kind)
    against = vocabulary.contrast if question.against is None else question.against
    return ContrastTarget.from_texts(with_texts(backbone), [*texts, *against], question.kind)


__all__ = ["TARGETS", "WHOLE_CAPTION", "Question", "TargetSpecification", "caption_parts", "targets_of"]
