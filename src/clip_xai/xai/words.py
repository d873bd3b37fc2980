"""Words from tokens, by where each token stands in the text."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from clip_xai.models.tokenizer import CaptionTokenizer

# A number with its decimals; a word with its inner hyphens, apostrophes and slashes, and with accents that are
# characters of their own; else one mark of punctuation.
_WORD = re.compile(r"\d+(?:[.,]\d+)+|[\w\u0300-\u036f]+(?:[-'’/][\w\u0300-\u036f]+)*|[^\w\s]")


@dataclass(frozen=True)
class Word:
    """A word or a punctuation mark of a text.

    Attributes:
        text: As written.
        start: First character in the text.
        end: One past the last character.
        tokens: Positions of its tokens, ascending.
    """

    text: str
    start: int
    end: int
    tokens: tuple[int, ...]


def places_of(text: str) -> list[tuple[int, int]]:
    """Return where each word and punctuation mark of a text starts and ends."""
    return [match.span() for match in _WORD.finditer(text)]


def words_of(text: str, spans: Sequence[tuple[int, int]]) -> list[Word]:
    """Split a text into words and deal each token to the one word that it overlaps most.

    A token without a visible character goes to the word that follows it, at the end to the last one. So every token
    belongs to exactly one word, and sums over words are sums over tokens. A word whose characters all lie in a token
    of a neighbour (``."`` as one token) is merged into that neighbour; words that no token reaches (past the context
    length) are left out, for the model never saw them.

    Args:
        text: The text.
        spans: Character span ``(start, end)`` of each token, in order.

    Example:
        >>> [(word.text, word.tokens) for word in words_of("a nevus.", [(0, 1), (2, 4), (4, 7), (7, 8)])]
        [('a', (0,)), ('nevus', (1, 2)), ('.', (3,))]
    """
    places = [place for place in places_of(text) if any(_overlap(place, span) > 0 for span in spans)]
    if not places:
        return []
    owners = [_owner(places, span) for span in spans]
    words: list[Word] = []
    unclaimed: int | None = None
    for index, (start, end) in enumerate(places):
        tokens = tuple(position for position, owner in enumerate(owners) if owner == index)
        if tokens:
            first = start if unclaimed is None else unclaimed
            words.append(Word(text[first:end], first, end, tokens))
            unclaimed = None
        elif words and _nearest(places[index], spans, owners) <= index:
            words[-1] = Word(text[words[-1].start : end], words[-1].start, end, words[-1].tokens)
        elif unclaimed is None:
            unclaimed = start
    return words


def spans_of_ids(tokenizer: CaptionTokenizer, token_ids: Sequence[int]) -> tuple[str, list[tuple[int, int]]]:
    """Return the text of generated token ids and the character span of each.

    A model may spell a text with other tokens than the tokenizer would, so the spans come from the ids themselves, not
    from encoding the text again.
    """
    edges = [len(tokenizer.decode(token_ids[:count])) for count in range(len(token_ids) + 1)]
    text = tokenizer.decode(token_ids)
    # A token that ends inside a multi-byte character decodes to a replacement mark; its edge stays inside the text.
    edges = [min(edge, len(text)) for edge in edges]
    return text, list(pairwise(edges))


def _nearest(place: tuple[int, int], spans: Sequence[tuple[int, int]], owners: Sequence[int]) -> int:
    """Return which word has the token that a place lies in."""
    return owners[max(range(len(spans)), key=lambda position: _overlap(place, spans[position]))]


def _overlap(place: tuple[int, int], span: tuple[int, int]) -> int:
    return min(place[1], span[1]) - max(place[0], span[0])


def _owner(places: Sequence[tuple[int, int]], span: tuple[int, int]) -> int:
    best = max(range(len(places)), key=lambda index: _overlap(places[index], span))
    if _overlap(places[best], span) > 0:
        return best
    return next((index for index, (start, _) in enumerate(places) if start >= span[0]), len(places) - 1)
