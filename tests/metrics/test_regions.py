"""Mass, rank and overlap: planted maps, slow loops, scikit-learn, and what flat maps and constant points score."""

from __future__ import annotations

import doctest

import numpy as np
import pytest
import torch
from sklearn.metrics import jaccard_score

from clip_xai.metrics import method_means
from clip_xai.metrics.regions import (
    best_constant_point,
    overlap,
    relevance_mass,
    relevance_rank,
    tuned_threshold,
)
from tests.metrics.test_localisation import MASK, square_mask

MAPS = torch.randn(5, 16, 16, generator=torch.Generator().manual_seed(0)).round(decimals=1)  # with ties
MASKS = torch.stack([square_mask(16, number, 2, 3 + number) for number in range(5)])


def test_examples_run() -> None:
    found = doctest.testmod(method_means)
    assert found.attempted > 0 and found.failed == 0


def test_mass_and_rank_by_a_loop_over_pixels() -> None:
    for one, mask, mass, rank in zip(
        MAPS.numpy(), MASKS.numpy(), relevance_mass(MAPS, MASKS), relevance_rank(MAPS, MASKS), strict=True
    ):
        assert float(mass) == pytest.approx(np.abs(one[mask]).sum() / np.abs(one).sum(), rel=1e-5)
        count = int(mask.sum())
        rng = np.random.default_rng(0)
        drawn = []
        for _ in range(4000):  # ties drawn at random
            order = np.lexsort((rng.random(256), -one.ravel()))[:count]
            drawn.append(mask.ravel()[order].mean())
        assert float(rank) == pytest.approx(np.mean(drawn), abs=4 * np.std(drawn) / 4000**0.5 + 1e-6)


def test_ends_of_the_scales() -> None:
    own, other = MASK.float(), 1 - MASK.float()
    for measure in (relevance_mass, relevance_rank):
        assert float(measure(own, MASK)) == 1 and float(measure(other, MASK)) == 0
        assert float(measure(torch.ones(1, 16, 16), MASK)) == pytest.approx(1 / 16)
        assert torch.isnan(measure(own, torch.zeros_like(MASK)))
    assert float(relevance_mass(-own, MASK)) == 1  # what speaks against lies there, too
    assert torch.isnan(relevance_mass(torch.zeros(1, 16, 16), MASK))
    assert float(overlap(own, MASK, 0.5)) == 1 and float(overlap(other, MASK, 0.5)) == 0
    assert float(overlap(torch.full((1, 16, 16), 3.0), MASK, 0.5)) == pytest.approx(1 / 16)


def test_overlap_is_sklearns_jaccard_at_the_best_of_all_thresholds() -> None:
    scaled = [(one - one.min()) / (one.max() - one.min()) for one in MAPS]
    means = {}
    for threshold in (0.2, 0.5, 0.8):
        expected = [jaccard_score(m.flatten(), (v >= threshold).flatten()) for m, v in zip(MASKS, scaled, strict=True)]
        assert overlap(MAPS, MASKS, threshold).tolist() == pytest.approx(expected)
        means[threshold] = np.mean(expected)
    assert tuned_threshold(MAPS, MASKS, (0.2, 0.5, 0.8)) == max(means, key=means.__getitem__)
    soft = MASK.float() * 0.6 + 0.1
    soft[0, 15, 15] = 1.0
    assert tuned_threshold(soft, MASK) <= 0.55 / 0.9 and float(overlap(soft, MASK, tuned_threshold(soft, MASK))) > 0.9
    with pytest.raises(ValueError, match="No mask has a pixel"):
        tuned_threshold(soft, torch.zeros_like(MASK))


def test_the_best_constant_point_lies_in_most_masks() -> None:
    point = best_constant_point(MASKS)
    hits = [float((point.bool() & mask).sum() / point.sum()) for mask in MASKS]
    counts = MASKS.sum(dim=0)
    assert point[counts == counts.max()].all() and point.sum() == (counts == counts.max()).sum()
    assert sum(hits) == int(counts.max())  # no other single pixel is hit more often
