"""Splits by group, stratified by source and diagnosis, the same for the same seed."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Collection, Mapping

from clip_xai.data.record import Record
from clip_xai.errors import UserError

SPLITS = ("train", "val", "test")
DEFAULT_FRACTIONS: Mapping[str, float] = {"train": 0.75, "val": 0.10, "test": 0.15}


def assign_splits(
    records: list[Record],
    seed: int = 0,
    fractions: Mapping[str, float] = DEFAULT_FRACTIONS,
    withheld: Collection[str] = (),
) -> None:
    """Give every group a split, in place.

    Within each source the groups are lined up by diagnosis, and within a diagnosis in an order drawn from the seed.
    Going along the line, each group joins the split that lags furthest behind its share. What is left over from one
    diagnosis carries over to the next, so that rare ones are spread over the splits instead of all going to one.

    A photograph that stands in two rows enters validation and test once: its `duplicate_of` row gets no split there.

    Args:
        records: Rows whose groups are final.
        seed: Another seed, other splits.
        fractions: Share of ``train``, ``val`` and ``test``; they add up to 1.

        withheld: Identifiers of rows that must not be evaluated on.

    Raises:
        UserError: The fractions make no sense.
    """
    _check(fractions)
    groups: dict[str, list[Record]] = defaultdict(list)
    for record in records:
        groups[record.group].append(record)
    lines: dict[str, list[str]] = defaultdict(list)
    for group, members in groups.items():
        lines[members[0].source].append(group)
    for line in lines.values():
        line.sort(key=lambda group: (groups[group][0].diagnosis or "", _draw(seed, group)))
        behind = dict.fromkeys(SPLITS, 0.0)
        for group in line:
            members = groups[group]
            for split in SPLITS:
                behind[split] += fractions.get(split, 0.0) * len(members)
            chosen = max(SPLITS, key=lambda split: behind[split])
            behind[chosen] -= len(members)
            for member in members:
                not_judged = member.duplicate_of is not None or member.identifier in withheld
                member.split = None if not_judged and chosen != "train" else chosen


def _check(fractions: Mapping[str, float]) -> None:
    unknown = set(fractions) - set(SPLITS)
    if unknown or any(share < 0 for share in fractions.values()) or abs(sum(fractions.values()) - 1) > 1e-6:
        raise UserError(f"data.fractions is {dict(fractions)}; give {', '.join(SPLITS)} shares that add up to 1.")


def _draw(seed: int, group: str) -> str:
    return hashlib.sha256(f"{seed}:{group}".encode()).hexdigest()
