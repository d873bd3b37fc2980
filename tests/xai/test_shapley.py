from __future__ import annotations

from itertools import permutations
from math import comb

import pytest
import torch
from captum.attr import KernelShap as CaptumKernelShap
from torch import Tensor

from clip_xai.errors import UserError
from clip_xai.models.backbones.open_clip_vit import OpenClipBackbone
from clip_xai.xai.methods.kernel_shap import KernelShap
from clip_xai.xai.players import grid_players, spread_evenly, superpixels
from clip_xai.xai.shapley_values import coalitions, shapley_values
from clip_xai.xai.target import SimilarityTarget
from tests.xai.conftest import assert_close


def by_orders(value: dict[frozenset[int], Tensor], players: int) -> Tensor:
    """Shapley values as they are defined: the mean gain of a player over all orders of arrival."""
    shares = [torch.zeros_like(value[frozenset()]) for _ in range(players)]
    orders = list(permutations(range(players)))
    for order in orders:
        present: frozenset[int] = frozenset()
        for player in order:
            shares[player] = shares[player] + (value[present | {player}] - value[present]) / len(orders)
            present |= {player}
    return torch.stack(shares)


def every_coalition(players: int) -> list[frozenset[int]]:
    return [frozenset(i for i in range(players) if code >> i & 1) for code in range(2**players)]


@pytest.mark.parametrize("players", [1, 2, 3, 6])
def test_all_coalitions_give_the_exact_values(players: int) -> None:
    generator = torch.Generator().manual_seed(players)
    game = {one: torch.randn(4, generator=generator, dtype=torch.float64) for one in every_coalition(players)}
    asked = coalitions(players, 2**players, seed=0)
    assert asked.exact and len({tuple(row.tolist()) for row in asked.present}) == len(asked.present) == 2**players - 2
    values = [game[frozenset(row.nonzero().flatten().tolist())] for row in asked.present]
    answers = torch.stack(values) if values else torch.zeros(0, 4, dtype=torch.float64)
    found = shapley_values(asked, answers, game[frozenset()], game[frozenset(range(players))])
    assert_close(found, by_orders(game, players), 1e-9)


@pytest.mark.parametrize(("players", "samples"), [(9, 120), (16, 64), (30, 400)])
def test_samples_are_paired_complete_from_the_outside_and_weighted_by_the_kernel(players: int, samples: int) -> None:
    asked = coalitions(players, samples, seed=1)
    assert not asked.exact and len(asked.present) <= samples
    assert asked.present.any(1).all() and not asked.present.all(1).any()
    counts = asked.present.sum(1)
    rows = {tuple(row.tolist()) for row in asked.present}
    assert {tuple(not one for one in row) for row in rows} == rows
    kernel = {size: (players - 1) / (size * (players - size)) for size in range(1, players)}
    assert float(asked.weights.sum()) == pytest.approx(sum(kernel.values()))
    complete = [size for size in kernel if int((counts == size).sum()) == comb(players, size)]
    for size in complete:
        weights = asked.weights[counts == size]
        assert torch.allclose(weights, torch.full_like(weights, kernel[size] / comb(players, size)))
    assert torch.equal(coalitions(players, samples, seed=1).present, asked.present)
    assert not torch.equal(coalitions(players, samples, seed=2).present, asked.present)


def test_sizes_are_drawn_as_often_as_the_kernel_weighs_them_and_players_alike() -> None:
    counts = coalitions(30, 4000, seed=0).present[60:]  # behind all coalitions of one and of all but one
    sizes = counts.sum(1).bincount(minlength=31)[2:29].double()
    kernel = torch.tensor([1 / (size * (30 - size)) for size in range(2, 29)], dtype=torch.float64)
    expected = len(counts) * kernel / kernel.sum()
    # Pairs are drawn, so that a size has the count of its complement: twice the variance of single draws.
    assert ((sizes - expected).abs() < 4 * (2 * expected).sqrt()).all()
    assert torch.equal(counts.sum(0), torch.full((30,), len(counts) // 2))
    alone = counts[0::2][counts[0::2].sum(1) < 8].double()  # of a pair, the one that was drawn
    chance = alone.mean()
    assert ((alone.mean(0) - chance).abs() < 4 * (chance / len(alone)).sqrt()).all()


def test_an_additive_game_is_found_from_any_sample() -> None:
    worth = torch.randn(20, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    asked = coalitions(20, 90, seed=0)
    values = asked.present.double() @ worth + 5
    assert_close(shapley_values(asked, values, torch.full((3,), 5.0), 5 + worth.sum(0)), worth, 1e-9)


def test_samples_come_closer_to_the_exact_values_and_always_keep_the_sum() -> None:
    generator = torch.Generator().manual_seed(0)
    worth, pairs = torch.randn(10, generator=generator), torch.randn(10, 10, generator=generator).triu(1)

    def game(present: Tensor) -> Tensor:
        present = present.float()
        return (present @ worth + ((present @ pairs) * present).sum(-1) + present.prod(-1))[:, None]

    exact = coalitions(10, 2**10, seed=0)
    none, every = game(torch.zeros(1, 10))[0], game(torch.ones(1, 10))[0]
    truth = shapley_values(exact, game(exact.present), none, every)
    errors = []
    for samples in (40, 120, 600):
        gaps = []
        for seed in range(10):
            asked = coalitions(10, samples, seed=seed)
            found = shapley_values(asked, game(asked.present), none, every)
            assert float(found.sum()) == pytest.approx(float(every - none), rel=1e-5)
            gaps.append(float((found - truth).norm()))
        errors.append(sum(gaps) / len(gaps))
    assert errors[0] > 1.5 * errors[1] > 3 * errors[2]


def test_too_few_samples_are_refused() -> None:
    with pytest.raises(UserError, match="at least 196 samples"):
        coalitions(49, 195, seed=0)
    with pytest.raises(UserError, match="no players to share"):
        coalitions(0, 97, seed=0)
    asked = coalitions(12, 48, seed=0)
    few = type(asked)(asked.present[:4], asked.weights[:4], False)
    with pytest.raises(UserError, match="raise samples"):
        shapley_values(few, torch.randn(4, 1), torch.zeros(1), torch.ones(1))


def test_kernelshap_of_an_image_is_exact_shapley(
    backbone: OpenClipBackbone, pixels: Tensor, similarity: SimilarityTarget
) -> None:
    found = KernelShap(cells=2, samples=14, fill=0.5).explain(backbone, pixels, similarity)
    owners = grid_players(24, 2, 2)
    for image in range(2):
        game = {}
        for present in every_coalition(4):
            mask = torch.tensor([float(i in present) for i in range(4)])[owners]
            mixed = pixels[image] * mask + 0.5 * (1 - mask)
            game[present] = similarity.score(backbone.encode_image(mixed[None]))[0]
        exact = by_orders(game, 4)
        expected = exact.T.reshape(3, 2, 2).repeat_interleave(2, 1).repeat_interleave(2, 2) / 4
        assert_close(found.values[image], expected, 2e-5)
        assert_close(found.values[image].sum((1, 2)), game[frozenset(range(4))] - game[frozenset()], 2e-5)


@pytest.mark.parametrize("cells", [2, 3, 5])
@pytest.mark.parametrize("players", ["grid", "superpixels"])
def test_maps_sum_to_the_score_above_nothing(
    backbone: OpenClipBackbone, pixels: Tensor, similarity: SimilarityTarget, cells: int, players: str
) -> None:
    smooth = torch.nn.functional.interpolate(pixels[:, :, ::8, ::8], size=24, mode="bicubic")
    found = KernelShap(players=players, cells=cells, samples=160).explain(backbone, smooth, similarity)
    nothing = similarity.score(backbone.encode_image(torch.zeros_like(smooth)))
    assert_close(found.values.sum((2, 3)), found.scores - nothing, 5e-5)
    again = KernelShap(players=players, cells=cells, samples=160, chunk_size=5).explain(backbone, smooth, similarity)
    assert_close(again.values, found.values, 5e-5)


def test_kernelshap_matches_captum(backbone: OpenClipBackbone, pixels: Tensor, similarity: SimilarityTarget) -> None:
    """Captum draws its own coalitions, with endpoints of a large finite weight, so the two agree as it draws more."""
    found = KernelShap(cells=2, samples=14).explain(backbone, pixels[:1], similarity)
    owners = grid_players(24, 2, 2)[None, None]
    torch.manual_seed(0)
    captum = CaptumKernelShap(lambda images: similarity.score(backbone.encode_image(images)))
    expected = captum.attribute(
        pixels[:1], baselines=0, target=1, feature_mask=owners, n_samples=300, perturbations_per_eval=100
    )
    assert_close(found.values[:, 1] * 4, expected[:, 0, ::6, ::6], 0.15)


def test_superpixels_are_numbered_without_gaps_and_follow_the_picture(backbone: OpenClipBackbone) -> None:
    picture = torch.full((1, 3, 24, 24), -1.0)
    picture[:, :, :, 11:] = 1.0
    (owners,) = superpixels(backbone, picture, 4)
    assert owners.unique().tolist() == list(range(int(owners.max()) + 1))
    assert not set(owners[:, :11].unique().tolist()) & set(owners[:, 11:].unique().tolist())
    with pytest.raises(UserError, match="choose players=grid"):
        superpixels(backbone, torch.zeros(1, 3, 24, 24), 1)


def test_values_are_shared_out_over_pixels() -> None:
    owners = torch.tensor([[0, 1], [1, 1]])
    assert spread_evenly(torch.tensor([[2.0, 6.0]]), owners).tolist() == [[[2.0, 2.0], [2.0, 2.0]]]


def test_settings_without_meaning_are_refused() -> None:
    with pytest.raises(UserError, match="choose one of grid, superpixels"):
        KernelShap(players="voronoi")
    with pytest.raises(UserError, match="at least 2"):
        KernelShap(cells=1)
