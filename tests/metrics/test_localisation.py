"""Planted maps and masks, scikit-learn, and closed forms."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.metrics import average_precision_score

from clip_xai.metrics.localisation import (
    average_precision,
    centre_maps,
    colour_contrast_maps,
    energy_inside,
    lab,
    lay_over,
    localisation,
    pointing_hits,
    random_maps,
)


def square_mask(size: int, top: int, left: int, side: int) -> torch.Tensor:
    mask = torch.zeros(size, size, dtype=torch.bool)
    mask[top : top + side, left : left + side] = True
    return mask


MASK = square_mask(16, 0, 8, 4)[None]


def test_pointing_at_a_planted_pixel() -> None:
    maps = torch.zeros(2, 16, 16)
    maps[0, 2, 9] = 1
    maps[1, 12, 12] = 1
    assert pointing_hits(maps, MASK.expand(2, -1, -1)).tolist() == [1.0, 0.0]


def test_ties_count_with_their_share_and_a_flat_map_is_chance() -> None:
    maps = torch.zeros(2, 16, 16)
    maps[0, 2, 9] = maps[0, 12, 12] = 5
    hits = pointing_hits(maps, MASK.expand(2, -1, -1))
    assert hits.tolist() == pytest.approx([0.5, 16 / 256])
    flat = lay_over(torch.full((1, 7, 5), 0.1), 16)
    assert pointing_hits(flat, MASK).item() == pytest.approx(16 / 256)


def test_the_sign_counts_a_low_map_value_is_no_evidence() -> None:
    maps = torch.full((1, 16, 16), -1.0)
    maps[0, 0, 0] = -0.5
    maps[0, 2, 9] = -9.0
    assert pointing_hits(maps, MASK).item() == 0.0


def test_average_precision_is_that_of_scikit_learn() -> None:
    maps = torch.from_numpy(np.random.default_rng(0).random((3, 16, 16))).float()
    masks = torch.stack([MASK[0], square_mask(16, 5, 5, 6), square_mask(16, 0, 0, 16)])
    expected = [average_precision_score(m.flatten(), v.flatten()) for m, v in zip(masks, maps, strict=True)]
    assert average_precision(maps, masks).tolist() == pytest.approx(expected, abs=1e-6)
    assert average_precision(MASK.float(), MASK).item() == 1.0
    assert average_precision(torch.zeros(1, 16, 16), MASK).item() == pytest.approx(16 / 256)


def test_energy_is_the_positive_mass_inside() -> None:
    maps = torch.zeros(1, 16, 16)
    maps[0, 1, 9], maps[0, 10, 3], maps[0, 11, 3] = 3.0, 1.0, -7.0
    assert energy_inside(maps, MASK).item() == pytest.approx(0.75)
    assert torch.isnan(energy_inside(-maps.abs(), MASK)).all()


def test_maps_are_laid_over_by_cell_centres() -> None:
    laid = lay_over(torch.eye(2)[None], 4)
    assert laid[0, 0, 0] == 1 and laid[0, 0, 3] == 0
    assert laid[0, 1, 1] == pytest.approx(0.75**2 + 0.25**2)
    columns = lay_over(torch.tensor([[[0.0, 1.0]]]), (3, 8))[0]
    assert columns[1].tolist() == pytest.approx([0, 0, 0.125, 0.375, 0.625, 0.875, 1, 1])


def test_empty_masks_are_left_out_and_counted() -> None:
    masks = torch.cat([MASK, torch.zeros_like(MASK), MASK])
    values = torch.zeros(3, 4, 4)
    values[:, 0, 2] = 1.0
    values[2] = -values[2] - 1
    found = localisation(values, masks, ["a", "b", "c"])
    assert (found.empty_masks, found.undefined_energy) == (1, 1)
    assert found.intervals["pointing"].value == 0.5
    assert (found.intervals["pointing"].n, found.intervals["energy"].n) == (2, 1)
    assert found.chance == pytest.approx(16 / 256)
    with pytest.raises(ValueError, match="No mask"):
        localisation(values[:1], torch.zeros_like(MASK), ["a"])


def test_what_cannot_be_judged_is_refused() -> None:
    with pytest.raises(ValueError, match="bool"):
        pointing_hits(torch.zeros(1, 16, 16), MASK.float())
    with pytest.raises(ValueError, match="NaN"):
        energy_inside(torch.full((1, 16, 16), float("nan")), MASK)
    with pytest.raises(ValueError, match="equal"):
        average_precision(torch.zeros(1, 8, 8), MASK)


def test_random_maps_point_at_chance_and_are_the_same_again() -> None:
    maps = random_maps(2000, (8, 8), seed=1)
    assert torch.equal(maps, random_maps(2000, (8, 8), seed=1))
    mask = square_mask(8, 3, 3, 4)[None].expand(2000, -1, -1)
    assert pointing_hits(maps, mask).mean().item() == pytest.approx(16 / 64, abs=0.04)


def test_centre_map_hits_a_centred_lesion_alone() -> None:
    maps = lay_over(centre_maps(2, (8, 8)), 32)
    masks = torch.stack([square_mask(32, 12, 12, 8), square_mask(32, 0, 0, 8)])
    assert pointing_hits(maps, masks).tolist() == [1.0, 0.0]
    single = centre_maps(1, (9, 9), sigma=0.25)[0]
    assert single[4, 4] == 1
    assert single[4, 0].item() == pytest.approx(np.exp(-((4 / 9) ** 2) / (2 * 0.25**2)))


def test_known_colours_in_lab() -> None:
    colours = torch.tensor([[1.0, 1, 1], [0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1], [0.5, 0.5, 0.5]])
    # Published values of sRGB's corners under D65.
    expected = [
        [100, 0, 0],
        [0, 0, 0],
        [53.24, 80.09, 67.20],
        [87.73, -86.18, 83.18],
        [32.30, 79.19, -107.86],
        [53.39, 0, 0],
    ]
    assert torch.allclose(lab(colours.T[None, :, :, None])[0, :, :, 0].T, torch.tensor(expected), atol=0.05)


def test_colour_contrast_points_at_the_odd_patch() -> None:
    image = torch.tensor([0.8, 0.6, 0.5])[None, :, None, None].repeat(1, 1, 32, 32)
    image[0, :, 8:16, 20:28] = torch.tensor([0.3, 0.15, 0.1])[:, None, None]
    maps = colour_contrast_maps(image, (8, 8))
    assert maps.shape == (1, 8, 8)
    assert set(torch.nonzero(maps[0] > 1).flatten().tolist()) == {2, 3, 5, 6}
    assert pointing_hits(lay_over(maps, 32), square_mask(32, 8, 20, 8)[None]).item() == 1.0
    with pytest.raises(ValueError, match="normalisation"):
        colour_contrast_maps(image * 3 - 1, (8, 8))
