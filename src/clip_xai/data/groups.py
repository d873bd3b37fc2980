"""Which rows belong together, and which of them show one and the same photograph."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable

from clip_xai.data.record import Record

#: Rows that share a key with this beginning show the very same photograph, not only the same patient or lesion.
SAME_PHOTOGRAPH = "photo:"


def assign_groups(records: list[Record]) -> None:
    """Put rows that are connected by a publisher's key or by identical bytes into one group, in place.

    Connected components over the edges 'shares a key' and 'has the same sha256'. The group is named after the smallest
    key in it, so the name does not depend on the order of rows.
    """
    parents = list(range(len(records)))

    def root_of(index: int) -> int:
        while parents[index] != index:
            parents[index] = parents[parents[index]]
            index = parents[index]
        return index

    for members in _rows_by(records, _edges).values():
        for member in members[1:]:
            parents[root_of(member)] = root_of(members[0])
    names: dict[int, str] = {}
    for index, record in enumerate(records):
        root = root_of(index)
        names[root] = min([*record.keys, record.group, *([names[root]] if root in names else [])])
    for index, record in enumerate(records):
        record.group = names[root_of(index)]


def mark_duplicates(records: list[Record]) -> None:
    """Mark every row but the first that shows the same photograph with the identifier of that first row, in place."""
    for members in _rows_by(records, _photograph_edges).values():
        first = records[members[0]]
        for member in members[1:]:
            records[member].duplicate_of = records[member].duplicate_of or first.duplicate_of or first.identifier


def conflicting_duplicates(records: list[Record]) -> list[tuple[Record, Record]]:
    """Return pairs of rows that show the same photograph but state different diagnoses."""
    by_identifier = {record.identifier: record for record in records}
    pairs = ((by_identifier[record.duplicate_of], record) for record in records if record.duplicate_of)
    return [(one, two) for one, two in pairs if one.diagnosis and two.diagnosis and one.diagnosis != two.diagnosis]


def groups_in_two_splits(records: Iterable[Record]) -> dict[str, list[str]]:
    """Return groups that stand in more than one split, with those splits."""
    splits: dict[str, set[str]] = defaultdict(set)
    for record in records:
        if record.split is not None:
            splits[record.group].add(record.split)
    return {group: sorted(found) for group, found in splits.items() if len(found) > 1}


def _edges(record: Record) -> list[str]:
    return [*record.keys, *_photograph_edges(record)]


def _photograph_edges(record: Record) -> list[str]:
    same = [key for key in record.keys if key.startswith(SAME_PHOTOGRAPH)]
    return same + ([f"sha256:{record.sha256}"] if record.sha256 else [])


def _rows_by(records: list[Record], edges_of: Callable[[Record], list[str]]) -> dict[str, list[int]]:
    rows: dict[str, list[int]] = defaultdict(list)
    for index, record in enumerate(records):
        for edge in edges_of(record):
            rows[edge].append(index)
    return rows
