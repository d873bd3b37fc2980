"""The written folders: NIH's own tables and lists, an image folder, and what is refused."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from clip_xai.data.rendered_mark import is_marked
from clip_xai.data.synthetic.chest.__main__ import main
from clip_xai.data.synthetic.chest.drawing import read_settings
from clip_xai.data.synthetic.chest.image_folder import FolderSettings, write_folder
from clip_xai.data.synthetic.chest.nih import ChestSettings, write_chest
from clip_xai.data.synthetic.chest.parts import read_parts
from clip_xai.data.synthetic.chest.water_fleas import CLASSES, render_flea, sample_flea
from clip_xai.errors import UserError

SETTINGS = ChestSettings(patients=14, seed=3, size=64, tube=0.5, workers=1)
SIZE = 64


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("nih")
    write_chest(root, SETTINGS)
    return root


def rows(path: Path) -> list[list[str]]:
    with path.open(newline="") as file:
        return list(csv.reader(file))


def files(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()}


def test_the_tables_have_the_published_headers(written: Path) -> None:
    entries, boxes = rows(written / "Data_Entry_2017.csv"), rows(written / "BBox_List_2017.csv")
    assert entries[0] == [
        "Image Index", "Finding Labels", "Follow-up #", "Patient ID", "Patient Age", "Patient Gender", "View Position",
        "OriginalImage[Width", "Height]", "OriginalImagePixelSpacing[x", "y]", "",
    ]  # fmt: skip
    assert boxes[0] == ["Image Index", "Finding Label", "Bbox [x", "y", "w", "h]", "", "", ""]
    assert {len(row) for row in entries} == {12} and {len(row) for row in boxes} == {9}
    for name, labels, follow_up, patient, age, sex, view, *_ in entries[1:]:
        assert name == f"{int(patient):08d}_{int(follow_up):03d}.png"
        assert sex in "MF" and view in ("PA", "AP") and 18 <= int(age) < 95
        assert labels == "No Finding" or "No Finding" not in labels.split("|")


def test_every_image_is_in_one_list_and_no_patient_in_two(written: Path) -> None:
    lists = [(written / name).read_text().split() for name in ("train_val_list.txt", "test_list.txt")]
    images = {path.name for path in (written / "images").iterdir()}
    assert images == {row[0] for row in rows(written / "Data_Entry_2017.csv")[1:]}
    assert sorted(images) == sorted([*lists[0], *lists[1]]) and all(lists)
    assert not {name[:8] for name in lists[0]} & {name[:8] for name in lists[1]}
    for name in sorted(images)[:5]:
        with Image.open(written / "images" / name) as image:
            assert (image.mode, image.size, image.format) == ("L", (SIZE, SIZE), "PNG") and is_marked(image)


def test_published_boxes_hold_the_masks_of_their_findings(written: Path) -> None:
    masks = {
        (part.image.removeprefix("images/"), part.part): part.pixels(SIZE, SIZE)
        for part in read_parts(written)
        if part.kind == "finding"
    }
    tested = set((written / "test_list.txt").read_text().split())
    boxes = rows(written / "BBox_List_2017.csv")[1:]
    assert len(boxes) == sum(name in tested for name, _ in masks) > 0
    for name, label, *numbers in boxes:
        x, y, width, height = (float(value) / 16 for value in numbers[:4])  # 1,024 pixels are 64
        mask = masks[name, "Infiltration" if label == "Infiltrate" else label]
        held = np.zeros_like(mask)
        held[int(y) : int(y + height), int(x) : int(x + width)] = True
        assert name in tested and not (mask & ~held).any()
        inner = mask[int(y) : int(y + height), int(x) : int(x + width)]
        assert inner[0].any() and inner[-1].any() and inner[:, 0].any() and inner[:, -1].any()


def test_labels_are_the_findings_that_were_drawn(written: Path) -> None:
    drawn: dict[str, set[str]] = {}
    for part in read_parts(written):
        if part.kind == "finding":
            drawn.setdefault(part.image.removeprefix("images/"), set()).add(part.part)
    for name, labels, *_ in rows(written / "Data_Entry_2017.csv")[1:]:
        assert drawn.get(name, set()) == set(labels.split("|")) - {"No Finding"}
    films = pq.read_table(written / "synthetic" / "films.parquet").to_pylist()
    tubes = {part.image for part in read_parts(written) if part.part == "chest tube"}
    assert {film["image"] for film in films if "chest tube" in film["artefacts"]} == tubes
    settings = read_settings(written)
    assert settings is not None and (settings["tube"], settings["hospital"]) == (0.5, 0.0)


def test_the_same_set_is_left_alone_and_drawn_elsewhere_is_the_same(written: Path, tmp_path: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in written.rglob("*.png")}
    told = write_chest(written, SETTINGS)
    assert before == {path: path.stat().st_mtime_ns for path in written.rglob("*.png")}
    assert told["train_val"] + told["test"] == len(before)
    write_chest(tmp_path / "again", SETTINGS)
    first, second = files(written), files(tmp_path / "again")
    assert first == second


def test_another_set_and_a_folder_of_hers_are_left_as_they_are(written: Path, tmp_path: Path) -> None:
    before = files(written)
    with pytest.raises(UserError, match="another seed"):
        write_chest(written, ChestSettings(patients=14, seed=4, size=64, tube=0.5))
    assert files(written) == before
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(UserError, match=r"holds something else \(notes.txt\)"):
        write_chest(tmp_path, SETTINGS)
    assert (tmp_path / "notes.txt").read_text() == "mine" and len(list(tmp_path.iterdir())) == 1
    with pytest.raises(UserError, match="not a directory"):
        write_chest(tmp_path / "notes.txt", SETTINGS)
    with pytest.raises(UserError, match="leaves a list empty"):
        write_chest(tmp_path / "new", ChestSettings(patients=2, test_share=0.0))
    assert not (tmp_path / "new").exists()


def test_the_image_folder_has_a_folder_for_each_class(tmp_path: Path) -> None:
    told = write_folder(tmp_path, FolderSettings(train=3, test=1, size=64, workers=1))
    assert told == {"train": 12, "test": 4}
    for split, count in (("train", 3), ("test", 1)):
        assert sorted(path.name for path in (tmp_path / split).iterdir()) == sorted(CLASSES)
        for kind in CLASSES:
            assert len(list((tmp_path / split / kind).glob("*.png"))) == count
    parts = read_parts(tmp_path)
    assert {part.image for part in parts} == {str(p.relative_to(tmp_path)) for p in tmp_path.glob("t*/*/*.png")}
    for part in parts:
        grown, straight = "grown" in part.image, "straight" in part.image
        assert part.part != "eggs" or grown
        assert part.part != "spine" or straight
        rows_, columns = np.nonzero(part.pixels(64, 64))
        x, y, width, height = part.box
        assert (columns.min(), rows_.min(), np.ptp(columns) + 1, np.ptp(rows_) + 1) == (x, y, width, height)


def test_leaving_a_part_of_a_flea_out_changes_its_mask_alone() -> None:
    for kind in CLASSES:
        flea = sample_flea(1, kind, 0)
        whole = render_flea(flea, 64)
        for part in flea.parts:
            changed = (render_flea(flea, 64, without=(part,)).image != whole.image).any(-1)
            assert changed.any() and not (changed & ~whole.masks[part]).any(), (kind, part)
    with pytest.raises(ValueError, match="does not show eggs"):
        render_flea(sample_flea(1, "bent_young", 0), 64, without=("eggs",))
    with pytest.raises(ValueError, match="choose one of straight_young"):
        sample_flea(1, "crab", 0)


def test_the_command_writes_measures_and_refuses(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = f"out={tmp_path / 'films'}"
    assert main([out, "patients=6", "size=32", "seed=1", "workers=1"]) == 0
    assert "to train on" in capsys.readouterr().out
    assert main(["measures", "films=8", "size=64"]) == 0
    printed = capsys.readouterr().out
    assert "cardiothoracic ratio, normal" in printed and "grey values, 0 to 255" in printed
    assert main(["sheet", f"out={tmp_path / 'sheet.png'}", "films=12", "size=32"]) == 0
    for arguments, said in (
        ([out, "patients=many"], "patients=many is not a whole number"),
        (["patients=3"], "out is missing"),
        ([out, "colour=red"], "'colour=red' was not understood"),
        ([out, "tube=2"], "chest.tube"),
        (["sheet", f"out={tmp_path / 'sheet.png'}"], "is there already"),
    ):
        capsys.readouterr()
        assert main(arguments) == 1
        assert said in capsys.readouterr().err


def test_a_drawing_of_another_version_is_used_as_it_is_and_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    few = ChestSettings(patients=4, seed=3, size=32, test_share=0.5, workers=1)
    write_chest(tmp_path / "set", few)
    [noted] = (tmp_path / "set").rglob("settings.json")
    said = json.loads(noted.read_text())
    noted.write_text(json.dumps({**said, "code": "an older one"}))
    before = files(tmp_path / "set")
    write_chest(tmp_path / "set", few)
    assert files(tmp_path / "set") == before and "was drawn by another version of the renderer" in caplog.text
    with pytest.raises(UserError, match="was drawn with another seed; give a new directory"):
        write_chest(tmp_path / "set", replace(few, seed=4))
