"""What many rows state alike is kept once, and a change of one row never reaches another."""

from __future__ import annotations

import csv
import io
import pickle
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clip_xai.data.groups import mark_duplicates
from clip_xai.data.manifest import load_manifest, write_manifest
from clip_xai.data.record import Record
from clip_xai.data.shared import OneOfEach, SharedMapping
from clip_xai.data.sources.encodings import lines_of
from clip_xai.data.sources.tables import read_table


def rows(folder: Path) -> list[Record]:
    labels = {"Mass": True, "Edema": None, "Hernia": False}
    plain = Record(folder / "a.png", "nih", "a.png", "g", None, None, "", ())
    names = ("a.png", "b.png", "c.png")
    kept = [replace(plain, image=folder / n, name=n, labels=labels, fields={"age": "58"}, keys=("k",)) for n in names]
    return [*kept, replace(plain, image=folder / "d.png", name="d.png", labels={"Edema": True}, sha256="1")]


def test_rows_that_say_the_same_hold_one_object(tmp_path: Path) -> None:
    write_manifest(tmp_path / "m.parquet", rows(tmp_path), tmp_path)
    one, two, *_ = loaded = load_manifest(tmp_path / "m.parquet")
    assert loaded == rows(tmp_path)
    assert one.labels is two.labels and one.fields is two.fields and one.keys[0] is two.keys[0]
    write_manifest(tmp_path / "again.parquet", loaded, tmp_path)
    assert (tmp_path / "again.parquet").read_bytes() == (tmp_path / "m.parquet").read_bytes()


def test_what_a_row_takes_over_from_its_duplicate_is_its_own(tmp_path: Path) -> None:
    write_manifest(tmp_path / "m.parquet", rows(tmp_path), tmp_path)
    loaded = load_manifest(tmp_path / "m.parquet")
    loaded[0].sha256 = "1"  # the same photograph as the last row, which knows of its oedema
    mark_duplicates(loaded)
    assert loaded[0].labels == {"Mass": True, "Edema": True, "Hernia": False}
    assert loaded[1].labels == loaded[2].labels == {"Mass": True, "Edema": None, "Hernia": False}


def test_a_shared_mapping_is_replaced_and_never_changed() -> None:
    shared = SharedMapping(Mass=True)
    for change in (
        lambda: shared.__setitem__("Mass", False), lambda: shared.update(Edema=True), lambda: shared.pop("Mass"),
        lambda: shared.setdefault("Edema", True), lambda: shared.__ior__({"Edema": True}), shared.clear,
    ):  # fmt: skip
        with pytest.raises(TypeError, match="replace it"):
            change()
    assert pickle.loads(pickle.dumps(shared)) == shared == {"Mass": True}
    one, other = SharedMapping(Mass=True, Edema=None), SharedMapping(Edema=None, Mass=True)
    assert one == other and hash(one) == hash(other)


def test_equal_is_the_same_but_not_what_only_compares_equal() -> None:
    alike = OneOfEach()
    first = alike.mapping({"a": "1", "b": True})
    assert alike.mapping({"a": "1", "b": True}) is first
    assert alike.mapping({"b": True, "a": "1"}) is not first, "the order is a part of what is written"
    assert alike.mapping({"a": "1", "b": 1})["b"] is not True, "1 is written as 1"
    nested = {"named by": {"Mass": 2}}
    assert alike.mapping(nested) == nested


@settings(max_examples=200, deadline=None)
@given(st.text(alphabet='ab,"\r\n\u2028\x0b', max_size=30))
def test_lines_are_those_of_the_standard_library(text: str) -> None:
    assert list(lines_of(text)) == list(io.StringIO(text, newline=""))


def test_rows_of_a_table_are_what_a_dictionary_reader_reads(tmp_path: Path) -> None:
    text = 'image,label,note\r\na.png,Mass,"two\r\nlines"\r\nb.png,Mass,\r\n'
    (tmp_path / "t.csv").write_bytes(text.encode())
    table = read_table(tmp_path / "t.csv")
    expected = list(csv.DictReader(io.StringIO(text.replace("two\r\n", "two "), newline="")))
    assert list(table.rows) == expected and table.rows[-1] == expected[-1] and len(table.rows[1:]) == 1
    assert table.rows[0]["label"] is table.rows[1]["label"] and table.numbers == (2, 3)
