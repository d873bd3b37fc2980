"""What a text says of the names in it: denied, mentioned beside the matter, or concluded.

A name in a text is not yet a statement: 'no sign of melanoma', 'scar-like', 'arising in a nevus', 'most likely
psoriasis'. As in NegEx (Chapman et al. 2001), short lists of phrases decide, each with the part of the sentence that it
reaches:

- a denial reaches to the end of its clause, through a list that goes on to 'or', but not past 'but' or a conclusion;
- what tells of something else ('history of', 'arising in', 'resembling') reaches the next name alone, with its list;
- a conclusion ('most likely', 'consistent with', 'diagnosis:') reaches the next name of its sentence, with its list,
  or, behind the name ('melanoma is most likely', 'melanoma was excluded'), the name before it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import IntEnum
from functools import lru_cache
from itertools import pairwise

from clip_xai.data.statement_words import (
    ASIDES,
    CONCLUSIONS,
    CONTRASTS,
    DENIALS,
    ENGLISH,
    HEDGES,
    NO_DENIALS,
    SUPPORTS,
    StatementWords,
)


class Standing(IntEnum):
    """How firmly a text holds that a name is so; what is below ``HEDGED`` is not stated at all."""

    DENIED = 0
    ASIDE = 1
    HEDGED = 2
    PLAIN = 3
    SUPPORTED = 4
    CONCLUDED = 5


@dataclass(frozen=True)
class Word:
    """A word as it is compared (lower case, without accents), and the characters where it stands."""

    text: str
    start: int
    end: int


@dataclass(frozen=True)
class Phrase:
    """A name that a text holds.

    Attributes:
        kind: ``diagnosis``, ``structures`` or an attribute.
        value: Its canonical name.
        first: Its first word.
        last: One past its last word.
    """

    kind: str
    value: str
    first: int
    last: int


_LIKE = frozenset(("like", "mimic", "mimics", "mimicker", "mimickers", "lookalike"))
# Between two names of one list.
_JOINTS = frozenset(("or", "and", "vs", "versus", "a", "an", "the", "either", "also", "nor"))
# Conclusions that a denial goes on through: 'no reason for a diagnosis of melanoma'.
_OF = frozenset((("diagnosis", "of"), ("diagnosed", "as"), ("diagnosed", "with"), ("diagnostic", "of")))
_NEXT_ALONE = frozenset((("pseudo",), ("non",), ("post",)))

_VERBS = r"(?:is|are|was|were|has|have|had|be|been|being|can|could|seems?|appears?|remains?|to|as)"
_DENIED_AFTER = re.compile(
    rf"^(?:{_VERBS} )*(?:very |rather |quite |highly |clearly |therefore |thus |also )*"
    rf"(?:unlikely|less likely|least likely|ruled out|excluded|absent)\b|^(?:{_VERBS} )+(?:not|no longer)\b"
    r"|^(?:\w+ )?(?:cannot|\w+n't)\b"
)
# What is still to be excluded is neither denied nor concluded.
_OPEN_AFTER = re.compile(
    r"^(?:(?:should|must|needs?|has|have|ought|remains?|is) )(?:still |also |first |always )*(?:to )?be "
    r"(?:ruled out|excluded)\b"
)
_CONCLUDED_AFTER = re.compile(
    rf"^(?:{_VERBS} )*(?:confirmed|proven|diagnosed)\b|^(?:{_VERBS} )+(?:the |our |my )?"
    r"(?:(?:most|highly|very) (?:likely|probable)|(?:final |main |correct |working )?diagnosis)\b"
)
_SUPPORTED_AFTER = re.compile(
    rf"^(?:{_VERBS} )+(?:the |our |a |more |also )*(?:likely|probable|suspected|suggested|favou?red)\b"
)
_HEDGED_AFTER = re.compile(rf"^(?:{_VERBS} )+(?:also |only )*(?:possible|conceivable|considered|a possibility)\b")
_ALONE_AFTER = re.compile(r"^(?:(most |highly |very )?(?:likely|probably|probable)|suspected|favou?red)$")

_STOP = re.compile(r"[.!?;](?=\s|$|[\"')\]])|[:()\[\]\n。；！？：]|[—–]|\s-\s")
_COMMA = re.compile(r"[,，、]")


@lru_cache
def _triggers(more: StatementWords) -> dict[tuple[str, ...], Standing | None]:
    """Words of every trigger -> what it makes of a name; None for what only ends the reach of another."""
    lists: tuple[tuple[Iterable[str], Standing | None], ...] = (
        (DENIALS, Standing.DENIED),
        (ASIDES, Standing.ASIDE),
        (HEDGES, Standing.HEDGED),
        (SUPPORTS, Standing.SUPPORTED),
        (CONCLUSIONS, Standing.CONCLUDED),
        (CONTRASTS, None),
        (more.denials, Standing.DENIED),
        (more.asides, Standing.ASIDE),
        (more.hedges, Standing.HEDGED),
        (more.supports, Standing.SUPPORTED),
        (more.conclusions, Standing.CONCLUDED),
    )
    return {tuple(phrase.lower().split()): standing for phrases, standing in lists for phrase in phrases}


@lru_cache
def _behind_patterns(more: StatementWords) -> tuple[tuple[re.Pattern[str], Standing], ...]:
    """What follows a name in its clause, and what that makes of it; the first that fits counts."""
    own = ((more.hedged_after, Standing.HEDGED), (more.denied_after, Standing.DENIED))
    of_field = [
        (re.compile(rf"^(?:{_VERBS} )*(?:{'|'.join(re.escape(one.lower()) for one in phrases)})\b"), standing)
        for phrases, standing in own
        if phrases
    ]
    return (
        *of_field,
        (_OPEN_AFTER, Standing.HEDGED),
        (_DENIED_AFTER, Standing.DENIED),
        (_CONCLUDED_AFTER, Standing.CONCLUDED),
        (_SUPPORTED_AFTER, Standing.SUPPORTED),
        (_HEDGED_AFTER, Standing.HEDGED),
        (_ALONE_AFTER, Standing.SUPPORTED),
    )


def standings(
    text: str, words: Sequence[Word], phrases: Sequence[Phrase], more: StatementWords = ENGLISH
) -> list[Standing]:
    """Tell how each name of a text stands.

    Args:
        text: The text.
        words: All of its words.
        phrases: The names in it, in their order; no two share a word.
        more: What the field of the text says beside plain English.

    Returns:
        One standing for each name. Conclusions matter to diagnoses alone; what is denied or 'X-like' is so for all.
    """
    return _Clauses(text, words, phrases, more).read()


class _Clauses:
    """One text, cut where its clauses end, with its triggers and names by the word at which they start."""

    def __init__(self, text: str, words: Sequence[Word], phrases: Sequence[Phrase], more: StatementWords) -> None:
        self.more = more
        self.words = [word.text for word in words]
        gaps = [text[left.end : right.start] for left, right in pairwise(words)]
        self.stops = [False, *(bool(_STOP.search(gap)) for gap in gaps)]
        self.colons = [False, *(gap.strip() in (":", "：") for gap in gaps)]
        self.commas = [False, *(bool(_COMMA.search(gap)) for gap in gaps)]
        self.phrases = list(phrases)
        self.at = {phrase.first: number for number, phrase in enumerate(phrases)}
        self.triggers = self._found(words)

    def read(self) -> list[Standing]:
        found = [Standing.PLAIN] * len(self.phrases)
        behind = self._behind(found)
        for first, last, standing in self.triggers:
            if standing is None or first in behind:
                continue
            reached = self._denied(last) if standing == Standing.DENIED else self._next(first, last, standing)
            for number in reached:
                if found[number] in (Standing.DENIED, Standing.ASIDE):
                    continue
                below = standing in (Standing.DENIED, Standing.ASIDE) or found[number] == Standing.PLAIN
                found[number] = standing if below else max(found[number], standing)
        for number, phrase in enumerate(self.phrases):
            following = self.words[phrase.last : phrase.last + 1]
            if following and following[0] in _LIKE and not self._cut(phrase.last):
                found[number] = Standing.ASIDE
        return found

    def _found(self, words: Sequence[Word]) -> list[tuple[int, int, Standing | None]]:
        """Triggers outside of names: first word, one past the last, and what they do."""
        table = _triggers(self.more)
        skipped = {tuple(phrase.lower().split()) for phrase in (*NO_DENIALS, *self.more.not_denials)}
        longest = max(map(len, (*table, *skipped)))
        found: list[tuple[int, int, Standing | None]] = []
        position = 0
        while position < len(words):
            if position in self.at:
                position = self.phrases[self.at[position]].last
                continue
            for length in range(longest, 0, -1):
                end = position + length
                if end > len(words):
                    continue
                if any(self._cut(place) or place in self.at for place in range(position + 1, end)):
                    continue
                phrase = tuple(self.words[position:end])
                if phrase not in table and phrase not in skipped:
                    continue
                if phrase in table:
                    found.append((position, end, table[phrase]))
                position = end
                break
            else:
                if self.words[position].endswith("n't"):
                    found.append((position, position + 1, Standing.DENIED))
                position += 1
        return found

    def _cut(self, place: int) -> bool:
        return self.stops[place] or self.commas[place]

    def _behind(self, found: list[Standing]) -> set[int]:
        """Judge names by what follows them in their clause; return the first words of the triggers so used up."""
        used: set[int] = set()
        for number, phrase in enumerate(self.phrases):
            if phrase.kind != "diagnosis":
                continue
            end = phrase.last
            while end < len(self.words) and not self._cut(end) and end not in self.at:
                end += 1
            after = " ".join(self.words[phrase.last : end])
            for pattern, standing in _behind_patterns(self.more):
                match = pattern.search(after)
                # 'melanoma most likely nevus' is about the nevus.
                if match is None or (pattern is _ALONE_AFTER and end in self.at):
                    continue
                strong = pattern is _ALONE_AFTER and match.group(1)
                found[number] = Standing.CONCLUDED if strong else standing
                used |= set(range(phrase.last, phrase.last + len(match.group(0).split())))
                break
        return used

    def _denied(self, start: int) -> list[int]:
        """Names that a denial reaches: to the end of its clause, or to a conclusion behind something else."""
        reached: list[int] = []
        seen = False  # something that can be absent by itself; a kind of picture cannot
        triggers = {first: (last, standing) for first, last, standing in self.triggers}
        place = start
        while place < len(self.words):
            if self._ends(place, start) or (place > start and self.commas[place] and not self._goes_on(place)):
                break
            if place in triggers:
                last, standing = triggers[place]
                strong = standing == Standing.CONCLUDED and tuple(self.words[place:last]) not in _OF
                supports = standing is not None and standing >= Standing.HEDGED
                if standing is None or (strong and place > start) or (supports and seen):
                    break
            if place in self.at:
                number = self.at[place]
                reached.append(number)
                seen = seen or self.phrases[number].kind != "view"
                place = self.phrases[number].last
            else:
                place += 1
        return reached

    def _goes_on(self, place: int) -> bool:
        """Whether a comma stands inside of a list of names that goes on to 'or': 'no melanoma, scar or nevus'."""
        while place < len(self.words):
            word = self.words[place]
            if word in ("or", "nor"):
                return True
            if self.stops[place] or (place not in self.at and word not in _JOINTS):
                return False
            place = self.phrases[self.at[place]].last if place in self.at else place + 1
        return False

    def _next(self, first: int, start: int, standing: Standing) -> list[int]:
        """The next diagnosis of the sentence with the list that it opens; for what is said aside any next name."""
        starts = {one for one, _, _ in self.triggers}
        aside = standing == Standing.ASIDE
        place = start
        while place < len(self.words):
            if self._ends(place, start) or (place > start and (place in starts or (aside and self.commas[place]))):
                return []
            if place in self.at:
                number = self.at[place]
                if aside or self.phrases[number].kind == "diagnosis":
                    return (
                        [number] if tuple(self.words[first:start]) in _NEXT_ALONE else self._listed(number, not aside)
                    )
                place = self.phrases[number].last
            elif aside and (tuple(self.words[first:start]) in _NEXT_ALONE or place - start >= 3):
                return []
            else:
                place += 1
        return []

    def _ends(self, place: int, start: int) -> bool:
        """Whether a sentence ends before a word; a colon may stand behind a trigger itself: 'diagnosis: melanoma'."""
        return self.stops[place] and not (place == start and self.colons[place])

    def _listed(self, number: int, commas: bool) -> list[int]:
        """A name and those that follow it in a list; ``commas`` alone may join them, where no verb follows."""
        numbers = [number]
        place = self.phrases[number].last
        while place < len(self.words) and not self.stops[place] and (commas or not self.commas[place]):
            if place in self.at:
                joined = place > self.phrases[numbers[-1]].last or self.commas[place]
                if not joined or (self.commas[place] and not self._closes(self.phrases[self.at[place]].last)):
                    break
                numbers.append(self.at[place])
                place = self.phrases[numbers[-1]].last
            elif self.words[place] in _JOINTS and not (self.commas[place] and self.words[place] in ("a", "an", "the")):
                place += 1
            else:
                break
        return numbers

    def _closes(self, place: int) -> bool:
        """Whether a name that ends before this word is the end of a clause or goes on in a list."""
        return place >= len(self.words) or self._cut(place) or self.words[place] in _JOINTS
