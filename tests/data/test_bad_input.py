"""Bad tables and pictures end in a clear message or a row that is set aside: no traceback, no lost row."""

from __future__ import annotations

import io
import json
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from clip_xai.data.images import ImageFacts, UnreadableImageError, inspect_image, read_image, read_reduced
from clip_xai.data.manifest import load_manifest
from clip_xai.data.manifest_builder import build_manifest
from clip_xai.data.record import SourceTable
from clip_xai.data.sources import SOURCES
from clip_xai.data.sources.captions_csv import read_all
from clip_xai.errors import UserError
from tests.data.publishers import (
    DDI2_COLUMNS,
    DDI_COLUMNS,
    HAM_COLUMNS,
    MIDAS_COLUMNS,
    PAD_COLUMNS,
    SKINCAP_COLUMNS,
    photograph,
    spreadsheet,
    table,
)

CLASSES = ["image", "MEL", "NV", "BCC", "AKIEC", "BKL", "DF", "VASC"]
ARCHIVE = ["isic_id", "diagnosis_1", "diagnosis_3", "lesion_id", "age_approx", "anatom_site_general"]
#: Source, file name, columns.
TABLES = [
    ("ham10000", "HAM10000_metadata.csv", HAM_COLUMNS),
    ("ham10000", "ISIC2018_Task3_Test_GroundTruth.csv", CLASSES),
    ("ham10000", "metadata.csv", ARCHIVE),
    ("pad_ufes_20", "metadata.csv", PAD_COLUMNS),
    ("mra_midas", "release_midas.csv", MIDAS_COLUMNS),
    ("ddi", "ddi_metadata.csv", DDI_COLUMNS),
    ("ddi2", "final_DDI2_Asian_spreadsheet.csv", DDI2_COLUMNS),
    ("skincap", "skincap_v240623.csv", SKINCAP_COLUMNS),
    ("csv", "captions.csv", ["image", "caption", "group", "split", "mask", "diagnosis", "other"]),
]
PICTURES = ["ISIC_0024306.jpg", "PAT_1_1_1.png", "s-prd-100000001.jpg", "000001.png", "502948221.jpg", "1.png"]
LIKELY = [
    *PICTURES, "ISIC_0024306", "ISIC_0024306.jpg.jpg", "../../secret.jpg", "/etc/passwd", "C:\\x.jpg",
    "\\\\host\\x", "nv",
    "MEL", "BCC", "melanoma", "nan", "NaN", "inf", "-1", "1.0", "0", "1e400", "UNK", "", " ", "\u00a0", "true",
    "malignant- other", "3, 4", "ddi", "a caption.", "<script>alert(1)</script>", "=cmd|x", "\u202egpj.1", "ü" * 300,
]  # fmt: skip

STRAYS = [b"\xff", b"\0", b'"', b",", b"\n", b"\r\n,,,", b"\t"]

cell = st.one_of(st.sampled_from(LIKELY), st.text(st.characters(exclude_categories=("Cs",)), max_size=12))


def read(name: str, root: Path) -> list[SourceTable]:
    if name == "csv":
        return read_all(root, tuple(SOURCES))
    found = SOURCES[name].read(root)
    return [found] if found is not None else []


def check(name: str, root: Path) -> None:
    """Every row becomes a record or a problem with a reason, and every record's file lies below the root."""
    try:
        tables = read(name, root)
    except UserError as error:
        assert len(str(error).splitlines()) == 1 and len(str(error)) > 20
        return
    for found in tables:
        left_out = sum(problem.kind in ("row", "missing") for problem in found.problems)
        assert len(found.records) + left_out == found.rows
        assert all(problem.reason and problem.file for problem in found.problems)
        for record in found.records:
            assert record.image.resolve().is_relative_to(root.resolve()) and record.image.is_file()
            assert record.mask is None or record.mask.resolve().is_relative_to(root.resolve())
            assert record.caption and record.references[0] == record.caption and record.keys
            assert len({item.identifier for item in found.records}) == len(found.records)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bad")
    photograph(folder / "secret.jpg")
    for name in PICTURES:
        photograph(folder / "data" / "set" / name)
    return folder / "data"


@settings(max_examples=500, deadline=None)
@given(st.sampled_from(TABLES), st.data())
def test_rows_of_any_content(folder: Path, kind: tuple[str, str, list[str]], data: st.DataObject) -> None:
    source, name, columns = kind
    rows = data.draw(st.lists(st.dictionaries(st.sampled_from(columns), cell, max_size=9), max_size=8))
    path = table(folder / "set" / name, columns, *rows)
    check(source, folder)
    path.unlink()


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(TABLES), st.data())
def test_tables_that_are_broken(folder: Path, kind: tuple[str, str, list[str]], data: st.DataObject) -> None:
    source, name, columns = kind
    path = table(folder / "set" / name, columns, {column: "x" for column in columns}, {columns[-1]: "y"})
    content = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 6))):
        place = data.draw(st.integers(0, max(0, len(content) - 1)))
        match data.draw(st.sampled_from(["cut", "byte", "insert", "drop", "twice"])):
            case "cut":
                del content[place:]
            case "byte" if content:
                content[place] = data.draw(st.integers(0, 255))
            case "insert":
                content[place:place] = data.draw(st.sampled_from(STRAYS))
            case "drop":
                del content[place : place + data.draw(st.integers(1, 40))]
            case "twice":
                content += content[: place + 1]
    path.write_bytes(content)
    check(source, folder)
    path.unlink()


@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=60), st.integers(0, 9000), st.booleans())
def test_spreadsheets_that_are_broken(folder: Path, noise: bytes, place: int, cut: bool) -> None:
    path = spreadsheet(folder / "set" / "release_midas.xlsx", MIDAS_COLUMNS, {"midas_file_name": "s-prd-100000001.jpg"})
    content = path.read_bytes()
    place %= len(content)
    path.write_bytes(content[:place] + noise + (b"" if cut else content[place + len(noise) :]))
    check("mra_midas", folder)
    path.unlink()


def test_a_spreadsheet_that_unpacks_to_too_much_is_refused(tmp_path: Path) -> None:
    import zipfile

    path = tmp_path / "release_midas.xlsx"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for part in range(6):
            archive.writestr(f"xl/{part}.xml", b"\0" * (100 * 2**20))
    assert path.stat().st_size < 2**20
    with pytest.raises(UserError, match="unpacks to"):
        read("mra_midas", tmp_path)


def pictures() -> dict[str, bytes]:
    draw = np.random.default_rng(0)
    image = Image.fromarray(draw.integers(0, 256, (24, 32, 3), dtype=np.uint8))
    kinds = {
        "jpg": ("JPEG", "RGB"), "cmyk": ("JPEG", "CMYK"), "png": ("PNG", "RGB"), "rgba": ("PNG", "RGBA"),
        "palette": ("PNG", "P"), "grey": ("PNG", "L"), "bilevel": ("PNG", "1"), "alpha": ("PNG", "LA"),
        "tif": ("TIFF", "RGB"), "float": ("TIFF", "F"), "bmp": ("BMP", "RGB"), "gif": ("GIF", "P"),
        "webp": ("WEBP", "RGB"),
    }  # fmt: skip
    exif = Image.Exif()
    exif[0x0112], exif[0x010E] = 6, "a patient's name"
    contents = {}
    for name, (kind, mode) in kinds.items():
        file = io.BytesIO()
        image.convert(mode).save(file, kind, **({"exif": exif} if kind in ("JPEG", "PNG", "TIFF", "WEBP") else {}))
        contents[name] = file.getvalue()
    return contents


CONTENTS = pictures()


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
@settings(max_examples=600, deadline=None)
@given(st.sampled_from(sorted(CONTENTS)), st.data())
def test_pictures_of_any_bytes(kind: str, data: st.DataObject) -> None:
    content = bytearray(CONTENTS[kind])
    for _ in range(data.draw(st.integers(0, 5))):
        # Headers are where the harm is done.
        near = data.draw(st.booleans())
        place = data.draw(st.integers(0, min(64, len(content)) if near else len(content)))
        match data.draw(st.sampled_from(["cut", "bytes", "insert", "drop"])):
            case "cut":
                del content[place:]
            case "bytes":
                some = data.draw(st.binary(min_size=1, max_size=8))
                content[place : place + len(some)] = some
            case "insert":
                content[place:place] = data.draw(st.binary(min_size=1, max_size=20))
            case "drop":
                del content[place : place + data.draw(st.integers(1, 30))]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "picture.jpg"
        path.write_bytes(content)
        outcomes = []
        for look in (inspect_image, read_image, lambda file: read_reduced(file, 8)):
            try:
                outcomes.append(look(path))
            except UnreadableImageError as error:
                assert str(error).startswith(f"{path}: ") and len(str(error).splitlines()) == 1
                outcomes.append(None)
    facts, image, _ = outcomes
    if isinstance(facts, ImageFacts) and image is not None:
        assert image.mode == "RGB" and (image.width, image.height) == (facts.width, facts.height) and not image.info
        assert len(facts.thumbnail) == 768 and 0 <= facts.phash < 2**64


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
@settings(max_examples=60, deadline=None)
@given(st.data())
def test_whole_builds_of_bad_input(data: st.DataObject) -> None:
    with tempfile.TemporaryDirectory() as place:
        root = Path(place) / "data"
        for name in PICTURES:
            photograph(root / "set" / name)
            if data.draw(st.booleans()):
                (root / "set" / name).write_bytes(
                    data.draw(st.sampled_from(sorted(CONTENTS.values())))[: data.draw(st.integers(0, 3000))]
                )
        for _, name, columns in data.draw(
            st.lists(st.sampled_from(TABLES), min_size=1, max_size=5, unique_by=lambda kind: kind[1])
        ):
            rows = data.draw(
                st.lists(st.dictionaries(st.sampled_from(columns), cell, min_size=2, max_size=9), max_size=8)
            )
            table(root / "set" / name, columns, *rows)
        try:
            manifest = build_manifest(root, Path(place) / "out")
        except UserError as error:
            assert len(str(error).splitlines()) == 1
            return
        report = json.loads((Path(place) / "out" / "report.json").read_text(encoding="utf-8"))
        for source in report["sources"].values():
            parts = ("photographs", "missing", "unreadable", "refused")
            assert sum(source[part] for part in parts) == source["rows"]
        assert len(load_manifest(manifest)) == report["photographs"]
        assert "<script>" not in (Path(place) / "out" / "report.html").read_text(encoding="utf-8")
