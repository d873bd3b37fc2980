"""Rendered photographs say so wherever they are copied to, and no publisher is credited for them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from PIL import Image

from clip_xai.data.images import inspect_image
from clip_xai.data.manifest import load_manifest
from clip_xai.data.manifest_builder import build_manifest
from clip_xai.data.rendered_mark import MARK
from clip_xai.data.report import summary
from clip_xai.data.synthetic.dermacap import write_dermacap
from clip_xai.explanations.photographs import Photograph
from clip_xai.runs.lineage import Learned
from tests.data.publishers import DDI_COLUMNS, photograph, table


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("drawn") / "data"
    write_dermacap(root, scale=0.001, height=64, width=64, workers=1)
    return root


def test_every_rendered_photograph_says_so(drawn: Path, tmp_path: Path) -> None:
    records = load_manifest(build_manifest(drawn, tmp_path))
    assert len(records) > 10 and all(record.rendered for record in records)
    assert {record.image.suffix.lower() for record in records} == {".jpg", ".png"}
    assert {one.rendered for one in Learned.from_records(records)} == {
        one.photographs for one in Learned.from_records(records)
    }
    assert all(Photograph.of(record).facts["source"].endswith(" (rendered)") for record in records)
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["rendered"] == report["photographs"] == len(records)
    for name, source in report["sources"].items():
        assert source["rendered"] == source["photographs"] and source["title"] == f"{name} (rendered)"
        assert (source["licence"], source["terms"], source["expected"]) == ("", "", None)
    page = (tmp_path / "report.html").read_text()
    assert "All\nphotographs are rendered" in page and "CC BY" not in page and "Research Use Agreement" not in page
    assert "Counted as malignant here: actinic keratosis" in page and 'alt=""' not in page
    assert (
        "ham10000 (rendered)" in page
        and f"{len(records)} of them rendered" in summary(tmp_path / "manifest.parquet")[0]
    )


def test_the_mark_goes_with_a_copy_and_a_real_photograph_has_none(drawn: Path, tmp_path: Path) -> None:
    folder = tmp_path / "data" / "own"
    names = []
    for number, picture in enumerate([next(drawn.rglob("ISIC*.jpg")), next((drawn / "SkinCAP").rglob("*.png"))]):
        names.append(f"{number}{picture.suffix}")
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copy(picture, folder / names[-1])
    photograph(folder / "real.jpg")
    Image.open(folder / "real.jpg").save(folder / "said.jpg", comment=b"by the sea")
    Image.open(folder / names[0]).save(folder / "again.png")  # whoever saves it anew takes the mark away
    rows = [{"image": name, "caption": "One."} for name in (*names, "real.jpg", "said.jpg")]
    table(folder / "captions.csv", ["image", "caption"], *rows)
    records = load_manifest(build_manifest(folder.parent, tmp_path / "out"))
    assert [record.rendered for record in records] == [True, True, False, False]
    assert [record.shown_source for record in records] == ["own (rendered)"] * 2 + ["own"] * 2
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert (report["rendered"], report["sources"]["own"]["title"]) == (2, "own")
    page = (tmp_path / "out" / "report.html").read_text()
    assert "2\nphotographs are rendered" in page and "2 of 4 photographs are rendered" in page
    assert not inspect_image(folder / "again.png").rendered and MARK.startswith("rendered")


def test_real_photographs_in_the_place_of_rendered_ones_are_credited(drawn: Path, tmp_path: Path) -> None:
    root = tmp_path / "data"
    shutil.copytree(drawn, root)
    for path in (root / "ddidiversedermatologyimages").glob("*.png"):
        photograph(path)
    records = [record for record in load_manifest(build_manifest(root, tmp_path / "out")) if record.source == "ddi"]
    assert records and not any(record.rendered for record in records)
    source = json.loads((tmp_path / "out" / "report.json").read_text())["sources"]["ddi"]
    assert source["licence"].startswith("Stanford") and source["title"] == "Diverse Dermatology Images (DDI)"


def test_a_drawing_of_an_earlier_version_counts_as_rendered(tmp_path: Path) -> None:
    root = tmp_path / "data"
    table(root / "ddi" / "ddi_metadata.csv", DDI_COLUMNS, {"DDI_file": "000001.png", "disease": "melanoma"})
    photograph(root / "ddi" / "000001.png")
    told = {"seed": 0, "scale": 0.1, "height": 192, "width": 256, "code": "0", "complete": True}
    (root / "dermacap.json").write_text(json.dumps(told))
    for place in (root, root / "ddi"):
        (record,) = load_manifest(build_manifest(place, tmp_path / place.name / "out"))
        assert record.rendered
    (root / "dermacap.json").write_text("{}")
    (record,) = load_manifest(build_manifest(root, tmp_path / "out"))
    assert not record.rendered
