"""CCI, extremal perturbation and M2IB against loops."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from sklearn.cluster import KMeans
from torch import Tensor, nn

from clip_xai.errors import UserError
from clip_xai.models.backbones.open_clip_vit import OpenClipBackbone
from clip_xai.models.captioner import Captioner
from clip_xai.xai.methods.bottleneck import M2ib
from clip_xai.xai.methods.cci import Cci
from clip_xai.xai.methods.extremal import Bumps, ExtremalPerturbation
from clip_xai.xai.target import CaptionTarget, SimilarityTarget
from tests.xai.conftest import assert_close

pytestmark = pytest.mark.slow  # methods that optimise masks, checked step by step


@pytest.mark.parametrize("chunk_size", [2, 64])
def test_cci_matches_attention_masks_of_open_clip(captioner: Captioner, pixels: Tensor, chunk_size: int) -> None:
    backbone = captioner.backbone
    visual = backbone.visual
    for target in (
        SimilarityTarget.from_texts(backbone, ["melanoma", "a nevus"]),
        CaptionTarget.words(captioner, captioner.tokenizer.encode("a nevus")),
    ):
        found = Cci(clusters=3, seed=4, chunk_size=chunk_size).explain(backbone, pixels, target).values.flatten(2)
        for image in range(2):
            features = backbone.features(pixels[image : image + 1])
            labels = KMeans(3, n_init=10, random_state=4).fit_predict(features.patches[0].detach().numpy())
            whole = target.score(features.read(target.reads))[0]
            for cluster in range(3):
                members = torch.from_numpy(labels == cluster)
                mask = torch.zeros(17, 17)
                mask[:, 1:][:, members] = -torch.inf
                tokens = visual._embeds(pixels[image : image + 1])
                for block in visual.transformer.resblocks:
                    tokens = block(tokens, attn_mask=mask)
                normed = visual.ln_post(tokens)
                score = target.score(normed[:, 0] @ visual.proj if target.reads == "pooled" else normed)[0]
                for patch in members.nonzero().flatten().tolist():
                    assert (found[image, :, patch] - (whole - score)).abs().max() < 2e-5 * whole.abs().max()


def test_cci_costs_one_pass_a_cluster_for_all_texts(backbone: OpenClipBackbone, pixels: Tensor) -> None:
    rows: list[int] = []
    handle = backbone.visual.transformer.resblocks[0].mlp.register_forward_hook(lambda *call: rows.append(len(call[2])))
    Cci(clusters=4).explain(backbone, pixels, SimilarityTarget(torch.randn(16, 16), list("abcdefghijklmnop")))
    handle.remove()
    assert sum(rows) == 2 * (1 + 4)


def test_cci_refuses_more_clusters_than_patches(backbone: OpenClipBackbone, similarity: SimilarityTarget) -> None:
    with pytest.raises(UserError, match="at least 2"):
        Cci(clusters=1)
    with pytest.raises(UserError, match="lower it"):
        Cci(clusters=17).explain(backbone, torch.randn(1, 3, 24, 24), similarity)


@pytest.mark.parametrize("layer", [0, 1])
def test_m2ib_matches_the_loop(
    backbone: OpenClipBackbone, pixels: Tensor, similarity: SimilarityTarget, layer: int
) -> None:
    """A hook that stands in for the block's output, one image and text at a time, as the published code does it."""
    settings = {"beta": 0.2, "steps": 4, "draws": 3, "seed": 2}
    found = M2ib(layer=layer, **settings).explain(backbone, pixels, similarity).values
    noise = torch.randn(4, 3, 17, 32, generator=torch.Generator().manual_seed(2))
    for image, text in ((0, 0), (1, 2)):
        alpha = nn.Parameter(torch.full((17, 32), 5.0))
        optimiser = torch.optim.Adam([alpha], lr=1.0)
        original: list[Tensor] = []

        def capacity(alpha: Tensor = alpha, original: list[Tensor] = original) -> Tensor:
            gate = alpha.sigmoid()
            mean, variance = gate * original[0][0], (1 - gate) ** 2
            return -0.5 * (1 + variance.log() - mean**2 - variance)

        for step in range(4):

            def bottleneck(
                module: nn.Module,
                inputs: object,
                output: Tensor,
                step: int = step,
                alpha: Tensor = alpha,
                original: list[Tensor] = original,
            ) -> Tensor:
                original.append(output.detach())
                return alpha.sigmoid() * output + (1 - alpha.sigmoid()) * noise[step]

            handle = backbone.visual.transformer.resblocks[layer].register_forward_hook(bottleneck)
            scores = similarity.score(backbone.encode_image(pixels[image : image + 1].expand(3, -1, -1, -1)))[:, text]
            handle.remove()
            loss = 0.2 * capacity().mean() - scores.mean()
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
        expected = capacity().detach().sum(-1)[1:].unflatten(0, (4, 4))
        assert_close(found[image, text], expected, 1e-4)  # Adam divides by the size of small gradients


def test_m2ib_does_not_depend_on_the_chunk(
    backbone: OpenClipBackbone, pixels: Tensor, similarity: SimilarityTarget
) -> None:
    settings = {"layer": 1, "steps": 3, "draws": 2}
    one = M2ib(chunk_size=1, **settings).explain(backbone, pixels, similarity).values
    assert_close(M2ib(chunk_size=9, **settings).explain(backbone, pixels, similarity).values, one, 1e-4)
    with pytest.raises(UserError, match="leaves no block of 3 behind it"):
        M2ib(layer=-1).explain(backbone, pixels, similarity)


def test_bumps_are_a_smooth_maximum() -> None:
    """Pixel by pixel and cell by cell, as the definition reads."""
    side, cells, smoothing = 10, 5, 1.5
    parameters = torch.rand(2, cells, cells, generator=torch.Generator().manual_seed(0))
    found = Bumps(side, cells, smoothing).masks(parameters)
    for row in range(side):
        for column in range(side):
            y, x = ((place + 0.5) * cells / side for place in (row, column))
            values = []
            for i in range(int(y) - 3, int(y) + 4):
                for j in range(int(x) - 3, int(x) + 4):
                    away = ((i + 0.5 - y) ** 2 + (j + 0.5 - x) ** 2) ** 0.5 / smoothing
                    kernel = torch.tensor(-2 * max(away - 0.5, 0) ** 2).exp()
                    inside = [k if 0 <= k < cells else -1 - k if k < 0 else 2 * cells - 1 - k for k in (i, j)]
                    values.append(kernel * parameters[:, inside[0], inside[1]])
            v = torch.stack(values, dim=1)
            expected = (v * F.softmax(20 * v, dim=1)).sum(1).clamp(0, 1)
            assert (found[:, row, column] - expected).abs().max() < 1e-5


def test_every_parameter_weighs_the_same_wherever_it_stands() -> None:
    """Of a mask that is the same everywhere, no place moves more than another: otherwise the borders would win."""
    parameters = torch.full((1, 6, 6), 0.7, requires_grad=True)
    masks = Bumps(24, 6, 1.5).masks(parameters)
    assert (masks - masks[0, 0, 0]).abs().max() < 1e-3 + (masks[0, 8:12, 8:12] - masks[0, 8, 8]).abs().max()
    (gradient,) = torch.autograd.grad(masks.sum(), parameters)
    assert (gradient - gradient.mean()).abs().max() < 1e-4 * gradient.mean()


class Brightness:
    """What a tower would hand over that reads the brightness of the upper right quarter alone."""

    gain = 1.0

    def __init__(self, pixels: Tensor) -> None:
        self.pooled = F.pad(self.gain * pixels[:, :, 2:10, 14:22].mean(dim=(1, 2, 3))[:, None], (0, 15))

    def read(self, reads: str) -> Tensor:
        return self.pooled


class Certain(SimilarityTarget):
    """A score that does not move until most of what it reads is gone, as a caption's log-probability."""

    def score_of(self, read: Tensor, text_embeddings: Tensor) -> Tensor:
        return F.logsigmoid(40 * (read[:, :1] - 0.5))


def test_a_score_that_is_certain_still_finds_its_region(backbone: OpenClipBackbone) -> None:
    pixels = torch.ones(1, 3, 24, 24)
    backbone.features = Brightness  # type: ignore[assignment, method-assign]
    target = Certain(torch.eye(16)[:1], ["bright"], "dot")
    explainer = ExtremalPerturbation([0.25], "preserve", "fade", 100, 12, 1.5, jitter=False)
    values = explainer.explain(backbone, pixels, target).values[0, 0]
    assert float(target.score(Brightness(pixels).read("pooled"))) > -1e-6
    assert values[:2, 2:].mean() > 3 * (values.sum() - values[:2, 2:].sum()) / 12


def test_a_score_of_nothing_has_no_region(backbone: OpenClipBackbone, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Brightness, "gain", 0.0)
    backbone.features = Brightness  # type: ignore[assignment, method-assign]
    target = SimilarityTarget(torch.eye(16)[:1], ["bright"], "dot")
    explainer = ExtremalPerturbation([0.25], "preserve", "fade", 100, 12, 1.5, jitter=False)
    values = explainer.explain(backbone, torch.ones(1, 3, 24, 24), target).values
    assert values.max() - values.min() < 1e-6 and abs(float(values.mean()) - 0.25) < 0.05


@pytest.mark.parametrize("variant", ["preserve", "delete", "dual"])
def test_a_bright_square_is_the_extremal_region(
    backbone: OpenClipBackbone, monkeypatch: pytest.MonkeyPatch, variant: str
) -> None:
    """A score that reads the brightness of one quarter: its best region of that size is that quarter."""

    pixels = torch.zeros(1, 3, 24, 24)
    pixels[:, :, :12, 12:] = 1.0
    target = SimilarityTarget(torch.eye(16)[:1], ["bright"], "dot")

    monkeypatch.setattr(Brightness, "gain", 60.0)
    backbone.features = Brightness  # type: ignore[assignment, method-assign]
    explainer = ExtremalPerturbation(
        areas=[0.25], variant=variant, perturbation="fade", iterations=100, cells=12, smoothing=1.5, jitter=False
    )
    values = explainer.explain(backbone, pixels, target).values[0, 0]
    quarter = values[:2, 2:]
    assert quarter.mean() > 0.6 and quarter.mean() > 3 * (values.sum() - quarter.sum()) / 12
    assert abs(float(values.mean()) - 0.25) < 0.12


def test_extremal_masks_do_not_depend_on_the_batch(
    backbone: OpenClipBackbone, pixels: Tensor, similarity: SimilarityTarget
) -> None:
    settings = {"iterations": 6, "cells": 6, "areas": [0.1, 0.3]}
    whole = ExtremalPerturbation(**settings).explain(backbone, pixels, similarity).values
    chunks = ExtremalPerturbation(chunk_size=5, **settings).explain(backbone, pixels, similarity).values
    assert (whole - chunks).abs().max() < 5e-3  # masks move about that much under rounding
    one = ExtremalPerturbation(**{**settings, "areas": [0.1]}).explain(backbone, pixels[1:], similarity).values
    two = ExtremalPerturbation(**{**settings, "areas": [0.3]}).explain(backbone, pixels[1:], similarity).values
    assert ((one + two) / 2 - whole[1:]).abs().max() < 5e-3


def test_settings_without_meaning_are_refused() -> None:
    for settings in ({"variant": "triple"}, {"perturbation": "noise"}, {"areas": []}, {"areas": [1.0]}):
        with pytest.raises(UserError, match=r"xai\.extremal_perturbation"):
            ExtremalPerturbation(**settings)  # type: ignore[arg-type]
