"""Photographs of every kind are read as they look, or refused by name."""

from __future__ import annotations

import hashlib
import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from clip_xai.data import images
from clip_xai.data.images import UnreadableImageError, inspect_image, read_image, read_mask

RED_LEFT = np.zeros((20, 40, 3), np.uint8)
RED_LEFT[:, :20, 0] = 200
RED_LEFT[:, 20:, 2] = 120


def colours(image: Image.Image) -> tuple:
    pixels = np.asarray(image)
    return tuple(pixels[10, 5]), tuple(pixels[10, 35])


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "P", "CMYK"])
def test_every_mode_keeps_its_colours(tmp_path: Path, mode: str) -> None:
    path = tmp_path / ("a.jpg" if mode == "CMYK" else "a.png")
    image = Image.fromarray(RED_LEFT)
    image = image.quantize(4) if mode == "P" else image.convert(mode)
    assert image.mode == mode
    image.save(path, quality=100, subsampling=0) if mode == "CMYK" else image.save(path)
    read = read_image(path)
    assert read.mode == "RGB" and read.size == (40, 20)
    left, right = colours(read)
    np.testing.assert_allclose(left, (200, 0, 0), atol=6)
    np.testing.assert_allclose(right, (0, 0, 120), atol=6)


def test_sixteen_bits_become_eight(tmp_path: Path) -> None:
    ramp = np.linspace(0, 65535, 256).round().astype(np.uint16)[None].repeat(4, 0)
    Image.fromarray(ramp).save(tmp_path / "a.png")
    assert np.array_equal(np.asarray(read_image(tmp_path / "a.png"))[0, :, 1], np.arange(256))


def test_transparency_shows_white(tmp_path: Path) -> None:
    picture = Image.fromarray(RED_LEFT).convert("RGBA")
    picture.putalpha(Image.fromarray(np.where(np.arange(40) < 20, 255, 0).astype(np.uint8)[None].repeat(20, 0)))
    picture.save(tmp_path / "a.png")
    assert colours(read_image(tmp_path / "a.png")) == ((200, 0, 0), (255, 255, 255))


def test_rotation_is_applied_and_metadata_left_behind(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # The top of the scene is the right-hand side of the stored picture.
    exif[0x010E] = "a patient's name"
    Image.fromarray(RED_LEFT).save(tmp_path / "a.jpg", exif=exif, quality=95)
    read = read_image(tmp_path / "a.jpg")
    assert read.size == (20, 40)
    assert np.asarray(read)[5, 10, 0] > 150 and np.asarray(read)[35, 10, 2] > 80
    again = io.BytesIO()
    read.save(again, "JPEG")
    assert not read.info and b"patient" not in again.getvalue() and not Image.open(again).getexif()


def test_the_extension_does_not_matter(tmp_path: Path) -> None:
    Image.fromarray(RED_LEFT).save(tmp_path / "a.png")
    (tmp_path / "a.png").rename(tmp_path / "a.jpg")
    assert colours(read_image(tmp_path / "a.jpg")) == ((200, 0, 0), (0, 0, 120))


def test_damaged_files_are_refused_by_name(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    for ending in ("png", "jpg"):
        Image.fromarray(noise).save(tmp_path / f"whole.{ending}")
        content = (tmp_path / f"whole.{ending}").read_bytes()
        for share in (0.02, 0.3, 0.9):
            (tmp_path / f"cut.{ending}").write_bytes(content[: int(len(content) * share)])
            with pytest.raises(UnreadableImageError, match=f"cut.{ending}: "):
                read_image(tmp_path / f"cut.{ending}")
    strange = {"empty.jpg": b"", "text.png": b"no picture", "post.eps": b"%!PS-Adobe-3.0 EPSF-3.0\n"}
    for name, content in strange.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(UnreadableImageError, match=name):
            read_image(tmp_path / name)
    with pytest.raises(UnreadableImageError, match=r"absent\.jpg: no such file"):
        read_image(tmp_path / "absent.jpg")
    with pytest.raises(UnreadableImageError, match="cannot be opened"):
        read_image(tmp_path)


def test_a_decompression_bomb_is_refused_before_it_is_decoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Image.fromarray(RED_LEFT).save(tmp_path / "a.png")
    monkeypatch.setattr(images, "MAX_PIXELS", 799)
    with pytest.raises(UnreadableImageError, match="pixels are more than"):
        read_image(tmp_path / "a.png")


def test_facts_are_those_of_the_file(tmp_path: Path) -> None:
    Image.fromarray(RED_LEFT).save(tmp_path / "a.png")
    facts = inspect_image(tmp_path / "a.png")
    assert facts.sha256 == hashlib.sha256((tmp_path / "a.png").read_bytes()).hexdigest()
    assert (facts.height, facts.width) == (20, 40)


def test_masks_are_true_where_they_are_bright(tmp_path: Path) -> None:
    mask = np.zeros((6, 8), np.uint8)
    mask[2:4, 3:] = 255
    Image.fromarray(mask).save(tmp_path / "m.png")
    assert np.array_equal(read_mask(tmp_path / "m.png"), mask > 0)


@pytest.mark.parametrize("bits", [8, 10, 12, 14, 16])
def test_cameras_of_any_depth_are_equally_bright(bits: int, tmp_path: Path) -> None:
    shades = np.linspace(0.1, 0.9, 64)[None].repeat(32, 0)
    Image.fromarray(np.round(shades * (2**bits - 1)).astype(np.uint16)).save(tmp_path / "deep.png")
    assert np.abs(np.asarray(read_image(tmp_path / "deep.png"))[..., 0] / 255 - shades).max() < 0.005


@pytest.mark.parametrize("ending", ["tif", "gif", "png", "webp"])
def test_which_of_several_pictures_is_the_photograph_is_asked(ending: str, tmp_path: Path) -> None:
    one, two = Image.new("RGB", (8, 6), "red"), Image.new("RGB", (8, 6), "blue")
    one.save(tmp_path / f"two.{ending}", save_all=True, append_images=[two])
    one.save(tmp_path / f"one.{ending}")
    for reader in (read_image, inspect_image):
        with pytest.raises(
            UnreadableImageError, match=rf"two.{ending}: 2 pictures in one file, .* save that one alone"
        ):
            reader(tmp_path / f"two.{ending}")
        reader(tmp_path / f"one.{ending}")


def test_of_a_camera_s_several_views_the_first_is_the_photograph(tmp_path: Path) -> None:
    one, two = Image.new("RGB", (16, 16), "red"), Image.new("RGB", (16, 16), "blue")
    one.save(tmp_path / "a.jpg", format="MPO", save_all=True, append_images=[two])
    red, _, blue = read_image(tmp_path / "a.jpg").getpixel((8, 8))  # type: ignore[misc]
    assert red > 240 and blue < 15


def test_a_smaller_copy_in_a_tiff_is_not_a_second_photograph(tmp_path: Path) -> None:
    small = Image.new("RGB", (4, 3), "blue")
    small.encoderinfo = {"tiffinfo": {254: 1}}  # of the appended page alone
    Image.new("RGB", (8, 6), "red").save(tmp_path / "a.tif", save_all=True, append_images=[small])
    with Image.open(tmp_path / "a.tif") as opened:
        assert opened.n_frames == 2
    picture = read_image(tmp_path / "a.tif")
    assert picture.size == (8, 6) and picture.getpixel((0, 0)) == (255, 0, 0)
