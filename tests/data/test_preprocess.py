"""The evaluation transform against open_clip's own, and its geometry against planted answers."""

from __future__ import annotations

import io
import json
from dataclasses import asdict

import numpy as np
import open_clip
import pytest
import torch
from PIL import Image
from torchvision.transforms import Resize

from clip_xai.data.preprocess import Geometry, Preprocess

SIZES = [(301, 200), (200, 301), (96, 96), (97, 640), (640, 97), (50, 33), (33, 96)]


def photograph(width: int, height: int, encoding: str = "PNG") -> Image.Image:
    rng = np.random.default_rng(width * 1000 + height)
    coarse = Image.fromarray(rng.integers(0, 256, (height // 8 + 2, width // 8 + 2, 3), dtype=np.uint8))
    noise = rng.integers(-20, 20, (height, width, 3))
    pixels = np.clip(np.asarray(coarse.resize((width, height))).astype(int) + noise, 0, 255).astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, encoding)
    return Image.open(file).convert("RGB")


@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
@pytest.mark.parametrize("resize", ["shortest", "longest", "squash"])
def test_equals_open_clip_bit_for_bit(resize: str, interpolation: str) -> None:
    for width, height in SIZES:
        for encoding in ("PNG", "JPEG"):
            image = photograph(width, height, encoding)
            ours = Preprocess(96, resize, interpolation)
            theirs = open_clip.image_transform(
                96, is_train=False, mean=ours.mean, std=ours.std, resize_mode=resize, interpolation=interpolation
            )
            assert torch.equal(ours(image), theirs(image)), (width, height, encoding)


@pytest.mark.parametrize(("width", "height"), [(100, 339), (339, 100)])
def test_each_side_is_measured_by_its_own_scale(width: int, height: int) -> None:
    """The longer side is rounded to whole pixels, so that the two scales differ; torchvision says what it becomes."""
    resized = Resize(30)(Image.new("RGB", (width, height)))
    box = Preprocess(30).geometry(width, height)
    edges = {"x": (width, resized.width, box.left, box.right), "y": (height, resized.height, box.top, box.bottom)}
    assert width / resized.width != height / resized.height
    for full, new, first, last in edges.values():
        start = round((new - 30) / 2)  # torchvision's centre crop
        assert (first / full, last / full) == pytest.approx((start / new, (start + 30) / new))


def test_a_planted_square_is_placed_where_it_stands_on_the_photograph() -> None:
    # A bright square of 30 x 30 at (x 150..180, y 60..90) of a 300 x 200 photograph.
    pixels = np.full((200, 300, 3), 20, np.uint8)
    pixels[60:90, 150:180] = 250
    planted = torch.zeros(200, 300, dtype=torch.bool)
    planted[60:90, 150:180] = True
    for resize in ("shortest", "longest", "squash"):
        preprocess = Preprocess(96, resize, mean=(0, 0, 0), std=(1, 1, 1))
        seen = preprocess(Image.fromarray(pixels)).mean(0)
        patches = seen.reshape(8, 12, 8, 12).mean((1, 3))
        geometry = preprocess.geometry(300, 200)
        brightest = (patches == patches.max()).float()
        placed = geometry.place(brightest)
        y, x = divmod(int(placed.nan_to_num(-1).argmax()), 300)
        assert planted[y, x], resize
        # And the other way: the cell that the mask covers most is the cell that looks brightest.
        coverage = geometry.locate(planted, 8)
        assert coverage.argmax() == patches.argmax()
        brightness = (patches - patches[patches > 0.05].min()) / (patches.max() - patches[patches > 0.05].min())
        assert (coverage / coverage.max() - brightness).abs()[coverage > 0].max() < 0.15


def test_the_box_of_a_wide_photograph_is_its_central_square() -> None:
    geometry = Preprocess(96).geometry(256, 192)
    assert (geometry.left, geometry.top, geometry.right, geometry.bottom) == (32, 0, 224, 192)
    placed = geometry.place(torch.ones(8, 8))
    assert placed.shape == (192, 256)
    assert placed[:, :32].isnan().all() and placed[:, 224:].isnan().all()
    assert (placed[:, 32:224] == 1).all()


def test_padding_lies_outside_of_the_picture() -> None:
    geometry = Preprocess(96, "longest").geometry(300, 200)
    assert geometry.top == -50 and geometry.bottom == 250 and geometry.left == 0 and geometry.right == 300
    assert not geometry.place(torch.rand(8, 8)).isnan().any()
    assert geometry.locate(torch.ones(200, 300), 6)[:, 0].tolist() == pytest.approx([0, 1, 1, 1, 1, 0])


@pytest.mark.parametrize("shape", [(7, 7), (4, 9)])
def test_place_equals_bilinear_interpolation(shape: tuple[int, int]) -> None:
    grid = torch.randn(2, 3, *shape, dtype=torch.float64)
    placed = Geometry(50, 60, 0, 0, 60, 50).place(grid)
    expected = torch.nn.functional.interpolate(grid, (50, 60), mode="bilinear", align_corners=False)
    torch.testing.assert_close(placed, expected)


def test_locate_equals_counting_subpixels() -> None:
    mask = torch.rand(40, 60) > 0.6
    geometry = Preprocess(96).geometry(60, 40)
    fine = mask[:, 10:50].repeat_interleave(7, 0).repeat_interleave(7, 1).float()  # 280 x 280 subpixels
    expected = fine.reshape(7, 40, 7, 40).mean((1, 3))
    torch.testing.assert_close(geometry.locate(mask, 7), expected)
    assert geometry.locate(mask, (2, 5)).shape == (2, 5)


def test_locate_refuses_the_mask_of_another_photograph() -> None:
    with pytest.raises(ValueError, match="photograph"):
        Preprocess(96).geometry(60, 40).locate(torch.ones(60, 40), 4)


def test_the_fingerprint_follows_every_setting_and_survives_json() -> None:
    settings = Preprocess(96)
    again = Preprocess(**json.loads(json.dumps(asdict(settings))))
    assert again == settings and again.fingerprint == settings.fingerprint
    changes: list[dict] = [{"image_size": 97}, {"resize": "squash"}, {"interpolation": "bilinear"}, {"mean": (0, 0, 0)}]
    others = [Preprocess(**{"image_size": 96, **change}) for change in changes]
    assert len({other.fingerprint for other in [settings, *others]}) == 5


@pytest.mark.parametrize("wrong", [{"resize": "crop"}, {"interpolation": "nearest"}, {"image_size": 0}])
def test_wrong_settings_are_refused(wrong: dict) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        Preprocess(**wrong)
