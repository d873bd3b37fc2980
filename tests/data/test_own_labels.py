"""A person's own labels: a table of them, or folders of classes; used as meant or set aside by name."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from clip_xai.data.manifest import load_manifest
from clip_xai.data.manifest_builder import build_manifest
from clip_xai.data.record import NO_PATIENT, Record
from clip_xai.data.settings import BuildSettings, Columns
from clip_xai.errors import UserError
from tests.data.chest import lines, radiograph


def photographs(folder: Path, *names: str) -> None:
    for name in names:
        radiograph(folder / name, sum(map(ord, str(folder / name))) % 10_000)


def built(root: Path, **settings: object) -> dict[str, Record]:
    out = root.with_name(f"{root.name}_out")
    manifest = build_manifest(root, out, BuildSettings(near_bits=None, **settings))  # type: ignore[arg-type]
    return {record.name: record for record in load_manifest(manifest)}


def problems(root: Path) -> dict[str, str]:
    report = json.loads((root.with_name(f"{root.name}_out") / "report.json").read_text())
    return {problem["file"]: problem["reason"] for problem in report["problems"]}


def notes(root: Path, source: str) -> list[str]:
    report = json.loads((root.with_name(f"{root.name}_out") / "report.json").read_text())
    return report["sources"][source]["notes"]


def test_one_column_for_each_label(tmp_path: Path) -> None:
    root = tmp_path / "data"
    photographs(root / "own", "a.png", "b.png", "c.png", "d.png", "e.png")
    rows = ["a.png,p1,train,1,0,63", "b.png,p1,train,-1,,64", "c.png,p2,test,0.0,1.0,65", "d.png,,val,2,0,66",
            "e.png,p3,elsewhere,0,1,67", "f.png,p4,val,1,1,68"]  # fmt: skip
    lines(root / "own" / "labels.csv", "image,patient_id,split,Edema,Mass,age", *rows)
    records = built(root, split="official")
    assert {name: record.labels for name, record in records.items()} == {
        "a.png": {"Edema": True, "Mass": False}, "b.png": {"Edema": None}, "c.png": {"Edema": False, "Mass": True},
    }  # fmt: skip
    assert [record.group for record in records.values()] == ["own:p1", "own:p1", "own:p2"]
    assert [record.split for record in records.values()] == ["train", "train", "test"]
    assert records["a.png"].fields == {"age": "63"} and records["a.png"].references == ()
    said = problems(root)
    assert said["d.png"] == "row 5: label Edema is '2', not 1, 0, -1 or blank"
    assert "split 'elsewhere' is none of" in said["e.png"] and "not on disk" in said["f.png"]
    assert "labels: Edema, Mass" in notes(root, "own")


def test_one_column_names_one_label_or_several(tmp_path: Path) -> None:
    root = tmp_path / "data"
    photographs(root / "own", "a.png", "b.png", "c.png", "d.png")
    rows = ["a.png;mass | edema", "b.png;normal", "c.png;", "d.png;mass", "d.png;edema"]
    lines(root / "own" / "labels.csv", "Image;Label", *rows)
    records = built(root)
    every = {"edema": False, "mass": False, "normal": False}
    assert {name: record.labels for name, record in records.items()} == {
        "a.png": {**every, "mass": True, "edema": True}, "b.png": {**every, "normal": True},
        "d.png": {**every, "mass": True, "edema": True},
    }  # fmt: skip
    assert "label is empty" in problems(root)["c.png"]
    assert all(NO_PATIENT in record.flags for record in records.values())


def test_a_column_of_another_name_can_hold_the_labels(tmp_path: Path) -> None:
    root = tmp_path / "data"
    photographs(root / "own", "a.png", "b.png")
    lines(root / "own" / "labels.csv", "File,Finding", "a.png,mass", "b.png,edema")
    records = built(root, columns=Columns(image="File", label="Finding"))
    assert [name for name, said in records["a.png"].labels.items() if said] == ["mass"]
    lines(root / "own" / "labels.csv", "image,words", "a.png,mass", "b.png,edema")
    with pytest.raises(UserError, match="neither a column label nor a column of 1, 0, -1 and blank"):
        built(root)


def test_rows_of_one_picture_must_not_contradict_each_other(tmp_path: Path) -> None:
    root = tmp_path / "data"
    photographs(root / "own", "a.png", "b.png")
    rows = ["a.png,1,,p1", "a.png,,0,p1", "b.png,1,0,p2", "b.png,0,0,p2", "b.png,1,0,p3"]
    lines(root / "own" / "labels.csv", "image,Edema,Mass,group", *rows)
    records = built(root)
    assert records["a.png"].labels == {"Edema": True, "Mass": False}
    assert records["b.png"].labels == {"Edema": True, "Mass": False}
    report = json.loads((root.with_name("data_out") / "report.json").read_text())
    said = [problem["reason"] for problem in report["problems"]]
    assert said == [
        "row 5: its label Edema is another than in row 4",
        "row 6: its group is 'p3', in row 4 it is another",
    ]


def test_labels_join_the_captions_beside_them(tmp_path: Path) -> None:
    root = tmp_path / "data"
    photographs(root / "own", "a.png", "b.png", "c.png")
    lines(root / "own" / "captions.csv", "image,caption", "a.png,A mass.", "b.png,Nothing.")
    lines(root / "own" / "labels.csv", "image,Mass,site", "a.png,1,left", "b.png,0,", "c.png,1,right")
    records = built(root)
    assert records["a.png"].references == ("A mass.",) and records["a.png"].labels == {"Mass": True}
    assert records["b.png"].labels == {"Mass": False} and records["a.png"].fields == {"site": "left"}
    assert records["c.png"].references == () and records["c.png"].labels == {"Mass": True}
    assert any("1 photograph of labels.csv without a caption" in note for note in notes(root, "own"))


def test_one_photograph_under_opposite_labels_is_not_judged(tmp_path: Path) -> None:
    root = tmp_path / "data"
    photographs(root / "own", *(f"{number}.png" for number in range(8)))
    (root / "own" / "copy.png").write_bytes((root / "own" / "0.png").read_bytes())
    (root / "own" / "more.png").write_bytes((root / "own" / "1.png").read_bytes())
    rows = [f"{number}.png,{number % 2},,g{number}" for number in range(8)]
    lines(root / "own" / "labels.csv", "image,Mass,Edema,group", *rows, "copy.png,1,,h", "more.png,1,0,i")
    records = built(root)
    assert records["0.png"].flags == records["copy.png"].flags == ("conflicting diagnosis",)
    assert records["0.png"].split in ("train", None) and records["0.png"].labels == {"Mass": False}
    assert records["1.png"].labels == {"Mass": True, "Edema": False}, "a copy that agrees hands over what it knows"
    report = json.loads((root.with_name("data_out") / "report.json").read_text())
    assert report["conflicts"] == [
        {"rows": ["own/0.png", "own/copy.png"], "diagnoses": ["Mass: absent", "Mass: present"]}
    ]


@pytest.mark.parametrize("above", ["", "bosmina/"])
def test_folders_are_classes(tmp_path: Path, above: str) -> None:
    root = tmp_path / "data"
    photographs(root / above, "adult/1.png", "adult/2.png", "adult/more/3.jpg", "juvenile/1.png", "loose.png")
    (root / above / "empty").mkdir()
    photographs(root / above, "masks/1.png")
    if above:
        (root / above / "loose.png").unlink()
    records = built(root)
    present = {name: [label for label, said in record.labels.items() if said] for name, record in records.items()}
    assert present == {
        "adult/1.png": ["adult"], "adult/2.png": ["adult"], "adult/more/3.jpg": ["adult"],
        "juvenile/1.png": ["juvenile"],
    }  # fmt: skip
    assert all(set(record.labels) == {"adult", "juvenile"} for record in records.values())
    assert len({record.group for record in records.values()}) == 4
    said = problems(root)
    assert said["empty"] == "this class has no picture here"
    assert above or said["loose.png"] == "it lies in no folder of a class"
    assert any("left out the folder masks" in note for note in notes(root, "bosmina" if above else "data"))


def test_folders_of_splits_stand_above_those_of_classes(tmp_path: Path) -> None:
    root = tmp_path / "data"
    photographs(root, "train/a/1.png", "train/b/2.png", "validation/a/3.png", "validation/b/4.png", "test/a/5.png")
    records = built(root, split="official")
    assert {name: record.split for name, record in records.items()} == {
        "train/a/1.png": "train", "train/b/2.png": "train", "validation/a/3.png": "val", "validation/b/4.png": "val",
        "test/a/5.png": "test",
    }  # fmt: skip
    assert records["test/a/5.png"].labels == {"a": True, "b": False}
    assert problems(root) == {"b of test": "this class has no picture here"}


def test_an_eighth_of_each_class_validates_where_there_is_no_folder_for_it(tmp_path: Path) -> None:
    root = tmp_path / "data"
    names = [f"train/{kind}/{number}.png" for kind in "ab" for number in range(16)]
    for number, name in enumerate([*names, "test/a/0.png", "test/b/0.png"]):
        radiograph(root / name, number)
    splits = {name: record.split for name, record in built(root, split="official").items()}
    held = {name for name, split in splits.items() if split == "val"}
    assert all(0 < sum(name.startswith(f"train/{kind}/") for name in held) < 8 for kind in "ab")
    assert {split for name, split in splits.items() if name.startswith("test")} == {"test"}
    root.rename(tmp_path / "elsewhere")
    again = {name: record.split for name, record in built(tmp_path / "elsewhere", split="official").items()}
    assert again == splits


def test_what_is_no_folder_of_classes_is_refused(tmp_path: Path) -> None:
    photographs(tmp_path / "one", "a/1.png", "a/2.png")
    with pytest.raises(UserError, match="holds none of the known data sets"):
        built(tmp_path / "one")
    photographs(tmp_path / "two", "a/1.png", "b/2.png")
    lines(tmp_path / "two" / "mine.csv", "file,words", "1.png,x")
    with pytest.raises(UserError, match="folders of classes are read where no table is"):
        built(tmp_path / "two")


def test_patients_that_differ_by_case_alone_are_named_and_not_merged(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    root = tmp_path / "data"
    photographs(root / "own", "a.png", "b.png", "c.png", "d.png", "e.png", "f.png")
    (root / "own" / "g.png").write_bytes((root / "own" / "f.png").read_bytes())
    rows = ["a.png,PAT0,1", "b.png,pat0,0", "c.png,Pat0,0", "d.png,p1,1", "e.png,p1,0", "f.png,Q,1", "g.png,q,1"]
    lines(root / "own" / "labels.csv", "image,patient,Mass", *rows)
    records = built(root)
    assert [records[f"{name}.png"].group for name in "abcde"] == [
        "own:PAT0",
        "own:pat0",
        "own:Pat0",
        "own:p1",
        "own:p1",
    ]
    assert records["f.png"].group == records["g.png"].group  # one photograph, whatever its patient is called
    [said] = [one.getMessage() for one in caplog.records if "upper and lower case" in one.getMessage()]
    assert said.startswith("own: 1 identifier is spelled in ways") and "(own:PAT0 and own:Pat0 and own:pat0)" in said
    assert said.removeprefix("own: ") in notes(root, "own")
