"""Several lesions and mosaics: what is left out is gone and nothing else changed; chance is what it is said to be."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from clip_xai.data.preprocess import Preprocess
from clip_xai.data.vocabulary import load_vocabulary
from clip_xai.explanations.causes.several import LESIONS, MOSAIC, choice, mosaic, several_lesions, several_pictures
from clip_xai.xai.random_fields import gaussian_fields

SQUARE = Preprocess(image_size=96)


def test_each_lesion_can_be_left_out_and_the_others_stay() -> None:
    drawn = several_lesions(2**50 + 5, 3, SQUARE)
    assert drawn.kind == LESIONS and len(drawn.places) == len(set(drawn.diagnoses)) == 3
    whole = np.asarray(drawn.image())
    for number, place in enumerate(drawn.places):
        present = np.ones(3, bool)
        present[number] = False
        left = np.asarray(drawn.image(present))
        changed = (left != whole).any(axis=2)
        assert changed[place.region].mean() > 0.9 and not changed[~place.area].any()
        assert (place.region & ~place.area).sum() == 0
    assert drawn.masks.any(dim=(1, 2)).all() and int(drawn.masks.sum(dim=0).max()) == 1
    text, spans = drawn.caption()
    assert [text[start:end] for start, end in spans] == [place.scene.colour for place in drawn.places]


@pytest.mark.parametrize("grid", [(8, 8), (7, 7)])
def test_the_cells_of_a_mosaic_are_whole_cells_of_the_grid(grid: tuple[int, int]) -> None:
    size = 8 * grid[0]
    drawn = mosaic(2**50 + 9, Preprocess(image_size=size, scaled=size + 10), grid)
    assert drawn.kind == MOSAIC and len(drawn.places) == 4
    words = load_vocabulary()
    assert not any(words.agree(a, b) for i, a in enumerate(drawn.diagnoses) for b in drawn.diagnoses[:i])
    cells = drawn.masks.view(4, grid[0], 8, grid[1], 8).float().mean(dim=(2, 4))
    assert set(cells.unique().tolist()) <= {0.0, 1.0}  # whole cells
    assert cells.sum(dim=(1, 2)).tolist() == [float((grid[0] // 2) ** 2)] * 4
    assert torch.equal(drawn.draw(), drawn.draw([True] * 4)) and not torch.equal(drawn.draw(), drawn.draw([False] * 4))


def test_chance_is_that_of_maps_which_know_nothing() -> None:
    masks = mosaic(2**50 + 9, SQUARE, (8, 8)).masks
    areas = masks.flatten(1).sum(dim=1).double().numpy()

    def scores(maps: torch.Tensor, signed: bool) -> list[float]:
        found = []
        for one in maps:
            masses = torch.stack([(part * masks).sum(dim=(1, 2)) for part in (one.clamp(min=0), -one.clamp(max=0))], 1)
            found.append(choice(masses.double().numpy(), areas, 1, signed).signed)
        return found

    fields = gaussian_fields(400, (96, 96), 0.2, seed=1)
    assert np.mean(scores(fields, True)) == pytest.approx(0.5, abs=0.03)
    assert np.mean(scores(fields.abs(), False)) == pytest.approx(0.25, abs=0.02)
    flat = choice(np.array([[1.0, 0.0], [3.0, 0.0]]), np.array([1.0, 3.0]), 1, False)
    assert flat.own == flat.own_chance == flat.signed == flat.signed_chance == 0.75
    assert np.isnan(choice(np.zeros((2, 2)), np.ones(2), 0, True).own)


def test_pictures_start_alike() -> None:
    few, more = several_pictures(1, SQUARE, (8, 8), 3), several_pictures(2, SQUARE, (8, 8), 3)
    assert [one.seed for one in few] == [more[0].seed, more[2].seed]
    np.testing.assert_array_equal(np.asarray(few[0].image()), np.asarray(more[0].image()))
