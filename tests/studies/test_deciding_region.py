"""A known mechanism: its score against a slow sum over pixels, its gain in closed form, and what must have evidence."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from clip_xai.explanations.evidence_calibration import FIELDS
from clip_xai.studies.deciding_region import PARTS, deciding_region
from clip_xai.studies.evidence import MECHANISM, NEGATIVE, REGION, Gathered, validity
from clip_xai.xai.examples import example
from clip_xai.xai.perturbation_bank import PerturbationBank
from clip_xai.xai.random_fields import LENGTHS
from clip_xai.xai.relevance_gain import SHARES, relevance_gains, units_of


def test_each_cell_adds_to_the_score_what_its_map_says() -> None:
    backbone, pixels, _ = example()
    bank = PerturbationBank(backbone, pixels[:1])
    standing_in, target, truth = deciding_region(bank, seed=3)
    rows, columns = units_of(bank)
    assert units_of(standing_in) == (rows, columns)
    assert (truth > 0).sum() == round(rows / PARTS) * round(columns / PARTS) and truth.sum() == pytest.approx(1)
    high, wide = pixels.shape[-2] // rows, pixels.shape[-1] // columns
    mean = pixels[0].mean(dim=(1, 2))
    for row in range(rows):
        for column in range(columns):
            alone = mean[:, None, None].expand_as(pixels[0]).clone()  # all but one cell deleted
            place = (slice(None), slice(row * high, (row + 1) * high), slice(column * wide, (column + 1) * wide))
            alone[place] = pixels[0][place]
            score = target.score(standing_in.backbone.encode_image(alone[None]))
            assert float(score) == pytest.approx(float(truth[row, column]), abs=1e-5)
    assert float(target.score(standing_in.backbone.encode_image(pixels[:1]))) == pytest.approx(1, abs=1e-5)


def test_the_gain_of_the_regions_own_map_is_the_largest_that_there_is() -> None:
    """All of the score is lost in the first step of the hottest places, and none of it in the last of the coldest."""
    backbone, pixels, _ = example()
    bank = PerturbationBank(backbone, pixels[:1])
    standing_in, target, truth = deciding_region(bank, seed=1)
    total = truth.numel()
    first, _, last = (round(total * share) / total for share in SHARES)
    gains = relevance_gains(standing_in, target, torch.stack([truth, -truth]))
    assert float(gains[0]) == pytest.approx((1 + last - first) / 2, abs=1e-5)
    assert float(gains[1]) < 0


def test_the_study_prints_the_power_and_keeps_the_mechanism_out_of_the_calibration() -> None:
    backbone, _, _ = example()
    gathered, generator = Gathered(photographs=12), torch.Generator().manual_seed(0)
    for number in range(12):
        pixels = torch.randn(1, 3, 24, 24, generator=generator)
        gathered.add_mechanism(PerturbationBank(backbone, pixels), number, f"patient {number // 2}")
    assert np.stack(gathered.fields[MECHANISM, 0.1]).shape == (12, FIELDS)
    assert not gathered.calibration({}, "here").fields
    shares = {(row["map"], row["length"]): row["evidence"]["value"] for row in validity(gathered) if "evidence" in row}
    # A region of a quarter of the side is as rough as the fields of the shorter length, and judged by these alone.
    assert shares[REGION, LENGTHS[0]] > 0.7 and shares[NEGATIVE, LENGTHS[0]] == 0
    assert (REGION, LENGTHS[1]) not in shares
