"""Insertion and deletion: against slow loops pixel by pixel, closed forms of a planted tower, and RISE's definition."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.ndimage import correlate1d, gaussian_filter
from torch import Tensor, nn

from clip_xai.data.preprocess import Preprocess
from clip_xai.models.backbones.base import VisionBackbone
from clip_xai.models.backbones.classifier import VisionClassifier
from clip_xai.models.backbones.tower import Features, ImageTower
from clip_xai.xai.curve_protocols import PROTOCOLS, Blurred, MeanColour, RiseBlurred, Zeros, scored
from clip_xai.xai.insertion_deletion import insertion_deletion, random_smooth_maps, ranked
from clip_xai.xai.perturbation_bank import PerturbationBank
from clip_xai.xai.target import CaptionTarget, ClassifierTarget, ClassTarget, SimilarityTarget
from clip_xai.xai.targets import Target
from tests.support.networks import NETWORKS
from tests.support.towers import pixels_for
from tests.xai.conftest import CAPTION, TEXTS

SIDE = 16


class Copying(ImageTower):
    """Hands over the pixels themselves, so that a target can be any function of them."""

    image_size, grid, width, embed_dim = SIDE, (4, 4), 3, 3 * SIDE * SIDE
    family, supports = "convolutional", frozenset()

    def features(self, pixels: Tensor) -> Features:
        tokens = torch.nn.functional.adaptive_avg_pool2d(pixels, 4).flatten(2).transpose(1, 2)
        return Features(pixels.flatten(1), tokens)

    def project(self, tokens: Tensor) -> Tensor:
        raise NotImplementedError

    def trace(self, *args: object, **kwargs: object) -> object:  # type: ignore[override]
        raise NotImplementedError


class Weighed(Target):
    """A weighted sum of the first channel, for T weightings ``[T, S, S]``."""

    name, reads, score_name = "weighed", "pooled", "weight"

    def __init__(self, weights: Tensor) -> None:
        self.weights, self.labels = weights.flatten(1), [str(number) for number in range(len(weights))]

    def score(self, read: Tensor) -> Tensor:
        return read.unflatten(1, (3, -1))[:, 0] @ self.weights.T


def planted() -> VisionBackbone:
    return VisionBackbone(nn.Identity(), Copying(), Preprocess(image_size=SIDE), "copying")


def counting(side: int = SIDE, batch: int = 1) -> Tensor:
    """A picture of ones, whose blurred and mean copies are ones too; zeros is the only baseline that it can lose to."""
    return torch.ones(batch, 3, side, side)


FILLED = [name for name in PROTOCOLS if name not in ("token_drop", "road")]  # by one picture, whatever the mask


@pytest.mark.parametrize("name", FILLED)
def test_a_score_that_counts_pixels_has_straight_curves(name: str) -> None:
    """Whatever the map: k of n pixels in, k of n out."""
    protocol = replace(PROTOCOLS[name], insertion=Zeros(), deletion=Zeros())
    target = Weighed(torch.full((1, SIDE, SIDE), 1 / SIDE**2))
    found = insertion_deletion(PerturbationBank(planted(), counting()), target, torch.rand(2, 4, 4), protocol)
    straight = found.shares[None, :, None].expand(2, -1, 1).float()
    assert torch.allclose(found.insertion, straight, atol=1e-5)
    assert torch.allclose(found.deletion, 1 - straight, atol=1e-5)
    points, share = len(found.shares), float(found.shares[-1])
    # The mean of a straight line; the chest study's own rule divides the sum of the trapezoids by the points.
    expected = share / 2 * ((points - 1) / points if name == "chest_study" else 1)
    if name not in ("rise", "abs_cam_study"):  # whose last step may be smaller and counts as much
        assert torch.allclose(found.area(found.insertion), torch.tensor(expected), atol=1e-5)
    halves = ("chest_study", "gradeclip")
    assert share == (pytest.approx(0.5, abs=25 / SIDE**2) if name in halves else 1)


def test_a_planted_cell_is_gone_after_one_step_of_the_right_map_and_after_the_last_of_its_reverse() -> None:
    weights = torch.zeros(1, SIDE, SIDE)
    weights[0, 4:8, 8:12] = 1 / 16
    right = torch.zeros(1, 4, 4)
    right[0, 1, 2] = 1
    protocol = replace(PROTOCOLS["default"], insertion=Zeros(), deletion=Zeros(), steps=16)
    backbone = planted()
    assert protocol.units(backbone.grid, SIDE) == (8, 8)  # four cells a side are cut in two
    found = insertion_deletion(PerturbationBank(backbone, counting()), Weighed(weights), right, protocol)
    assert found.insertion[0, :, 0].tolist() == pytest.approx([0.0] + [1.0] * 16)
    assert found.deletion[0, :, 0].tolist() == pytest.approx([1.0] + [0.0] * 16)
    assert found.reversed_insertion[0, :, 0].tolist() == pytest.approx([0.0] * 16 + [1.0])
    assert float(found.area(found.insertion)) == pytest.approx(1 - 1 / 32)
    assert float(found.area(found.deletion)) == pytest.approx(1 / 32)


@pytest.mark.parametrize("name", FILLED)
def test_against_a_slow_loop(name: str) -> None:
    """One map, one pixel, one step at a time; no two places of the map are equal, so that the order is known."""
    protocol, backbone = PROTOCOLS[name], planted()
    generator = torch.Generator().manual_seed(4)
    pixels = torch.randn(1, 3, SIDE, SIDE, generator=generator)
    side = 8 if protocol.cells else SIDE
    maps = torch.randn(3, side, side, generator=generator)
    target = Weighed(torch.randn(2, SIDE, SIDE, generator=generator))
    found = insertion_deletion(PerturbationBank(backbone, pixels), target, maps, protocol, chunk_size=7)
    size = protocol.pixels or -(-(side**2) // protocol.steps)
    size = 12 if name == "gradeclip" else size  # 256 pixels in twenty steps, rounded down
    last = int(protocol.share * side**2)
    counts = [*range(0, last, size), last] if protocol.share == 1 else list(range(0, last + 1, size))
    assert found.shares.tolist() == pytest.approx([count / side**2 for count in counts])
    whole, step = pixels[0].numpy(), SIDE // side
    inserted, deleted = (
        baseline(pixels, backbone.preprocess)[0].numpy() for baseline in (protocol.insertion, protocol.deletion)
    )
    for number, one in enumerate(maps.numpy()):
        hottest = sorted(np.ndindex(side, side), key=lambda place: -one[place])
        for curves, start, end, order in (
            (found.insertion, inserted, whole, hottest),
            (found.deletion, whole, deleted, hottest),
            (
                found.reversed_insertion,
                protocol.insertion(pixels, backbone.preprocess)[0].numpy(),
                whole,
                hottest[::-1],
            ),
            (found.reversed_deletion, whole, deleted, hottest[::-1]),
        ):
            picture, done = start.copy(), 0
            for point, count in enumerate(counts):
                while done < count:
                    row, column = order[done]
                    block = slice(row * step, (row + 1) * step), slice(column * step, (column + 1) * step)
                    picture[:, block[0], block[1]] = end[:, block[0], block[1]]
                    done += 1
                expected = target.score(torch.from_numpy(picture).flatten()[None])[0]
                assert torch.allclose(curves[number, point], expected, atol=1e-3)


def test_rise_is_the_published_definition_at_224_pixels() -> None:
    """RISE's ``CausalMetric`` written out: 1,792 pixels a step, its blur, its zeros, its area."""
    protocol = PROTOCOLS["rise"]
    assert protocol.counts(224**2) == [1792 * step for step in range(29)]
    assert PROTOCOLS["abs_cam_study"].counts(224**2) == protocol.counts(224**2)
    assert PROTOCOLS["chest_study"].counts(224**2)[:2] == [0, 25]
    pixels = torch.randn(1, 3, 40, 40, generator=torch.Generator().manual_seed(1))
    point = np.zeros((11, 11))
    point[5, 5] = 1
    kernel = torch.from_numpy(gaussian_filter(point, 5)).float()
    whole = torch.zeros(3, 3, 11, 11)
    for channel in range(3):
        whole[channel, channel] = kernel
    expected = nn.functional.conv2d(pixels, whole, padding=5)
    assert torch.allclose(RiseBlurred()(pixels), expected, atol=1e-5)
    assert Zeros()(pixels).abs().max() == 0
    scores = torch.tensor([0.1, 0.4, 0.5, 0.9])
    area = (scores.sum() - scores[0] / 2 - scores[-1] / 2) / 3
    assert float(protocol.areas(scores, torch.tensor([0.0, 0.4, 0.8, 1.0]))) == pytest.approx(float(area))


def test_the_chest_studys_blur_and_area() -> None:
    pixels = torch.randn(1, 3, 40, 40, generator=torch.Generator().manual_seed(1))
    taps = np.exp(-(np.arange(-9, 10) ** 2) / 200)
    expected = pixels.double().numpy()
    for axis in (2, 3):
        expected = correlate1d(expected, taps / taps.sum(), axis=axis, mode="mirror")
    assert np.allclose(PROTOCOLS["chest_study"].insertion(pixels).numpy(), expected, atol=1e-5)
    scores = torch.tensor([0.1, 0.4, 0.5, 0.9])
    by_study = np.trapezoid(scores.numpy(), dx=1 / len(scores))
    assert float(PROTOCOLS["chest_study"].areas(scores, torch.arange(4))) == pytest.approx(by_study)


def test_every_step_of_the_chest_protocol_is_another_picture() -> None:
    """The study's perturber handed out one and the same picture for 80 steps: a staircase of 2,000 pixels."""
    pixels = torch.randn(1, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(2))
    target = Weighed(torch.rand(1, SIDE, SIDE) + 0.1)
    found = insertion_deletion(
        PerturbationBank(planted(), pixels), target, torch.rand(1, SIDE, SIDE), PROTOCOLS["chest_study"]
    )
    heights = found.insertion[0, :, 0]
    assert len(heights.unique()) == len(heights) == 1 + 128 // 25


def test_equal_places_come_in_a_drawn_order_and_the_reverse_is_its_exact_reverse() -> None:
    flat = torch.zeros(2, 6, 6)
    first = ranked(flat, seed=3)
    assert torch.equal(first[0], first[1]) and torch.equal(ranked(flat, seed=3), first)
    assert not torch.equal(ranked(flat, seed=4), first)
    assert first[0].flatten().sort().values.tolist() == list(range(36))
    assert first[0].flatten().tolist() != list(range(36))
    ties = torch.tensor([[[2.0, 1.0, 1.0], [1.0, 0.0, 3.0]]])
    ranks = ranked(ties, seed=0)[0]
    assert (ranks[1, 2], ranks[0, 0], ranks[1, 1]) == (0, 1, 5)
    with pytest.raises(ValueError, match="NaN"):
        insertion_deletion(PerturbationBank(planted(), counting()), Weighed(torch.ones(1, 16, 16)), flat / 0)
    with pytest.raises(ValueError, match="one photograph, not 2"):
        insertion_deletion(PerturbationBank(planted(), counting(batch=2)), Weighed(torch.ones(1, 16, 16)), flat)


def test_masked_pictures_that_curves_share_are_run_once() -> None:
    """With one baseline the reversed curves are the others read backwards, and the ends are the same for all maps."""
    backbone = planted()
    pixels = torch.randn(1, 3, SIDE, SIDE)
    protocol = replace(PROTOCOLS["default"], deletion=PROTOCOLS["default"].insertion)
    bank = PerturbationBank(backbone, pixels)
    found = insertion_deletion(bank, Weighed(torch.rand(2, SIDE, SIDE)), torch.rand(3, 8, 8), protocol)
    steps = len(found.shares) - 1
    # A step of 3 of 64 cells: counted from the other end, all but the ends fall elsewhere.
    assert bank.forwards == 2 + 3 * 4 * (steps - 1)
    even = PerturbationBank(backbone, pixels)
    insertion_deletion(even, Weighed(torch.rand(2, SIDE, SIDE)), torch.rand(3, 8, 8), replace(protocol, steps=16))
    assert even.forwards == 2 + 3 * 2 * 15  # top k in, and bottom k in


def test_random_maps_are_smooth_and_repeat() -> None:
    maps = random_smooth_maps(39, (14, 14), seed=5)
    assert maps.shape == (39, 14, 14) and torch.equal(maps, random_smooth_maps(39, (14, 14), seed=5))
    step = (maps[:, 1:] - maps[:, :-1]).square().mean() / (2 * maps.var())
    assert step < 0.25  # of noise that is 1
    assert random_smooth_maps(2, (2, 2)).shape == (2, 8, 8)


@pytest.mark.parametrize("kind", ["logit", "margin"])
def test_a_classifier_is_scored_by_its_own_probability(kind: str) -> None:
    library, network, tower = NETWORKS["torchvision_resnet"]()
    backbone = VisionClassifier(network, tower, Preprocess(image_size=tower.image_size), "a", library)
    pixels = pixels_for(tower)[:1]
    target = ClassifierTarget.of(backbone, [3, 1], kind)
    maps = random_smooth_maps(2, backbone.grid)
    for name, expected in (("rise", network(pixels).softmax(1)), ("chest_study", network(pixels).sigmoid())):
        protocol = replace(PROTOCOLS[name], steps=None, pixels=1000)
        found = insertion_deletion(PerturbationBank(backbone, pixels), target, maps, protocol)
        assert torch.allclose(found.deletion[:, 0], expected[:, [3, 1]].detach().expand(2, -1), atol=1e-5)
        assert found.score_name == ("softmax probability" if name == "rise" else "sigmoid probability")
    own = insertion_deletion(PerturbationBank(backbone, pixels), target, maps)
    assert own.score_name == ("class logit" if kind == "logit" else "class logit margin")
    assert torch.allclose(own.deletion[0, 0], target.score(backbone.encode_image(pixels))[0].detach(), atol=1e-5)


def test_captions_classes_and_similarities_have_curves(captioner, pixels) -> None:
    backbone = captioner.backbone
    bank = PerturbationBank(backbone, pixels[:1])
    whole = CaptionTarget.whole(captioner, captioner.tokenizer.encode(CAPTION))
    maps = random_smooth_maps(1, backbone.grid)
    found = insertion_deletion(bank, whole, maps)
    expected = whole.score(captioner.read(pixels[:1])).detach()
    assert found.score_name == "log-probability" and torch.allclose(found.deletion[0, 0], expected[0], atol=1e-4)
    assert torch.allclose(found.insertion[0, -1], expected[0], atol=1e-4)
    likely = insertion_deletion(bank, whole, maps, PROTOCOLS["rise"])
    assert likely.score_name == "probability"
    assert torch.allclose(likely.deletion[0, 0], expected[0].exp(), rtol=1e-3)
    texts = SimilarityTarget.from_texts(backbone, TEXTS)
    cosine = insertion_deletion(bank, texts, maps, PROTOCOLS["rise"])
    assert cosine.score_name == "cosine" and "which a cosine is not" in cosine.note
    zero_shot = ClassTarget.from_classes(backbone, ["nevus", "melanoma"], ["{}"], "log_probability")
    likely = insertion_deletion(bank, zero_shot, maps, PROTOCOLS["rise"])
    assert torch.allclose(likely.deletion[0].sum(dim=1), torch.ones(likely.deletion.shape[1]), atol=1e-4)
    assert scored(zero_shot, PROTOCOLS["chest_study"]).note


def test_baselines_keep_the_mean_and_lose_the_rest() -> None:
    pixels = torch.randn(1, 3, SIDE, SIDE)
    mean = MeanColour()(pixels)
    assert torch.allclose(mean.mean(dim=(2, 3)), pixels.mean(dim=(2, 3)), atol=1e-5)
    assert mean.std(dim=(2, 3)).max() < 1e-6
    assert Blurred(1 / 8)(pixels).std() < 0.5 * pixels.std() and "12.5% of the side" in Blurred(1 / 8).words
