"""Sensitivity-n and infidelity: closed forms on linear models, slow loops, and captum's infidelity."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from captum.metrics import infidelity as captum_infidelity

from clip_xai.xai.baselines import Zeros
from clip_xai.xai.curve_protocols import REMOVALS
from clip_xai.xai.examples import example
from clip_xai.xai.perturbation_bank import PerturbationBank
from clip_xai.xai.pixels import by_cell
from clip_xai.xai.subset_game import infidelity, sensitivity_n, subset_game
from clip_xai.xai.target import CaptionTarget
from tests.xai.conftest import CAPTION
from tests.xai.test_insertion_deletion import Weighed, planted


def linear(seed: int = 0):
    """Weights of a linear score, a photograph, and gradient x input of each cell of 8 x 8."""
    generator = torch.Generator().manual_seed(seed)
    weights, pixels = torch.randn(1, 16, 16, generator=generator), torch.randn(1, 3, 16, 16, generator=generator)
    return weights, pixels, by_cell(weights * pixels[:, 0], (8, 8))


def test_gradient_times_input_of_a_linear_model_foresees_every_set() -> None:
    weights, pixels, truth = linear()
    game = subset_game(PerturbationBank(planted(), pixels), Weighed(weights), Zeros())
    assert torch.allclose(sensitivity_n(game, truth), torch.ones(1, 1).double(), atol=1e-6)
    assert float(infidelity(game, truth)) == pytest.approx(0, abs=1e-6)
    assert float(infidelity(game, 7 * truth)) == pytest.approx(0, abs=1e-6)  # heat has no unit
    assert float(sensitivity_n(game, -truth)) == pytest.approx(-1, abs=1e-6)
    others = torch.randn(200, 8, 8, generator=torch.Generator().manual_seed(1))
    random = sensitivity_n(game, others)[:, 0]
    assert abs(float(random.mean())) < 0.05 and float(infidelity(game, others).median()) > 0.7


def test_a_flat_map_foresees_nothing_and_what_never_moves_has_no_value() -> None:
    weights, pixels, truth = linear()
    game = subset_game(PerturbationBank(planted(), pixels), Weighed(weights), Zeros())
    assert float(sensitivity_n(game, torch.full((1, 8, 8), 0.3))) == 0
    dead = subset_game(PerturbationBank(planted(), pixels), Weighed(torch.zeros(1, 16, 16)), Zeros())
    assert torch.isnan(sensitivity_n(dead, truth)).all() and torch.isnan(infidelity(dead, truth)).all()


@pytest.mark.parametrize("removal", REMOVALS)
def test_against_a_loop_over_sets_and_maps(removal: str) -> None:
    backbone, pixels, target = example()
    bank = PerturbationBank(backbone, pixels[:1])
    game = subset_game(bank, target, REMOVALS[removal], shares=(0.2, 0.6), each=6, seed=3, chunk_size=5)
    maps = torch.randn(3, *game.removed.shape[2:], generator=torch.Generator().manual_seed(2))
    counts = game.removed.flatten(2).sum(dim=2)
    assert (counts == counts[:, :1]).all() and counts[:, 0].tolist() != [0, 0]
    assert bank.forwards == 12 + 1
    correlations, gaps = np.zeros((3, 2)), np.zeros((3, 2))
    for number, one in enumerate(maps.double().numpy()):
        for score in range(2):
            heats = [[one[np.asarray(taken)].sum() for taken in of_size] for of_size in game.removed]
            drops = game.drops[..., score].numpy()
            correlations[number, score] = np.mean([np.corrcoef(*pair)[0, 1] for pair in zip(heats, drops, strict=True)])
            flat, lost = np.ravel(heats), np.ravel(drops)
            scale = (flat * lost).sum() / (flat**2).sum()
            gaps[number, score] = ((scale * flat - lost) ** 2).mean() / (lost**2).mean()
    assert np.allclose(sensitivity_n(game, maps), correlations) and np.allclose(infidelity(game, maps), gaps)
    with torch.no_grad():
        whole = target.score(backbone.encode_image(pixels[:1]))[0]
    if removal == "mean":
        taken = game.removed[1, 2][None, None].float()
        mask = torch.nn.functional.interpolate(taken, size=24, mode="nearest-exact")
        filled = torch.where(mask > 0.5, pixels[:1].mean(dim=(2, 3), keepdim=True), pixels[:1])
        with torch.no_grad():
            lost = whole - target.score(backbone.encode_image(filled))[0]
        assert torch.allclose(game.drops[1, 2].float(), lost, atol=1e-5)


def test_infidelity_is_captums() -> None:
    """Its input is the presence of each cell, its perturbation the set that is taken away."""
    backbone, pixels, target = example()
    game = subset_game(PerturbationBank(backbone, pixels[:1]), target, each=10)
    sets = game.removed.flatten(0, 1).float()
    fill = pixels[:1].mean(dim=(2, 3), keepdim=True)

    def forward(present: torch.Tensor) -> torch.Tensor:
        mask = torch.nn.functional.interpolate(present[:, None], size=24, mode="nearest-exact")
        with torch.no_grad():
            return target.score(backbone.encode_image(torch.where(mask > 0.5, pixels[:1], fill)))[:, 1]

    for one in torch.randn(3, *game.removed.shape[2:], generator=torch.Generator().manual_seed(5)):
        given = iter(sets.split(7))

        def perturb(inputs: torch.Tensor, given=given) -> tuple[torch.Tensor, torch.Tensor]:
            taken = next(given)
            return taken, inputs - taken

        expected = captum_infidelity(
            forward, perturb, torch.ones(1, *one.shape), one[None], n_perturb_samples=len(sets),
            max_examples_per_batch=7, normalize=True,
        )  # fmt: skip
        size = game.drops[..., 1].square().mean()
        assert float(infidelity(game, one[None])[0, 1]) == pytest.approx(float(expected) / float(size), rel=1e-4)


def test_captions_classes_and_margins_play_too(captioner, pixels) -> None:
    whole = CaptionTarget.words(captioner, captioner.tokenizer.encode(CAPTION))
    bank = PerturbationBank(captioner.backbone, pixels[:1])
    game = subset_game(bank, whole, REMOVALS["token_drop"], each=3)
    assert (
        game.drops.shape == (7, 3, len(whole.labels)) and torch.isfinite(sensitivity_n(game, torch.rand(2, 4, 4))).all()
    )
