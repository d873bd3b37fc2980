"""Names and texts of any kind: built and loaded as they are, shown without acting, refused a row at a time."""

from __future__ import annotations

import csv
import json
import os
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from lightning.pytorch.loggers import CSVLogger

from clip_xai.data.descriptions import SCHEMA
from clip_xai.data.manifest import load_manifest
from clip_xai.data.manifest_builder import build_manifest
from clip_xai.data.report import summary
from clip_xai.errors import UserError
from clip_xai.explanations.photographs import photographs_at
from clip_xai.metrics.results import EvaluationResult
from clip_xai.runs.loggers import log_table
from clip_xai.text import markdown, printable, spreadsheet_cell, without_controls
from tests.data.publishers import photograph, table

NAMES = [
    "a: b.jpg", "x:y/c.jpg", "e\\f.jpg", "g|h.jpg", "<b>i<.b>.jpg", "j'k\".jpg", "=l.jpg", "ü ñ 图.jpg",
    "{{ m }}.jpg", "$n${x}.jpg", "[o].jpg", "-p.jpg", "#q.jpg", "r%20s.jpg", "s:/d.x/d.jpg",
]  # fmt: skip


def own(folder: Path, names: list[str]) -> Path:
    for name in names:
        photograph(folder / name)
    rows = [{"image": name, "caption": f"Photograph {number}."} for number, name in enumerate(names)]
    table(folder / "captions.csv", ["image", "caption"], *rows)
    return folder.parent


@pytest.mark.parametrize("source", ["own", "own: 2024", "a|b", "<script>alert(1)", "x_*_`y`", "photo"])
def test_names_of_any_kind_are_kept(tmp_path: Path, source: str) -> None:
    names = NAMES[:-1]
    root = own(tmp_path / "data" / source, names)
    records = load_manifest(build_manifest(root, tmp_path / "out"))
    assert [record.name for record in records] == names and {record.source for record in records} == {source}
    assert all(record.image.is_file() for record in records)
    assert [record.caption for record in records] == [f"Photograph {number}." for number in range(len(names))]
    assert not [record for record in records if record.duplicate_of]
    page = (tmp_path / "out" / "report.html").read_text()
    assert "<script>" not in page and "<b>i" not in page


def test_a_folder_called_photo_does_not_merge_a_patients_photographs(tmp_path: Path) -> None:
    folder = tmp_path / "data" / "photo"
    rows = [{"image": photograph(folder / f"{n}.jpg").name, "caption": "One.", "group": "7"} for n in "ab"]
    table(folder / "captions.csv", ["image", "caption", "group"], *rows)
    one, two = load_manifest(build_manifest(folder.parent, tmp_path / "out"))
    assert one.group == two.group and (one.duplicate_of, two.duplicate_of) == (None, None)


def test_a_name_that_cannot_be_kept_costs_its_row_alone(tmp_path: Path) -> None:
    root = tmp_path / "data"
    own(root, ["a.jpg", "s:/d.x/d.jpg"])  # a drive of Windows, to any program there
    own(root / os.fsdecode(b"k\xe4lte"), ["b.jpg"])
    (record,) = load_manifest(build_manifest(root, tmp_path / "out"))
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert record.name == "a.jpg"
    assert {item["file"]: item["reason"] for item in report["problems"]} == {
        "s:/d.x/d.jpg": "its path reads like one that leaves the data root: rename it",
        "b.jpg": "its path is not UTF-8: rename it",
    }


def test_control_characters_reach_neither_terminal_nor_manifest(tmp_path: Path) -> None:
    folder = tmp_path / "data" / "own\x1b[31m"
    photograph(folder / "a\x1b]0;owned\x07.jpg")
    photograph(folder / "b.jpg")
    (folder / "captions.csv").write_text("image,caption\nb.jpg,A \x1b[2Jred\u202e plaque.\nb\x1b[5m.gif,x\n")
    rows = [
        {"source": "own\\x1b[31m", "image": "b.jpg", "captions": ["One\x00 \x9b31mspot.\n", "\x07"], "mask": None},
        {"source": "\x1b[1m", "image": "\x1b[2m.jpg", "captions": ["x"], "mask": None},
    ]
    pq.write_table(pa.Table.from_pylist(rows, schema=SCHEMA), folder.parent / "descriptions.parquet")
    manifest = build_manifest(folder.parent, tmp_path / "out")
    (record,) = load_manifest(manifest)
    assert record.references == ("One 31mspot.",) and record.source == "own\\x1b[31m"
    said = "\n".join(summary(manifest)) + manifest.with_name("report.html").read_text()
    assert not [letter for letter in said if (ord(letter) < 32 and letter != "\n") or 127 <= ord(letter) < 160]
    (folder.parent / "descriptions.parquet").unlink()
    assert load_manifest(build_manifest(folder.parent, tmp_path / "out"))[0].caption == "A [2Jred plaque."
    assert [one.name for one in photographs_at(str(folder))] == ["a\\x1b]0;owned\\x07.jpg", "b.jpg"]
    assert str(UserError("a\x1b[31m.jpg: no\nway")) == "a\\x1b[31m.jpg: no\nway"


def test_the_data_report_lets_nothing_in(tmp_path: Path) -> None:
    root = own(tmp_path / "data" / "own", ["a.jpg"])
    page = build_manifest(root, tmp_path / "out").with_name("report.html").read_text()
    policy = page[page.index("Content-Security-Policy") : page.index("<title>")]
    assert "default-src 'none'" in policy and "script-src &#39;none&#39;" in policy and "<script" not in page


def test_cells_of_tables_are_no_formulas(tmp_path: Path) -> None:
    logger = CSVLogger(tmp_path, name="", version="")
    cells = ["=1+1", "+1", "-2.5", "@x", "-a", "plain", 3, 0.5, None, "a=b"]
    log_table([logger], "captions", ["cell"], [[cell, "x"] for cell in cells])
    written = [row[0] for row in csv.reader((tmp_path / "captions.csv").open())][1:]
    assert written == ["'=1+1", "+1", "-2.5", "'@x", "'-a", "plain", "3", "0.5", "", "a=b"]


def test_markdown_shows_names_as_they_are() -> None:
    result = EvaluationResult(
        scores=(), comparisons=(), verdicts=(), metrics=(), systems=("model",), scopes=("a|b <i>",),
        set_aside={"<b>x</b>|y/1.jpg": "cut\x1b[0m"}, settings={"data": "a `b` <c>"},
    )  # fmt: skip
    text = result.to_markdown()
    assert "## a\\|b &lt;i&gt;" in text and "&lt;b&gt;x&lt;/b&gt;\\|y/1.jpg: cut" in text
    assert "<" not in text and "\x1b" not in text


def test_texts_on_their_way_out() -> None:
    assert printable("é 图 \u200d a\tb\udce4") == "é 图 \u200d a\\tb\\udce4"
    assert without_controls("a\u00a0b\r\n c\x00\u2067d") == "a\u00a0b cd"
    assert markdown("_a_ `b`\n[c](d)") == "\\_a\\_ \\`b\\` \\[c\\](d)"
    assert spreadsheet_cell("\tx") == "'\tx" and spreadsheet_cell("-1e3") == "-1e3"
