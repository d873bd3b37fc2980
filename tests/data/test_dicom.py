"""DICOM files that pydicom wrote come out as a viewer shows them, with nothing else that they say."""

from __future__ import annotations

import hashlib
import io
import json
import logging
import sqlite3
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from PIL import Image
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.pixels import apply_voi_lut, get_decoder
from pydicom.uid import (
    MPEG2MPML,
    UID,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGLSLossless,
    RLELossless,
    SecondaryCaptureImageStorage,
)

from clip_xai.data.images import UnreadableImageError, inspect_image, read_image
from clip_xai.data.manifest import load_manifest
from clip_xai.data.manifest_builder import build_manifest
from tests.data.publishers import table

SECRETS = ("Doe^Jane", "19500101", "MRN-4711", "General Hospital", "1.2.826.0.1.3680043.8.498.1")
STUDY = SECRETS[-1]
STORED = np.random.default_rng(0).integers(0, 4096, (12, 20), dtype=np.uint16)


def written(path: Path, pixels: np.ndarray, syntax: str = ExplicitVRLittleEndian, **tags: Any) -> Path:
    """A file with a patient in it."""
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = UID(syntax)
    dataset.file_meta.MediaStorageSOPClassUID = SecondaryCaptureImageStorage
    dataset.file_meta.MediaStorageSOPInstanceUID = f"{STUDY}.9"
    dataset.SOPClassUID, dataset.SOPInstanceUID = SecondaryCaptureImageStorage, f"{STUDY}.9"
    dataset.PatientName, dataset.PatientBirthDate, dataset.PatientID, dataset.InstitutionName = SECRETS[:4]
    dataset.StudyInstanceUID = STUDY
    block = dataset.private_block(0x0011, "Doe^Jane", create=True)
    block.add_new(1, "LO", "MRN-4711")
    dataset.Rows, dataset.Columns = pixels.shape[:2]
    dataset.SamplesPerPixel = 3 if pixels.ndim == 3 else 1
    dataset.PhotometricInterpretation = "RGB" if pixels.ndim == 3 else "MONOCHROME2"
    if pixels.ndim == 3:
        dataset.PlanarConfiguration = 0
    dataset.BitsAllocated = dataset.BitsStored = pixels.dtype.itemsize * 8
    dataset.PixelRepresentation = int(pixels.dtype.kind == "i")
    content = tags.pop("content", pixels.tobytes())
    dataset.PixelData = encapsulate([content]) if UID(syntax).is_compressed else content
    for name, value in tags.items():
        setattr(dataset, name, value)
    dataset.HighBit = dataset.BitsStored - 1
    path.parent.mkdir(parents=True, exist_ok=True)
    dataset.save_as(path, enforce_file_format=True)
    return path


def seen(path: Path) -> np.ndarray:
    """What is shown, one channel of a grey picture."""
    pixels = np.asarray(read_image(path))
    assert (pixels == pixels[..., :1]).all()
    return pixels[..., 0].astype(int)


def levels(light: np.ndarray) -> np.ndarray:
    return np.round(np.clip(light, 0, 1) * 255).astype(int)


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ImplicitVRLittleEndian, RLELossless])
@pytest.mark.parametrize("bits", [12, 16])
def test_grey_pictures_are_stretched_where_no_window_is_stated(tmp_path: Path, syntax: str, bits: int) -> None:
    pixels = STORED * np.uint16(2 ** (bits - 12))
    path = written(tmp_path / "a.dcm", pixels, ExplicitVRLittleEndian if syntax == RLELossless else syntax,
                   BitsStored=bits)  # fmt: skip
    if syntax == RLELossless:
        dataset = pydicom.dcmread(path)
        dataset.compress(RLELossless)
        dataset.save_as(path)
    low, high = float(pixels.min()), float(pixels.max())
    assert (seen(path) == levels((pixels - low) / (high - low))).all()


def test_eight_bits_are_shown_as_they_are(tmp_path: Path) -> None:
    pixels = (STORED // 32).astype(np.uint8)  # to 127: a dark picture stays dark
    assert (seen(written(tmp_path / "a.dcm", pixels)) == pixels).all()


def test_monochrome1_is_inverted(tmp_path: Path) -> None:
    pixels = (STORED // 16).astype(np.uint8)
    path = written(tmp_path / "a.dcm", pixels, PhotometricInterpretation="MONOCHROME1")
    assert (seen(path) == 255 - pixels.astype(int)).all()


@pytest.mark.parametrize("function", ["LINEAR", "LINEAR_EXACT", "SIGMOID", None])
@pytest.mark.parametrize("centre, width", [(1000, 500), ([1000.5, 7], [300, 9]), (40, 1)])
def test_windows_are_those_of_pydicom(tmp_path: Path, function: str | None, centre: Any, width: Any) -> None:
    """Oracle: pydicom's own windows, which give the range of the stored bits."""
    tags: dict[str, Any] = {"WindowCenter": centre, "WindowWidth": width, "RescaleSlope": 2, "RescaleIntercept": -1024}
    if function:
        tags["VOILUTFunction"] = function
    path = written(tmp_path / "a.dcm", STORED, BitsStored=12, **tags)
    dataset = pydicom.dcmread(path)
    oracle = apply_voi_lut(STORED * 2.0 - 1024, dataset)
    oracle = (oracle + 1024) / (4095 * 2)
    assert np.abs(seen(path) - levels(oracle)).max() <= 1


def test_rescaled_pictures_without_a_window_are_stretched(tmp_path: Path) -> None:
    pixels = STORED.astype(np.int16) - 2048
    path = written(tmp_path / "a.dcm", pixels, RescaleSlope=0.5, RescaleIntercept=3)
    low, high = float(pixels.min()), float(pixels.max())
    assert (seen(path) == levels((pixels - low) / (high - low))).all()


def test_tables_take_the_place_of_windows(tmp_path: Path) -> None:
    """The table is turned upside down, so that no other way of showing it gives the same picture."""
    item = Dataset()
    item.LUTDescriptor = [4096, 0, 12]
    item.LUTData = np.arange(4095, -1, -1, dtype=np.uint16).tobytes()
    item["LUTData"].VR = "OW"
    path = written(tmp_path / "a.dcm", STORED, BitsStored=12, VOILUTSequence=[item], WindowCenter=1, WindowWidth=2)
    assert (seen(path) == levels((4095 - STORED.astype(float)) / 4095)).all()
    item.LUTDescriptor, item.ModalityLUTType = [4096, 0, 16], "US"
    modality = written(tmp_path / "b.dcm", STORED, BitsStored=12, ModalityLUTSequence=[item])
    turned = 4095 - STORED.astype(float)
    assert (seen(modality) == levels((turned - turned.min()) / (turned.max() - turned.min()))).all()


def test_padding_is_black_and_no_part_of_the_range(tmp_path: Path) -> None:
    pixels = STORED.clip(1000, 3000)
    pixels[:, :3] = 65535
    path = written(tmp_path / "a.dcm", pixels, PixelPaddingValue=65535, PhotometricInterpretation="MONOCHROME1")
    shown, inside = seen(path), pixels[:, 3:].astype(float)
    assert (shown[:, :3] == 0).all()
    assert (shown[:, 3:] == levels(1 - (inside - inside.min()) / (inside.max() - inside.min()))).all()


def test_colours_stay_what_they_are(tmp_path: Path) -> None:
    colours = np.random.default_rng(1).integers(0, 256, (16, 24, 3), dtype=np.uint8)
    assert (np.asarray(read_image(written(tmp_path / "a.dcm", colours))) == colours).all()
    deep = colours.astype(np.uint16) * 257
    assert (np.asarray(read_image(written(tmp_path / "b.dcm", deep))) == colours).all()
    planar = np.ascontiguousarray(colours.transpose(2, 0, 1))
    path = written(tmp_path / "c.dcm", colours, PlanarConfiguration=1, content=planar.tobytes())
    assert (np.asarray(read_image(path)) == colours).all()


def test_a_jpeg_inside_is_decoded_as_the_jpeg_itself(tmp_path: Path) -> None:
    colours = np.asarray(Image.effect_mandelbrot((32, 24), (-2, -1, 1, 1), 50).convert("RGB"))
    content = io.BytesIO()
    Image.fromarray(colours).save(content, "JPEG", quality=95)
    path = written(tmp_path / "a.dcm", colours, JPEGBaseline8Bit, PhotometricInterpretation="YBR_FULL_422",
                   content=content.getvalue())  # fmt: skip
    plain = np.asarray(Image.open(content)).astype(int)
    assert np.abs(np.asarray(read_image(path)).astype(int) - plain).mean() < 1.5


def test_a_palette_is_read_through(tmp_path: Path) -> None:
    numbers = (STORED % 4).astype(np.uint8)
    tags: dict[str, Any] = {"PhotometricInterpretation": "PALETTE COLOR"}
    palette = {"Red": [0, 65535, 0, 0], "Green": [0, 0, 65535, 0], "Blue": [0, 0, 0, 65535]}
    for name, values in palette.items():
        tags[f"{name}PaletteColorLookupTableDescriptor"] = [4, 0, 16]
        tags[f"{name}PaletteColorLookupTableData"] = np.array(values, dtype=np.uint16).tobytes()
    shown = np.asarray(read_image(written(tmp_path / "a.dcm", numbers, **tags)))
    assert (shown == np.array([[0, 0, 0], [255, 0, 0], [0, 255, 0], [0, 0, 255]])[numbers]).all()


def test_what_cannot_be_shown_is_refused_in_one_line(tmp_path: Path) -> None:
    pixels = (STORED // 16).astype(np.uint8)
    many = written(tmp_path / "many.dcm", pixels, NumberOfFrames=3, content=pixels.tobytes() * 3)
    film = written(tmp_path / "film.dcm", pixels, MPEG2MPML, content=b"\0" * 8)
    bare = written(tmp_path / "bare.dcm", pixels)
    dataset = pydicom.dcmread(bare)
    del dataset.PixelData
    dataset.save_as(bare)
    cut = written(tmp_path / "cut.dcm", pixels)
    cut.write_bytes(cut.read_bytes()[:-100])
    broken = tmp_path / "broken.dcm"
    broken.write_bytes(b"\0" * 128 + b"DICM" + b"Doe^Jane" * 9)
    large = written(tmp_path / "large.dcm", pixels, Rows=60000, Columns=60000)
    told = {
        many: "a DICOM file of 3 frames: save the one that is meant",
        film: "which no decoder reads: save it uncompressed",
        bare: "a DICOM file with no picture",
        cut: "cannot be decoded",
        broken: "DICOM file",
        large: "60000 x 60000 pixels are more than",
    }
    for syntax in (JPEGLSLossless, JPEG2000Lossless):
        if not get_decoder(UID(syntax)).is_available:
            told[written(tmp_path / f"{syntax}.dcm", pixels, syntax, content=b"\0" * 8)] = "no decoder is installed"
    for path, message in told.items():
        with pytest.raises(UnreadableImageError, match=message) as raised:
            read_image(path)
        assert "\n" not in str(raised.value) and not any(secret in str(raised.value) for secret in SECRETS)


def test_without_pydicom_it_is_said_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = written(tmp_path / "a.dcm", STORED)
    monkeypatch.setattr(sys, "path", [])
    monkeypatch.setattr(sys, "meta_path", [])
    monkeypatch.delitem(sys.modules, "pydicom")
    with pytest.raises(UnreadableImageError, match=r"install pydicom to read it, as in .*clip-xai\[dicom\]"):
        read_image(path)


def test_nothing_that_such_a_file_says_gets_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = tmp_path / "data" / "own"
    for number in range(6):
        pixels = np.random.default_rng(number).integers(0, 4096, (12, 20), dtype=np.uint16)
        study = f"{STUDY}.{number // 2}"
        written(folder / f"{number}.dcm", pixels, BitsStored=12, StudyInstanceUID=study, WindowCenter="Doe^Jane"[:0])
    broken = (folder / "5.dcm").read_bytes()
    (folder / "6.dcm").write_bytes(broken[:-99])
    (folder / "7.dcm").write_bytes(broken.replace(b"MONOCHROME2", b"Doe^Jane   "))
    rows = [{"image": f"{number}.dcm", "label": "a" if number % 2 else "b"} for number in range(8)]
    table(folder / "labels.csv", ["image", "label"], *rows)
    caplog.set_level(logging.DEBUG)
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        manifest = build_manifest(tmp_path / "data", tmp_path / "out")
    records = load_manifest(manifest)
    assert [record.name for record in records][:6] == [f"{number}.dcm" for number in range(6)]
    assert [record.group for record in records[:6]] == [f"dicom-study:{_hash(number // 2)}" for number in range(6)]
    assert records[0].fields == {"photometric interpretation": "MONOCHROME2"}
    assert (records[0].height, records[0].width) == (12, 20)
    said = caplog.text + " ".join(str(warning.message) for warning in warned)
    with sqlite3.connect(tmp_path / "out" / "inspected.sqlite") as base:
        said += json.dumps(base.execute("SELECT * FROM files").fetchall(), default=str)
    for path in (tmp_path / "out").rglob("*"):
        said += path.read_bytes().decode("latin-1")
    said += repr(records)
    assert not [secret for secret in SECRETS if secret in said]
    again = inspect_image(folder / "0.dcm")
    assert (again.format, again.photometric, again.study) == ("DICOM", "MONOCHROME2", _hash(0))
    read = read_image(folder / "0.dcm")
    assert not read.info and not read.getexif()


def _hash(number: int) -> str:
    return hashlib.sha256(f"{STUDY}.{number}".encode()).hexdigest()[:16]
