"""Splits by group, stratified by source and diagnosis, the same for the same seed."""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Collection, Hashable, Mapping
from typing import TypeVar

from clip_xai.data.record import Record
from clip_xai.data.settings import SPLITS, BuildSettings
from clip_xai.errors import UserError

Part = TypeVar("Part", bound=Hashable)

Groups = Mapping[str, list[Record]]


def assign_splits(
    records: list[Record],
    settings: BuildSettings,
    withheld: Collection[str] = (),
    evaluation_sets: Collection[str] = (),
) -> None:
    """Give every group a split by the settings' scheme, in place.

    - ``stratified``: see `_dealt`.
    - ``official``: the publishers' own; a group that they cut goes to the test split if any of it does, else to
      validation; sources that were published to judge models are tested on; the rest is stratified.
    - ``skincap_holdout``: a fixed share of SkinCAP's groups, the same for every seed, is the test split; the rest
      trains and validates.
    - ``leave_one_source_out``: all of one source is the test split; what other sources say of its groups is left out.
    - ``kfold``: fold number `fold` is the test split, the next one validates; every row is told its fold.

    A photograph enters a split once: its `duplicate_of` rows get no split.

    Args:
        records: Rows whose groups are final.
        settings: Scheme, seed and shares.
        withheld: Identifiers of rows that must not be evaluated on.
        evaluation_sets: Sources that were published to judge models.

    Raises:
        UserError: The source to hold out is not there.
    """
    groups: dict[str, list[Record]] = defaultdict(list)
    for record in records:
        groups[record.group].append(record)
    chosen = _chosen(groups, settings, evaluation_sets)
    for group, members in groups.items():
        for member in members:
            split = chosen[group]
            foreign = (
                settings.split == "leave_one_source_out" and split == "test" and member.source != settings.held_out
            )
            judged = split != "train"
            left_out = member.duplicate_of is not None or foreign or (judged and member.identifier in withheld)
            member.split = None if left_out else split


def _chosen(groups: Groups, settings: BuildSettings, evaluation_sets: Collection[str]) -> dict[str, str]:
    shares = {split: settings.fractions.get(split, 0.0) for split in SPLITS}
    if settings.split == "kfold":
        folds = _dealt(groups, dict.fromkeys(range(settings.folds), 1 / settings.folds), settings.seed)
        for group, fold in folds.items():
            for member in groups[group]:
                member.fold = fold
        splits = {settings.fold: "test", (settings.fold + 1) % settings.folds: "val"}
        return {group: splits.get(fold, "train") for group, fold in folds.items()}
    fixed = _fixed(groups, settings, evaluation_sets)
    if settings.split in ("skincap_holdout", "leave_one_source_out"):
        rest = 1 - shares["test"]
        shares = {"train": shares["train"] / rest, "val": shares["val"] / rest} if rest > 0 else {"train": 1.0}
    rest_of = {group: members for group, members in groups.items() if group not in fixed}
    return fixed | _dealt(rest_of, shares, settings.seed)


def _fixed(groups: Groups, settings: BuildSettings, evaluation_sets: Collection[str]) -> dict[str, str]:
    """Return the groups whose split the scheme itself decides."""
    if settings.split == "official":
        return {
            group: max(stated, key=SPLITS.index)
            for group, members in groups.items()
            if (stated := _official(members, evaluation_sets))
        }
    if settings.split == "leave_one_source_out":
        sources = sorted({member.source for members in groups.values() for member in members})
        if settings.held_out not in sources:
            raise UserError(f"data.held_out={settings.held_out} is not there; choose one of {', '.join(sources)}.")
        return {
            group: "test"
            for group, members in groups.items()
            if any(member.source == settings.held_out for member in members)
        }
    if settings.split == "skincap_holdout":
        return {group: "test" for group, members in groups.items() if _held_out(members, settings.fractions)}
    return {}


def _official(members: list[Record], evaluation_sets: Collection[str]) -> set[str]:
    stated = {member.official_split for member in members if member.official_split}
    return stated | ({"test"} if any(member.source in evaluation_sets for member in members) else set())


def _held_out(members: list[Record], fractions: Mapping[str, float]) -> bool:
    keys = [key for member in members if member.source == "skincap" for key in member.keys]
    return bool(keys) and int(_draw("skincap hold-out", min(keys)), 16) / 16**64 < fractions.get("test", 0.0)


def _dealt(groups: Groups, shares: Mapping[Part, float], seed: int) -> dict[str, Part]:
    """Deal groups to parts.

    Within each source the groups are lined up by diagnosis, where there is none by the rarest label that is present and
    what is present beside it, and within one of these in an order drawn from the seed.
    Going along the line, each group joins the part that lags furthest behind its share. What is left over from one
    diagnosis carries over to the next, so that rare ones are spread over the parts instead of all going to one.
    """
    lines: dict[str, list[str]] = defaultdict(list)
    for group, members in groups.items():
        lines[members[0].source].append(group)
    strata = _strata(groups)
    chosen: dict[str, Part] = {}
    for line in lines.values():
        line.sort(key=lambda group: (strata[group], _draw(seed, group)))
        behind = dict.fromkeys(shares, 0.0)
        for group in line:
            size = sum(member.duplicate_of is None for member in groups[group])
            for part, share in shares.items():
                behind[part] += share * size
            chosen[group] = max(shares, key=lambda part: behind[part])
            behind[chosen[group]] -= size
    return chosen


def _strata(groups: Groups) -> dict[str, str]:
    """Return what groups are lined up by."""
    present = {
        group: {name for member in members for name, said in member.labels.items() if said}
        for group, members in groups.items()
    }
    counts = Counter(name for names in present.values() for name in names)
    return {
        group: members[0].diagnosis or "\n".join(sorted(present[group], key=lambda name: (counts[name], name)))
        for group, members in groups.items()
    }


def _draw(seed: int | str, group: str) -> str:
    return hashlib.sha256(f"{seed}:{group}".encode()).hexdigest()
