"""What stands where a photograph is taken away: ROAD's system by scipy, patches left out by hand, gains in a loop."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.sparse import lil_matrix
from scipy.sparse.linalg import spsolve
from sklearn.metrics import auc
from torch import Tensor

from clip_xai.data.preprocess import Preprocess
from clip_xai.errors import UserError
from clip_xai.models.backbones.token_drop import drops_tokens, read_kept
from clip_xai.xai.baselines import Black, RandomColours
from clip_xai.xai.curve_protocols import PROTOCOLS, REMOVALS
from clip_xai.xai.dropping import dropped_scores
from clip_xai.xai.examples import example
from clip_xai.xai.imputation import Road, imputed
from clip_xai.xai.insertion_deletion import insertion_deletion, ranked
from clip_xai.xai.perturbation_bank import PerturbationBank
from clip_xai.xai.target import CaptionTarget, ClassTarget, SimilarityTarget
from tests.support.tower_families import STAGED, TRANSFORMERS
from tests.support.towers import assert_close, pixels_for
from tests.xai.conftest import CAPTION
from tests.xai.test_insertion_deletion import Weighed, planted


def solved_by_scipy(picture: np.ndarray, kept: np.ndarray) -> np.ndarray:
    """One channel, one equation a removed pixel, as the published code builds it."""
    side = len(kept)
    number = {place: row for row, place in enumerate(zip(*np.nonzero(~kept), strict=True))}
    system, right = lil_matrix((len(number), len(number))), np.zeros(len(number))
    for (y, x), row in number.items():
        weights = {
            (y + dy, x + dx): 1 / 6 if 0 in (dy, dx) else 1 / 12
            for dy in (-1, 0, 1) for dx in (-1, 0, 1)
            if (dy or dx) and 0 <= y + dy < side and 0 <= x + dx < side
        }  # fmt: skip
        total = sum(weights.values())
        system[row, row] = 1
        for place, weight in weights.items():
            if kept[place]:
                right[row] += weight / total * picture[place]
            else:
                system[row, number[place]] -= weight / total
    found = picture.copy()
    found[~kept] = spsolve(system.tocsr(), right)
    return found


@pytest.mark.parametrize(("side", "cells"), [(24, 6), (18, 3), (15, 5), (32, 4)])
def test_road_solves_the_published_system(side: int, cells: int) -> None:
    generator = torch.Generator().manual_seed(0)
    pictures = torch.randn(3, 2, side, side, generator=generator)
    shares = torch.tensor([0.1, 0.5, 0.9])[:, None, None]
    coarse = torch.rand(3, cells, cells, generator=generator) > shares
    coarse[:, 0, 0] = True
    kept = coarse.repeat_interleave(side // cells, 1).repeat_interleave(side // cells, 2)[:, None]
    found = imputed(pictures, kept)
    for number in range(3):
        for channel in range(2):
            expected = solved_by_scipy(pictures[number, channel].double().numpy(), kept[number, 0].numpy())
            assert np.abs(found[number, channel].numpy() - expected).max() < 2e-3


def test_road_adds_little_noise_to_what_was_removed_alone_and_has_a_mean_where_nothing_is_left() -> None:
    pictures = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(1))
    kept = torch.zeros(2, 1, 16, 16)
    kept[0, 0, :8] = 1
    found = Road().mixed(pictures, kept)
    assert torch.equal(found[0, :, :8], pictures[0, :, :8])
    noise = found[0, :, 8:] - imputed(pictures, kept > 0.5)[0, :, 8:]
    assert 0.008 < float(noise.std()) < 0.012 and torch.equal(found, Road().mixed(pictures, kept))
    empty = found[1] - pictures[1].mean(dim=(1, 2), keepdim=True)
    assert float(empty.abs().max()) < 0.05
    bank = PerturbationBank(planted(), pictures[:1, :, :16, :16])
    masks = torch.ones(1, 4, 4)
    masks[0, 1, 1] = 0
    streamed = bank.scores(masks, Weighed(torch.ones(1, 16, 16)), fill=Road(noise=0.0))
    cells = masks.repeat_interleave(4, 1).repeat_interleave(4, 2)[:, None]
    assert float(streamed) == pytest.approx(float(imputed(pictures[:1], cells > 0.5)[0, 0].sum()), abs=1e-3)


def by_hand(tower, pixels: Tensor, kept: list[int], reads: str) -> Tensor:
    """The whole sequence goes in, and attention is forbidden to look at what is left out."""
    tokens = tower.embed(pixels)
    length = tokens.shape[1]
    seen = [*range(tower.prefix_tokens), *(tower.prefix_tokens + number for number in kept)]
    for block in tower.blocks:
        normed = block.normed(tokens)
        query, key, value = block.query_key_value(normed, slice(None))
        logits = query @ key.transpose(-2, -1) / query.shape[-1] ** 0.5
        hidden = torch.full((length,), float("-inf")).index_fill(0, torch.tensor(seen), 0.0)
        context = (logits + hidden).softmax(dim=-1) @ value
        tokens = block.finish(tokens, block.project(context.transpose(1, 2).flatten(2)))
    tokens = tokens[:, seen]
    return tower.read(tokens, reads)


@pytest.mark.parametrize("build", [*TRANSFORMERS, *STAGED])
def test_patches_left_out_are_as_if_nobody_looked_at_them(build) -> None:
    tower, _ = build()
    if not drops_tokens(tower):
        assert "class_token" not in tower.supports
        return
    pixels = pixels_for(tower)
    with torch.no_grad():
        embedded = tower.embed(pixels[:1])
        places = tower.grid[0] * tower.grid[1]
        for kept in ([], [places - 1], [0, 1, places // 2]):
            for reads in ("pooled", "tokens"):
                found = read_kept(tower, embedded, torch.tensor([kept, kept], dtype=torch.long).view(2, -1), reads)
                assert_close(found[:1], by_hand(tower, pixels[:1], kept, reads), 2e-4)
                assert torch.allclose(found[0], found[1], atol=1e-6)
        every = torch.arange(places)[None]
        assert_close(read_kept(tower, embedded, every, "pooled"), tower.encode(pixels[:1]), 2e-4)


def test_rows_of_any_size_are_scored_in_their_own_order(captioner, pixels) -> None:
    backbone = captioner.backbone
    bank = PerturbationBank(backbone, pixels[:1])
    kept = torch.rand(9, 16, generator=torch.Generator().manual_seed(2)) < torch.linspace(0, 1, 9)[:, None]
    texts = SimilarityTarget.from_texts(backbone, ["melanoma", "a nevus"])
    caption = CaptionTarget.whole(captioner, captioner.tokenizer.encode(CAPTION))
    for target in (texts, caption):
        found = dropped_scores(bank, target.reads, target.score, kept, chunk_size=2)
        tower = backbone.image_tower
        with torch.no_grad():
            for row, own in zip(found, kept, strict=True):
                read = by_hand(tower, pixels[:1], own.nonzero()[:, 0].tolist(), target.reads)
                assert torch.allclose(row, target.score(read)[0], atol=2e-4)
    assert bank.forwards == 18


def test_what_cannot_do_without_patches_is_refused_in_one_line() -> None:
    backbone, pixels, target = example()
    bank = PerturbationBank(planted(), torch.ones(1, 3, 16, 16))
    with pytest.raises(UserError, match="not a ViT that is read at a class token; choose mean, blur or road"):
        insertion_deletion(bank, Weighed(torch.ones(1, 16, 16)), torch.rand(1, 4, 4), PROTOCOLS["token_drop"])
    target.reads = "patches"
    with pytest.raises(UserError, match="target=similarity reads needs every patch"):
        insertion_deletion(PerturbationBank(backbone, pixels[:1]), target, torch.rand(1, 4, 4), PROTOCOLS["token_drop"])


@pytest.mark.parametrize("name", REMOVALS)
def test_gains_are_the_difference_of_two_areas_by_sklearn(name: str) -> None:
    """One image at a time in both orders; the ends are shared, and a negated map has the negative gain."""
    backbone, pixels, target = example()
    protocol = PROTOCOLS[name]
    grid = protocol.units(backbone.grid, 24)
    maps = torch.randn(2, *grid, generator=torch.Generator().manual_seed(6))
    bank = PerturbationBank(backbone, pixels[:1])
    found = insertion_deletion(bank, target, torch.cat([maps, -maps]), protocol)
    gains = found.relevance_gain()
    assert torch.allclose(gains[:2], -gains[2:], atol=1e-5)
    counts = protocol.counts(grid[0] * grid[1])
    with torch.no_grad():
        for number, order in enumerate(ranked(maps, 0).flatten(1)):
            areas = []
            for backwards in (True, False):
                scores = []
                for count in counts:
                    kept = order < len(order) - count if backwards else order >= count
                    if name == "token_drop":
                        read = by_hand(backbone.image_tower, pixels[:1], kept.nonzero()[:, 0].tolist(), "pooled")
                    else:
                        mask = kept.view(1, 1, *grid).float()
                        mask = torch.nn.functional.interpolate(mask, size=24, mode="nearest-exact")
                        removal = protocol.deletion
                        filled = (
                            removal.mixed(pixels[:1], mask) if isinstance(removal, Road)
                            else torch.where(mask > 0.5, pixels[:1], removal(pixels[:1]))
                        )  # fmt: skip
                        read = backbone.encode_image(filled)
                    scores.append(target.score(read)[0, 1].item())
                areas.append(auc(np.array(counts) / len(order), scores))
            assert float(gains[number, 1]) == pytest.approx(areas[0] - areas[1], abs=2e-4)
    assert torch.allclose(found.span(), found.deletion[0, 0] - found.insertion[0, 0], atol=1e-5)


def test_the_true_map_of_a_score_that_sums_one_region_gains_most() -> None:
    weights = torch.zeros(1, 16, 16)
    weights[0, 4:8, 8:12] = 1 / 16
    pictures = torch.zeros(1, 3, 16, 16)
    pictures[:, :, 4:8, 8:12] = 1.0
    truth = weights[0].clone()
    others = torch.randn(50, 16, 16, generator=torch.Generator().manual_seed(1))
    for name in ("mean", "blur", "road"):
        bank = PerturbationBank(planted(), pictures)
        gains = insertion_deletion(bank, Weighed(weights), torch.cat([truth[None], others]), PROTOCOLS[name])
        gained = gains.relevance_gain()[:, 0]
        assert int(gained.argmax()) == 0


def test_gradeclip_counts_the_first_class_from_black_and_into_random_colours() -> None:
    backbone, pixels, _ = example()
    classes = ClassTarget.from_classes(backbone, ["nevus", "melanoma", "scale"], ["{}"])
    maps = torch.randn(1, 24, 24, generator=torch.Generator().manual_seed(0))
    found = insertion_deletion(PerturbationBank(backbone, pixels[:1]), classes, maps, PROTOCOLS["gradeclip"])
    assert set(found.deletion.unique().tolist()) <= {0.0, 1.0} and found.score_name == "accuracy of the first class"
    assert torch.equal(found.deletion.sum(dim=2), torch.ones(1, 11))
    assert torch.isnan(found.span()).all()  # it ends at half of the pixels
    texts = SimilarityTarget.from_texts(backbone, ["melanoma"])
    note = insertion_deletion(PerturbationBank(backbone, pixels[:1]), texts, maps, PROTOCOLS["gradeclip"]).note
    assert "which class is the first of several, and a cosine has none" in note
    preprocess = Preprocess(image_size=24)
    mean, std = (torch.tensor(part)[:, None, None] for part in (preprocess.mean, preprocess.std))
    assert torch.allclose(Black()(pixels, preprocess) * std + mean, torch.zeros_like(pixels), atol=1e-6)
    colours = RandomColours()(pixels, preprocess) * std + mean
    assert float(colours.min()) > -1e-6 and colours.max() <= 1 + 1e-6 and colours.std() > 0.25
