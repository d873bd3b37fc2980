"""Decoding: how a language model's distribution becomes captions, many at a time."""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import (
    GenerationConfig,
    LogitsProcessor,
    LogitsProcessorList,
    NoRepeatNGramLogitsProcessor,
    PreTrainedModel,
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from clip_xai.errors import UserError
from clip_xai.models.causal_model import positions
from clip_xai.models.settings import Decoding
from clip_xai.models.tokenizer import CaptionTokenizer


@dataclass(frozen=True)
class Caption:
    """A generated caption and the tokens that spell it, the end marker left out.

    Attributes:
        text: The caption.
        token_ids: Its tokens.
        complete: Whether it ends where the model or ``stop_at`` ended it or at the end of a sentence. False only where
            ``max_new_tokens`` ran out before the first sentence did.
    """

    text: str
    token_ids: tuple[int, ...]
    complete: bool = True


@torch.no_grad()
def decode(
    language_model: PreTrainedModel,
    tokenizer: CaptionTokenizer,
    inputs: Tensor,
    decoding: Decoding,
    mask: Tensor | None = None,
    rows: Sequence[int] | None = None,
) -> list[Caption]:
    """Write one caption after each row of input embeddings, as one batch with a key-value cache.

    Args:
        language_model: The language model.
        tokenizer: Its tokenizer.
        inputs: What stands before the captions, ``[B, S, E]``.
        decoding: How to decode.
        mask: ``[B, S]``, False where a row is padded on its left; None for no padding.
        rows: A number for each row that chooses its draws together with the seed, such as its photograph's (see
            :func:`~clip_xai.data.images.number_of`); 0, 1, 2 ... if None.

    Raises:
        UserError: The language model does not have enough positions.
    """
    length = inputs.shape[1]
    limit = positions(language_model)
    require_room(limit - length + 1, limit, decoding)
    if mask is None:
        mask = torch.ones(inputs.shape[:2], dtype=torch.bool, device=inputs.device)
    stops = stopping_tokens(tokenizer, decoding.stop_at)
    model: Any = language_model  # transformers types generate() on a class that most models do not name
    # With this set, transformers looks for padding in each new token and warns of it, whatever the mask says.
    padding, model.config.pad_token_id = model.config.pad_token_id, None
    try:
        ids: Tensor = model.generate(
            inputs_embeds=inputs,
            attention_mask=mask.long(),
            generation_config=GenerationConfig(
                do_sample=False,
                num_beams=decoding.beams,
                max_new_tokens=decoding.max_new_tokens,
                min_new_tokens=decoding.min_new_tokens or None,
                length_penalty=decoding.length_penalty if decoding.beams > 1 else None,
                early_stopping=decoding.early_stopping if decoding.beams > 1 else None,
                eos_token_id=[tokenizer.eos_id, *stops],
                pad_token_id=tokenizer.pad_id,
            ),
            logits_processor=processors(tokenizer, decoding, range(len(inputs)) if rows is None else rows),
        )
    finally:
        model.config.pad_token_id = padding
    return [finished(row, tokenizer, decoding.whole_sentences, stops) for row in ids.tolist()]


def stopping_tokens(tokenizer: CaptionTokenizer, stop_at: str | None) -> tuple[int, ...]:
    """Return the tokens that end with a text; none for no text.

    Raises:
        UserError: No token ends with it, so no caption would ever end there.
    """
    if not stop_at:
        return ()
    mark = stop_at.encode()
    found = tuple(index for index, token in enumerate(tokenizer.token_bytes) if token.endswith(mark))
    if not found:
        raise UserError(f"generation.stop_at={stop_at!r}: no token of the tokenizer ends with it; give a shorter text")
    return found


def require_room(room: int, positions: int, decoding: Decoding) -> None:
    """Refuse captions for which there are not enough positions.

    Args:
        room: How many tokens a caption can have behind what stands before it.
        positions: The language model's.
        decoding: Says how many tokens a caption may have.

    Raises:
        UserError: There are not enough positions.
    """
    if decoding.max_new_tokens <= room:
        return
    advice = [f"set generation.max_new_tokens={room} or less"] if room > 0 else []
    advice.append("put less before it: language_model.retrieved_captions, language_model.prompt, mapper.prefix_length")
    raise UserError(
        f"{positions - room + 1} vectors before the caption and generation.max_new_tokens={decoding.max_new_tokens} "
        f"exceed the language model's {positions} positions; {', or '.join(advice)}"
    )


def processors(tokenizer: CaptionTokenizer, decoding: Decoding, rows: Sequence[int]) -> LogitsProcessorList:
    """Return what changes the scores at each step: penalties, bans, and the draw last."""
    found = LogitsProcessorList()
    if decoding.repetition_penalty != 1:
        found.append(RepetitionPenaltyLogitsProcessor(decoding.repetition_penalty))
    if decoding.no_repeat_ngram_size:
        found.append(NoRepeatNGramLogitsProcessor(decoding.no_repeat_ngram_size))
    if decoding.banned_phrases:
        found.append(BannedPhrases(decoding.banned_phrases, tokenizer))
    if decoding.sample:
        if decoding.temperature != 1:
            found.append(TemperatureLogitsWarper(decoding.temperature))
        if decoding.top_k:
            found.append(TopKLogitsWarper(decoding.top_k))
        if decoding.top_p < 1:
            found.append(TopPLogitsWarper(decoding.top_p))
        found.append(Draw(decoding.seed, rows))
    return found


class BannedPhrases(LogitsProcessor):
    """Forbids every token that would complete a banned phrase.

    Phrases are compared with the text, not with one way to split it into tokens: a token is forbidden if what was
    written so far ends with the phrase's first k bytes and the token starts with the rest, for any k, or if the token
    holds the whole phrase. Letters of the Latin alphabet are compared without case.
    """

    def __init__(self, phrases: Sequence[str], tokenizer: CaptionTokenizer) -> None:
        self.tokens = tuple(token.lower() for token in tokenizer.token_bytes)
        wanted = {phrase.strip().encode().lower() for phrase in phrases} - {b""}
        self.order = sorted(range(len(self.tokens)), key=self.tokens.__getitem__)
        self.sorted = [self.tokens[index] for index in self.order]
        self.rests: dict[bytes, set[bytes]] = {}
        for phrase in wanted:
            for cut in range(1, len(phrase)):
                self.rests.setdefault(phrase[:cut], set()).add(phrase[cut:])
        self.longest = max(map(len, wanted), default=1) - 1
        self.always = [i for i, token in enumerate(self.tokens) if any(phrase in token for phrase in wanted)]
        self.starting = lru_cache(maxsize=None)(self._starting)

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Return scores with minus infinity for the forbidden tokens of each row."""
        scores = scores.clone()
        scores[:, self.always] = -torch.inf
        # No token is shorter than a byte but the markers, which spell nothing.
        for row, tail in enumerate(input_ids[:, -max(1, self.longest) :].tolist()):
            # A language model may have more ids than its tokenizer has tokens; those spell nothing.
            written = b"".join(self.tokens[token] for token in tail if token < len(self.tokens))[-self.longest :]
            forbidden = {
                token
                for start in range(len(written))
                for rest in self.rests.get(written[start:], ())
                for token in self.starting(rest)
            }
            if forbidden:
                scores[row, list(forbidden)] = -torch.inf
        return scores

    def _starting(self, rest: bytes) -> tuple[int, ...]:
        """Tokens that start with some bytes."""
        first = bisect_left(self.sorted, rest)
        found = []
        for index in range(first, len(self.sorted)):
            if not self.sorted[index].startswith(rest):
                break
            found.append(self.order[index])
        return tuple(found)


class Draw(LogitsProcessor):
    """Draws each row's next token by inverting the cumulative distribution at one uniform number.

    The number depends on the seed, the row and the step alone, so that a caption is the same in every batch.
    """

    def __init__(self, seed: int, rows: Sequence[int]) -> None:
        self.seed = seed
        self.rows = list(rows)

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Return 0 for the token drawn and minus infinity for all others."""
        step = input_ids.shape[1]
        # Drawings of one scene are sampled alike: many rows, few numbers.
        drawn_of = {row: np.random.default_rng((self.seed, row, step)).random() for row in set(self.rows)}
        numbers = [drawn_of[row] for row in self.rows]
        cumulative = scores.double().softmax(-1).cumsum(-1)
        total = cumulative[:, -1:]
        drawn = torch.searchsorted(cumulative, total * total.new_tensor(numbers).unsqueeze(1), right=True)
        return torch.full_like(scores, -torch.inf).scatter(-1, drawn, 0.0)


def finished(
    token_ids: Sequence[int], tokenizer: CaptionTokenizer, whole_sentences: bool, stops: Collection[int] = ()
) -> Caption:
    """Return a generated row as a caption: up to what ends it, or else cut back to its last whole sentence.

    Args:
        token_ids: The row.
        tokenizer: Its tokenizer; its end marker ends a caption and is no part of it.
        whole_sentences: Whether a row that nothing ends is cut back.
        stops: Tokens that end a caption as its last part.
    """
    ids, ends = list(token_ids), {tokenizer.eos_id, *stops}
    end = next((place for place, token in enumerate(ids) if token in ends), None)
    if end is not None:
        ids = ids[: end + (ids[end] != tokenizer.eos_id)]
        return Caption(tokenizer.decode(ids), tuple(ids))
    if whole_sentences:
        for count in range(len(ids), 0, -1):
            # Only where a token ends with a mark can a sentence end; what follows decides whether it does.
            text = tokenizer.decode(ids[:count])
            if text.rstrip(_CLOSING).endswith((".", "!", "?")):
                following = tokenizer.decode(ids)[len(text) :]
                if is_sentence_end(text, following):
                    return Caption(text, tuple(ids[:count]))
        ids = _whole_words(ids, tokenizer)
    return Caption(tokenizer.decode(ids), tuple(ids), complete=False)


def _whole_words(ids: list[int], tokenizer: CaptionTokenizer) -> list[int]:
    """Cut a row whose tokens ran out back to its last whole word; one that is a single word stays."""
    for count in range(len(ids) - 1, 0, -1):
        if tokenizer.decode(ids)[len(tokenizer.decode(ids[:count])) :][:1].isspace():
            return ids[:count]
    return ids


_CLOSING = "\"')]}”’"
_NO_END = re.compile(
    r"(?:^|[\s(\[])(?:e\.g|i\.e|cf|ca|approx|vs|dr|mr|mrs|ms|prof|fig|no|resp|incl|max|min|[a-z])\.$", re.IGNORECASE
)


def is_sentence_end(text: str, following: str) -> bool:
    """Tell whether a sentence ends at the end of a text, given what was written after it.

    A point after an abbreviation or a single letter is none, nor is one that a number or a letter follows at once, nor
    one behind a digit with nothing after it: the number may go on.

    Example:
        >>> is_sentence_end("A papule.", " It"), is_sentence_end("about 1.", ""), is_sentence_end("e.g.", " a")
        (True, False, False)
    """
    bare = text.rstrip(_CLOSING)
    if not bare.endswith((".", "!", "?")) or _NO_END.search(bare):
        return False
    if following:
        return following[0].isspace()
    return not bare[-2:-1].isdigit()
