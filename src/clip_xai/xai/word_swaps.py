"""What a content word of a caption does to those behind it: the caption with another value in its place."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence

import torch
from torch import Tensor

from clip_xai.models.captioner import IGNORED, Captioner
from clip_xai.xai.slots import Slot, excludes, rivals_of

log = logging.getLogger(__name__)
MOST_RIVALS = 32
_ROWS = 64


@torch.no_grad()
def swap_effects(captioner: Captioner, read: Tensor, token_ids: Sequence[int], slots: Sequence[Slot]) -> Tensor:
    """Return how much likelier each content word is behind the words that stand before it than behind their rivals.

    ``effect[t, s] = log p(w_t | image, words before) - log mean_v p(w_t | image, words before with v in the place of
    w_s)`` in nats, v running over the other values of w_s's vocabulary. All else stays, so that an effect is that of
    one word alone; 0 for s from t on. A value that is so much longer that w_t would stand beyond the language model's
    positions is left out and counted in the log; where none is left, the effect is 0.

    Args:
        captioner: The captioner, in evaluation mode.
        read: What the mapper reads of one image, ``[1, D]`` or ``[1, S, W]``.
        token_ids: The caption's tokens.
        slots: S of its slots in the order in which they stand.

    Returns:
        ``[S, S]``, float64. One pass of the language model over a caption for each value.
    """
    effects, room = torch.zeros(len(slots), len(slots), dtype=torch.float64), captioner.room()
    known = word_log_probs(captioner, read, [list(token_ids)])[0]
    own = [float(known[list(slot.tokens)].sum()) for slot in slots]
    stated = {(slot.kind, slot.value) for slot in slots}
    for s, slot in enumerate(slots[:-1]):
        captions = [swapped(captioner, token_ids, slot, value) for value in _others(captioner, slot, stated)]
        if not captions:
            continue
        cut = [ids[:room] for ids in captions]
        found = word_log_probs(captioner, read.expand(len(captions), *read.shape[1:]), cut)
        for t in range(s + 1, len(slots)):
            moved = [[token + len(ids) - len(token_ids) for token in slots[t].tokens] for ids in captions]
            there = [row[places].sum() for row, places in zip(found, moved, strict=True) if places[-1] < room]
            if len(there) < len(captions):
                log.warning(
                    "swapping %r: %d of %d other values leave no room for %r and are left out",
                    *(slot.value, len(captions) - len(there), len(captions), slots[t].value),
                )
            if there:
                effects[t, s] = own[t] - (float(torch.stack(there).logsumexp(dim=0)) - math.log(len(there)))
    return effects


def count_swaps(captioner: Captioner, slots: Sequence[Slot]) -> int:
    """Return how many passes over a caption :func:`swap_effects` takes."""
    stated = {(slot.kind, slot.value) for slot in slots}
    return 1 + sum(len(_others(captioner, slot, stated)) for slot in slots[:-1])


def swapped(captioner: Captioner, token_ids: Sequence[int], slot: Slot, value: str) -> list[int]:
    """Return the tokens of a caption in which another value stands in the place of a content word.

    Tokens before and behind the word's stay as they are.

    Args:
        captioner: The captioner.
        token_ids: The caption's tokens.
        slot: One of its slots.
        value: Another value of the slot's vocabulary; its first phrase is written.
    """
    tokenizer = captioner.tokenizer
    first, last = slot.tokens[0], slot.tokens[-1] + 1
    text, start = tokenizer.decode(token_ids), len(tokenizer.decode(token_ids[:first]))
    end = len(tokenizer.decode(token_ids[:last]))
    phrase = rivals_of(slot.kind, slot.value, captioner.vocabulary)[value][0]
    if text[slot.start].isupper():
        phrase = phrase[0].upper() + phrase[1:]
    written = text[start : slot.start] + phrase + text[slot.end : end]
    return [*token_ids[:first], *tokenizer.encode(written), *token_ids[last:]]


@torch.no_grad()
def word_log_probs(captioner: Captioner, read: Tensor, captions: Sequence[Sequence[int]]) -> Tensor:
    """Return log p of each token of captions under teacher forcing, ``[B, M]`` float64 on the CPU, 0 behind their ends.

    Args:
        captioner: The captioner, in evaluation mode.
        read: What the mapper reads of B images.
        captions: The tokens of one caption for each.
    """
    longest = max(map(len, captions))
    ids = torch.full((len(captions), longest), IGNORED)
    for row, caption in zip(ids, captions, strict=True):
        row[: len(caption)] = torch.tensor(list(caption))
    parts = [
        captioner.token_log_probs(read[start : start + _ROWS], ids[start : start + _ROWS].to(read.device))
        for start in range(0, len(captions), _ROWS)
    ]
    return torch.cat(parts).double().cpu()


def _others(captioner: Captioner, slot: Slot, stated: set[tuple[str, str]]) -> list[str]:
    """The other values of a slot, at most ``MOST_RIVALS`` at even steps; a part that stands elsewhere is none."""
    values = [
        value
        for value in list(rivals_of(slot.kind, slot.value, captioner.vocabulary))[1:]
        if excludes(slot.kind, captioner.vocabulary) or (slot.kind, value) not in stated
    ]
    count = min(len(values), MOST_RIVALS)
    return [values[index * len(values) // count] for index in range(count)]
