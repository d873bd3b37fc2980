"""What a model and all that it started from were trained on: it travels with the weights, in their file's header.

Photographs are known by hashes of their bytes, of their group and of their publishers' keys, so that two manifests of
the same photographs can be compared, whatever their folders, splits and sources are.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open

from clip_xai.data.record import Record
from clip_xai.errors import UserError

KEY = "lineage"  # of the header, and of checkpoints


@dataclass(frozen=True)
class Learned:
    """What one training run has learned from one source.

    Attributes:
        source: Name of the data set.
        photographs: How many of them.
        groups: Of how many patients or lesions.
        rendered: How many of the photographs were drawn by this package.
    """

    source: str
    photographs: int
    groups: int
    rendered: int = 0

    @classmethod
    def from_records(cls, records: Iterable[Record]) -> tuple[Learned, ...]:
        """Count by source what was learned from."""
        by_source: dict[str, list[Record]] = {}
        for record in records:
            by_source.setdefault(record.source, []).append(record)
        return tuple(
            cls(name, len(rows), len({row.group for row in rows}), sum(row.rendered for row in rows))
            for name, rows in by_source.items()
        )


@dataclass(frozen=True)
class Lineage:
    """All that a model has learned from, its ancestors included.

    Attributes:
        hashes: Of photographs, groups and keys, 64 bits each.
        steps: One sentence for each training run, the first one first.
        learned: What it has learned from, source by source and run by run.
        updates: How many optimiser steps that took, a checkpoint's own not included; None where an ancestor does not
            say.
    """

    hashes: frozenset[int] = frozenset()
    steps: tuple[str, ...] = ()
    learned: tuple[Learned, ...] = ()
    updates: int | None = 0

    @classmethod
    def of(cls, records: Iterable[Record], manifest: Sequence[Record], step: str) -> Lineage:
        """What a run has learned from that trains on some records of a manifest; all rows of their groups count."""
        return cls(frozenset(hashes_of(with_their_groups(records, manifest))), (step,))

    def after(self, *ancestors: Lineage | None) -> Lineage:
        """This run's and its ancestors' together."""
        known = [one for one in ancestors if one is not None]
        steps = dict.fromkeys(step for one in (*known, self) for step in one.steps)
        learned = dict.fromkeys(one for ancestor in (*known, self) for one in ancestor.learned)
        hashes = frozenset().union(self.hashes, *(one.hashes for one in known))
        updates = [one.updates for one in (*known, self)]
        # The longest line: what an ancestor took of a common one is in its own number.
        longest = None if None in updates else max(number for number in updates if number is not None)
        return Lineage(hashes, tuple(steps), tuple(learned), longest)

    @property
    def only_rendered(self) -> bool:
        """Whether all that was learned, as far as it is known, are photographs that this package drew."""
        return bool(self.learned) and all(one.rendered == one.photographs for one in self.learned)

    def with_learned(self, learned: Iterable[Learned]) -> Lineage:
        """Note what this run learns from, beside what its ancestors have."""
        return replace(self, learned=tuple(dict.fromkeys([*self.learned, *learned])))

    def with_updates(self, count: int) -> Lineage:
        """Note how many optimiser steps were taken since the ancestors."""
        return replace(self, updates=None if self.updates is None else self.updates + count)

    def overlap(self, records: Sequence[Record], manifest: Sequence[Record]) -> int:
        """Return of how many records the photograph, or another one of its group, was trained on."""
        seen = {record.group for record in manifest if not self.hashes.isdisjoint(hashes_of([record]))}
        return sum(record.group in seen for record in records)

    def packed(self) -> dict[str, str]:
        """The header's entry."""
        numbers = np.array(sorted(self.hashes), dtype="<u8").tobytes()
        learned = [asdict(one) for one in self.learned]
        held: dict[str, Any] = {"steps": self.steps, "learned": learned, "hashes": base64.b64encode(numbers).decode()}
        held |= {} if self.updates is None else {"updates": self.updates}
        return {KEY: json.dumps(held)}

    @classmethod
    def unpacked(cls, header: Mapping[str, Any] | None) -> Lineage | None:
        """The lineage in a header; None where there is none."""
        try:
            found = json.loads((header or {})[KEY])
            numbers = np.frombuffer(base64.b64decode(found["hashes"]), dtype="<u8")
            learned = tuple(Learned(**one) for one in found.get("learned", ()))
            return cls(frozenset(numbers.tolist()), tuple(found["steps"]), learned, found.get("updates"))
        except (KeyError, TypeError, ValueError):
            return None


def hashes_of(records: Iterable[Record]) -> set[int]:
    """Return the hashes by which records, and what must stay on one side of a split with them, are known."""
    names = set()
    for record in records:
        names |= {*record.keys, record.group}
        if record.sha256:
            names.add(f"sha256:{record.sha256}")
    return {int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "little") for name in names}


def with_their_groups(records: Iterable[Record], manifest: Sequence[Record]) -> list[Record]:
    """Return all rows of a manifest that belong to the groups of some records."""
    groups = {record.group for record in records}
    return [record for record in manifest if record.group in groups]


def lineage_in(file: Path) -> Lineage | None:
    """Return the lineage in the header of a file of weights; None where the file does not say.

    Raises:
        UserError: The file is damaged.
    """
    return Lineage.unpacked(header_of(file))


def header_of(file: Path) -> dict[str, str] | None:
    """Return the texts in the header of a file of weights; None where it is not a file of safetensors.

    Raises:
        UserError: The file is damaged.
    """
    if file.suffix != ".safetensors" or not file.is_file():
        return None
    try:
        with safe_open(file, framework="np") as opened:
            return opened.metadata()
    except (SafetensorError, OSError) as error:
        raise UserError(f"{file} is empty or damaged ({error}); name other weights, or train them again") from error
