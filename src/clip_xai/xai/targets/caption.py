"""How likely a captioner holds a caption, or parts of it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from clip_xai.data.lexicon import diagnosis_span
from clip_xai.data.vocabulary import Vocabulary
from clip_xai.errors import UserError
from clip_xai.models.backbones.recording import evaluation_mode
from clip_xai.models.captioner import Captioner
from clip_xai.models.causal_model import word_embeddings
from clip_xai.xai.targets.base import CAPTION, Target, TargetContext, targets
from clip_xai.xai.words import Word, places_of, spans_of_ids, words_of

WHOLE_CAPTION = "whole caption"


class CaptionTarget(Target):
    """Log-probability, in nats, of parts of one caption under teacher forcing.

    ``s_t = sum over the tokens i of part t of log p(y_i | image, y_<i)``. Any number of images can be asked how likely
    they make this caption. The cotangent goes through GPT-2 and the mapper to what the mapper reads. Behind a mapper
    that reads the pooled embedding, words have no spatial evidence of their own: their maps differ only by the
    direction in that one vector.
    """

    name = "caption"
    score_name = "log-probability"

    def __init__(
        self, captioner: Captioner, token_ids: Sequence[int], parts: Sequence[Sequence[int]], labels: Sequence[str]
    ) -> None:
        """Take a caption and its parts; ``words`` makes the parts.

        Args:
            captioner: The captioner; asked in evaluation mode.
            token_ids: The caption's M tokens, without the end marker.
            parts: T lists of token positions, 0 to M - 1.
            labels: T labels.

        Raises:
            ValueError: A part is empty or lies outside of the caption, or the labels do not fit.
        """
        if len(parts) != len(labels):
            raise ValueError(f"{len(parts)} parts cannot carry {len(labels)} labels")
        if not all(len(part) and min(part) >= 0 and max(part) < len(token_ids) for part in parts):
            raise ValueError(f"every part needs token positions from 0 to {len(token_ids) - 1}")
        self.captioner = captioner
        self.labels = list(labels)
        self.parts = [tuple(part) for part in parts]
        self.reads = captioner.reads
        self.text = captioner.tokenizer.decode(token_ids)
        device = next(captioner.parameters()).device
        with torch.inference_mode(False):
            self.token_ids = torch.tensor(list(token_ids), device=device)
            self.membership = torch.zeros(len(parts), len(token_ids), device=device)
            for row, part in zip(self.membership, parts, strict=True):
                row[list(part)] = 1.0

    @classmethod
    def words(cls, captioner: Captioner, token_ids: Sequence[int], whole: bool = False) -> CaptionTarget:
        """Make one score of each word and punctuation mark of a caption.

        Args:
            captioner: The captioner.
            token_ids: The caption's tokens, as generated or as ``tokenizer.encode`` gives them.
            whole: Add a last score for the whole caption, which is the sum of the others.

        Raises:
            UserError: The caption is empty.
        """
        words = words_of(*spans_of_ids(captioner.tokenizer, token_ids))
        _refuse_empty(words)
        parts = [word.tokens for word in words]
        labels = [word.text for word in words]
        if whole:
            parts.append(tuple(range(len(token_ids))))
            labels.append(WHOLE_CAPTION)
        return cls(captioner, token_ids, parts, labels)

    @classmethod
    def word(cls, captioner: Captioner, token_ids: Sequence[int], word: str) -> CaptionTarget:
        """Make one score of each place where a word stands in a caption; capitals do not matter.

        Raises:
            UserError: The word is not there.
        """
        words = words_of(*spans_of_ids(captioner.tokenizer, token_ids))
        chosen = [one for one in words if one.text.lower() == word.strip().lower()]
        if not chosen:
            text = captioner.tokenizer.decode(token_ids)
            raise UserError(
                f"{word!r} is not a word of the caption {text!r}: choose one that is, or target=caption_span"
            )
        return cls(captioner, token_ids, [one.tokens for one in chosen], [one.text for one in chosen])

    @classmethod
    def span(cls, captioner: Captioner, token_ids: Sequence[int], text: str | None = None) -> CaptionTarget:
        """Make one score of some neighbouring words of a caption, found by their text.

        Args:
            captioner: The captioner.
            token_ids: The caption's tokens.
            text: Whole words of the caption (capitals do not matter; the first place counts); None for the diagnosis
                that the caption states.

        Raises:
            UserError: It is not there.
        """
        run = span_words(*spans_of_ids(captioner.tokenizer, token_ids), text, captioner.vocabulary)
        caption = captioner.tokenizer.decode(token_ids)
        label = caption[run[0].start : run[-1].end]
        return cls(
            captioner,
            token_ids,
            [tuple(token for word in run for token in word.tokens)],
            [label if text is not None else f"diagnosis: {label}"],
        )

    @classmethod
    def whole(cls, captioner: Captioner, token_ids: Sequence[int]) -> CaptionTarget:
        """Make one score of the whole caption.

        Raises:
            UserError: The caption is empty.
        """
        _refuse_empty(words_of(*spans_of_ids(captioner.tokenizer, token_ids)))
        return cls(captioner, token_ids, [range(len(token_ids))], [WHOLE_CAPTION])

    @property
    def settings(self) -> dict[str, Any]:
        """The caption."""
        return {"target": self.name, "caption": self.text}

    @property
    def any_number(self) -> bool:
        """Whether its mapper can do with fewer tokens than the tower has."""
        return self.reads == "pooled" or self.captioner.mapper.any_number

    def caption_words(self) -> list[Word]:
        """Return the caption's words with their token positions."""
        return words_of(*spans_of_ids(self.captioner.tokenizer, self.token_ids.tolist()))

    def score(self, read: Tensor) -> Tensor:
        """Return the log-probabilities ``[B, T]`` of the parts for B images."""
        with evaluation_mode(self.captioner):
            return self.score_of(self.captioner.prefix(read), self.embeddings(read.shape[0]))

    def embeddings(self, images: int) -> Tensor:
        """Return the embeddings of the caption's tokens, without positions, once for each image: ``[B, M, E]``."""
        return word_embeddings(self.captioner.language_model)(self.token_ids).expand(images, -1, -1)

    def score_of(self, prefix: Tensor, embeddings: Tensor) -> Tensor:
        """Return the scores ``[B, T]`` as a function of the language model's inputs, differentiable in both.

        Args:
            prefix: What stands before the caption, ``[B, K + P, E]``.
            embeddings: Embeddings of the caption's tokens, ``[B, M, E]``. They change what later tokens are told,
                never which tokens are scored.
        """
        chosen = self.captioner.caption_log_probs(prefix, embeddings, self.token_ids.expand(len(prefix), -1))
        return chosen @ self.membership.T.to(chosen)


class CaptionContrastTarget(Target):
    """Why this and not that: how much likelier a caption is than the same caption with a span swapped.

    With y the caption and y^t the caption in which alternative t stands in the span's place, both spelled by the
    tokenizer from the span on::

        s_t = log p(y | image) - log p(y^t | image)          in nats, under teacher forcing

    Tokens before the span are the same in both and cancel; what follows the span is told another story in each, and
    counts. Positive evidence speaks for the caption, negative for the alternative.

    Shapes: scores ``[B, T]`` of T alternatives. Cost: one pass of the mapper and one of the language model over 1 + T
    captions for each image; for the cotangents one batched backward pass through both.
    """

    name = "caption_contrast"
    score_name = "log-probability ratio"

    def __init__(
        self,
        captioner: Captioner,
        token_ids: Sequence[int],
        alternatives: Sequence[str],
        span: str | None = None,
    ) -> None:
        """Take a caption and what could stand in it instead.

        Args:
            captioner: The captioner; asked in evaluation mode.
            token_ids: The caption's tokens.
            alternatives: T texts.
            span: What they stand for, found in the caption; None for the diagnosis that it states.

        Raises:
            UserError: The span is not in the caption, or there is no alternative, or one is the span itself.
        """
        text, spans = spans_of_ids(captioner.tokenizer, token_ids)
        run = span_words(text, spans, span, captioner.vocabulary)
        said, first = text[run[0].start : run[-1].end], run[0].tokens[0]
        same = [other for other in alternatives if other.strip().lower() in ("", said.lower())]
        if not alternatives or same:
            raise UserError(f"a contrast needs something other than {said!r} in its place: set target.against")
        kept = len(captioner.tokenizer.decode(token_ids[:first]))
        tails = [(text[: run[0].start] + other.strip() + text[run[-1].end :])[kept:] for other in ("", *alternatives)]
        tails[0] = text[kept:]
        rows = [[*token_ids[:first], *captioner.tokenizer.encode(tail)] for tail in tails]
        self.captioner, self.reads, self.text = captioner, captioner.reads, text
        self.labels = [f"{said}, not {other.strip()}" for other in alternatives]
        self.alternatives = [captioner.tokenizer.decode(row) for row in rows[1:]]
        longest = max(map(len, rows))
        device = next(captioner.parameters()).device
        with torch.inference_mode(False):
            # Causality keeps the padding on the right from every token that counts.
            self.token_ids = torch.tensor([row + row[-1:] * (longest - len(row)) for row in rows], device=device)
            self.counted = torch.tensor([[i < len(row) for i in range(longest)] for row in rows], device=device)

    @property
    def any_number(self) -> bool:
        """Whether its mapper can do with fewer tokens than the tower has."""
        return self.reads == "pooled" or self.captioner.mapper.any_number

    @property
    def settings(self) -> dict[str, Any]:
        """The caption and its rivals."""
        return {"target": self.name, "caption": self.text, "alternatives": self.alternatives}

    def score(self, read: Tensor) -> Tensor:
        """Return the log-probability ratios ``[B, T]``."""
        images, captions = len(read), len(self.token_ids)
        with evaluation_mode(self.captioner):
            prefix = self.captioner.prefix(read).repeat_interleave(captions, dim=0)
            token_ids = self.token_ids.repeat(images, 1)
            embeddings = word_embeddings(self.captioner.language_model)(token_ids)
            chosen = self.captioner.caption_log_probs(prefix, embeddings, token_ids)
        whole = (chosen * self.counted.repeat(images, 1)).sum(dim=-1).unflatten(0, (images, captions))
        return whole[:, :1] - whole[:, 1:]


def span_words(
    text: str, spans: Sequence[tuple[int, int]], wanted: str | None, vocabulary: Vocabulary | None = None
) -> list[Word]:
    """Return the neighbouring words of a caption that hold a text.

    Args:
        text: The caption.
        spans: Character span of each of its tokens.
        wanted: Whole words of the caption whatever the capitals, first place ('red' is not in 'scarred'); None for the
            diagnosis that it states.
        vocabulary: What it is read with; that of skin if None.

    Raises:
        UserError: The caption is empty, or what is wanted is not there.
    """
    words = words_of(text, spans)
    _refuse_empty(words)
    if wanted is None:
        run = diagnosis_words(text, words, vocabulary)
        if not run:
            raise UserError(
                f"the caption {text!r} states no diagnosis, or several without a conclusion: set target.span"
            )
        return run
    place = _whole_words(text, wanted.strip())
    if place is None:
        raise UserError(f"{wanted!r} is not in the caption {text!r} as whole words: set target.span to words of it")
    return _between(words, *place)


def diagnosis_words(text: str, words: Sequence[Word], vocabulary: Vocabulary | None = None) -> list[Word]:
    """Return the words of the phrase that states the text's diagnosis; none where it states none or several."""
    span = diagnosis_span(text, vocabulary)
    return [] if span is None else _between(words, *span)


def _whole_words(text: str, wanted: str) -> tuple[int, int] | None:
    """Where a text first starts and ends with words of another, whatever the capitals."""
    starts, ends = ({place[edge] for place in places_of(text)} for edge in (0, 1))
    for match in re.finditer(f"(?=({re.escape(wanted)}))", text, re.IGNORECASE) if wanted else ():
        if match.start(1) in starts and match.end(1) in ends:
            return match.span(1)
    return None


def _between(words: Sequence[Word], start: int, end: int) -> list[Word]:
    return [word for word in words if word.start < end and word.end > start]


def _refuse_empty(words: Sequence[Word]) -> None:
    if not words:
        raise UserError("the caption has no words to explain: train the captioner first, or choose target=similarity")


@targets.register("caption_contrast", needs=CAPTION, order=3)
def caption_contrast(context: TargetContext) -> CaptionContrastTarget:
    """Make the caption over those with other words in the span's place."""
    asked = context.question.against
    others = context.vocabulary.alternatives if asked is None else asked
    return CaptionContrastTarget(*context.caption(), others, context.question.span)
