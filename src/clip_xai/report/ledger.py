"""What each content word of a caption rests on, as finished numbers and in words."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from clip_xai.data.vocabulary import GROUPS
from clip_xai.report.explained import number, probability_text
from clip_xai.report.pages import Table
from clip_xai.text import counted

SEEN, FOLLOWS, NEITHER = "seen", "follows", "neither"
LEAST = 0.05  # nats: what changes a probability by less than a twentieth is not called anything
FEWEST = 10  # other patients behind a column
NOT_IN_THE_PICTURE = "not in the picture"


@dataclass(frozen=True)
class Estimate:
    """A value in nats with its 95 % interval.

    Attributes:
        value: The value.
        low: Lower bound.
        high: Upper bound.
    """

    value: float
    low: float
    high: float

    @property
    def holds(self) -> bool:
        """Whether it is above zero, and large enough to be named."""
        return self.low > 0 and self.value >= LEAST

    @property
    def times(self) -> str:
        """How many times as likely: its exponential."""
        found = math.exp(self.value)
        return f"{found:.2f} times" if found < 2 else f"{found:.1f} times" if found < 10 else f"{found:.0f} times"

    @property
    def text(self) -> str:
        """``value [low, high]``."""
        bounds = "" if math.isnan(self.low) else f" [{number(round(self.low, 2))}, {number(round(self.high, 2))}]"
        return f"{number(round(self.value, 2))}{bounds}"


@dataclass(frozen=True)
class Columns:
    """Where what is known of a word comes from, against one kind of other photographs.

    Attributes:
        direct: From the image alone: ``log p(w | image, words before) - log mean_k p(w | image_k, words before)``.
        carried: From the words before, whichever image it is:
            ``log mean_k p(w | image_k, words before) - log mean_k P(slot = w | image_k)``; 0 of the first content word.
        total: ``log P(slot = w | image) - log mean_k P(slot = w | image_k)``.
        base: ``mean_k P(slot = w | image_k)``.
        others: How many other patients K the photographs are of.
    """

    direct: Estimate
    carried: Estimate
    total: Estimate
    base: float
    others: int

    @property
    def values(self) -> tuple[float, float, float, float]:
        """D, C, T and R."""
        return self.direct.value, self.carried.value, self.total.value, self.remainder

    @property
    def remainder(self) -> float:
        """Total less direct and carried: below 0 where this very wording makes the word surer than others do."""
        return self.total.value - self.direct.value - self.carried.value


@dataclass(frozen=True)
class LedgerWord:
    """One content word of a caption.

    Attributes:
        text: As the caption writes it.
        kind: ``diagnosis``, ``structures`` or an attribute.
        value: What it states, in the vocabulary's form.
        span: Where it stands in the caption.
        p: p(w | image, words before), of its tokens under teacher forcing.
        share: P(slot = w | image), from captions drawn anew.
        entropy: Entropy of its slot in those captions, in nats.
        columns: Against photographs of any other patients.
        same: Against photographs whose caption states the same diagnosis; None where they are too few.
        swaps: For each content word before it, how much likelier it makes this one than the other values of its
            vocabulary do, in nats.
        carrier: The content word before it that it follows from; None where nothing carries it.
    """

    text: str
    kind: str
    value: str
    span: tuple[int, int]
    p: float
    share: float
    entropy: float
    columns: Columns
    same: Columns | None
    swaps: tuple[float, ...]
    carrier: str | None

    @property
    def verdict(self) -> str:
        """``seen``, ``follows`` or ``neither``; of what is both, the larger part."""
        seen, follows = self.columns.direct.holds, self.columns.carried.holds
        if seen and follows:
            return SEEN if self.columns.direct.value >= self.columns.carried.value else FOLLOWS
        return SEEN if seen else FOLLOWS if follows else NEITHER

    @property
    def verdict_text(self) -> str:
        """The verdict in a few words."""
        if self.verdict == SEEN:
            return "seen in this photograph"
        if self.verdict == FOLLOWS:
            return f"follows from “{self.carrier}”" if self.carrier else "follows from the words before"
        return NOT_IN_THE_PICTURE

    @property
    def map_note(self) -> str:
        """What a reader of its heat map must know."""
        direct, carried = self.columns.direct, self.columns.carried
        if self.verdict == SEEN:
            more = f" The words before make it {carried.times} as likely ({carried.text})." if carried.holds else ""
            return (
                f"“{self.text}” is {self.verdict_text}: it makes the word {direct.times} as likely as other "
                f"photographs do behind the same words ({direct.text} nats).{more}"
            )
        if self.verdict == FOLLOWS:
            return (
                f"“{self.text}” {self.verdict_text}: the words before make it {carried.times} as likely "
                f"({carried.text} nats), the photograph itself {direct.times} ({direct.text}). "
                "This map explains the last part alone."
            )
        return (
            f"“{self.text}” is {NOT_IN_THE_PICTURE}: behind the same words, this photograph makes it {direct.times} as "
            f"likely as others do ({direct.text} nats). What this map shows did not decide the word."
        )

    @property
    def cells(self) -> tuple[str, ...]:
        """A row of the table whose head is :data:`HEAD`."""
        one = self.columns
        same = "" if self.same is None else self.same.direct.text
        return (
            self.text,
            self.verdict_text,
            probability_text(self.p),
            probability_text(self.share),
            probability_text(one.base),
            one.direct.text,
            one.carried.text,
            one.total.text,
            number(round(one.remainder, 2)),
            same or "–",
        )


HEAD = (
    "word", "it is", "p", "P in new captions", "P of others", "direct D", "carried C", "total T",
    "remainder R", "D, same diagnosis",
)  # fmt: skip


@dataclass(frozen=True)
class Ledger:
    """The content words of one caption.

    Attributes:
        words: In the order in which they stand.
        others: How many other patients there are.
        samples: Captions drawn of the photograph.
        alike: How many other patients have a caption of the same diagnosis.
        diagnosis: The diagnosis that the caption states; None where it states none.
        groups: What one and several patients are called.
    """

    words: tuple[LedgerWord, ...]
    others: int
    samples: int
    alike: int
    diagnosis: str | None
    groups: tuple[str, str] = GROUPS

    @property
    def note(self) -> str:
        """How to read the table."""
        others = tuple(f"other {words}" for words in self.groups)
        found = (
            "Nats [95 % interval]. D: how much likelier this photograph makes the word than those of "
            f"{counted(self.others, *others)} behind the same words; C: what the words before bring, whichever "
            f"photograph it is; T: how much oftener {counted(self.samples, 'caption')} written anew state it than "
            "theirs do; R = T − D − C: below 0 where this very wording makes it surer than others do. What is under "
            f"{LEAST:g} nats, or whose interval reaches 0, is not named."
        )
        if self.diagnosis is None:
            return f"{found} The caption states no diagnosis, so the last column is blank."
        if self.alike < FEWEST:
            return (
                f"{found} Captions of {counted(self.alike, *others)} state {self.diagnosis}: under {FEWEST}, the last "
                "column is blank."
            )
        alike = counted(self.alike, *others)
        return f"{found} Last column: against {alike} whose caption names {self.diagnosis}."

    @property
    def narrow_table(self) -> Table:
        """Word by word without intervals."""
        rows = tuple(
            (word.text, word.verdict_text, *(number(round(value, 2)) for value in word.columns.values))
            for word in self.words
        )
        return Table("What its words rest on", ("word", "it is", "D", "C", "T", "R"), rows, self.note)

    @property
    def in_short(self) -> tuple[str, ...]:
        """One line for what is seen, for what follows from other words, and for what is not in the picture."""
        seen = [word.text for word in self.words if word.verdict == SEEN]
        follows = [
            f"{word.text} from {word.carrier or 'the words before'}" for word in self.words if word.verdict == FOLLOWS
        ]
        neither = [word.text for word in self.words if word.verdict == NEITHER]
        lines = (("Seen", seen), ("Follows", follows), (NOT_IN_THE_PICTURE.capitalize(), neither))
        return tuple(f"{name}: {', '.join(words)}." for name, words in lines if words)

    def shares(self, t: int) -> dict[int, float]:
        """Return how much of what the words before bring to a content word comes from which of them.

        Swap effects above 0 of words whose total has a lower bound above 0, scaled to sum to 1; empty where there is
        none.

        Args:
            t: The word's place in ``words``.
        """
        decided = [word.columns.total.low > 0 for word in self.words]
        effects = {s: effect for s, effect in enumerate(self.words[t].swaps) if effect > 0 and decided[s]}
        together = sum(effects.values())
        return {s: effect / together for s, effect in effects.items()}

    def at(self, span: tuple[int, int] | None, label: str) -> LedgerWord | None:
        """Return the content word that a score is about, by its place in the caption, else by its label.

        Args:
            span: Where a single word stands; None for what is not one.
            label: What the score is called, such as ``diagnosis: melanoma``.
        """
        if span is None:
            return next((one for one in self.words if label == f"{one.kind}: {one.text}"), None)
        return next((one for one in self.words if one.span[0] < span[1] and span[0] < one.span[1]), None)


def ledger_from_plain(known: Mapping[str, Any] | None) -> Ledger | None:
    """Return the ledger that ``dataclasses.asdict`` made plain."""
    if known is None:
        return None
    words = tuple(
        LedgerWord(
            **{
                **word,
                "span": tuple(word["span"]),
                "swaps": tuple(word["swaps"]),
                "columns": _columns(word["columns"]),
                "same": None if word["same"] is None else _columns(word["same"]),
            }
        )
        for word in known["words"]
    )
    return Ledger(**{**known, "words": words, "groups": tuple(known["groups"])})


def _columns(known: Mapping[str, Any]) -> Columns:
    return Columns(**{**known, **{name: Estimate(**known[name]) for name in ("direct", "carried", "total")}})
