"""Groups are connected components, and no group is ever cut by a split."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clip_xai.data.groups import assign_groups, flag_conflicts, groups_in_two_splits, mark_duplicates
from clip_xai.data.record import CONFLICT, Record
from clip_xai.data.settings import SCHEMES, BuildSettings
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


def several() -> list[Record]:
    """Two sources with official splits and one without; SkinCAP shares photographs with DDI."""
    records = [row("ham10000", number, (f"lesion-{number // 2}",)) for number in range(600)]
    for number, record in enumerate(records):
        record.official_split = ("train", "train", "train", "val", "test", "test")[number // 2 % 6]
    records[1].official_split, records[3].official_split = "test", "val"
    records += [row("ddi", number, (f"photo:ddi/{number}",)) for number in range(60)]
    records += [row("skincap", number, (f"photo:ddi/{number}",)) for number in range(50)]
    records += [row("skincap", number, (f"fitzpatrick17k:{number}",)) for number in range(50, 300)]
    assign_groups(records)
    mark_duplicates(records)
    return records


@pytest.mark.parametrize("scheme", SCHEMES)
def test_every_scheme_keeps_groups_whole_and_enters_a_photograph_once(scheme: str) -> None:
    records = several()
    assign_splits(records, BuildSettings(split=scheme, held_out="ddi" if scheme.startswith("leave") else None))
    assert groups_in_two_splits(records) == {}
    assert all(record.split is None for record in records if record.duplicate_of)
    assert {"train", "val", "test"} <= {record.split for record in records}


def test_official_splits_are_the_publishers_and_a_cut_lesion_goes_where_it_is_judged() -> None:
    records = several()
    assign_splits(records, BuildSettings(split="official"), evaluation_sets=["ddi"])
    splits = {record.identifier: record.split for record in records}
    assert all(splits[r.identifier] == r.official_split for r in records[4:600])
    assert splits["ham10000/0.png"] == splits["ham10000/1.png"] == "test" and splits["ham10000/2.png"] == "val"
    assert {record.split for record in records if record.source == "ddi"} == {"test"}
    rest = Counter(record.split for record in records[710:])
    assert rest["train"] > 150 and rest["val"] > 10 and rest["test"] > 20


def test_one_source_is_held_out_whole_and_nothing_of_it_is_trained_on() -> None:
    records = several()
    assign_splits(records, BuildSettings(split="leave_one_source_out", held_out="skincap"))
    assert {record.source for record in records if record.split == "test"} == {"skincap"}
    assert {record.split for record in records if record.source == "ddi"} == {None, "train", "val"}
    assert all(r.split is None for r in records if r.source == "ddi" and int(r.name.split(".")[0]) < 50)
    with pytest.raises(UserError, match="choose one of ddi, ham10000, skincap"):
        assign_splits(records, BuildSettings(split="leave_one_source_out", held_out="nowhere"))
    with pytest.raises(UserError, match=r"needs data\.held_out"):
        BuildSettings(split="leave_one_source_out")


def test_the_skincap_hold_out_is_the_same_for_every_seed_and_every_company() -> None:
    def held(seed: int, rows: list[Record]) -> set[str]:
        assign_splits(rows, BuildSettings(split="skincap_holdout", seed=seed))
        return {record.group for record in rows if record.split == "test"}

    one, two = held(0, several()), held(7, several())
    assert one == two and 25 < len(one) < 70
    assert {r.source for r in several() if r.group in one} == {"ddi", "skincap"}
    alone = [record for record in several() if record.source == "skincap"]
    for record in alone:
        record.duplicate_of = None
    assert held(3, alone) == one


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_shares_are_of_photographs_and_not_of_their_copies(seed: int) -> None:
    records = [
        row("a", 100 * number + copy, (f"k{number}",), sha=f"s{number}")
        for number in range(100)
        for copy in range(9 if number % 2 else 1)
    ]
    assign_groups(records)
    mark_duplicates(records)
    assign_splits(records, BuildSettings(seed=seed))
    found = Counter(record.split for record in records if record.duplicate_of is None)
    assert all(abs(found[split] - share) <= 1 for split, share in (("train", 75), ("val", 10), ("test", 15)))


def test_the_skincap_hold_out_does_not_depend_on_the_order_of_rows_or_keys() -> None:
    def held(turned: bool) -> set[str]:
        keys = [(f"case:{n}", f"patient:{n}", f"lesion:{n}") for n in range(60)]
        rows = [row("skincap", 2 * n + part, keys[n][part : part + 2]) for n in range(60) for part in (0, 1)]
        for record in rows if turned else ():
            record.keys = record.keys[::-1]
        rows = rows[::-1] if turned else rows
        assign_groups(rows)
        assign_splits(rows, BuildSettings(split="skincap_holdout"))
        return {record.group for record in rows if record.split == "test"}

    assert held(False) == held(True) and 2 < len(held(False)) < 30


def test_folds_partition_and_each_is_tested_once() -> None:
    tested: Counter[str] = Counter()
    for fold in range(5):
        records = several()
        assign_splits(records, BuildSettings(split="kfold", fold=fold, seed=4))
        assert {record.fold for record in records if record.split == "test"} == {fold}
        assert {record.fold for record in records if record.split == "val"} == {(fold + 1) % 5}
        tested.update(record.identifier for record in records if record.split == "test")
    judged = {record.identifier for record in several() if record.duplicate_of is None}
    assert set(tested) == judged and set(tested.values()) == {1}
    for wrong in ({"folds": 2}, {"fold": 5}, {"fold": -1}):
        with pytest.raises(UserError, match=r"data\.folds?"):
            BuildSettings(split="kfold", **wrong)


def test_conflicts_reach_every_copy_and_finer_names_are_none() -> None:
    records = [
        row("a", 0, ("p0",), "melanoma", sha="one"),
        row("a", 1, ("p1",), "nodular melanoma", sha="one"),
        row("a", 2, ("p2",), "melanoma", sha="two"),
        row("a", 3, ("p3",), "eczema", sha="two"),
        row("a", 4, ("p4",), "eczema", sha="three"),
        row("a", 5, ("p5",), "psoriasis", sha="four"),
    ]
    records[0].diagnosis = "melanoma"
    copy = row("a", 6, ("p6",), "melanoma", sha="two")
    copy.diagnosis = None
    records.append(copy)
    records[0].references = ("A melanoma.",)
    records[1].references = ("A nodular melanoma.",)
    pairs = flag_conflicts(records, near=[(4, 5)])
    assert {(one.name, two.name) for one, two in pairs} == {("2.png", "3.png"), ("4.png", "5.png")}
    assert [record.name for record in records if CONFLICT in record.flags] == [f"{n}.png" for n in (2, 3, 4, 5, 6)]
    mark_duplicates(records)
    # The row that stands takes over what its copies say, unless they say something else.
    assert records[0].references == ("A melanoma.", "A nodular melanoma.") and records[2].references == ("c",)
    assign_groups(records, near=[(4, 5)])
    assert records[4].group == records[5].group != records[0].group


def test_a_copy_lends_its_mask_only_where_it_has_the_same_size_and_the_same_diagnosis() -> None:
    def lent(size: tuple[int, int], diagnosis: str = "melanoma", own: str | None = None) -> tuple[str, tuple[int, ...]]:
        stands, copy = row("a", 1, ("k1",), sha="same"), row("b", 2, ("k2",), diagnosis, sha="same")
        (stands.height, stands.width), (copy.height, copy.width) = (30, 40), size
        stands.mask, copy.mask, copy.mask_values = Path(own) if own else None, Path("copy.png"), (1,)
        mark_duplicates([stands, copy])
        assert copy.duplicate_of == stands.identifier
        return str(stands.mask), stands.mask_values

    assert lent((30, 40)) == ("copy.png", (1,))
    assert lent((60, 80)) == lent((40, 30)) == lent((30, 40), "psoriasis") == ("None", ())
    assert lent((30, 40), own="own.png") == ("own.png", ())


@pytest.mark.parametrize("wrong", [{"captions": "poem"}, {"split": "random"}, {"near_bits": 40}, {"workers": 0}])
def test_settings_that_make_no_sense_are_refused(wrong: dict) -> None:
    with pytest.raises(UserError, match=r"data\."):
        BuildSettings(**wrong)
