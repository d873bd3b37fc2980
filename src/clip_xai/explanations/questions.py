"""What is asked of each photograph: from the settings of ``target`` to the targets of one photograph."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, fields, replace
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from clip_xai.config.schemas import TargetConfig
from clip_xai.data.vocabulary import Vocabulary, load_vocabulary
from clip_xai.errors import UserError
from clip_xai.models.backbones.base import VisionBackbone
from clip_xai.models.captioner import Caption, Captioner
from clip_xai.models.retrieval import Retrieval
from clip_xai.report.explained import POOLED_NOTE
from clip_xai.xai.target import CaptionTarget, Target
from clip_xai.xai.targets.base import CAPTION, TEXT, needing
from clip_xai.xai.targets.caption import WHOLE_CAPTION, diagnosis_words
from clip_xai.xai.targets.caption_total import TOTAL
from clip_xai.xai.targets.question import CAPTION_PARTS, Question
from clip_xai.xai.targets.similarity import CutTextWarning
from clip_xai.xai.targets.target_builder import caption_parts, targets_of

__all__ = [
    "WHOLE_CAPTION",
    "TargetSpecification",
    "ask",
    "caption_target",
    "diagnosis_words",
    "question_of",
    "with_prompt",
]

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class TargetSpecification:
    """One target of one photograph.

    Attributes:
        target: The target.
        spans: Where each of its scores stands in the caption, None for what is not a single word of it.
        score_name: What its scores are.
        notes: Sentences that a reader must see beside every answer.
    """

    target: Target
    spans: list[tuple[int, int] | None]
    score_name: str
    notes: tuple[str, ...] = ()


def question_of(
    settings: TargetConfig,
    text: str | Sequence[str] | None = None,
    captioner: bool = True,
    classifier: bool = False,
    vocabulary: Vocabulary | None = None,
) -> Question:
    """Return the question that the settings of ``target`` and ``text=``, one or several, put.

    Args:
        settings: Of ``target``.
        text: What similarity is measured with.
        captioner: Whether a captioner is asked, and not a CLIP by itself. Where that leaves one of the default targets
            alone, it is taken.
        classifier: Whether a classifier is asked, for which the default target is ``logit``.
        vocabulary: What is taken where nothing is given; that of skin if None. A captioner brings its own.

    Raises:
        UserError: What is asked lacks what it is made of, or a text is given that nothing asks for.
    """
    words = vocabulary or load_vocabulary()
    names = tuple(settings.names)
    if classifier and names == tuple(TargetConfig().names):
        log.info("a classifier writes no caption and reads no text: target=logit is explained")
        settings = replace(settings, names=["logit"], kind="logit")
        names = ("logit",)
    if not captioner and names == tuple(TargetConfig().names):
        if text is None:
            raise UserError(f'a CLIP by itself is asked about a text: add text="{words.probe}"')
        log.info("a CLIP alone does not write captions: target=similarity is explained")
        names = ("similarity",)
    of_caption = [name for name in names if name in needing(CAPTION)]
    of_text = [name for name in names if name in needing(TEXT)]
    if of_caption and not captioner:
        raise UserError(
            f"target={of_caption[0]} explains a caption, and a CLIP by itself writes none: leave out backbone=, or "
            "choose target=similarity with text=..."
        )
    if of_text and text is None and not captioner:
        raise UserError(f'target={of_text[0]} needs a text: add text="{words.probe}"')
    if text is not None and not of_text:
        raise UserError(
            f"text= is for target=similarity and contrast, and target={names[0]} is asked: choose one of them, or "
            "leave out text="
        )
    if settings.kind == "log_probability" and of_text:
        raise UserError(
            "target.kind=log_probability is one of classes: choose target=class, or target.kind=cosine, dot or logit"
        )
    asked: dict[str, Any] = {
        key: tuple(value) if isinstance(value, list) else value for key, value in vars(settings).items()
    }
    asked |= {
        "vocabulary": words,
        "names": names,
        "text": text if text is None or isinstance(text, str) else tuple(text),
    }
    own = {item.name for item in fields(Question)}
    options = {key: value for key, value in asked.items() if key not in own}  # of a plugin's target
    return Question(**{key: value for key, value in asked.items() if key in own}, options=options)


def ask(
    question: Question,
    backbone: VisionBackbone,
    captioner: Captioner | None,
    caption: Caption | None,
    pixels: Tensor | None = None,
    composes: bool = False,
) -> dict[str, TargetSpecification]:
    """Return the targets of one photograph by their names; all parts of the caption are one, called ``caption``.

    Args:
        question: What is asked.
        backbone: The tower.
        captioner: The captioner, where there is one.
        caption: Its caption of the photograph.
        pixels: What the tower sees of it, ``[1, 3, S, S]``.
        composes: Whether direct maps are composed afterwards, as ``caption_total`` needs it.

    Raises:
        UserError: There is no text to compare with, or no word to explain.
    """
    if TOTAL in question.names and not composes:
        raise UserError(f"target={TOTAL} is composed of other maps by explain.py alone: choose another target here")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", CutTextWarning)  # the page marks it, and the log says it once
        made = targets_of(question, backbone, captioner, None if caption is None else caption.token_ids, pixels)
    _say_once(tuple(note for one in made for note in one.target.notes))
    pooled = [one.name for one in made if one.name in needing(CAPTION) and one.target.reads == "pooled"]
    return {
        one.name: TargetSpecification(
            one.target,
            one.spans,
            one.target.score_name,
            ((POOLED_NOTE,) if one.name in pooled else ()) + one.target.notes,
        )
        for one in made
    }


@lru_cache(maxsize=1000)
def _say_once(notes: tuple[str, ...]) -> None:
    for note in notes:
        log.warning("%s", note)


def in_brief(question: Question) -> Question | None:
    """The same question without every single word of the caption; None where that is no other question."""
    if question.word is not None:
        return None
    names = tuple(name for name in question.names if name != "caption_word")
    of_caption = [name for name in names if name in CAPTION_PARTS]
    return replace(question, names=names) if of_caption and len(names) < len(question.names) else None


def with_prompt(
    captioner: Captioner | None, retrieval: Retrieval | None, pixels: Tensor, group: str | None
) -> AbstractContextManager[None]:
    """Return the block in which the captioner has the prompt that is retrieved for one photograph.

    The prompt is found once, from the photograph as it is, and stays the same text while the photograph is masked.

    Args:
        captioner: The captioner; None where a tower is explained by itself.
        retrieval: Makes the prompt; None leaves the captioner its own.
        pixels: The preprocessed photograph, ``[1, 3, S, S]``.
        group: Its patient or lesion, of which no caption is taken; None where it is not known.

    Raises:
        UserError: Too few captions of other groups are known.
    """
    if captioner is None or retrieval is None:
        return nullcontext()
    with torch.no_grad():
        embedding = captioner.backbone.encode_image(pixels)
    [prompt] = retrieval.prompts(embedding, [group])
    return captioner.prompted(prompt)


def caption_target(
    captioner: Captioner, token_ids: Sequence[int]
) -> tuple[CaptionTarget, list[tuple[int, int] | None]]:
    """The words of a caption, the diagnosis it states (where it states one) and the whole, as one target.

    Returns:
        The target, and the characters of each word; None for the diagnosis and the whole.
    """
    return caption_parts(captioner, token_ids)
