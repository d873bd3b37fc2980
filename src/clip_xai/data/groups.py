"""Which rows belong together, and which of them show one and the same photograph."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable

from clip_xai.data.record import CONFLICT, EMPTY_MASK, FULL_MASK, NO_PATIENT, Record
from clip_xai.data.vocabulary import Vocabulary, load_vocabulary

#: Rows that share a key with this beginning show the very same photograph, not only the same patient or lesion.
SAME_PHOTOGRAPH = "photo:"


def assign_groups(records: list[Record], near: Iterable[tuple[int, int]] = ()) -> None:
    """Put rows that are connected by a publisher's key, identical bytes or their looks into one group, in place.

    Connected components over the edges 'shares a key', 'has the same sha256' and 'looks alike'. The group is named
    after the smallest key in it, so the name does not depend on the order of rows.

    Args:
        records: The rows.
        near: Pairs of positions in `records` that look alike.
    """
    roots = _components(records, _edges, near)
    names: dict[int, str] = {}
    for root, record in zip(roots, records, strict=True):
        names[root] = min([*record.keys, record.group, *([names[root]] if root in names else [])])
    for root, record in zip(roots, records, strict=True):
        record.group = names[root]


def mark_duplicates(records: list[Record], vocabulary: Vocabulary | None = None) -> None:
    """Let the first row of each photograph stand for all that show it, in place.

    The others get its identifier as `duplicate_of`. Their captions are not lost: it takes them over as references, what
    they say of labels that it says nothing of, and their mask, boxes and masks of findings where it has none, unless
    they disagree with it on the diagnosis or a label.
    """
    known, first = vocabulary or load_vocabulary(), dict[int, Record]()
    for root, record in zip(_components(records, _photograph_edges), records, strict=True):
        stands = first.setdefault(root, record)
        if stands is record:
            continue
        record.duplicate_of = stands.identifier
        if not _contradict(stands, record, known):
            stands.references = tuple(dict.fromkeys((*stands.references, *record.references)))
            stands.caption = stands.references[0] if stands.references else ""
            same_size = (stands.height, stands.width) == (record.height, record.width)
            if stands.mask is None and record.mask is not None and same_size:
                stands.mask, stands.mask_values = record.mask, record.mask_values
                told = [flag for flag in record.flags if flag in (EMPTY_MASK, FULL_MASK)]
                stands.flags = (*stands.flags, *told)
            if same_size:
                _take_over_findings(stands, record)


def flag_conflicts(
    records: list[Record], near: Iterable[tuple[int, int]] = (), vocabulary: Vocabulary | None = None
) -> list[tuple[Record, Record]]:
    """Flag rows that show the same photograph, or look alike, but state diagnoses that cannot both be true, in place.

    Returns:
        The pairs that disagree.
    """
    known = vocabulary or load_vocabulary()
    by_photograph: dict[int, list[Record]] = defaultdict(list)
    for root, record in zip(_components(records, _photograph_edges), records, strict=True):
        by_photograph[root].append(record)
    pairs = [
        (one, two)
        for members in by_photograph.values()
        for place, two in enumerate(members)
        for one in members[:place]
        if _contradict(one, two, known)
    ]
    named = {(one.identifier, two.identifier) for one, two in pairs}
    for i, j in near:
        one, two = records[i], records[j]
        if _disagree(one, two, known) and (one.identifier, two.identifier) not in named:
            pairs.append((one, two))
    disputed = {record.identifier for pair in pairs for record in pair}
    # Every copy of a disputed photograph is disputed, also one that states no diagnosis.
    for members in by_photograph.values():
        if any(member.identifier in disputed for member in members):
            for member in members:
                member.flags = tuple(dict.fromkeys((*member.flags, CONFLICT)))
    return pairs


def groups_in_two_splits(records: Iterable[Record]) -> dict[str, list[str]]:
    """Return groups that stand in more than one split, with those splits."""
    splits: dict[str, set[str]] = defaultdict(set)
    for record in records:
        if record.split is not None:
            splits[record.group].add(record.split)
    return {group: sorted(found) for group, found in splits.items() if len(found) > 1}


def groups_that_differ_by_case(records: Iterable[Record]) -> list[tuple[str, ...]]:
    """Return keys that are one and the same but for upper and lower case, and stand in different groups.

    Some publishers' identifiers do tell upper case from lower (base64), and a table typed by hand mostly does not mean
    to: only its owner knows, so nothing is merged. Call it after :func:`assign_groups`.

    Returns:
        The spellings of each such key, sorted; keys of one photograph are not among them.
    """
    spellings: dict[str, dict[str, str]] = defaultdict(dict)
    for record in records:
        for key in record.keys if NO_PATIENT not in record.flags else ():
            if not key.startswith(SAME_PHOTOGRAPH):
                spellings[key.casefold()][key] = record.group
    apart = [groups for groups in spellings.values() if len(set(groups.values())) > 1]
    return sorted(tuple(sorted(groups)) for groups in apart)


def without_patients(records: Iterable[Record]) -> dict[str, int]:
    """Return how many rows of each source count as a patient of their own because nothing tells whose they are."""
    return dict(Counter(record.source for record in records if NO_PATIENT in record.flags))


def _take_over_findings(stands: Record, record: Record) -> None:
    told = {name: said for name, said in record.labels.items() if stands.labels.get(name) is None}
    stands.labels = {**stands.labels, **told}
    stands.boxes = stands.boxes or record.boxes
    stands.label_masks = stands.label_masks or record.label_masks


def _disagree(one: Record, two: Record, vocabulary: Vocabulary) -> bool:
    return bool(one.diagnosis and two.diagnosis and not vocabulary.agree(one.diagnosis, two.diagnosis))


def _contradict(one: Record, two: Record, vocabulary: Vocabulary) -> bool:
    """Tell whether two rows of one photograph say the opposite of each other, in its diagnosis or in a label."""
    opposite = any(
        said is not None and two.labels.get(name) is not None and said != two.labels[name]
        for name, said in one.labels.items()
    )
    return opposite or _disagree(one, two, vocabulary)


def _edges(record: Record) -> list[str]:
    return [*record.keys, *_photograph_edges(record)]


def _photograph_edges(record: Record) -> list[str]:
    same = [key for key in record.keys if key.startswith(SAME_PHOTOGRAPH)]
    return same + ([f"sha256:{record.sha256}"] if record.sha256 else [])


def _components(
    records: list[Record], edges_of: Callable[[Record], list[str]], pairs: Iterable[tuple[int, int]] = ()
) -> list[int]:
    """Return for each row the position of the first row of its connected component."""
    parents = list(range(len(records)))

    def root_of(index: int) -> int:
        while parents[index] != index:
            parents[index] = parents[parents[index]]
            index = parents[index]
        return index

    def join(one: int, two: int) -> None:
        low, high = sorted((root_of(one), root_of(two)))
        parents[high] = low

    holder: dict[str, int] = {}
    for index, record in enumerate(records):
        for edge in edges_of(record):
            join(holder.setdefault(edge, index), index)
    for one, two in pairs:
        join(one, two)
    return [root_of(index) for index in range(len(records))]
