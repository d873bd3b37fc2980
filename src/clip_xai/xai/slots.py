"""Content words of a caption and what could stand in their place: slots, and how likely a captioner holds each value.

A content word states a diagnosis, a visible part or the value of an attribute, as the vocabulary reads it. The slot of
an attribute word is that of its attribute, wherever it stands; a visible part is in a caption or it is not.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from clip_xai.data.lexicon import (
    PRESENT,
    read_attribute,
    read_diagnosis,
    read_findings,
    read_structures,
    stated_phrases,
)
from clip_xai.data.vocabulary import Vocabulary
from clip_xai.models.captioner import Caption, Captioner
from clip_xai.models.continuation import Continuation
from clip_xai.models.settings import Decoding
from clip_xai.xai.words import spans_of_ids, words_of

DIAGNOSIS, STRUCTURES = "diagnosis", "structures"
_NEGLECTED = 1e-9  # A beginning of a phrase that is less likely is not followed any further.
_ROWS = 256


@dataclass(frozen=True)
class Slot:
    """A content word of a caption.

    Attributes:
        kind: ``diagnosis``, ``structures`` or an attribute of the vocabulary.
        value: What the word states, in the vocabulary's canonical form.
        start: First character of its phrase in the caption.
        end: One past the last character.
        tokens: Positions of its tokens, ascending; never empty.
    """

    kind: str
    value: str
    start: int
    end: int
    tokens: tuple[int, ...]


def slots_of(captioner: Captioner, token_ids: Sequence[int]) -> list[Slot]:
    """Return the content words of a caption in the order in which they stand.

    Of an attribute, and of the diagnosis, the one phrase counts that the caption is read by; of each visible part, and
    of each finding where several can be so at once, the first phrase that states it.
    """
    vocabulary = captioner.vocabulary
    text, spans = spans_of_ids(captioner.tokenizer, token_ids)
    words = words_of(text, spans)
    found: dict[tuple[str, str], Slot] = {}
    for phrase in stated_phrases(text, vocabulary):
        slot = (phrase.kind, phrase.value)
        if slot in found or not states(text, *slot, vocabulary):
            continue
        tokens = [t for word in words if word.start < phrase.end and word.end > phrase.start for t in word.tokens]
        if tokens:
            found[slot] = Slot(*slot, phrase.start, phrase.end, tuple(sorted(tokens)))
    return sorted(found.values(), key=lambda one: one.start)


def states(text: str, kind: str, value: str, vocabulary: Vocabulary) -> bool:
    """Tell whether a text states a value.

    Raises:
        KeyError: The vocabulary does not have such a kind.
    """
    if kind == STRUCTURES:
        return value in read_structures(text, vocabulary)
    if kind == DIAGNOSIS and vocabulary.several:
        return read_findings(text, vocabulary).get(value) == PRESENT
    if kind == DIAGNOSIS:
        return read_diagnosis(text, vocabulary) == value
    return read_attribute(text, kind, vocabulary) == value


def stated_in(text: str, vocabulary: Vocabulary) -> frozenset[tuple[str, str]]:
    """Return every kind and value that a text states; :func:`states` for all of them in one reading."""
    found = {(STRUCTURES, name) for name in read_structures(text, vocabulary)}
    if vocabulary.several:
        found |= {(DIAGNOSIS, name) for name, held in read_findings(text, vocabulary).items() if held == PRESENT}
    else:
        found |= {(DIAGNOSIS, name) for name in [read_diagnosis(text, vocabulary)] if name is not None}
    for kind in vocabulary.attributes:
        value = read_attribute(text, kind, vocabulary)
        found |= set() if value is None else {(kind, value)}
    return frozenset(found)


def excludes(kind: str, vocabulary: Vocabulary) -> bool:
    """Tell whether a caption states one value of a kind at most: an attribute does, visible parts do not."""
    return kind != STRUCTURES and not (kind == DIAGNOSIS and vocabulary.several)


def rivals_of(kind: str, value: str, vocabulary: Vocabulary) -> dict[str, tuple[str, ...]]:
    """Return the values that a slot could have, with their phrases: the value itself first, then its rivals.

    Diagnoses above and below the value in the vocabulary say the same less or more exactly, and are no rivals.
    """
    if kind == DIAGNOSIS:
        known = {name: (name, *one.synonyms) for name, one in vocabulary.diagnoses.items()}
        known = {name: phrases for name, phrases in known.items() if name == value or not vocabulary.agree(name, value)}
    else:
        known = dict(vocabulary.structures if kind == STRUCTURES else vocabulary.attributes[kind])
    return {value: known.pop(value), **known}


@torch.no_grad()
def slot_log_odds(captioner: Captioner, read: Tensor, token_ids: Sequence[int], slot: Slot) -> Tensor:
    """Return the log-odds of a content word on its fixed caption for B images: ``[B]``, in nats.

    ``log P(value | image, words before) - log sum over rivals P(rival | image, words before)``. P of a value sums over
    the phrases that state it; a phrase that goes on to another value's ('centre' to 'centre left') counts for that one.

    Args:
        captioner: The captioner, in evaluation mode.
        read: What the mapper reads of the images, ``[B, D]`` or ``[B, S, W]``.
        token_ids: The caption's tokens.
        slot: One of the slots of this caption.
    """
    return log_odds_at(captioner, read, [(token_ids, slot)] * len(read))


@torch.no_grad()
def log_odds_at(captioner: Captioner, read: Tensor, places: Sequence[tuple[Sequence[int], Slot]]) -> Tensor:
    """Return the log-odds of content words in captions of their own, one for each of B images: ``[B]``, in nats.

    Args:
        captioner: The captioner, in evaluation mode.
        read: What the mapper reads of the images, ``[B, D]`` or ``[B, S, W]``.
        places: For each image the tokens of a caption and one of its slots.
    """
    prefix = captioner.prefix(read)
    rows_of: dict[tuple[tuple[int, ...], Slot], list[int]] = defaultdict(list)
    for row, (token_ids, slot) in enumerate(places):
        rows_of[tuple(token_ids), slot].append(row)
    found = torch.zeros(len(read), dtype=torch.float64)
    for (token_ids, slot), rows in rows_of.items():
        shares = _Phrases(captioner, token_ids, slot).shares(prefix[rows])
        tiny = torch.finfo(torch.float64).tiny
        odds = shares[:, 0].clamp(min=tiny).log() - shares[:, 1:].sum(dim=1).clamp(min=tiny).log()
        found[rows] = odds
    return found


@torch.no_grad()
def sampled_captions(
    captioner: Captioner, read: Tensor, samples: int, seed: int = 0, numbers: Sequence[int] | None = None
) -> list[list[Caption]]:
    """Draw captions of B images at temperature 1.

    Args:
        captioner: The captioner, in evaluation mode.
        read: What the mapper reads of the images, ``[B, D]`` or ``[B, S, W]``.
        samples: Captions of each image.
        seed: Seed of the draws.
        numbers: For each image a number that with the seed chooses its draws; images of one number are drawn alike.
            0, 1, 2 ... if None.

    Returns:
        B lists of captions.
    """
    decoding = Decoding(sample=True, seed=seed, max_new_tokens=min(Decoding().max_new_tokens, captioner.room()))
    chosen = range(len(read)) if numbers is None else numbers
    pairs = [(image, number * samples + draw) for image, number in enumerate(chosen) for draw in range(samples)]
    drawn: list[Caption] = []
    for start in range(0, len(pairs), _ROWS):
        part = pairs[start : start + _ROWS]
        drawn += captioner.generate(read[[image for image, _ in part]], decoding, rows=[row for _, row in part])
    return [drawn[image * samples : (image + 1) * samples] for image in range(len(read))]


def share_stating(captions: Sequence[Caption], kind: str, value: str, vocabulary: Vocabulary) -> float:
    """Return how likely a value is stated, from captions drawn of one image: ``(k + 1/2) / (n + 1)``, never 0 or 1."""
    return (sum(states(one.text, kind, value, vocabulary) for one in captions) + 0.5) / (len(captions) + 1)


class _Phrases:
    """Everything that can stand in a slot, as a tree of tokens."""

    def __init__(self, captioner: Captioner, token_ids: Sequence[int], slot: Slot) -> None:
        self.captioner = captioner
        first = slot.tokens[0]
        self.before = tuple(token_ids[:first])
        text = captioner.tokenizer.decode(token_ids)
        lead = text[len(captioner.tokenizer.decode(self.before)) : slot.start]
        capital = text[slot.start].isupper()
        self.owner = {tuple(token_ids[first : slot.tokens[-1] + 1]): 0}
        self.values = rivals_of(slot.kind, slot.value, captioner.vocabulary)
        for number, phrases in enumerate(self.values.values()):
            for phrase in phrases:
                written = phrase[0].upper() + phrase[1:] if capital else phrase
                self.owner.setdefault(tuple(captioner.tokenizer.encode(lead + written)), number)
        self.children: dict[tuple[int, ...], list[int]] = defaultdict(list)
        for node in sorted({ids[:length] for ids in self.owner for length in range(1, len(ids) + 1)}):
            self.children[node[:-1]].append(node[-1])

    def shares(self, prefix: Tensor) -> Tensor:
        """Return the probability of each value for B prefixes ``[B, S, E]``: ``[B, values]``, the slot's own first."""
        continuation = Continuation(self.captioner, prefix, self.before)
        likely: dict[tuple[int, ...], Tensor] = {(): torch.ones(len(prefix), dtype=torch.float64)}
        level: list[tuple[int, ...]] = [()]
        while level:
            pairs = [(row, node) for node in level for row in range(len(prefix))]
            pairs = [(row, node) for row, node in pairs if likely[node][row] >= _NEGLECTED]
            for node in level:
                for child in self.children[node]:
                    likely[(*node, child)] = torch.zeros(len(prefix), dtype=torch.float64)
            for start in range(0, len(pairs), _ROWS):
                part = pairs[start : start + _ROWS]
                following = continuation.log_probs(part).double().cpu()
                for (row, node), log_probs in zip(part, following, strict=True):
                    chances = log_probs[self.children[node]].exp() * likely[node][row]
                    for child, chance in zip(self.children[node], chances, strict=True):
                        likely[(*node, child)][row] = chance
            level = [
                (*node, child) for node in level for child in self.children[node] if (*node, child) in self.children
            ]
        shares = torch.zeros(len(prefix), len(self.values), dtype=torch.float64)
        for ids, number in self.owner.items():
            longest = self._shorter(ids)
            shares[:, number] += likely[ids]
            if longest is not None:
                shares[:, self.owner[longest]] -= likely[ids]
        return shares.clamp(min=0)

    def _shorter(self, ids: tuple[int, ...]) -> tuple[int, ...] | None:
        """Return the longest other phrase that these tokens begin with."""
        return next((ids[:length] for length in range(len(ids) - 1, 0, -1) if ids[:length] in self.owner), None)
