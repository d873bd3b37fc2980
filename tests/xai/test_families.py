"""Methods that mask, ablate or differentiate, on every family, against loops around its library's own pass."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import combinations, permutations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from captum.attr import InputXGradient as LibraryInputXGradient
from captum.attr import IntegratedGradients as LibraryIntegrated
from captum.attr import Occlusion as LibraryOcclusion
from captum.attr import Saliency as LibrarySaliency
from pytorch_grad_cam import GradCAM, GradCAMPlusPlus, HiResCAM, LayerCAM
from pytorch_grad_cam.base_cam import BaseCAM
from torch import Tensor, nn
from torchvision.transforms.functional import gaussian_blur

from clip_xai.xai.explainer import Explainer
from clip_xai.xai.masks import smooth_masks
from clip_xai.xai.methods import (
    AblationCam,
    AbsCamFinal,
    AbsCamInit,
    EmbeddingSpace,
    ExtremalPerturbation,
    GradCam,
    GradCamPlusPlus,
    GradientShap,
    GuidedBackprop,
    HiResCam,
    InputXGradient,
    IntegratedGradients,
    KernelShap,
    LayerCam,
    Occlusion,
    Rise,
    Saliency,
    ScoreCam,
    SmoothGrad,
)
from clip_xai.xai.methods.extremal import Bumps
from clip_xai.xai.methods.path import baseline_images
from tests.support.families import EVERY, Subject, mostly_slow, on, subject
from tests.xai.conftest import assert_close
from tests.xai.test_gradient_methods import GuidedGelu

CAMS = [(GradCam, GradCAM), (GradCamPlusPlus, GradCAMPlusPlus), (LayerCam, LayerCAM), (HiResCam, HiResCAM)]


class Scores(nn.Module):
    """A subject as libraries want a model; the tower is a part of it, so that hooks find it."""

    def __init__(self, one: Subject) -> None:
        super().__init__()
        self.one, self.tower = one, one.tower.module

    def forward(self, pixels: Tensor) -> Tensor:
        return self.one.score(pixels)


def assert_equal(found: Tensor, expected: Tensor, summands: Tensor | float) -> None:
    """Equal to 1e-5, and to what float32 keeps of the summands, which are far larger than the sum where they cancel."""
    assert found.shape == expected.shape
    assert expected.abs().max() > 0
    rounding = 16 * torch.finfo(torch.float32).eps * float(summands)
    assert float((found - expected).abs().max()) <= 1e-5 * float(expected.abs().max()) + rounding


@contextmanager
def kept_output(module: nn.Module, change: Callable[[Tensor], Tensor] | None = None) -> Iterator[list[Tensor]]:
    """What a module puts out, in the graph; with ``change``, something else goes on in its place."""
    found: list[Tensor] = []

    def keep(_: nn.Module, __: object, output: Tensor | tuple[Tensor, ...]) -> object:
        own = output[0] if isinstance(output, tuple) else output
        own = own if own.requires_grad or not torch.is_grad_enabled() else own.requires_grad_()
        found.append(own)
        changed = own if change is None else change(own)
        return (changed, *output[1:]) if isinstance(output, tuple) else changed

    handle = module.register_forward_hook(keep)
    try:
        yield found
    finally:
        handle.remove()


def gradient(one: Subject, pixels: Tensor, text: int) -> Tensor:
    leaf = pixels.clone().requires_grad_()
    return torch.autograd.grad(one.score(leaf)[:, text].sum(), leaf)[0]


def by_cells(values: Tensor, grid: tuple[int, int]) -> Tensor:
    """The mean of pixels ``[..., S, S]`` over each cell."""
    side = values.shape[-1]
    return values.unflatten(-1, (grid[1], side // grid[1])).unflatten(-3, (grid[0], side // grid[0])).mean((-3, -1))


@on(EVERY)
def test_occlusion_is_captums(build: Callable) -> None:
    one = subject(build)
    found = Occlusion(window=1).explain(one.backbone, one.pixels, one.target)
    cell = one.tower.image_size // one.tower.grid[0]
    captum = LibraryOcclusion(one.score)
    for text in range(3):
        windows = (3, cell, cell)
        expected = captum.attribute(one.pixels, windows, strides=windows, baselines=0, target=text)
        assert_equal(found.values[:, text], by_cells(expected[:, 0], one.tower.grid).float(), found.scores.abs().max())
    assert_close(found.scores, one.score(one.pixels).detach())


@on(EVERY)
def test_rise_is_the_loop(build: Callable) -> None:
    one = subject(build)
    side = one.tower.image_size
    found = Rise(masks=12, cells=3, seed=1).explain(one.backbone, one.pixels, one.target).values
    rows = torch.arange(12)
    masks = smooth_masks(12, 3, 0.5, side, seed=1).pixels(rows, rows, side)
    for image in range(2):
        scores = torch.cat([one.score(one.pixels[image : image + 1] * mask) for mask in masks]).detach()
        heat = torch.einsum("mt,mhw->thw", scores - scores.mean(0), masks) / (12 * 0.5)
        assert_equal(found[image], by_cells(heat, one.tower.grid), scores.abs().max())


@on(EVERY)
def test_kernelshap_of_few_players_is_the_shapley_value(build: Callable) -> None:
    one = subject(build)
    found = KernelShap(cells=2).explain(one.backbone, one.pixels, one.target).values
    half, players = one.tower.image_size // 2, range(4)
    quarters = [(slice(r * half, (r + 1) * half), slice(c * half, (c + 1) * half)) for r in range(2) for c in range(2)]
    worth = {}
    for size in range(5):
        for present in combinations(players, size):
            image = torch.zeros_like(one.pixels)
            for player in present:
                image[(..., *quarters[player])] = one.pixels[(..., *quarters[player])]
            worth[present] = one.score(image).detach()
    for player in players:
        share = torch.zeros(2, 3)
        for order in permutations(players):
            before = tuple(sorted(order[: order.index(player)]))
            share += (worth[tuple(sorted((*before, player)))] - worth[before]) / 24
        row, column = divmod(player, 2)
        quarter = found.unflatten(3, (2, -1)).unflatten(2, (2, -1))[:, :, row, :, column].sum(dim=(2, 3))
        assert_equal(quarter, share, worth[(0, 1, 2, 3)].abs().max())


@on(EVERY)
@pytest.mark.parametrize(("own", "library"), CAMS, ids=lambda kind: kind.__name__)
def test_class_activation_maps_are_those_of_the_library(
    build: Callable, own: type[Explainer], library: type[BaseCAM]
) -> None:
    one = subject(build)
    found = own(layer=-1).explain(one.backbone, one.pixels, one.target).values
    cam = library(Scores(one), [nn.Identity()])  # for its formula alone: it cannot read blocks that give tuples
    for text in range(3):
        with kept_output(one.read_at[-1]) as kept:
            score = one.score(one.pixels)[:, text].sum()
        channels, slopes = (one.as_channels(part).detach() for part in (kept[0], *torch.autograd.grad(score, kept)))
        raw = cam.get_cam_image(one.pixels, None, [], channels.numpy(), slopes.numpy(), False)
        assert_equal(found[:, text], torch.from_numpy(raw).relu(), (channels * slopes).abs().sum(dim=1).max())


def enlarged(channels: Tensor, side: int) -> Tensor:
    """Channels ``[C, h, w]`` enlarged to pixels and scaled to [0, 1] one by one."""
    masks = F.interpolate(channels[None], size=side, mode="bilinear")[0]
    low, high = masks.amin((1, 2), keepdim=True), masks.amax((1, 2), keepdim=True)
    return torch.where(high > low, (masks - low) / (high - low).clamp(min=1e-30), 0.0)


@mostly_slow(EVERY)
def test_scorecam_is_the_loop(build: Callable) -> None:
    one = subject(build)
    found = ScoreCam(weighting="linear").explain(one.backbone, one.pixels, one.target).values
    with kept_output(one.read_at[-1]) as kept:
        one.embed(one.pixels)
    channels = one.as_channels(kept[0]).detach()
    nothing = one.score(torch.zeros_like(one.pixels[:1])).detach()
    for image in range(2):
        masks = enlarged(channels[image], one.tower.image_size)
        scores = torch.cat([one.score(one.pixels[image : image + 1] * mask) for mask in masks]).detach()
        expected = torch.einsum("ct,chw->thw", scores - nothing, channels[image]).relu()
        assert_equal(found[image], expected, scores.abs().max() * channels[image].abs().sum(dim=0).max())


@mostly_slow(EVERY)
def test_abscam_is_the_loop(build: Callable) -> None:
    one = subject(build)
    first = AbsCamInit().explain(one.backbone, one.pixels, one.target).values
    final = AbsCamFinal().explain(one.backbone, one.pixels, one.target).values
    for text in range(3):
        with kept_output(one.read_at[-1]) as kept:
            score = one.score(one.pixels)[:, text].sum()
        (slope,) = torch.autograd.grad(score, kept[0])
        channels, slopes = one.as_channels(kept[0]).detach(), one.as_channels(slope)
        weights = slopes.abs().mean(dim=(2, 3))
        assert_close(first[:, text], torch.einsum("bc,bchw->bhw", weights, channels), 1e-5)
        for image in range(2):
            masks = enlarged(weights[image, :, None, None] * channels[image], one.tower.image_size)
            scores = torch.cat([one.score(one.pixels[image : image + 1] * mask) for mask in masks])[:, text].detach()
            heat = torch.einsum("c,chw->hw", scores.abs(), masks).relu()
            assert_close(final[image, text], by_cells(heat, one.tower.grid), 1e-5)


@mostly_slow(EVERY)
@pytest.mark.parametrize("layer", [-1, 0])
@pytest.mark.parametrize("ablation", ["zero", "mean"])
def test_ablationcam_is_a_hook_on_one_channel(build: Callable, layer: int, ablation: str) -> None:
    one = subject(build)
    found = AblationCam(layer=layer, ablation=ablation, chunk_size=7).explain(one.backbone, one.pixels, one.target)
    module = one.read_at[layer]
    with torch.no_grad(), kept_output(module) as kept:
        whole = one.score(one.pixels)
    channels = one.as_channels(kept[0])
    is_map = kept[0].ndim == 4
    weights = []
    for channel in range(channels.shape[1]):

        def replaced(output: Tensor, channel: int = channel) -> Tensor:
            output = output.clone()
            own = output[:, channel] if is_map else output[..., channel]
            own[:] = own.flatten(1).mean(dim=1).view(-1, *[1] * (own.ndim - 1)) if ablation == "mean" else 0.0
            return output

        with torch.no_grad(), kept_output(module, replaced):
            weights.append((whole - one.score(one.pixels)) / whole.abs())
    expected = torch.einsum("cbt,bchw->bthw", torch.stack(weights), channels).relu()
    assert_equal(found.values, expected, whole.abs().max() / whole.abs().min() * channels.abs().sum(dim=1).max())
    assert_close(found.scores, whole)


@on(EVERY)
def test_pixel_gradients_are_captums(build: Callable) -> None:
    one = subject(build)
    saliency, product, path = (
        method.explain(one.backbone, one.pixels, one.target).values
        for method in (Saliency("pixels"), InputXGradient("pixels"), IntegratedGradients(6, resolution="pixels"))
    )
    model = Scores(one)
    for text in range(3):
        leaf = one.pixels.clone().requires_grad_()
        assert_close(saliency[:, text], LibrarySaliency(model).attribute(leaf, target=text).amax(dim=1), 1e-5)
        expected = LibraryInputXGradient(model).attribute(leaf, target=text).sum(dim=1).detach()
        assert_close(product[:, text], expected, 1e-5)
        expected = LibraryIntegrated(model).attribute(one.pixels, target=text, n_steps=6, method="gausslegendre")
        assert_close(path[:, text], expected.sum(dim=1).detach().float(), 1e-5)


@on(EVERY)
def test_embedding_space_is_the_sum_over_dimensions(build: Callable) -> None:
    one = subject(build)
    found = EmbeddingSpace("input_x_gradient").explain(one.backbone, one.pixels, one.target).values
    texts = F.normalize(one.target.text_embeddings, dim=-1)
    expected = torch.zeros_like(found)
    for dimension in range(one.tower.embed_dim):
        leaf = one.pixels.clone().requires_grad_()
        (slope,) = torch.autograd.grad(F.normalize(one.embed(leaf), dim=-1)[:, dimension].sum(), leaf)
        cells = by_cells((one.pixels * slope).sum(dim=1), one.tower.grid)
        expected += texts[:, dimension, None, None] * cells[:, None]
    assert_close(found, expected * (one.tower.image_size // one.tower.grid[0]) ** 2, 1e-5)


@on(EVERY)
def test_noise_and_paths_are_loops(build: Callable) -> None:
    one = subject(build)
    smooth = SmoothGrad(3, 0.2, seed=4, resolution="pixels").explain(one.backbone, one.pixels, one.target).values
    shap = GradientShap(4, 0.1, seed=2, resolution="pixels").explain(one.backbone, one.pixels, one.target).values
    draw = torch.Generator().manual_seed(4)
    noise = [seeded_noise(seed, one) for seed in torch.randint(2**31, (3,), generator=draw)]
    draw = torch.Generator().manual_seed(2)
    starts, places = torch.randint(4, (4,), generator=draw), torch.rand(4, generator=draw)
    noises = [seeded_noise(seed, one) for seed in torch.randint(2**31, (4,), generator=draw)]
    spread = (one.pixels.amax((1, 2, 3)) - one.pixels.amin((1, 2, 3)))[:, None, None, None]
    for text in range(3):
        mean = torch.stack([gradient(one, one.pixels + 0.2 * spread * drawn, text) for drawn in noise]).mean(0)
        assert_close(smooth[:, text], mean.abs().amax(dim=1), 1e-5)
        expected = torch.zeros_like(shap[:, text])
        for start, place, drawn in zip(starts, places, noises, strict=True):
            base = baseline_images(one.backbone, one.pixels, ("mean", "black", "white", "blur")[start])
            point = base + place * (one.pixels + 0.1 * spread * drawn - base)
            expected += ((one.pixels - base) * gradient(one, point, text)).sum(dim=1) / 4
        assert_close(shap[:, text], expected, 1e-5)


def seeded_noise(seed: Tensor, one: Subject) -> Tensor:
    return torch.randn(one.pixels.shape[1:], generator=torch.Generator().manual_seed(int(seed)))


class QuickGuided(nn.Module):
    """The guided rule around any activation: what comes back is kept where it and the input are positive."""

    def __init__(self, activation: nn.Module) -> None:
        super().__init__()
        self.activation = activation

    def forward(self, value: Tensor) -> Tensor:
        found = self.activation(value)
        if value.requires_grad:
            value.register_hook(lambda back: torch.where(back > 0, back, 0.0))
        # The hook acts on what comes out of the activation's own backward pass, the factor on where it went in.
        return found * (value > 0) + (found * (value <= 0)).detach()


@on(EVERY)
def test_guided_backprop_keeps_what_is_positive(build: Callable) -> None:
    one = subject(build)
    found = GuidedBackprop("pixels").explain(one.backbone, one.pixels, one.target).values
    guide(one.tower.module)
    for text in range(3):
        assert_close(found[:, text], gradient(one, one.pixels, text).abs().amax(dim=1), 1e-5)


def guide(module: nn.Module) -> None:
    """Put written-out rules in place of a tower's activations."""
    for name, part in module.named_children():
        kind = type(part).__name__
        if isinstance(part, nn.ReLU):
            setattr(module, name, QuickGuided(nn.ReLU()))
        elif isinstance(part, nn.GELU) or kind in ("GELUActivation", "GELU"):
            setattr(module, name, GuidedGelu())
        elif "GELU" in kind:
            setattr(module, name, QuickGuided(part))
        else:
            guide(part)


@mostly_slow(EVERY)
@pytest.mark.parametrize("variant", ["preserve", "delete", "dual"])
def test_extremal_perturbation_climbs_as_defined(build: Callable, variant: str) -> None:
    """One image, one text and one area at a time, every step written out."""
    one = subject(build)
    side, steps, cells = one.tower.image_size, 3, 6
    scale = 50 / float((one.score(one.pixels) - one.score(torch.zeros_like(one.pixels))).abs().mean())
    explainer = ExtremalPerturbation(
        areas=[0.2], variant=variant, iterations=steps, cells=cells, smoothing=1.5, scale=scale
    )
    found = explainer.explain(one.backbone, one.pixels, one.target).values
    bumps = Bumps(side, cells, 1.5)
    sigmas = [0.09 * side * (1 - level / 7) for level in range(8)]
    for image, text in ((0, 0), (1, 2)):
        own = one.pixels[image : image + 1]
        levels = [gaussian_blur(own, [2 * reach_of(s, side) + 1] * 2, [s] * 2) if s > 0 else own for s in sigmas]
        parameters = torch.ones(1, cells, cells)
        velocity = torch.zeros_like(parameters)
        for step in range(steps):
            parameters = parameters.detach().requires_grad_()
            mask = bumps.masks(parameters)
            kept = one.score(flip(mixed(levels, mask), step))[0, text]
            lost = one.score(flip(mixed(levels, 1 - mask), step))[0, text]
            reward = {"preserve": kept, "delete": -lost, "dual": kept - lost}[variant]
            ripples = bumps.masks(parameters.detach().mean().expand_as(parameters))
            even = (mask - (ripples - ripples.mean()).detach()).flatten().sort().values
            tied = (even[:, None] - even).detach().abs() <= 0.01 * float(even.mean())
            wanted = tied.float() @ (torch.arange(side * side) >= int(0.8 * side * side)).float() / tied.sum(dim=1)
            loss = 300 * 1.0035 ** (800 / steps * step) * (even - wanted).square().mean() - scale * reward
            velocity = 0.9 * velocity + 0.1 * torch.autograd.grad(loss, parameters)[0]
            parameters = (parameters.detach() - 0.01 * 800 / steps * (cells / 32) ** 2 * velocity).clamp(0, 1)
        expected = by_cells(bumps.masks(parameters)[0], one.tower.grid)
        assert expected.std() > 0.01
        # Where two places tie, rounding tells which comes first.
        assert (found[image, text] - expected).abs().max() <= 1e-2


def reach_of(sigma: float, side: int) -> int:
    return min(int(np.ceil(3 * sigma)), side - 1)


def flip(images: Tensor, step: int) -> Tensor:
    return images.flip(-1) if step % 2 == 0 else images


def mixed(levels: list[Tensor], mask: Tensor) -> Tensor:
    """Between levels k and k + 1 of eight, where the mask lies between k / 7 and (k + 1) / 7."""
    image = torch.zeros_like(levels[0])
    for level in range(8):
        weight = (1 - (7 * mask - level).abs()).clamp(min=0)
        image = image + weight[:, None] * levels[level]
    return image
