"""What is known beside the labels, from records and from a table."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from clip_xai.data.record import Record
from clip_xai.errors import UserError
from clip_xai.tasks.classify.attributes import attributes_of, known_of
from tests.support.small_classes import record

NAMES = [f"{folder}/p{number}.png" for folder in ("one", "two") for number in range(4)]


@pytest.fixture
def records() -> list[Record]:
    return [record(name, fields={"sex": "female" if n % 2 else "male"}) for n, name in enumerate(NAMES)]


def table(tmp_path: Path, rows: dict[str, list[object]], name: str = "known.csv") -> str:
    file = tmp_path / name
    frame = pd.DataFrame(rows)
    frame.to_parquet(file) if name.endswith("parquet") else frame.to_csv(file, index=False)
    return str(file)


def test_a_table_is_joined_by_path_and_what_it_does_not_say_is_not_known(records: list[Record], tmp_path: Path) -> None:
    said = {"image": [*NAMES[:6], "nobody.png"], "tube": ["yes", "no", "Yes", "0", None, "1", "yes"]}
    found = attributes_of(known_of(records, table(tmp_path, said)), "tube")
    np.testing.assert_array_equal(found["tube"], [1, 0, 1, 0, np.nan, 1, np.nan, np.nan])


def test_two_values_are_one_attribute_and_three_are_three(records: list[Record], tmp_path: Path) -> None:
    said = {"image": NAMES, "site": list("ABCABCAB"), "ward": [1, 2, 1, 2, 1, 2, 1, 1]}
    known = known_of(records, table(tmp_path, said))
    assert list(attributes_of(known, "site")) == ["site A", "site B", "site C"]
    np.testing.assert_array_equal(attributes_of(known, "site")["site B"], [0, 1, 0, 0, 1, 0, 0, 1])
    assert {name: column.tolist() for name, column in attributes_of(known, "ward").items()} == {
        "ward 2": [0, 1, 0, 1, 0, 1, 0, 0]
    }
    assert attributes_of(known, "sex")["sex male"].tolist() == [1, 0] * 4  # the records' own fields stay


def test_lists_give_each_of_their_values_and_an_empty_list_has_none(records: list[Record], tmp_path: Path) -> None:
    lists = [["tube", "marker"], ["tube"], [], ["marker"], None, ["tube"], [], []]
    known = known_of(records, table(tmp_path, {"image": NAMES, "seen": lists}, "known.parquet"))
    found = attributes_of(known, "seen")
    np.testing.assert_array_equal(found["tube"], [1, 1, 0, 0, np.nan, 1, 0, 0])
    np.testing.assert_array_equal(found["marker"], [1, 0, 0, 1, np.nan, 0, 0, 0])


def test_numbers_that_may_lack_are_not_known_where_they_do(records: list[Record], tmp_path: Path) -> None:
    file = tmp_path / "known.parquet"
    flags = pd.array([1, 0, None, 1, 0, 1, 0, 1], dtype="Int64")
    pd.DataFrame({"image": NAMES, "flag": flags}).to_parquet(file)
    found = attributes_of(known_of(records, str(file)), "flag")
    np.testing.assert_array_equal(found["flag"], [1, 0, np.nan, 1, 0, 1, 0, 1])


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ({"image": [NAMES[0], NAMES[0]], "a": [1, 0]}, "names one/p0.png twice: keep one row of it"),
        ({"image": ["p0.png"], "a": [1]}, "p0.png may be s/p0.png or s/p0.png; write more of its path"),
        ({"image": ["x.png"], "a": [1]}, "names none of 8 photographs in its column image"),
        ({"file": ["p0.png"], "a": [1]}, "has no column image; it has file, a"),
    ],
)
def test_a_table_that_leaves_open_what_is_meant_is_refused(
    records: list[Record], tmp_path: Path, rows: dict[str, list[object]], said: str
) -> None:
    with pytest.raises(UserError, match=said):
        known_of(records, table(tmp_path, rows))


@pytest.mark.parametrize("values", [["yes"] * 8, ["A"] * 8, [0] * 8])
def test_what_is_the_same_everywhere_tells_nothing_apart(
    records: list[Record], tmp_path: Path, values: list[object]
) -> None:
    known = known_of(records, table(tmp_path, {"image": NAMES, "a": values}))
    with pytest.raises(UserError, match="a is the same in nearly all photographs"):
        attributes_of(known, "a")
    with pytest.raises(UserError, match="shortcuts: b is not known of any photograph; known are a, sex"):
        attributes_of(known, "b")


def test_a_file_that_is_no_table_is_one_line(records: list[Record], tmp_path: Path) -> None:
    (tmp_path / "bad.parquet").write_bytes(b"no parquet")
    for file in ("bad.parquet", "missing.csv"):
        with pytest.raises(UserError, match="cannot be read as a"):
            known_of(records, str(tmp_path / file))
