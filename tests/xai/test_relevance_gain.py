"""Relevance gains in one stream: against a slow loop, a closed form, and the symmetry of negated maps."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from clip_xai.xai.examples import example
from clip_xai.xai.insertion_deletion import ranked
from clip_xai.xai.perturbation_bank import PerturbationBank
from clip_xai.xai.random_fields import (
    LENGTHS,
    gaussian_fields,
    nearest_length,
    roughness,
    smoothness_length,
)
from clip_xai.xai.relevance_gain import PASSES, SHARES, relevance_gains, units_of
from tests.xai.test_insertion_deletion import Weighed, planted


def test_the_stream_gives_what_a_loop_over_maps_photographs_and_steps_gives() -> None:
    backbone, pixels, target = example()
    for image in pixels:
        bank = PerturbationBank(backbone, image[None])
        rows, columns = units_of(bank)
        maps = torch.randn(3, rows, columns, generator=torch.Generator().manual_seed(1)).round(decimals=1)  # with ties
        found = relevance_gains(bank, target, maps, seed=4, chunk_size=5)
        ranks = ranked(maps, seed=4)
        cell_down = torch.arange(24) * rows // 24
        cell_across = torch.arange(24) * columns // 24
        for number, order in enumerate(ranks):
            gain = np.zeros(2)
            shares = [0.0, *(round(rows * columns * share) / (rows * columns) for share in SHARES), 1.0]
            for step in (1, 2, 3):
                removed = round(rows * columns * SHARES[step - 1])
                for sign, kept in ((1, order < rows * columns - removed), (-1, order >= removed)):
                    mask = kept[cell_down][:, cell_across]
                    mean = image.mean(dim=(1, 2), keepdim=True).expand_as(image)
                    with torch.no_grad():
                        score = target.score(backbone.encode_image(torch.where(mask, image, mean)[None]))[0]
                    gain += sign * score.double().numpy() * (shares[step + 1] - shares[step - 1]) / 2
            assert np.allclose(found[number].numpy(), gain, atol=1e-5)


def test_a_negated_field_has_the_negative_gain() -> None:
    backbone, pixels, target = example()
    bank = PerturbationBank(backbone, pixels[:1])
    fields = gaussian_fields(4, units_of(bank), 0.3, seed=2)
    both = relevance_gains(bank, target, torch.cat([fields, -fields]))
    assert torch.allclose(both[:4], -both[4:], atol=1e-6)


def test_a_score_that_sums_one_region_has_the_gain_of_its_order() -> None:
    """Deleted last it is there at every step, deleted first at none: all of the trapezoids' weights."""
    region = torch.zeros(16, 16)
    region[:4, :4] = 1 / 16
    pixels = torch.zeros(1, 3, 16, 16)
    pixels[:, :, :4, :4] = 1.0
    bank = PerturbationBank(planted(), pixels)
    target = Weighed(region[None])
    own, nothing = region.clone(), torch.ones(16, 16) - region
    [hot, cold] = relevance_gains(bank, target, torch.stack([own, nothing])).flatten().tolist()
    lost = 1 - 1 / 16  # the mean colour, 1/16, stands where it is deleted
    # Of the 64 cells, 6, 19 and 45 are deleted.
    weights = (19 / 64 + (45 - 6) / 64 + (64 - 19) / 64) / 2
    assert hot == pytest.approx(weights * lost, abs=1e-5) and cold < 0


def test_named_maps_cost_a_second_target_nothing() -> None:
    backbone, pixels, target = example()
    bank = PerturbationBank(backbone, pixels[:1])
    maps = torch.rand(4, *backbone.grid)
    first = relevance_gains(bank, target, maps, key="mine")
    assert bank.forwards == 4 * PASSES
    assert torch.equal(first, relevance_gains(bank, target, maps, key="mine")) and bank.forwards == 4 * PASSES
    relevance_gains(bank, target, maps)
    assert bank.forwards == 8 * PASSES


def test_what_has_no_order_is_refused() -> None:
    backbone, pixels, target = example()
    with pytest.raises(ValueError, match="one photograph, not 2"):
        relevance_gains(PerturbationBank(backbone, pixels), target, torch.rand(1, 4, 4))
    with pytest.raises(ValueError, match="NaN"):
        relevance_gains(PerturbationBank(backbone, pixels[:1]), target, torch.full((1, 4, 4), math.nan))


@pytest.mark.parametrize("length", LENGTHS)
def test_fields_have_the_variance_and_correlation_that_they_are_asked_for(length: float) -> None:
    fields = gaussian_fields(4000, (12, 12), length, seed=3).double()
    assert abs(float(fields.mean())) < 0.03 and float(fields.var()) == pytest.approx(1, abs=0.04)
    for lag in (1, 2, 3):
        found = float((fields[:, lag:] * fields[:, :-lag]).mean())
        # On cells the Gaussian is a sum over them, which is nearly its integral.
        assert found == pytest.approx(math.exp(-((lag / 12 / length) ** 2) / 2), abs=0.04)


def test_the_length_of_fields_is_found_whatever_their_values_are_turned_into() -> None:
    for length in LENGTHS:
        fields = gaussian_fields(100, (14, 14), length, seed=5)
        found = smoothness_length(fields)
        assert float(found.median()) == pytest.approx(length, rel=0.1)
        assert torch.allclose(found, smoothness_length(fields.exp()))
        assert sum(nearest_length(float(one)) == length for one in found) >= 98
    assert torch.isnan(smoothness_length(torch.zeros(1, 7, 7))).all()


def test_roughness_is_the_squared_difference_of_neighbours_over_the_variance() -> None:
    steps = torch.arange(4.0)[None, None].expand(1, 3, 4)  # ranks of columns: 2, 5, 8, 11
    assert float(roughness(steps)[0]) == pytest.approx((9 * 9.0) / 17 / np.var([2, 5, 8, 11]))
