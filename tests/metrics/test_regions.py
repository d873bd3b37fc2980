"""Mass, rank and overlap: planted maps, slow loops, scikit-learn, and what flat maps and constant points score."""

from __future__ import annotations

import doctest

import numpy as np
import pytest
import torch
from sklearn.metrics import jaccard_score

from clip_xai.metrics import method_means
from clip_xai.metrics.findings import THRESHOLDS
from clip_xai.metrics.method_means import number_of
from clip_xai.metrics.regions import TunedOverlap, relevance_mass, relevance_rank
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


def test_overlap_is_sklearns_jaccard_at_the_threshold_of_the_other_half() -> None:
    groups = [f"patient {number}" for number in range(5)]
    metric = TunedOverlap(["own", "flat", "none"])
    for one, mask, group in zip(MAPS, MASKS, groups, strict=True):
        metric.update(torch.stack([one, torch.ones_like(one), torch.full_like(one, float("nan"))]), mask, group)
    names = sorted({str(number_of(group)) for group in groups})
    half = [names.index(str(number_of(group))) % 2 for group in groups]
    scaled = [(one - one.min()) / (one.max() - one.min()) for one in MAPS]
    at = np.array([
        [jaccard_score(m.flatten(), (v >= t).flatten()) for m, v in zip(MASKS, scaled, strict=True)] for t in THRESHOLDS
    ])  # fmt: skip
    expected = []
    for number, own in enumerate(half):
        others = [other for other in range(5) if half[other] != own]
        expected.append(at[at[:, others].mean(axis=1).argmax(), number])
    values, _ = metric.table()
    assert values[:, 0].tolist() == pytest.approx(expected, abs=1e-6)
    assert (values[:, 1] == 0).all() and np.isnan(values[:, 2]).all()
    assert float(metric.compute()["own"][0]) == pytest.approx(np.mean(expected), abs=1e-6)


def test_overlaps_see_a_planted_region_and_no_photographs_have_none() -> None:
    metric = TunedOverlap(["soft"])
    assert metric.table()[0].shape == (0, 1)
    for number in range(12):
        soft = MASK[0].float() * 0.6 + 0.1
        soft[15, 15] = 1.0  # one hot pixel elsewhere
        metric.update(soft[None], MASK[0], str(number))
    assert float(metric.compute()["soft"][0]) == pytest.approx(16 / 17)
