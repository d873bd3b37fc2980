"""From folders to a manifest: counted, checked, grouped, split, reported, and refused where it would leak."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from clip_xai.data.descriptions import SCHEMA
from clip_xai.data.locking import one_at_a_time
from clip_xai.data.manifest import load_manifest, write_manifest
from clip_xai.data.manifest_builder import build_manifest
from clip_xai.data.record import CONFLICT, Record
from clip_xai.data.settings import BuildSettings
from clip_xai.errors import UserError
from tests.data.publishers import DDI_COLUMNS, SKINCAP_COLUMNS, ham, photograph, table

SAMPLES = Path(os.environ.get("CLIP_XAI_SAMPLES", "samples"))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """HAM10000 with faults, and SkinCAP with one of DDI's photographs."""
    root = tmp_path / "data"
    ham(root / "ham10000", *({"image_id": f"ISIC_{index:07d}"} for index in range(24306, 24326)))
    first = root / "ham10000" / "HAM10000_images_part_1"
    (first / "ISIC_0024306.jpg").write_bytes(b"no picture")
    whole = (first / "ISIC_0024308.jpg").read_bytes()
    (first / "ISIC_0024308.jpg").write_bytes(whole[: len(whole) // 2])
    (first / "ISIC_0024310.jpg").unlink()
    (first / "ISIC_0024314.jpg").write_bytes((first / "ISIC_0024312.jpg").read_bytes())
    masks = root / "ham10000" / "HAM10000_segmentations_lesion_tschandl"
    masks.mkdir()
    Image.new("L", (16, 12), 255).save(masks / "ISIC_0024312_segmentation.png")
    Image.new("L", (9, 9), 255).save(masks / "ISIC_0024316_segmentation.png")
    photograph(root / "ddi" / "000001.png", seed=1)
    table(
        root / "ddi" / "ddi_metadata.csv",
        DDI_COLUMNS,
        {"DDI_file": "000001.png", "skin_tone": "12", "disease": "melanoma"},
    )
    # The same picture, but saved anew: only the publisher's key tells.
    photograph(root / "SkinCAP" / "skincap" / "1.png", seed=2)
    table(
        root / "SkinCAP" / "skincap_v240623.csv",
        SKINCAP_COLUMNS,
        {"skincap_file_path": "1.png", "ori_file_path": "000001.png", "source": "ddi", "disease": "eczema",
         "caption_zh_polish_en": "<b>A dark patch.</b>"},
    )  # fmt: skip
    return root


def test_faults_are_set_aside_by_name(root: Path, tmp_path: Path) -> None:
    records = load_manifest(build_manifest(root, tmp_path / "out"))
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert len(records) == report["photographs"] == 19
    ham_report = report["sources"]["ham10000"]
    assert (ham_report["rows"], ham_report["photographs"], ham_report["missing"], ham_report["unreadable"]) == (
        20,
        17,
        1,
        2,
    )
    named = {item["file"]: item for item in report["problems"]}
    assert named["ISIC_0024306.jpg"]["kind"] == named["ISIC_0024308.jpg"]["kind"] == "unreadable"
    assert named["ISIC_0024310.jpg"]["kind"] == "missing" and "9 x 9" in named["ISIC_0024316.jpg"]["reason"]
    assert [record.name for record in records if record.mask] == ["ISIC_0024312.jpg"]
    assert report["absent"] == ["pad_ufes_20", "mra_midas", "ddi2"]
    assert sum(sum(source["splits"].values()) for source in report["sources"].values()) == 19
    page = (tmp_path / "out" / "report.html").read_text()
    assert "ISIC_0024306.jpg" in page and str(root) not in page


def test_duplicates_share_a_group_and_conflicts_are_not_judged(root: Path, tmp_path: Path) -> None:
    records = {record.identifier: record for record in load_manifest(build_manifest(root, tmp_path / "out"))}
    one, two = records["ham10000/ISIC_0024312.jpg"], records["ham10000/ISIC_0024314.jpg"]
    assert one.group == two.group and one.sha256 == two.sha256
    assert (one.duplicate_of, two.duplicate_of) == (None, "ham10000/ISIC_0024312.jpg")
    ddi, skincap = records["ddi/000001.png"], records["skincap/1.png"]
    assert ddi.group == skincap.group and skincap.duplicate_of == "ddi/000001.png"
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert report["conflicts"] == [{"rows": ["ddi/000001.png", "skincap/1.png"], "diagnoses": ["melanoma", "eczema"]}]
    for seed in range(12):
        records = {
            r.identifier: r for r in load_manifest(build_manifest(root, tmp_path / "out", BuildSettings(seed=seed)))
        }
        assert CONFLICT in records["ddi/000001.png"].flags and CONFLICT in records["skincap/1.png"].flags
        assert records["ddi/000001.png"].split in ("train", None) and records["skincap/1.png"].split is None
        assert records["ddi/000001.png"].references == (records["ddi/000001.png"].caption,)


def test_the_manifest_is_a_plain_table(root: Path, tmp_path: Path) -> None:
    table = pd.read_parquet(build_manifest(root, tmp_path / "out"))
    assert {"image", "source", "group", "split", "caption", "references", "diagnosis", "malignancy", "mask", "sha256",
            "height", "width", "view", "fields"} <= set(table.columns)  # fmt: skip
    assert all((root / image).is_file() for image in table["image"])
    assert set(table["height"]) == {12} and set(table["width"]) == {16}
    assert json.loads(table.set_index("image")["fields"].iloc[0])["dx"] == "nv"


def test_a_second_call_does_nothing_until_something_changes(root: Path, tmp_path: Path) -> None:
    manifest = build_manifest(root, tmp_path / "out")
    written = manifest.stat().st_mtime_ns
    assert build_manifest(root, tmp_path / "out").stat().st_mtime_ns == written
    photograph(root / "ham10000" / "HAM10000_images_part_1" / "ISIC_0024306.jpg")
    assert len(load_manifest(build_manifest(root, tmp_path / "out"))) == 20
    written = manifest.stat().st_mtime_ns
    build_manifest(root, tmp_path / "out", BuildSettings(seed=1))
    assert manifest.stat().st_mtime_ns > written


def test_an_output_folder_below_the_root_does_not_disturb(root: Path) -> None:
    written = build_manifest(root, root / "out").stat().st_mtime_ns
    assert build_manifest(root, root / "out").stat().st_mtime_ns == written


def test_changes_below_the_root_are_noticed_beside_what_a_run_wrote(root: Path) -> None:
    for name in ("asked.json", "csv/captions.csv", "HAM10000_metadata.csv", "ISIC_0024310.jpg"):
        path = root / "runs" / "evaluate" / "2024" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("image,caption\na.jpg,not hers\n")
    records = load_manifest(build_manifest(root, root / "out"))
    report = json.loads((root / "out" / "report.json").read_text())
    assert len(records) == 19 and report["left_out"] == [os.path.join("runs", "evaluate", "2024")]
    (root / "features").mkdir()
    written = (root / "out" / "manifest.parquet").stat().st_mtime_ns
    (root / "features" / "part.npy").write_bytes(b"")
    assert build_manifest(root, root / "out").stat().st_mtime_ns == written
    photograph(root / "ham10000" / "HAM10000_images_part_1" / "ISIC_0024306.jpg")
    assert len(load_manifest(build_manifest(root, root / "out"))) == 20


def test_the_root_itself_is_no_output_folder(root: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(root)
    for folder in (root, tmp_path / "link", root / "ham10000" / ".."):
        with pytest.raises(UserError, match=r"is data\.root itself; .* data\.output_dir=.*data_manifest"):
            build_manifest(root, folder)


def test_a_folder_of_photographs_is_no_output_folder(root: Path) -> None:
    before = sorted(root.rglob("*"))
    with pytest.raises(UserError, match=r"ham10000 lies in data\.root and holds HAM10000_.*data_manifest"):
        build_manifest(root, root / "ham10000")
    assert sorted(root.rglob("*")) == before
    build_manifest(root, root / "new")
    build_manifest(root, root / "new")


def test_a_file_is_no_output_folder(root: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(UserError, match=r"file is a file, not a folder; name another.*file_manifest"):
        build_manifest(root, tmp_path / "file")
    for place in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(UserError, match="a part of its path is a file"), one_at_a_time(place):
            pass


def test_a_build_that_ended_early_still_owns_its_folder(root: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    whole = build_manifest(root, out).read_bytes()
    (out / "manifest.stamp").write_text("cut off")
    (out / "inspected.sqlite").write_text("no database")
    with pytest.raises(UserError, match=r"inspected\.sqlite cannot be used .*delete the file"):
        build_manifest(root, out)
    (out / "inspected.sqlite").unlink()  # as it says
    assert build_manifest(root, out).read_bytes() == whole


def test_what_is_left_out_is_counted_in_the_log(root: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    build_manifest(root, tmp_path / "out")
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    said = sorted(message.partition(";")[0] for message in caplog.messages if not message.startswith("of "))
    kinds = [(problem["source"], problem["kind"]) for problem in report["problems"]]
    assert said[0].startswith("ham10000: 1 mask that cannot be used")
    assert len(said) == len(set(kinds)) and all(
        any(f": {kinds.count(pair)} " in line for line in said) for pair in kinds
    )


@pytest.mark.parametrize("name", ["manifest.parquet", "report.json", "report.html"])
def test_a_file_of_somebody_else_is_not_overwritten(root: Path, tmp_path: Path, name: str) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / name).write_text("mine")
    with pytest.raises(UserError, match=f"holds a {name} that no build wrote"):
        build_manifest(root, tmp_path / "out")
    assert [path.read_text() for path in (tmp_path / "out").iterdir()] == ["mine"]


@pytest.mark.parametrize("name", ["manifest.parquet", "manifest.stamp", "report.json", "report.html"])
@pytest.mark.parametrize("content", [None, b"", b"\xff\0"])
def test_what_was_lost_or_damaged_is_written_again(
    root: Path, tmp_path: Path, name: str, content: bytes | None
) -> None:
    build_manifest(root, tmp_path / "out")
    damaged = tmp_path / "out" / name
    damaged.unlink()
    if content is not None:
        damaged.write_bytes(content)
    assert len(load_manifest(build_manifest(root, tmp_path / "out"))) == 19
    assert damaged.stat().st_size > 10


def test_a_users_own_captions_and_masks_come_first(root: Path, tmp_path: Path) -> None:
    Image.new("L", (16, 12), 255).save(root / "mine.png")
    rows = [
        {"source": "ham10000", "image": "ISIC_0024307.jpg", "captions": ["One.", " ", "Two."], "mask": "mine.png"},
        {"source": "ham10000", "image": "ISIC_0024309.jpg", "captions": None, "mask": "absent.png"},
        {"source": "ham10000", "image": "nobody.jpg", "captions": ["Three."], "mask": None},
    ]
    pq.write_table(pa.Table.from_pylist(rows, schema=SCHEMA), root / "descriptions.parquet")
    records = {record.name: record for record in load_manifest(build_manifest(root, tmp_path / "out"))}
    assert records["ISIC_0024307.jpg"].references == ("One.", "Two.")
    assert records["ISIC_0024307.jpg"].caption == "One." and records["ISIC_0024307.jpg"].mask == root / "mine.png"
    assert "nevus" in records["ISIC_0024309.jpg"].caption and records["ISIC_0024309.jpg"].mask is None
    problems = json.loads((tmp_path / "out" / "report.json").read_text())["problems"]
    assert {"nobody.jpg", "ISIC_0024309.jpg"} <= {problem["file"] for problem in problems}
    rows[0]["mask"] = "../../etc/passwd"
    pq.write_table(pa.Table.from_pylist(rows, schema=SCHEMA), root / "descriptions.parquet")
    with pytest.raises(UserError, match="leaves the data root"):
        build_manifest(root, tmp_path / "out")
    pq.write_table(pa.table({"image": ["a"]}), root / "descriptions.parquet")
    with pytest.raises(UserError, match="expected the columns source, image, captions, mask"):
        build_manifest(root, tmp_path / "out")


def rewritten(path: Path, **columns: str) -> Path:
    """Overwrite the first row of a manifest."""
    table = pq.read_table(path)
    rows = table.to_pylist()
    rows[0].update(columns)
    pq.write_table(pa.Table.from_pylist(rows, schema=table.schema), path)
    return path


def test_a_manifest_that_leaks_is_refused(root: Path, tmp_path: Path) -> None:
    manifest = build_manifest(root, tmp_path / "out")
    records = load_manifest(manifest)
    other = next(record for record in records if record.split == "test")
    with pytest.raises(UserError, match=r"1 group in more than one split, such as .* in test and train"):
        load_manifest(rewritten(manifest, split="train", group=other.group))


@pytest.mark.parametrize("image", ["../../etc/passwd", "/etc/passwd", "a/../../b.jpg", "..\\..\\b.jpg", "C:/b.jpg"])
def test_paths_cannot_leave_the_root(root: Path, tmp_path: Path, image: str) -> None:
    with pytest.raises(UserError, match="leaves the data root"):
        load_manifest(rewritten(build_manifest(root, tmp_path / "out"), image=image))


def test_a_manifest_comes_back_as_it_was_written_even_after_a_move(tmp_path: Path) -> None:
    record = Record(
        image=tmp_path / "a" / "b" / "ü 1.png", source="ddi", name="ü 1.png", group="g", diagnosis=None,
        malignancy=None,
        caption='"x", y', references=('"x", y', "z"), mask=tmp_path / "a" / "m.png", split="val", official_split="test",
        fields={"age": "5"}, sha256="f", height=3, width=4, view="dermoscopic", duplicate_of="ddi/2.png",
        keys=("g", "h"), skin_types=(3, 4), flags=("x",), fold=2,
    )  # fmt: skip
    write_manifest(tmp_path / "m.parquet", [record], tmp_path / "a")
    assert load_manifest(tmp_path / "m.parquet") == [record]
    moved = load_manifest(tmp_path / "m.parquet", root=tmp_path / "elsewhere")
    assert moved[0].image == tmp_path / "elsewhere" / "b" / "ü 1.png"


def test_what_is_no_manifest_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such manifest"):
        load_manifest(tmp_path / "absent.parquet")
    (tmp_path / "text.parquet").write_text("text")
    with pytest.raises(UserError, match="not a readable manifest"):
        load_manifest(tmp_path / "text.parquet")
    pq.write_table(pa.table({"image": ["a"]}), tmp_path / "other.parquet")
    with pytest.raises(UserError, match="not a manifest of this version"):
        load_manifest(tmp_path / "other.parquet")


def command(*arguments: str) -> subprocess.CompletedProcess:
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2] / "src")}
    return subprocess.run(
        [sys.executable, "-m", "clip_xai.data", *arguments],
        capture_output=True,
        text=True,
        env=environment,
        check=False,
    )


def test_the_command_says_in_one_line_what_is_wrong(tmp_path: Path) -> None:
    empty = command(f"data.root={tmp_path}", f"data.output_dir={tmp_path / 'out'}")
    assert empty.returncode == 1 and empty.stderr.count("\n") == 1 and not (tmp_path / "out").exists()
    for expected in ("HAM10000_metadata.csv", "skincap_v240623.csv", "release_midas.xlsx", "ddi_metadata.csv"):
        assert expected in empty.stderr
    for wrong in (
        ["data.roots=x"],
        ["data.root"],
        ["data.root=x"],
        ["data.root=x", "data.output_dir=y", "data.seed=one"],
        ["data.root=x", "data.output_dir=y", "data.captions=poem"],
        ["data.root=x", "data.output_dir=y", "data.fractions={train:much}"],
    ):
        failed = command(*wrong)
        assert failed.returncode == 1 and failed.stderr.startswith("error: ") and failed.stderr.count("\n") == 1


def test_tables_without_photographs_are_told_apart_from_nothing(tmp_path: Path) -> None:
    ham(tmp_path, {"image_id": "ISIC_0000001"}, images=False)
    with pytest.raises(UserError, match="tables of ham10000, but none of their photographs"):
        build_manifest(tmp_path, tmp_path / "out")


@pytest.mark.skipif(not SAMPLES.is_dir(), reason="CLIP_XAI_SAMPLES names no folder with real files")
def test_the_real_samples_become_a_manifest(tmp_path: Path) -> None:
    done = command(f"data.root={SAMPLES}", f"data.output_dir={tmp_path}")
    assert done.returncode == 0, done.stderr
    records = load_manifest(tmp_path / "manifest.parquet")
    assert len(records) == 18 and sum(record.mask is not None for record in records) == 3
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["sources"]["ham10000"]["missing"] == 11516 and report["sources"]["pad_ufes_20"]["missing"] == 2
    assert len((tmp_path / "report.html").read_text()) < 90_000
