"""Groups are connected components, and no group is ever cut by a split."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clip_xai.data.groups import assign_groups, flag_conflicts, groups_in_two_splits, mark_duplicates
from clip_xai.data.record import Record
from clip_xai.data.settings import BuildSettings
from clip_xai.data.splits import assign_splits
from clip_xai.errors import UserError


def row(source: str, number: int, keys: tuple[str, ...], diagnosis: str = "melanoma", sha: str | None = None) -> Record:
    name = f"{number}.png"
    return Record(
        image=Path(f"/data/{source}/{name}"),
        source=source,
        name=name,
        group=keys[0],
        diagnosis=diagnosis,
        malignancy=None,
        caption="c",
        references=("c",),
        sha256=sha or f"{source}{number}",
        keys=keys,
    )


def components(records: list[Record]) -> set[frozenset[int]]:
    """Slow oracle: merge sets of rows until nothing more merges."""
    sets = [({index}, {*record.keys, record.sha256}) for index, record in enumerate(records)]
    merged = True
    while merged:
        merged = False
        for one in range(len(sets)):
            for two in range(one + 1, len(sets)):
                if sets[one][1] & sets[two][1]:
                    sets[one] = (sets[one][0] | sets[two][0], sets[one][1] | sets[two][1])
                    del sets[two]
                    merged = True
                    break
            if merged:
                break
    return {frozenset(members) for members, _ in sets}


keyed_rows = st.lists(
    st.tuples(st.sampled_from("abc"), st.lists(st.integers(0, 12), min_size=1, max_size=3), st.integers(0, 15)),
    max_size=25,
)


@settings(max_examples=80, deadline=None)
@given(keyed_rows)
def test_groups_are_connected_components_and_stay_whole(rows: list) -> None:
    records = [
        row(source, index, tuple(f"k{key}" for key in keys), sha=f"s{sha}")
        for index, (source, keys, sha) in enumerate(rows)
    ]
    expected = components(records)
    assign_groups(records)
    by_group: dict[str, set[int]] = {}
    for index, record in enumerate(records):
        by_group.setdefault(record.group, set()).add(index)
    assert {frozenset(members) for members in by_group.values()} == expected
    mark_duplicates(records)
    assign_splits(records, BuildSettings(seed=3))
    assert groups_in_two_splits(records) == {}
    # A photograph enters the splits once.
    judged = Counter(record.sha256 for record in records if record.split is not None)
    assert all(count == 1 for count in judged.values())
    assert all(record.split is not None or record.duplicate_of for record in records)


def test_publishers_keys_connect_across_data_sets() -> None:
    records = [
        row("mra_midas", 0, ("mra_midas-patient:7", "stanford-photo:123456789")),
        row("mra_midas", 1, ("mra_midas-patient:7", "stanford-photo:123456790")),
        row("ddi2", 2, ("ddi2:123456790_cropped", "stanford-photo:123456790")),
        row("ddi", 3, ("photo:ddi/000001.png",)),
        row("skincap", 4, ("photo:ddi/000001.png",)),
        row("skincap", 5, ("fitzpatrick17k:abc",), sha="same"),
        row("skincap", 6, ("fitzpatrick17k:def",), sha="same", diagnosis="eczema"),
    ]
    assign_groups(records)
    mark_duplicates(records)
    assert len({record.group for record in records[:3]}) == 1
    assert records[3].group == records[4].group and records[5].group == records[6].group
    assert len({record.group for record in records}) == 3
    # A shared photo number groups, but a crop is another photograph.
    assert [record.duplicate_of for record in records] == [None] * 4 + ["ddi/3.png", None, "skincap/5.png"]
    assert [(one.name, two.name) for one, two in flag_conflicts(records)] == [("5.png", "6.png")]


def test_shares_hold_within_each_source_and_diagnosis() -> None:
    records = [
        row(source, number, (f"{source}-{number // 2}",), diagnosis)
        for source, count in (("a", 800), ("b", 200))
        for number in range(count)
        for diagnosis in [("melanoma", "eczema", "psoriasis")[number // 2 % 3]]
    ]
    assign_splits(records, BuildSettings(seed=1))
    for source, count in (("a", 800), ("b", 200)):
        found = Counter(record.split for record in records if record.source == source)
        assert abs(found["train"] - 0.75 * count) <= 4 and abs(found["val"] - 0.10 * count) <= 4
        for diagnosis in ("melanoma", "eczema", "psoriasis"):
            some = [record.split for record in records if record.source == source and record.diagnosis == diagnosis]
            assert abs(some.count("test") - 0.15 * len(some)) <= 4


def test_rare_diagnoses_are_spread_over_the_splits() -> None:
    records = [row("a", number, (f"k{number}",), diagnosis=f"rare {number}") for number in range(200)]
    assign_splits(records, BuildSettings())
    assert Counter(record.split for record in records) == {"train": 150, "val": 20, "test": 30}


def test_the_seed_alone_decides() -> None:
    records = [row("a", number, (f"k{number}",)) for number in range(100)]

    def split(seed: int, rows: list[Record]) -> dict[str, str | None]:
        assign_splits(rows, BuildSettings(seed=seed))
        return {record.name: record.split for record in rows}

    assert split(1, records) == split(1, records[::-1]) != split(2, records)


def test_withheld_rows_are_trained_on_or_left_out() -> None:
    records = [row("a", number, (f"k{number}",)) for number in range(100)]
    assign_splits(records, BuildSettings(), withheld={record.identifier for record in records})
    assert {record.split for record in records} == {"train", None}


@pytest.mark.parametrize("fractions", [{"train": 0.5}, {"train": 0.5, "dev": 0.5}, {"train": 1.5, "val": -0.5}])
def test_fractions_that_make_no_sense_are_refused(fractions: dict) -> None:
    with pytest.raises(UserError, match=r"data\.fractions"):
        BuildSettings(fractions=fractions)
