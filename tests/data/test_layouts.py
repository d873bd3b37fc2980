"""What the writers plan is what the adapters read back, through the publishers' own layouts."""

from __future__ import annotations

import hashlib
from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from clip_xai.data.images import read_image, read_mask
from clip_xai.data.record import Record
from clip_xai.data.sources import SOURCES
from clip_xai.data.synthetic.composition import Scene, sample_scene
from clip_xai.data.synthetic.dermacap import plan_dermacap, row_counts, write_dermacap
from clip_xai.data.synthetic.describe import describe
from clip_xai.data.synthetic.layouts import LAYOUTS
from clip_xai.data.synthetic.layouts.shared import PlannedPhotograph, photographed_again
from clip_xai.data.synthetic.scene import render
from clip_xai.data.vocabulary import load_vocabulary
from clip_xai.errors import UserError

SKIN = load_vocabulary("skin")

SIZE = {"scale": 0.01, "height": 96, "width": 128, "workers": 1}
FULL_ROWS = {"ham10000": 11720, "skincap": 4000, "mra_midas": 3416, "pad_ufes_20": 2298, "ddi2": 665, "ddi": 656}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dermacap")
    write_dermacap(folder, **SIZE)
    return folder


@pytest.fixture(scope="module")
def planned() -> list[PlannedPhotograph]:
    return plan_dermacap(scale=0.01)


@pytest.fixture(scope="module")
def records(root: Path) -> dict[str, Record]:
    tables = {name: source.read(root) for name, source in SOURCES.items() if source.subject == "skin"}
    assert all(tables.values())
    return {
        str(record.image.relative_to(root)): record for table in tables.values() if table for record in table.records
    }


def test_counts_are_a_tenth_of_dermacap() -> None:
    assert row_counts(0.1) == {
        "ham10000": 1172, "skincap": 400, "mra_midas": 342, "pad_ufes_20": 230, "ddi2": 67, "ddi": 66,
    }  # fmt: skip
    assert {name: layout.rows for name, layout in LAYOUTS.items()} == FULL_ROWS and sum(FULL_ROWS.values()) == 22755
    with pytest.raises(ValueError, match="without rows"):
        plan_dermacap(scale=0.0001)


def test_every_planned_photograph_is_read_back(planned: list[PlannedPhotograph], records: dict[str, Record]) -> None:
    on_disk = {photograph.path: photograph for photograph in planned if photograph.on_disk}
    assert set(records) == set(on_disk)
    for path, photograph in on_disk.items():
        record, scene = records[path], photograph.scene
        assert record.source == photograph.source and record.name == photograph.name
        assert record.diagnosis == photograph.diagnosis
        assert photograph.group in record.keys
        assert record.view == scene.view
        assert record.official_split == photograph.official_split
        # What a publisher's classes can tell: the scene's diagnosis, or the class above it, or (controls) nothing.
        if record.diagnosis is not None:
            assert record.diagnosis in (scene.diagnosis, SKIN.diagnoses[scene.diagnosis].parent)
            assert record.malignancy == SKIN.diagnoses[scene.diagnosis].malignancy
        else:
            assert photograph.source == "mra_midas"


def test_tables_count_and_lose_what_was_planned(root: Path, planned: list[PlannedPhotograph]) -> None:
    for name, source in ((name, source) for name, source in SOURCES.items() if source.subject == "skin"):
        table = source.read(root)
        mine = [photograph for photograph in planned if photograph.source == name]
        missing = [photograph.row for photograph in mine if not photograph.on_disk]
        assert table is not None and table.rows == len(mine) == row_counts(0.01)[name] and not table.unmapped
        assert [(problem.kind, problem.file) for problem in table.problems] == [
            ("missing", row["midas_file_name"]) for row in missing
        ]
    assert sum(not photograph.on_disk for photograph in planned) == 1


def test_most_of_ddi_is_in_skincap_byte_for_byte(
    root: Path, planned: list[PlannedPhotograph], records: dict[str, Record]
) -> None:
    copies = [photograph for photograph in planned if photograph.copy_of]
    assert len(copies) == 7 and {photograph.source for photograph in copies} == {"skincap"}
    for copy in copies:
        assert copy.copy_of is not None
        assert (root / copy.path).read_bytes() == (root / copy.copy_of).read_bytes()
        assert set(records[copy.path].keys) == set(records[copy.copy_of].keys)
        assert records[copy.path].caption == describe(copy.scene)[0]


def test_publishers_formats_are_kept(root: Path, records: dict[str, Record]) -> None:
    from PIL import Image

    kinds: dict[str, Counter] = {}
    for record in records.values():
        with Image.open(record.image) as image:
            kinds.setdefault(record.source, Counter())[image.format, image.mode] += 1
            assert image.size == (128, 96)
    assert set(kinds["ham10000"]) == {("JPEG", "RGB")} and set(kinds["ddi"]) == {("PNG", "RGB")}
    assert set(kinds["pad_ufes_20"]) == {("PNG", "RGB"), ("PNG", "RGBA")}
    names = [record.name for record in records.values() if record.source == "mra_midas"]
    assert any("_cropped" in name for name in names)


def test_masks_captions_and_structures_belong_to_the_scene(root: Path, planned: list[PlannedPhotograph]) -> None:
    rows = pd.read_parquet(root / "descriptions.parquet").set_index(["source", "image"])
    assert len(rows) == sum(photograph.on_disk for photograph in planned)
    for photograph in [one for one in planned if one.on_disk][::9]:
        row = rows.loc[(photograph.source, photograph.name)]
        assert tuple(row["captions"]) == describe(photograph.scene, 3) and len(set(row["captions"])) == 3
        drawn = render(photograph.scene, 96, 128)
        assert np.array_equal(read_mask(root / row["mask"]), drawn.lesion_mask)
        difference = np.asarray(read_image(root / photograph.path)).astype(int) - drawn.image
        assert np.abs(difference).mean() < 4  # JPEG's loss
        with np.load(root / photograph.structures) if drawn.structure_masks else np.load(_empty(root)) as structures:
            assert set(structures.files) == set(drawn.structure_masks)
            assert all(np.array_equal(structures[name], mask) for name, mask in drawn.structure_masks.items())


def _empty(root: Path) -> Path:
    np.savez(root / "empty.npz")
    return root / "empty.npz"


def test_a_second_call_writes_nothing_and_another_folder_gets_the_same_bytes(root: Path, tmp_path: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in root.rglob("*")}
    write_dermacap(root, **SIZE)
    assert {path: path.stat().st_mtime_ns for path in root.rglob("*")} == before
    # A folder that holds a killed or another miniature is written anew, in full.
    write_dermacap(tmp_path / "again", **{**SIZE, "scale": 0.002, "height": 64, "width": 64})
    write_dermacap(tmp_path / "again", **{**SIZE, "workers": 2})

    def digests(folder: Path) -> dict[str, str]:
        files = [path for path in folder.rglob("*") if path.is_file() and path.name not in ("empty.npz", ".lock")]
        return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}

    assert digests(tmp_path / "again") == digests(root)


def test_a_folder_with_something_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(UserError, match="something else"):
        write_dermacap(tmp_path, **SIZE)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_another_seed_draws_other_scenes_of_the_same_distribution() -> None:
    one, two = plan_dermacap(seed=0, scale=0.05), plan_dermacap(seed=1, scale=0.05)
    assert not {photograph.scene.seed for photograph in one} & {photograph.scene.seed for photograph in two}
    assert plan_dermacap(seed=0, scale=0.01) == plan_dermacap(seed=0, scale=0.01)
    for source in LAYOUTS:
        shares = [
            Counter(photograph.scene.diagnosis for photograph in plan if photograph.source == source)
            for plan in (one, two)
        ]
        assert set(shares[0]) == set(shares[1])
        for share in shares:  # Balanced over the classes that the publisher has.
            assert max(share.values()) < 2 * min(share.values())


def test_lesions_keep_their_facts_in_every_photograph() -> None:
    lesions: dict[tuple[str, str], list[Scene]] = {}
    for photograph in plan_dermacap(scale=0.02):
        if photograph.source in ("ham10000", "mra_midas"):
            lesions.setdefault((photograph.source, photograph.group), []).append(photograph.scene)
    several = [scenes for scenes in lesions.values() if len(scenes) > 1]
    assert len(several) > 20
    for scenes in several:
        assert (
            len({(s.diagnosis, s.colour, s.size, s.shape, s.border, s.fitzpatrick, s.structures) for s in scenes}) == 1
        )
        assert len({scene.seed for scene in scenes}) == len(scenes)


def test_a_turned_camera_turns_the_mask() -> None:
    scene = sample_scene(5, position="upper left", view="clinical")
    again = photographed_again(scene, seed=6, turns=1, view="dermoscopic")
    assert again.position == "upper right" and again.view == "dermoscopic"
    masks = [render(one, 96, 96).lesion_mask for one in (scene, again)]
    turned = np.rot90(masks[0], -1)  # clockwise
    assert (turned & masks[1]).sum() / (turned | masks[1]).sum() > 0.9
    assert photographed_again(scene, seed=6, turns=4).position == "upper left"
