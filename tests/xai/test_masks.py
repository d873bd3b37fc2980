from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from skimage.transform import resize

from clip_xai.xai.masks import ActivationMasks, CellMasks, PlayerMasks, SmoothMasks, pooled, smooth_masks
from tests.xai.conftest import assert_close


def numbers(masks: SmoothMasks) -> tuple[torch.Tensor, torch.Tensor]:
    rows = torch.arange(masks.count)
    return torch.zeros_like(rows), rows


@pytest.mark.parametrize("kind", ["bernoulli", "gaussian"])
@pytest.mark.parametrize(("cells", "side"), [(2, 24), (3, 24), (7, 24), (5, 32)])
def test_smooth_masks_are_those_of_rise(cells: int, side: int, kind: str) -> None:
    """scikit-image enlarges, a loop cuts: what the published code does."""
    masks = smooth_masks(9, cells, 0.4, side, seed=3, kind=kind)
    found = masks.pixels(*numbers(masks), side)
    cell = -(-side // cells)
    for mask, grid, (down, right) in zip(found, masks.grids, masks.shifts.tolist(), strict=True):
        size = (cells + 1) * cell
        large = resize(grid.double().numpy(), (size, size), order=1, mode="reflect", anti_aliasing=False)
        assert np.abs(mask.numpy() - large[down : down + side, right : right + side]).max() < 1e-5
    assert masks.shifts.min() == 0 and masks.shifts.max() <= cell - 1


def test_one_cell_masks_everything_or_nothing() -> None:
    masks = smooth_masks(20, 1, 0.5, 24, seed=0)
    found = masks.pixels(*numbers(masks), 24)
    assert {float(mask.mean()) for mask in found} == {0.0, 1.0}


@pytest.mark.parametrize("grid", [(4, 4), (3, 6), (5, 7)])
def test_cells_of_smooth_masks_are_means_of_their_pixels(grid: tuple[int, int]) -> None:
    masks = smooth_masks(6, 3, 0.5, 24, seed=1)
    whole = masks.pixels(*numbers(masks), 24)
    # The mean over cells that cut pixels: of an image with every pixel repeated, cells cut none.
    fine = whole.repeat_interleave(grid[0], 1).repeat_interleave(grid[1], 2)
    expected = fine.unflatten(1, (grid[0], -1)).unflatten(3, (grid[1], -1)).mean(dim=(2, 4))
    assert_close(masks.cells(torch.arange(6), 24, grid), expected)
    assert_close(pooled(whole, grid), expected)


def test_masks_are_drawn_as_asked() -> None:
    drawn = smooth_masks(4000, 4, 0.3, 24, seed=0).grids
    assert set(drawn.unique().tolist()) == {0.0, 1.0}
    assert abs(drawn.mean() - 0.3) < 4 * (0.21 / drawn.numel()) ** 0.5
    gaussian = smooth_masks(4000, 4, 0.5, 24, seed=0, kind="gaussian", spread=0.25).grids
    inside = gaussian[(gaussian > 0) & (gaussian < 1)]
    assert abs(gaussian.mean() - 0.5) < 0.01
    # A normal distribution of width 0.25 about 0.5 leaves [0, 1] in 4.55 % of all draws.
    assert abs(1 - len(inside) / gaussian.numel() - 0.0455) < 0.005
    with pytest.raises(ValueError, match="'bernoulli' or 'gaussian'"):
        smooth_masks(1, 4, 0.5, 24, seed=0, kind="salt")


def test_the_seed_alone_decides() -> None:
    one, same, other = (smooth_masks(5, 4, 0.5, 24, seed=seed) for seed in (1, 1, 2))
    assert torch.equal(one.grids, same.grids) and torch.equal(one.shifts, same.shifts) and one.key == same.key
    assert not torch.equal(one.grids, other.grids) and one.key != other.key


def test_players_own_their_pixels() -> None:
    owners = torch.randint(0, 4, (2, 6, 6), generator=torch.Generator().manual_seed(0))
    coalitions = torch.rand(2, 3, 4, generator=torch.Generator().manual_seed(1)) > 0.5
    masks = PlayerMasks(owners, coalitions)
    images, rows = torch.tensor([0, 1, 1]), torch.tensor([2, 0, 1])
    found = masks.pixels(images, rows, 6)
    for image, row, mask in zip(images, rows, found, strict=True):
        for y in range(6):
            for x in range(6):
                assert mask[y, x] == float(coalitions[image, row, owners[image, y, x]])


def test_activations_become_masks() -> None:
    activations = torch.randn(2, 3, 4, 4)
    activations[1, 2] = 5.0
    masks = ActivationMasks(activations)
    found = masks.pixels(torch.tensor([0, 1, 1]), torch.tensor([1, 0, 2]), 24)
    large = F.interpolate(activations, size=24, mode="bilinear")
    for mask, channel in zip(found[:2], (large[0, 1], large[1, 0]), strict=True):
        assert_close(mask, (channel - channel.min()) / (channel.max() - channel.min()))
    assert found[2].eq(0).all()


@pytest.mark.parametrize(("side", "height", "width"), [(24, 4, 6), (64, 31, 31), (64, 7, 5), (9, 9, 2), (5, 4, 3)])
def test_a_pixel_belongs_to_the_cell_of_its_centre(side: int, height: int, width: int) -> None:
    cells = torch.arange(height * width).reshape(1, height, width).float()
    masks = CellMasks(cells)
    masks.check(1, side)
    found = masks.pixels(torch.zeros(1, dtype=torch.long), torch.zeros(1, dtype=torch.long), side)[0]
    for down in range(side):
        for right in range(side):
            row, column = (2 * down + 1) * height // (2 * side), (2 * right + 1) * width // (2 * side)
            assert found[down, right] == cells[0, row, column]
    assert set(found.flatten().tolist()) == set(cells.flatten().tolist()), "every cell covers a pixel"


def test_families_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="25 x 4 cells is finer than an image of 24 pixels"):
        CellMasks(torch.ones(1, 25, 4)).check(1, 24)
    with pytest.raises(ValueError, match="cannot cover 2"):
        CellMasks(torch.ones(3, 1, 4, 4)).check(2, 24)
    with pytest.raises(ValueError, match="do not fit"):
        PlayerMasks(torch.zeros(1, 6, 6, dtype=torch.long), torch.ones(1, 2, 3)).check(1, 24)
    with pytest.raises(ValueError, match="cannot mask 3"):
        ActivationMasks(torch.ones(2, 1, 4, 4)).check(3, 24)
