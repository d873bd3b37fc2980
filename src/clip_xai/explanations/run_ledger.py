"""The ledgers of a run: what the content words of many captions rest on, as tables and numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd

from clip_xai.explanations.lesion_maps import finite
from clip_xai.metrics.intervals import mean_interval
from clip_xai.report.ledger import FEWEST, FOLLOWS, NEITHER, SEEN, Columns, Ledger, LedgerWord
from clip_xai.report.pages import Table
from clip_xai.text import counted, with_bounds

ALL = "all content words"


@dataclass(frozen=True)
class RunLedger:
    """The ledgers of some captions of an evaluation.

    Attributes:
        ledgers: By row of the evaluation.
        groups: The patient of each of these rows.
        group_words: What groups are called, one and several.
    """

    ledgers: Mapping[int, Ledger]
    groups: Mapping[int, str]
    group_words: tuple[str, str]

    def cells(self, row: int) -> dict[str, Any]:
        """Return the columns of one caption in ``captions.parquet``: lists over its content words, None without any."""
        ledger = self.ledgers.get(row)
        found: dict[str, Any] = dict.fromkeys((f"ledger_{name}" for name in _flat(None)), None)
        if ledger is not None:
            rows = [_flat(word) for word in ledger.words]
            found = {f"ledger_{name}": [one[name] for one in rows] for name in _flat(None)}
        return found

    def table(self, names: Sequence[str] | Mapping[int, str]) -> pd.DataFrame:
        """Return one row a content word, with intervals.

        Args:
            names: What the photograph of each row is called.
        """
        rows = []
        for row, ledger in self.ledgers.items():
            for place, word in enumerate(ledger.words):
                known = {"image": names[row], "group": self.groups[row], "place": place, "value": word.value}
                known |= {"start": word.span[0], "end": word.span[1], "others": ledger.others, "alike": ledger.alike}
                rows.append(known | _flat(word) | _bounds("", word.columns) | _bounds("same_", word.same))
        return pd.DataFrame(rows)

    @cached_property
    def measured(self) -> dict[str, Any]:
        """The numbers for ``metrics.json``: means with intervals over patients, by kind of word."""
        words = [(word, self.groups[row]) for row, ledger in self.ledgers.items() for word in ledger.words]
        kinds = [ALL, *dict.fromkeys(word.kind for word, _ in words)] if words else []
        alike = [ledger.alike for ledger in self.ledgers.values()]
        return {
            "photographs": len(self.ledgers),
            "others": max((ledger.others for ledger in self.ledgers.values()), default=0),
            "samples": max((ledger.samples for ledger in self.ledgers.values()), default=0),
            "without_same_diagnosis": sum(count < FEWEST for count in alike),
            "kinds": [_measured(kind, [one for one in words if kind in (ALL, one[0].kind)]) for kind in kinds],
        }

    @property
    def page_table(self) -> Table:
        """What the words rest on, by kind of word."""
        found = self.measured
        nats, shares = ("direct", "carried", "total", "remainder"), (SEEN, FOLLOWS, NEITHER)
        rows = tuple(
            (
                row["kind"],
                str(row["total"]["n"]),
                *(_cell(row[name]) for name in nats),
                *(_share_cell(row[name]) for name in shares),
                _cell(row.get("direct_same")),
            )
            for row in found["kinds"]
        )
        head = ("words", "n", "direct D", "carried C", "total T", "remainder R", "seen", "follow from words before",
                "not in the picture", "D, same diagnosis")  # fmt: skip
        others = tuple(f"other {words}" for words in self.group_words)
        blank = found["without_same_diagnosis"]
        note = (
            f"Content words of {counted(found['photographs'], 'caption')}, mean [95 % interval over "
            f"{self.group_words[1]}] in nats. D: how much likelier the photograph makes a word than those of "
            f"{counted(found['others'], *others)} do behind the same words before it. C: what the words before bring, "
            f"whichever photograph it is. T: how much oftener {counted(found['samples'], 'caption')} written anew "
            "state it than theirs do. R = T − D − C: below 0 where the very wording makes it surer than others do. A "
            "word is not in the picture where neither D nor C holds. Last column: against others whose captions state "
            f"the same diagnosis; blank for {counted(blank, 'caption')} with fewer than {FEWEST} of them. Word by "
            "word: ledger.parquet."
        )
        return Table("What the words rest on: this photograph, or the words before", head, rows, note)


def _flat(word: LedgerWord | None) -> dict[str, Any]:
    """The values of a content word by the names of their columns."""
    if word is None:
        return dict.fromkeys(("word", "slot", "p", "share", "entropy", "D", "C", "T", "R", "carrier", "verdict"))
    one = word.columns
    return {
        "word": word.text,
        "slot": word.kind,
        "p": word.p,
        "share": word.share,
        "entropy": word.entropy,
        "D": one.direct.value,
        "C": one.carried.value,
        "T": one.total.value,
        "R": one.remainder,
        "carrier": word.carrier,
        "verdict": word.verdict,
    }


def _cell(interval: dict[str, Any] | None) -> str:
    """A value with its interval, two digits behind the point."""
    return "–" if interval is None else with_bounds(*_of(interval))


def _share_cell(interval: dict[str, Any]) -> str:
    """A share with its interval in per cent."""
    value, low, high = (None if one is None else f"{one:.0%}".rstrip("%") for one in _of(interval))
    return f"{value} %" if low is None else f"{value} % [{low}, {high}]"


def _of(interval: dict[str, Any]) -> tuple[float, float | None, float | None]:
    return interval["value"], interval["low"], interval["high"]


def _bounds(prefix: str, columns: Columns | None) -> dict[str, Any]:
    found: dict[str, Any] = {f"{prefix}base": None if columns is None else columns.base}
    for name, key in (("direct", "D"), ("carried", "C"), ("total", "T")):
        one = None if columns is None else getattr(columns, name)
        found |= {f"{prefix}{key}_low": one and one.low, f"{prefix}{key}_high": one and one.high}
        if prefix:
            found[f"{prefix}{key}"] = one and one.value
    return found


def _measured(kind: str, words: Sequence[tuple[LedgerWord, str]]) -> dict[str, Any]:
    groups = [group for _, group in words]
    values = {
        "direct": [word.columns.direct.value for word, _ in words],
        "carried": [word.columns.carried.value for word, _ in words],
        "total": [word.columns.total.value for word, _ in words],
        "remainder": [word.columns.remainder for word, _ in words],
    }
    found: dict[str, Any] = {"kind": kind}
    for name, column in values.items():
        found[name] = finite(asdict(mean_interval(column, groups)))
    for verdict in (SEEN, FOLLOWS, NEITHER):
        hit = np.array([word.verdict == verdict for word, _ in words], dtype=float)
        found[verdict] = finite(asdict(mean_interval(hit, groups, span=(0.0, 1.0), share=True)))
    same = [(word.same.direct.value, group) for word, group in words if word.same is not None]
    if same:
        found["direct_same"] = finite(asdict(mean_interval([value for value, _ in same], [one for _, one in same])))
    return found
