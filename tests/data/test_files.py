"""Only regular files of a sane size and shape are read; whatever else lies there is left out by name."""

from __future__ import annotations

import json
import logging
import os
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, features

from clip_xai.data import regular
from clip_xai.data.images import UnreadableImageError, inspect_image, read_image
from clip_xai.data.manifest import load_manifest
from clip_xai.data.manifest_builder import build_manifest
from clip_xai.data.preprocess import Preprocess
from clip_xai.data.regular import NoFileError, read_regular
from clip_xai.data.sources import SOURCES
from clip_xai.data.sources.captions_csv import read_all
from clip_xai.errors import UserError
from clip_xai.explanations.photographs import photographs_at
from tests.data.publishers import DDI_COLUMNS, photograph, table


def strange(folder: Path) -> dict[str, str]:
    """Make what is not a file; name -> what is to be said of it."""
    folder.mkdir(parents=True, exist_ok=True)
    os.mkfifo(folder / "pipe.jpg")
    (folder / "zero.jpg").symlink_to("/dev/zero")
    (folder / "loop.jpg").symlink_to("loop.jpg")
    (folder / "nowhere.jpg").symlink_to("gone.jpg")
    (folder / "folder.jpg").mkdir()
    (folder / "shut.jpg").write_bytes(b"")
    return {
        "pipe.jpg": "pipe",
        "zero.jpg": "device",
        "loop.jpg": "symbolic links",
        "nowhere.jpg": "nowhere",
        "folder.jpg": "folder",
    }


def test_what_is_no_file_is_refused_at_once(tmp_path: Path) -> None:
    for name, said in strange(tmp_path).items():
        with pytest.raises(NoFileError, match=said):
            read_regular(tmp_path / name)
        with pytest.raises(UnreadableImageError, match=f"{name}: cannot be opened"):
            read_image(tmp_path / name)
    with pytest.raises(FileNotFoundError):
        read_regular(tmp_path / "gone.jpg")


def test_a_file_of_too_many_bytes_is_not_read(tmp_path: Path) -> None:
    with (tmp_path / "large.jpg").open("wb") as file:
        file.truncate(regular.MAX_BYTES + 1)  # holes: it takes no space
    with pytest.raises(UnreadableImageError, match="536,870,913 bytes are more than"):
        inspect_image(tmp_path / "large.jpg")
    with pytest.raises(NoFileError, match="4 bytes are more than 3"):
        read_regular(photographed(tmp_path, b"abcd"), most=3)


def photographed(folder: Path, content: bytes) -> Path:
    (folder / "content").write_bytes(content)
    return folder / "content"


def test_a_build_goes_on_beside_what_is_no_file(tmp_path: Path) -> None:
    folder = tmp_path / "data" / "own"
    names = strange(folder)
    photograph(folder / "a.jpg")
    (folder / "itself").symlink_to("itself")
    (folder / "above").symlink_to(folder)
    rows = [{"image": name, "caption": "One."} for name in ("a.jpg", *names)]
    table(folder / "captions.csv", ["image", "caption"], *rows)
    (record,) = load_manifest(build_manifest(folder.parent, tmp_path / "out"))
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert record.name == "a.jpg" and {problem["file"] for problem in report["problems"]} == set(names)


@pytest.mark.parametrize("name", ["captions.csv", "ddi_metadata.csv", "descriptions.parquet", "captions.xlsx"])
def test_a_pipe_is_no_table(tmp_path: Path, name: str) -> None:
    root = tmp_path / "data"
    photograph(root / "own" / "a.jpg")
    if name == "descriptions.parquet":
        table(root / "own" / "captions.csv", ["image", "caption"], {"image": "a.jpg", "caption": "One."})
    os.mkfifo(root / name)
    with pytest.raises(UserError, match=rf"{name}: .*not a file but a pipe"):
        build_manifest(root, tmp_path / "out")


def png(path: Path, width: int, height: int, bits: int = 8, value: int = 0) -> Path:
    """Write a PNG of one value by hand; Pillow writes no 16 bits a colour."""
    pixel = struct.pack(">H", value) * 3 if bits == 16 else bytes([value] * 3)
    lines = (b"\0" + pixel * width) * height

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", width, height, bits, 2, 0, 0, 0)
    content = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(lines)) + chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + content)
    return path


@pytest.mark.parametrize(("width", "height"), [(1, 65535), (65535, 1), (20000, 199)])
def test_a_thin_picture_is_refused_before_it_takes_the_memory(tmp_path: Path, width: int, height: int) -> None:
    path = png(tmp_path / "thin.png", width, height)
    path.write_bytes(path.read_bytes()[:64])  # the header alone: whoever reads on meets another error
    for look in (inspect_image, read_image, Preprocess(224).read):
        with pytest.raises(UnreadableImageError, match=r"thin\.png: .* more than 100 times"):
            look(path)
    with pytest.raises(ValueError, match="more than 100 times"):
        Preprocess(224)(Image.new("RGB", (width, height)))
    assert Preprocess(8)(Image.new("RGB", (3, 300))).shape == (3, 8, 8)


@pytest.mark.parametrize(
    ("largest", "white"),
    [(255, 255), (4095, 4095), (65535, 65535), (1023, 1023), (4096, 16383), (16384, 65535), (200, 255)],
)
def test_eight_and_twelve_bits_in_sixteen(tmp_path: Path, largest: int, white: int) -> None:
    values = np.linspace(0, largest, 256).round().astype(np.uint16)[None].repeat(4, 0)
    Image.fromarray(values).save(tmp_path / "a.png")
    seen = np.asarray(read_image(tmp_path / "a.png"))[0, :, 0]
    np.testing.assert_allclose(seen, values[0] / white * 255, atol=0.51)


def test_twelve_bits_a_colour_are_not_black(tmp_path: Path) -> None:
    with pytest.raises(UnreadableImageError, match="12 bits or fewer"):
        read_image(png(tmp_path / "dark.png", 9, 9, 16, 4000))
    assert np.asarray(read_image(png(tmp_path / "fair.png", 9, 9, 16, 40000))).max() == 40000 >> 8
    assert np.asarray(read_image(png(tmp_path / "black.png", 9, 9, 8, 5))).max() == 5


@pytest.mark.parametrize(("ending", "library"), [("avif", "avif"), ("jp2", "jpg_2000"), ("gif", None)])
def test_further_formats_are_read(tmp_path: Path, ending: str, library: str | None) -> None:
    if library and not features.check(library):
        pytest.skip(f"this Pillow has no {library}")
    folder = tmp_path / "data" / "own"
    folder.mkdir(parents=True)
    Image.new("RGB", (32, 24), (200, 30, 30)).save(folder / f"a.{ending}")
    table(folder / "captions.csv", ["image", "caption"], {"image": f"a.{ending}", "caption": "One."})
    (record,) = load_manifest(build_manifest(folder.parent, tmp_path / "out"))
    assert (record.width, record.height) == (32, 24) and not [flag for flag in record.flags if "extension" in flag]


def test_image_names_a_folder_with_all_below_it(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for name in ("IMG_1.png", "b/IMG_1.png", "b/c/IMG_2.JPG", "__MACOSX/x.png", "b/._IMG_1.png"):
        photograph(tmp_path / name)
    for name in ("IMG_3.HEIC", "notes.txt"):
        (tmp_path / name).write_bytes(b"x")
    os.mkfifo(tmp_path / "pipe.png")
    with caplog.at_level(logging.WARNING):
        found = photographs_at(str(tmp_path))
    assert [one.name for one in found] == ["IMG_1.png", "b/IMG_1.png", "b/c/IMG_2.JPG"]
    assert len({one.group for one in found}) == 3 and [one.path for one in found] == [
        tmp_path / one.name for one in found
    ]
    assert "left out 3 files" in caplog.text
    assert all(name in caplog.text for name in ("IMG_3.HEIC", "notes.txt", "pipe.png"))
    caplog.clear()
    pattern = photographs_at(str(tmp_path / "**" / "IMG_*.png"))
    assert [one.name for one in pattern] == ["IMG_1.png", "b/IMG_1.png"] and not caplog.text
    assert [one.name for one in photographs_at(str(tmp_path / "b" / "c" / "IMG_2.JPG"))] == ["IMG_2.JPG"]


def test_a_namesake_in_another_folder_is_said(tmp_path: Path) -> None:
    for folder in ("a", "b"):
        photograph(tmp_path / folder / "000001.png")
    table(tmp_path / "ddi_metadata.csv", DDI_COLUMNS, {"DDI_file": "000001.png", "disease": "melanoma"})
    found = SOURCES["ddi"].read(tmp_path)
    assert found is not None and any("a/000001.png, not b/000001.png" in note for note in found.notes)


def test_a_stub_of_macos_is_no_photograph(tmp_path: Path) -> None:
    photograph(tmp_path / "own" / "._a.jpg")
    table(tmp_path / "own" / "captions.csv", ["image", "caption"], {"image": "a.jpg", "caption": "One."})
    (found,) = read_all(tmp_path, ())
    assert not found.records and found.problems[0].kind == "missing"


def test_no_command_hangs_on_a_pipe(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "captions.csv")
    code = f"from clip_xai.data.__main__ import main; main(['data.root={tmp_path}', 'data.output_dir={tmp_path}/o'])"
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2] / "src")}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, timeout=60)
    assert "not a file but a pipe" in done.stderr and done.stderr.count("\n") == 1
