from __future__ import annotations

import io

import numpy as np
import pytest
import torch
from PIL import Image

from clip_xai.data.preprocess import Geometry, Preprocess
from clip_xai.report.figures import (
    colour_bar,
    colours,
    data_uri,
    fitted,
    lookup_table,
    outlines,
    overlay,
    placed,
    scale_of,
    without_metadata,
)
from tests.report.planted import mask, photograph


@pytest.mark.parametrize(("width", "height"), [(256, 192), (90, 160), (640, 360)])
@pytest.mark.parametrize("cell", [(1, 6), (5, 2)])
def test_heat_of_a_patch_appears_where_the_patch_lies_on_the_whole_photograph(width, height, cell):
    picture = Image.new("RGB", (width, height), (200, 160, 140))
    grid = np.zeros((8, 8))
    grid[cell] = 3.0
    drawn = overlay(picture, placed(grid, Preprocess(96).geometry(width, height), picture), scale_of(grid))
    # By hand: the model saw the central square, so cell (r, c) is centred there.
    side = min(width, height)
    x = (width - side) / 2 + (cell[1] + 0.5) * side / 8
    y = (height - side) / 2 + (cell[0] + 0.5) * side / 8
    inside = np.zeros((height, width), bool)
    inside[(height - side) // 2 : (height + side) // 2, (width - side) // 2 : (width + side) // 2] = True
    change = np.abs(np.asarray(drawn).astype(float) - np.asarray(picture)).sum(axis=2) * inside
    change[change < 0.3 * change.max()] = 0
    rows, columns = np.indices(change.shape)
    assert abs((change * (columns + 0.5)).sum() / change.sum() - x) < side / 30
    assert abs((change * (rows + 0.5)).sum() / change.sum() - y) < side / 30


def test_what_the_model_did_not_see_is_hatched_and_unlike_a_low_value():
    picture = photograph()
    low = np.zeros((192, 256))
    unseen = low.copy()
    unseen[:, :32] = np.nan
    scale = scale_of(np.array([0.0, 1.0]))
    drawn = np.asarray(overlay(picture, unseen, scale)).astype(int)
    assert (np.asarray(overlay(picture, low, scale)) == np.asarray(picture)).all()
    margin = drawn[:, :32]
    assert (margin.max(axis=2) - margin.min(axis=2)).max() <= 1, "the margin is grey"
    assert len(np.unique(margin[0, :, 0].round(-1))) > 1, "and striped"
    assert (drawn[:, 32:] == np.asarray(picture)[:, 32:]).all()


def test_a_map_of_another_size_is_refused():
    with pytest.raises(ValueError, match="photograph"):
        overlay(photograph(), np.zeros((3, 4)), scale_of(np.ones(3)))


def test_scales_are_robust_percentiles_with_the_raw_ends_shown():
    values = np.r_[np.linspace(0, 1, 1000), 50.0]
    scale = scale_of(values)
    low, high = np.percentile(values, [1, 99])
    assert (scale.low, scale.high, scale.signed) == (pytest.approx(low), pytest.approx(high), False)
    assert scale.ends[1].startswith("≥") and "50" in scale.text and "99" in scale.text
    signed = scale_of(np.r_[values, -0.5])
    assert signed.signed and signed.low == -signed.high


def test_zero_is_clear_and_the_middle_of_a_signed_map():
    scale = scale_of(np.array([-2.0, 0.0, 1.0]))
    rgba = colours(np.array([[0.0, scale.high, scale.low, np.nan]]), scale, opacity=1.0)
    assert rgba[0, :, 3].tolist() == [0, 255, 255, 0]
    assert rgba[0, 1, :3].tolist() == lookup_table("PRGn")[255].tolist()
    assert rgba[0, 2, :3].tolist() == lookup_table("PRGn")[0].tolist()


def test_a_constant_map_is_said_to_be_one_and_colours_nothing():
    scale = scale_of(np.zeros((8, 8)))
    assert scale.flat and "no positive evidence" in scale.text
    assert (colours(np.zeros((4, 4)), scale)[..., 3] == 0).all()


def test_a_map_without_a_number_is_refused():
    with pytest.raises(ValueError, match="finite"):
        scale_of(np.full((2, 2), np.nan))


def test_the_sequential_legend_gets_steadily_more_opaque():
    bar = np.asarray(colour_bar(scale_of(np.linspace(0, 1, 101)), 100, 4, (200, 160, 140))).astype(int)
    assert (bar[0, 0] == [200, 160, 140]).all()
    assert np.abs(bar[0, -1] - [200, 160, 140]).sum() > 150


def test_placing_on_a_small_copy_is_placing_on_the_photograph_and_shrinking():
    geometry = Preprocess(96).geometry(640, 480)
    grid = np.random.default_rng(0).random((8, 8))
    small = placed(grid, geometry, Image.new("RGB", (320, 240)))
    whole = geometry.place(torch.from_numpy(grid)).numpy()
    centres = whole.reshape(240, 2, 320, 2).mean(axis=(1, 3))
    seen = ~np.isnan(centres) & ~np.isnan(small)
    assert seen.mean() > 0.7 and np.abs(small - centres)[seen].max() < 0.01


def test_exif_stays_behind(tmp_path):
    camera = Image.Exif()
    camera[0x010F], camera[0x8298] = "Maker of cameras", "Name of a patient"
    photograph().save(tmp_path / "in.jpg", exif=camera, comment=b"Name of a patient")
    with Image.open(tmp_path / "in.jpg") as opened:
        opened.load()
        for copy in (without_metadata(opened), fitted(opened, 100, 100)):
            buffer = io.BytesIO()
            copy.save(buffer, "JPEG")
            assert b"patient" not in buffer.getvalue() and b"Exif" not in buffer.getvalue() and not copy.info
        import base64

        encoded = base64.b64decode(data_uri(opened).partition(",")[2])
        assert b"patient" not in encoded and b"Exif" not in encoded


def test_a_fitted_photograph_keeps_its_shape():
    assert fitted(Image.new("RGB", (600, 450)), 560, 460).size == (560, 420)
    assert fitted(Image.new("RGB", (300, 900)), 560, 450).size == (150, 450)


def test_the_outline_runs_round_the_lesion():
    (line,) = outlines(mask(256, 192, (0.35, 0.3)))
    assert np.abs(line.mean(axis=0) - [0.35, 0.3]).max() < 0.01
    radii = np.hypot((line[:, 0] - 0.35) * 256, (line[:, 1] - 0.3) * 192)
    assert np.abs(radii - 19.2).max() < 1.5
    full = outlines(np.ones((20, 30), bool))[0]
    assert full.min() >= 0 and full.max() <= 1


def test_padding_of_the_model_does_not_reach_beyond_the_photograph():
    picture = Image.new("RGB", (40, 20))
    geometry = Geometry(height=20, width=40, left=0.0, top=-10.0, right=40.0, bottom=30.0)
    assert not np.isnan(placed(np.ones((4, 4)), geometry, picture)).any()
