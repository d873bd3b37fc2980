"""F-Fidelity: the published sampling rule against a slow loop, and what it says of maps that are known to be right."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.metrics import auc

from clip_xai.errors import UserError
from clip_xai.xai.dropping import dropped_scores
from clip_xai.xai.examples import example
from clip_xai.xai.f_fidelity import deletion_rate, f_fidelity
from clip_xai.xai.insertion_deletion import ranked
from clip_xai.xai.perturbation_bank import PerturbationBank
from tests.xai.test_insertion_deletion import Weighed, planted


def test_no_more_than_the_share_of_fine_tuning_is_missing_in_expectation() -> None:
    for alpha in (0.1, 0.5, 1.0):
        for size in range(1, 101):
            rate = deletion_rate(100, size, alpha, 0.1)
            assert rate * size <= 10 + 1e-9 and rate <= alpha
    assert deletion_rate(100, 10, 1.0) == 1.0 and deletion_rate(100, 100, 1.0) == 0.1


@pytest.mark.parametrize("alpha", [0.1, 0.6])
def test_against_a_loop_over_maps_sizes_and_draws(alpha: float) -> None:
    backbone, pixels, target = example()
    maps = torch.randn(2, 4, 4, generator=torch.Generator().manual_seed(1))
    bank = PerturbationBank(backbone, pixels[:1])
    found = f_fidelity(bank, target, maps, alpha=alpha, draws=5, sizes=4, seed=2, chunk_size=3)
    assert found.shares.tolist() == [0.25, 0.5, 0.75, 1.0]
    drawn = torch.rand(5, 16, generator=torch.Generator().manual_seed(2))
    for number, order in enumerate(ranked(maps, seed=2).flatten(1)):
        for step, size in enumerate((4, 8, 12, 16)):
            rate = min(alpha, 0.1 * 16 / size)
            for curve, among in ((found.most, order < size), (found.least, order >= 16 - size)):
                scores = []
                for draw in drawn:
                    kept = torch.tensor([not (bool(among[cell]) and float(draw[cell]) < rate) for cell in range(16)])
                    scores.append(dropped_scores(bank, "pooled", target.score, kept[None])[0])
                assert torch.allclose(curve[number, step].float(), torch.stack(scores).mean(dim=0), atol=1e-5)
    expected = auc(found.shares, (found.least - found.most)[0, :, 1]) / 0.75
    assert float(found.gain()[0, 1]) == pytest.approx(expected)


def test_both_orders_end_alike_and_a_map_read_backwards_has_the_negative_gain() -> None:
    backbone, pixels, target = example()
    maps = torch.randn(3, 4, 4, generator=torch.Generator().manual_seed(4))
    found = f_fidelity(PerturbationBank(backbone, pixels[:1]), target, torch.cat([maps, -maps]), draws=6)
    assert torch.equal(found.most[:, -1], found.least[:, -1])
    assert torch.allclose(found.gain()[:3], -found.gain()[3:], atol=1e-6)


def test_the_map_of_what_leaving_out_costs_gains_more_than_random_maps() -> None:
    backbone, pixels, target = example()
    bank = PerturbationBank(backbone, pixels[:1])
    whole = bank.whole_scores(target)[0]
    alone = dropped_scores(bank, "pooled", target.score, ~torch.eye(16, dtype=torch.bool))
    truth = (whole - alone)[:, 0].view(1, 4, 4)
    others = torch.randn(30, 4, 4, generator=torch.Generator().manual_seed(0))
    gains = f_fidelity(bank, target, torch.cat([truth, others]), alpha=0.5, draws=30, sizes=8).gain()[:, 0]
    assert float(gains[0]) > float(np.quantile(gains[1:], 0.95))


def test_it_asks_for_a_tower_that_can_do_without_patches() -> None:
    with pytest.raises(UserError, match="patches cannot be left out"):
        f_fidelity(
            PerturbationBank(planted(), torch.ones(1, 3, 16, 16)), Weighed(torch.ones(1, 16, 16)), torch.rand(1, 4, 4)
        )
