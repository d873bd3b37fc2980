"""Chest data sets are read as their publishers mean them: labels, boxes, masks, patients and official splits."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from clip_xai.data.boxes import Box
from clip_xai.data.groups import assign_groups
from clip_xai.data.localisation import localisation_truth
from clip_xai.data.manifest import load_manifest
from clip_xai.data.manifest_builder import build_manifest
from clip_xai.data.record import NO_PATIENT, Record
from clip_xai.data.run_lengths import decode_run_lengths, encode_run_lengths
from clip_xai.data.settings import BuildSettings
from clip_xai.data.sources import SOURCES
from clip_xai.data.sources.nih_chestxray14 import FINDINGS
from clip_xai.data.splits import assign_splits
from tests.data.chest import CHEXPERT_COLUMNS, NIH_BOXES, cells, lines, nih_header, nih_row, radiograph


def built(root: Path, out: Path, **settings: object) -> dict[str, Record]:
    manifest = build_manifest(root, out, BuildSettings(**settings))  # type: ignore[arg-type]
    return {record.name: record for record in load_manifest(manifest)}


def told(out: Path) -> dict[str, str]:
    report = json.loads((out / "report.json").read_text())
    return {problem["file"]: problem["reason"] for problem in report["problems"]}


def nih(root: Path, header: str = "v2020", flat: bool = False) -> list[tuple[str, str, str]]:
    """Thirty patients of one or two pictures, all but one of them on disk."""
    rng = np.random.default_rng(3)
    rows = []
    for patient in range(1, 31):
        for picture in range(int(rng.integers(1, 3))):
            chosen = [FINDINGS[i] for i in rng.choice(14, int(rng.integers(0, 4)), replace=False)]
            rows.append((f"{patient:08d}_{picture:03d}.png", "|".join(chosen) or "No Finding", str(patient)))
    name = "Data_Entry_2017.csv" if header == "2017" else "Data_Entry_2017_v2020.csv"
    lines(root / name, nih_header(header), *(nih_row(*row, header) for row in rows))
    for seed, (picture, _, patient) in enumerate(rows):
        folder = root / "images" if flat else root / f"images_{1 + int(patient) // 15:03d}" / "images"
        if picture != "00000007_000.png":
            radiograph(folder / picture, seed)
    lists = {"train_val_list.txt": lambda patient: patient <= 22, "test_list.txt": lambda patient: patient > 22}
    for file, holds in lists.items():
        lines(root / file, *(picture for picture, _, patient in rows if holds(int(patient))))
    return rows


@pytest.mark.parametrize("header, flat", [("2017", True), ("v2020", False)])
def test_nih_tables_say_what_pandas_reads(tmp_path: Path, header: str, flat: bool) -> None:
    root = tmp_path / "nih"
    rows = nih(root, header, flat)
    records = built(root, tmp_path / "out", split="official")
    assert set(records) == {name for name, _, _ in rows} - {"00000007_000.png"}
    assert told(tmp_path / "out") == {"00000007_000.png": "listed in the table, not on disk"}
    table = pd.read_csv(next(root.glob("Data_Entry*.csv")), index_col=False).set_index("Image Index")
    for name, record in records.items():
        stated = table["Finding Labels"][name].split("|")
        assert record.labels == {finding: finding in stated for finding in FINDINGS}
        assert record.group == f"nih-patient:{table['Patient ID'][name]}"
        assert record.references == () and record.fields["View Position"] == "PA"
    test = set((root / "test_list.txt").read_text().split())
    assert {name for name, record in records.items() if record.split == "test"} == test & set(records)
    splits = {split: {r.group for r in records.values() if r.split == split} for split in ("train", "val", "test")}
    assert not splits["train"] & splits["val"] and 1 <= len(splits["val"]) <= 10
    for record in (again := list(records.values())):
        record.split = None
    assign_splits(again, BuildSettings(split="official", seed=9))
    assert {r.group for r in again if r.split == "val"} == splits["val"], "the same for every seed"


def test_nih_boxes_lie_on_the_pictures_that_are_there(tmp_path: Path) -> None:
    """The publisher's header, cut at its commas and longer than its rows; pictures of another size; boxes outside."""
    root = tmp_path / "nih"
    names = [f"{number:08d}_000.png" for number in range(1, 7)]
    labels = ["Infiltration|Mass", "Atelectasis", "Mass", "Nodule", "No Finding", "Hernia"]
    rows = [nih_row(name, label, str(place)) for place, (name, label) in enumerate(zip(names, labels, strict=True), 1)]
    lines(root / "Data_Entry_2017_v2020.csv", nih_header(), *rows)
    sides = [(1024, 1024), (256, 256), (512, 512), (1024, 1024), (64, 64), (64, 64)]
    for seed, (name, (width, height)) in enumerate(zip(names, sides, strict=True)):
        radiograph(root / "images_001" / "images" / name, seed, width, height)
    boxes = [
        (names[0], "Infiltrate", "225.084745762712,547.019216763771,86.7796610169491,79.1864406779661"),
        (names[0], "Mass", "1,2,3,4,,,"),
        (names[1], "Atelectasis", "512,256,128,64"),
        (names[2], "Mass", "1000,0,100,10"),
        (names[3], "Nodule", "1030,1030,5,5"),
        (names[4], "Mass", "1,1,5,5"),
        (names[5], "Hernia", "1,1,-5,5"),
        (names[5], "Cyst", "1,1,5,5"),
        ("99999999_000.png", "Mass", "1,1,5,5"),
    ]
    lines(root / "BBox_List_2017.csv", NIH_BOXES, *(",".join(row) for row in boxes))
    records = built(root, tmp_path / "out")
    first, second, third = (records[name].boxes for name in names[:3])
    exact = (225.084745762712, 547.019216763771, 86.7796610169491, 79.1864406779661)
    assert first == (Box("Infiltration", *exact), Box("Mass", 1, 2, 3, 4))
    assert second == (Box("Atelectasis", 128, 64, 32, 16),)
    assert third == (Box("Mass", 500, 0, 12, 5),)
    assert all(records[name].boxes == () for name in names[3:])
    truth = localisation_truth(records[names[1]], "Atelectasis")
    assert truth is not None and truth.sum() == 32 * 16 and truth[64, 128] and not truth[63, 128]
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    said = {(problem["file"], problem["reason"]) for problem in report["problems"] if problem["kind"] == "box"}
    for name, words in zip((*names[2:], names[5]), (
        "reaches beyond the photograph of 512 x 512: clipped", "lies outside of the photograph of 1024 x 1024",
        "it has a box of Mass, which its labels do not name", "-5 x 5 pixels, which holds nothing",
        "a box of 'Cyst', which is not a finding",
    ), strict=True):  # fmt: skip
        assert any(file == name and words in reason for file, reason in said), (name, words, said)
    assert any("1 box of 1 picture without a row" in note for note in report["sources"]["nih_chestxray14"]["notes"])


def test_nih_faults_are_set_aside_by_name(tmp_path: Path) -> None:
    root = tmp_path / "nih"
    nih(root)
    table = root / "Data_Entry_2017_v2020.csv"
    text = table.read_text().replace("00000002_000.png,", "00000002_000.png,Tumour|", 1)
    table.write_text(text + "00000050_000.png,Mass,0,,58,M,PA,1,1,1,1\n00000051_000.png,Mass\n")
    radiograph(root / "images_001" / "images" / "00000050_000.png", 1)
    shared = [line for line in (root / "train_val_list.txt").read_text().split() if line.startswith("00000003")]
    with (root / "test_list.txt").open("a") as file:
        file.write("".join(f"{name}\n" for name in (shared[0], "88888888_000.png")))
    records = built(root, tmp_path / "out", split="official")
    said = told(tmp_path / "out")
    assert "none of the 14 findings" in said["00000002_000.png"]
    assert "stands in both train_val_list.txt and test_list.txt" in said["patient 3"]
    assert not [name for name in records if name.startswith("00000003")]
    assert "names no patient" in said["00000050_000.png"]
    assert any("2 cells under 11 columns" in reason for reason in said.values())
    notes = json.loads((tmp_path / "out" / "report.json").read_text())["sources"]["nih_chestxray14"]["notes"]
    assert "test_list.txt: 1 picture without a row in Data_Entry_2017_v2020.csv" in notes


def test_rare_findings_stand_in_every_split_and_patients_in_one(tmp_path: Path) -> None:
    root = tmp_path / "nih"
    patients = range(1, 121)
    rows = [
        (f"{p:08d}_{i:03d}.png", "Hernia" if p % 12 == 0 else "No Finding", str(p)) for p in patients for i in (0, 1)
    ]
    lines(root / "Data_Entry_2017_v2020.csv", nih_header(), *(nih_row(*row) for row in rows))
    for seed, (name, _, _) in enumerate(rows):
        radiograph(root / name, seed, 8, 8)
    found = SOURCES["nih_chestxray14"].read(root)
    assert found is not None
    records = found.records
    assign_groups(records)
    assign_splits(records, BuildSettings())
    by_group = {record.group: {r.split for r in records if r.group == record.group} for record in records}
    assert len(by_group) == 120 and all(len(splits) == 1 for splits in by_group.values())
    counts = pd.Series([record.split for record in records if record.labels["Hernia"]]).value_counts()
    assert abs(counts["train"] - 15) <= 2 and abs(counts["val"] - 2) <= 2 and abs(counts["test"] - 3) <= 2
    assert counts.min() >= 2


def chexpert(root: Path) -> None:
    top = root / "CheXpert-v1.0-small"
    rows = [
        ("train/patient00001/study1/view1_frontal.jpg", "1.0,,,,,,,,,0.0,,,,1.0"),
        ("train/patient00002/study1/view1_frontal.jpg", ",,-1.0,1.0,,-1.0,0,,,,,,1.0,"),
        ("train/patient00002/study1/view2_lateral.jpg", ",,2,,,,,,,,,,,"),
        ("train/patient00003/study1/view1_frontal.jpg", ",,,,,,,,,,,,,"),
    ]
    made = [cells(f"CheXpert-v1.0-small/{path}", "Female", 68, "Frontal", "AP") + f",{rest}" for path, rest in rows]
    lines(top / "train.csv", CHEXPERT_COLUMNS, *made)
    valid = ["valid/patient64541/study1/view1_frontal.jpg", "valid/patient64542/study1/view1_frontal.jpg"]
    zeros = ",".join(["0.0", "1.0", "1.0", *["0.0"] * 11])
    lines(top / "valid.csv", CHEXPERT_COLUMNS,
          *(f"CheXpert-v1.0-small/{path},Male,73,Frontal,AP,{zeros}" for path in valid))  # fmt: skip
    for seed, path in enumerate([path for path, _ in rows[:3]] + valid):
        radiograph(top / path, seed, 39, 32)


def test_chexpert_states_uncertain_and_unstated_apart(tmp_path: Path) -> None:
    chexpert(tmp_path / "data")
    records = built(tmp_path / "data", tmp_path / "out", split="official")
    healthy = records["patient00001/study1/view1_frontal.jpg"].labels
    assert healthy["No Finding"] is True and healthy["Support Devices"] is True and healthy["Edema"] is False
    assert records["patient00002/study1/view1_frontal.jpg"].labels == {
        "Cardiomegaly": None, "Lung Opacity": True, "Edema": None, "Consolidation": False, "Fracture": True,
    }  # fmt: skip
    said = told(tmp_path / "out")
    assert "its label Cardiomegaly is '2'" in next(reason for file, reason in said.items() if "view2" in file)
    assert "not on disk" in next(reason for file, reason in said.items() if "patient00003" in file)
    assert {name.split("/")[0]: record.split for name, record in records.items()} == {
        "patient00001": "train", "patient00002": "train", "patient64541": "val", "patient64542": "val",
    }  # fmt: skip


def test_masks_of_chexlocalize_come_to_the_pictures_that_are_there(tmp_path: Path) -> None:
    """Oracle: the mask is a rectangle that the small picture shows at half its size."""
    chexpert(tmp_path / "data")
    mask = np.zeros((64, 78), dtype=bool)
    mask[10:30, 20:60] = True
    lesion = {"size": [64, 78], "counts": encode_run_lengths(mask)}
    empty = {"size": [64, 78], "counts": encode_run_lengths(np.zeros_like(mask))}
    wide = {"size": [64, 128], "counts": encode_run_lengths(np.ones((64, 128), dtype=bool))}
    file = tmp_path / "data" / "CheXlocalize" / "gt_segmentations_val.json"
    file.parent.mkdir()
    listed = {
        "patient64541_study1_view1_frontal": {"Airspace Opacity": lesion, "Cardiomegaly": lesion, "Edema": empty},
        "patient64542_study1_view1_frontal": {"Cardiomegaly": wide},
        "patient99999_study1_view1_frontal": {"Cardiomegaly": lesion},
    }
    file.write_text(json.dumps(listed))
    records = built(tmp_path / "data", tmp_path / "out")
    record = records["patient64541/study1/view1_frontal.jpg"]
    assert list(record.label_masks) == ["Lung Opacity", "Cardiomegaly"]
    expected = np.zeros((32, 39), dtype=bool)
    expected[5:15, 10:30] = True
    assert (decode_run_lengths(record.label_masks["Cardiomegaly"], 32, 39) == expected).all()
    truth = localisation_truth(record, "Cardiomegaly")
    assert truth is not None and (truth == expected).all()
    assert localisation_truth(record, "Lung Opacity") is None, "its label says that it is absent"
    said = told(tmp_path / "out")
    assert "it was drawn on 128 x 64" in said["patient64542/study1/view1_frontal.jpg"]
    file.write_text("[1]")
    with pytest.raises(Exception, match="not the masks of CheXlocalize"):
        build_manifest(tmp_path / "data", tmp_path / "again")


@pytest.mark.parametrize("layout", ["physionet", "kaggle"])
def test_vindr_joins_what_several_radiologists_say(tmp_path: Path, layout: str) -> None:
    root = tmp_path / "vindr"
    rows = [
        ("a", "Cardiomegaly", "R1", "1,2,11,22"), ("a", "Cardiomegaly", "R2", "2,2,10,20"),
        ("a", "Nodule/Mass", "R2", "5,5,4,9"), ("a", "No finding", "R3", ",,,"),
        ("b", "No finding", "R1", ",,,"), ("b", "No finding", "R2", ",,,"), ("b", "No finding", "R3", ",,,"),
    ]  # fmt: skip
    for seed, name in enumerate("ab"):
        radiograph(root / "train" / f"{name}.png", seed, 40, 30)
    if layout == "kaggle":
        lines(root / "train.csv", "image_id,class_name,class_id,rad_id,x_min,y_min,x_max,y_max",
              *(f"{image},{name},0,{who},{edges}" for image, name, who, edges in rows))  # fmt: skip
        lines(root / "train_meta.csv", "image_id,dim0,dim1", "a,60,80", "b,60,80")
    else:
        folder = root / "annotations"
        lines(folder / "annotations_train.csv", "image_id,rad_id,class_name,x_min,y_min,x_max,y_max",
              *(f"{image},{who},{name},{edges}" for image, name, who, edges in rows))  # fmt: skip
        global_rows = ["a,R1,1,0,0,0", "a,R2,1,1,0,0", "a,R3,0,0,0,1", "b,R1,0,0,0,1", "b,R2,0,0,x,1"]
        lines(
            folder / "image_labels_train.csv", "image_id,rad_ID,Cardiomegaly,Nodule/Mass,COPD,No finding", *global_rows
        )
    records = built(root, tmp_path / "out")
    assert {name: {label for label, said in record.labels.items() if said} for name, record in records.items()} == {
        "a.png": {"Cardiomegaly", "Nodule/Mass"}, "b.png": set(),
    }  # fmt: skip
    record = records["a.png"]
    scale = 0.5 if layout == "kaggle" else 1
    assert record.boxes == (
        Box("Cardiomegaly", 1 * scale, 2 * scale, 10 * scale, 20 * scale),
        Box("Cardiomegaly", 2 * scale, 2 * scale, 8 * scale, 18 * scale),
    )
    assert record.fields == {"radiologists": 3, "named by": {"Cardiomegaly": 2, "Nodule/Mass": 1}}
    assert NO_PATIENT in record.flags
    assert record.official_split == (None if layout == "kaggle" else "train")
    said = told(tmp_path / "out")
    assert "-1 x 4 pixels" in said["a"] and (layout == "kaggle" or "COPD is 'x'" in said["b"])


def test_rsna_boxes_and_the_patients_behind_them(tmp_path: Path) -> None:
    root = tmp_path / "rsna"
    rows = [
        "p1,264.0,152.0,213.0,379.0,1",
        "p1,562,152,256,453,1",
        "p2,,,,,0",
        "p3,1,1,5,5,0",
        "p4,,,,,maybe",
        "p5,,,,,1",
    ]
    lines(root / "stage_2_train_labels.csv", "patientId,x,y,width,height,Target", *rows)
    lines(root / "stage_2_detailed_class_info.csv", "patientId,class", "p1,Lung Opacity", "p2,Normal")
    for seed, name in enumerate(("p1", "p2", "p3", "p4")):
        radiograph(root / "stage_2_train_images" / f"{name}.png", seed, 256, 256)
    records = built(root, tmp_path / "out")
    assert records["p1.png"].labels == {"Lung Opacity": True} and records["p2.png"].labels == {"Lung Opacity": False}
    assert records["p1.png"].boxes == (
        Box("Lung Opacity", 66, 38, 53.25, 94.75), Box("Lung Opacity", 140.5, 38, 64, 113.25),
    )  # fmt: skip
    assert records["p1.png"].fields == {"class": "Lung Opacity"} and records["p3.png"].boxes == ()
    said = told(tmp_path / "out")
    assert "there is no Lung Opacity" in said["p3"] and "Target is not 1 or 0" in said["p4"]
    assert "not on disk" in said["p5"] and all(NO_PATIENT in record.flags for record in records.values())
    mapping = [{"subset_img_id": f"p{n}", "img_id": f"{1 + n // 3:08d}_00{n}.png"} for n in range(1, 6)]
    (root / "pneumonia-challenge-dataset-mappings_2018.json").write_text(json.dumps(mapping))
    records = built(root, tmp_path / "out")
    assert [records[f"p{n}.png"].group for n in (1, 2, 3)] == ["nih-patient:1", "nih-patient:1", "nih-patient:2"]


def test_chest_pictures_that_look_alike_are_no_reason_to_join_patients(tmp_path: Path) -> None:
    """One picture saved at two qualities: of photographs this would be one, of radiographs it is two patients."""
    root = tmp_path / "nih"
    names = ["00000001_000.png", "00000002_000.png"]
    rows = [nih_row(name, "Mass", str(patient)) for patient, name in enumerate(names, 1)]
    lines(root / "Data_Entry_2017_v2020.csv", nih_header(), *rows)
    for name in names:
        radiograph(root / name, 1, 64, 64 + 2 * names.index(name))
    records = built(root, tmp_path / "out")
    assert len({record.group for record in records.values()}) == 2


def real(name: str) -> Path:
    package = pytest.importorskip("torchxrayvision", reason="the readers' oracle is an optional package")
    return Path(package.__file__).parent / "data" / name


@pytest.mark.slow
def test_the_real_tables_of_nih_are_read_as_torchxrayvision_reads_them(tmp_path: Path) -> None:
    """Every box of the real list and every label of its pictures, held against torchxrayvision's own reading."""
    torchxrayvision = pytest.importorskip("torchxrayvision", reason="the readers' oracle is an optional package")
    entries = pd.read_csv(real("Data_Entry_2017_v2020.csv.gz"), dtype=str)
    boxed = pd.read_csv(real("BBox_List_2017.csv.gz"))
    names = sorted({*boxed["Image Index"], *entries["Image Index"][:500]})
    root = tmp_path / "nih"
    entries[entries["Image Index"].isin(names)].to_csv(root.parent / "t.csv", index=False)
    root.mkdir()
    (tmp_path / "t.csv").rename(root / "Data_Entry_2017_v2020.csv")
    (root / "BBox_List_2017.csv").write_bytes(gzip.decompress(real("BBox_List_2017.csv.gz").read_bytes()))
    first = radiograph(root / names[0], 0, 16, 16)
    for name in names[1:]:
        (root / name).hardlink_to(first)
    found = SOURCES["nih_chestxray14"].read(root)
    assert found is not None and not found.problems
    oracle = torchxrayvision.datasets.NIH_Dataset(str(root), views=["PA", "AP"], unique_patients=False)
    rows = {name: row for row, name in enumerate(oracle.csv["Image Index"])}
    for record in found.records:
        labels = oracle.labels[rows[record.name]]
        stated = [float(record.labels[name.replace(" ", "_")]) for name in oracle.pathologies]
        assert stated == labels.tolist()
    boxes = [(r.name, b.label, b.left, b.top, b.width, b.height) for r in found.records for b in r.boxes]
    edges = boxed.iloc[:, 2:6].to_numpy()
    expected = [
        (name, label.replace("Infiltrate", "Infiltration"), *edge)
        for name, label, edge in zip(boxed["Image Index"], boxed["Finding Label"], edges.tolist(), strict=True)
    ]
    assert sorted(boxes) == sorted(expected) and len(boxes) == 984
