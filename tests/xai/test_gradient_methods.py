"""Pixel gradients against captum, a text and an image at a time, and loops over samples."""

from __future__ import annotations

import copy

import pytest
import torch
from captum.attr import InputXGradient as LibraryInputXGradient
from captum.attr import IntegratedGradients as LibraryIntegrated
from captum.attr import Saliency as LibrarySaliency
from torch import Tensor, nn
from torchvision.transforms.functional import gaussian_blur

from clip_xai.errors import UserError
from clip_xai.models.backbones.open_clip_vit import OpenClipBackbone
from clip_xai.models.captioner import Captioner
from clip_xai.xai.methods import (
    EmbeddingSpace,
    GradCam,
    GradientShap,
    GuidedBackprop,
    InputXGradient,
    IntegratedGradients,
    Saliency,
    SmoothGrad,
)
from clip_xai.xai.methods.path import baseline_images
from clip_xai.xai.pixels import by_cell
from clip_xai.xai.target import CaptionTarget, EmbeddingDimensionTarget, SimilarityTarget
from tests.xai.conftest import CAPTION, TEXTS, assert_close
from tests.xai.test_methods import Scores


def test_saliency_and_input_x_gradient_match_captum(
    backbone: OpenClipBackbone, pixels: Tensor, similarity: SimilarityTarget
) -> None:
    model = Scores(backbone, similarity)
    saliency = Saliency("pixels").explain(backbone, pixels, similarity)
    product = InputXGradient("pixels").explain(backbone, pixels, similarity)
    for text in range(3):
        leaf = pixels.clone().requires_grad_()
        assert_close(saliency.values[:, text], LibrarySaliency(model).attribute(leaf, target=text).amax(dim=1))
        expected = LibraryInputXGradient(model).attribute(leaf, target=text).sum(dim=1).detach()
        assert_close(product.values[:, text], expected)
    assert_close(product.scores, model(pixels))


def test_words_of_a_caption_reach_the_pixels(captioner: Captioner, pixels: Tensor) -> None:
    target = CaptionTarget.words(captioner, captioner.tokenizer.encode("a nevus"))
    found = InputXGradient("pixels").explain(captioner.backbone, pixels, target)
    model = Scores(captioner.backbone, target)
    for word in range(2):
        leaf = pixels.clone().requires_grad_()
        expected = LibraryInputXGradient(model).attribute(leaf, target=word).sum(dim=1).detach()
        assert_close(found.values[:, word], expected)


def test_cells_hold_every_pixel_once() -> None:
    values = torch.rand(2, 7, 7)
    found = by_cell(values, (3, 2))
    for row, rows in enumerate([slice(0, 3), slice(3, 5), slice(5, 7)]):
        for column, columns in enumerate([slice(0, 4), slice(4, 7)]):
            assert_close(found[:, row, column], values[:, rows, columns].sum(dim=(1, 2)))
            mean = by_cell(values, (3, 2), mean=True)[:, row, column]
            assert_close(mean, values[:, rows, columns].mean(dim=(1, 2)))


def test_patches_are_sums_or_means_of_pixels(
    backbone: OpenClipBackbone, pixels: Tensor, similarity: SimilarityTarget
) -> None:
    for explainer, fold in ((InputXGradient, torch.sum), (Saliency, torch.mean)):
        whole = explainer("pixels").explain(backbone, pixels, similarity).values
        cells = whole.unfold(2, 6, 6).unfold(3, 6, 6)
        assert_close(explainer().explain(backbone, pixels, similarity).values, fold(cells, dim=(4, 5)))


@pytest.mark.parametrize("chunk_size", [1, 7, 64])
@pytest.mark.parametrize("baseline", ["mean", "black"])
def test_integrated_gradients_match_captum(
    backbone: OpenClipBackbone, pixels: Tensor, similarity: SimilarityTarget, chunk_size: int, baseline: str
) -> None:
    explainer = IntegratedGradients(8, baseline, "pixels", chunk_size)
    found = explainer.explain(backbone, pixels, similarity)
    model = Scores(backbone, similarity)
    start = torch.zeros(3)
    if baseline == "black":
        start = -torch.tensor(backbone.preprocess.mean) / torch.tensor(backbone.preprocess.std)
    baselines = start[None, :, None, None].expand_as(pixels)
    for text in range(3):
        expected = LibraryIntegrated(model).attribute(
            pixels, baselines, target=text, n_steps=8, method="gausslegendre", return_convergence_delta=False
        )
        assert_close(found.values[:, text], expected.sum(dim=1).detach().float())
    assert_close(found.scores, model(pixels))


def test_integrated_gradients_are_complete(captioner: Captioner, pixels: Tensor) -> None:
    backbone = captioner.backbone
    caption = CaptionTarget.words(captioner, captioner.tokenizer.encode(CAPTION), whole=True)
    for target in (SimilarityTarget.from_texts(backbone, TEXTS), caption):
        found = IntegratedGradients(16, "blur").explain(backbone, pixels, target)
        blurred = gaussian_blur(pixels, [9, 9], [1.5, 1.5])
        gap = found.scores - Scores(backbone, target)(blurred).detach()
        assert_close(found.values.sum(dim=(2, 3)), gap, 2e-2 if target is caption else 1e-3)
        assert (found.delta - (found.values.sum(dim=(2, 3)) - gap)).abs().max() < 1e-4


def gradient_at(backbone: OpenClipBackbone, target: SimilarityTarget, pixels: Tensor, text: int) -> Tensor:
    leaf = pixels.clone().requires_grad_()
    Scores(backbone, target)(leaf)[:, text].sum().backward()
    return leaf.grad


def noise_of(seeds: Tensor, sample: int) -> Tensor:
    return torch.randn(3, 24, 24, generator=torch.Generator().manual_seed(int(seeds[sample])))


@pytest.mark.parametrize("squared", [False, True])
def test_smoothgrad_matches_a_loop(
    backbone: OpenClipBackbone, pixels: Tensor, similarity: SimilarityTarget, squared: bool
) -> None:
    found = SmoothGrad(5, 0.2, squared, seed=4, resolution="pixels", chunk_size=3).explain(backbone, pixels, similarity)
    seeds = torch.randint(2**31, (5,), generator=torch.Generator().manual_seed(4))
    for image in range(2):
        one = pixels[image : image + 1]
        sigma = 0.2 * (one.max() - one.min())
        for text in range(3):
            gradients = [
                gradient_at(backbone, similarity, one + sigma * noise_of(seeds, sample), text) for sample in range(5)
            ]
            mean = torch.stack([g**2 if squared else g for g in gradients]).mean(dim=0)
            assert_close(found.values[image, text], mean[0].abs().amax(dim=0))


def test_gradient_shap_matches_a_loop(backbone: OpenClipBackbone, pixels: Tensor, similarity: SimilarityTarget) -> None:
    explainer = GradientShap(6, 0.1, seed=2, resolution="pixels", chunk_size=5)
    found = explainer.explain(backbone, pixels, similarity)
    generator = torch.Generator().manual_seed(2)
    chosen = torch.randint(4, (6,), generator=generator)
    places = torch.rand(6, generator=generator)
    seeds = torch.randint(2**31, (6,), generator=generator)
    for image in range(2):
        one = pixels[image : image + 1]
        sigma = 0.1 * (one.max() - one.min())
        for text in range(3):
            expected = torch.zeros(24, 24)
            for sample in range(6):
                start = baseline_images(backbone, one, ("mean", "black", "white", "blur")[chosen[sample]])
                point = start + places[sample] * (one + sigma * noise_of(seeds, sample) - start)
                expected += ((one - start) * gradient_at(backbone, similarity, point, text))[0].sum(0) / 6
            assert_close(found.values[image, text], expected)


class GuidedGelu(nn.Module):
    """GELU whose whole backward rule is written out."""

    class Rule(torch.autograd.Function):
        @staticmethod
        def forward(context, value):
            context.save_for_backward(value)
            return nn.functional.gelu(value)

        @staticmethod
        def backward(context, gradient):
            (value,) = context.saved_tensors
            bell = torch.exp(-(value**2) / 2) / (2 * torch.pi) ** 0.5
            derivative = 0.5 * (1 + torch.erf(value / 2**0.5)) + value * bell
            back = gradient * derivative
            return torch.where((back > 0) & (value > 0), back, torch.zeros_like(back))

    def forward(self, value: Tensor) -> Tensor:
        return self.Rule.apply(value)


def test_guided_backprop_has_a_rule_for_gelu(
    backbone: OpenClipBackbone, pixels: Tensor, similarity: SimilarityTarget
) -> None:
    found = GuidedBackprop("pixels").explain(backbone, pixels, similarity).values
    guided = copy.deepcopy(backbone)
    for block in guided.visual.transformer.resblocks:
        assert isinstance(block.mlp.gelu, nn.GELU)
        block.mlp.gelu = GuidedGelu()
    for text in range(3):
        expected = gradient_at(guided, similarity, pixels, text).abs().amax(dim=1)
        assert_close(found[:, text], expected)
    plain = Saliency("pixels").explain(backbone, pixels, similarity).values
    assert (plain - found).abs().max() > 0.1 * plain.abs().max()  # the rule does something


def test_guided_backprop_without_an_activation_is_refused(
    backbone: OpenClipBackbone, pixels: Tensor, similarity: SimilarityTarget
) -> None:
    for block in backbone.visual.transformer.resblocks:
        block.mlp.gelu = nn.Identity()
    with pytest.raises(UserError, match="would be the plain gradient: choose saliency"):
        GuidedBackprop().explain(backbone, pixels, similarity)


@pytest.mark.parametrize("kind", ["cosine", "dot", "logit"])
@pytest.mark.parametrize("mode", ["collapsed", "per_dimension"])
def test_embedding_space_is_the_sum_over_dimensions(
    backbone: OpenClipBackbone, pixels: Tensor, kind: str, mode: str
) -> None:
    target = SimilarityTarget.from_texts(backbone, TEXTS, kind)
    found = EmbeddingSpace("input_x_gradient", mode, chunk_size=5).explain(backbone, pixels, target)
    texts = nn.functional.normalize(backbone.encode_text(TEXTS), dim=-1)
    scale = backbone.logit_scale if kind == "logit" else 1.0
    expected = torch.zeros(2, 3, 4, 4)
    for dimension in range(16):
        leaf = pixels.clone().requires_grad_()
        embedding = backbone.encode_image(leaf)
        embedding = embedding if kind == "dot" else embedding / embedding.norm(dim=1, keepdim=True)
        embedding[:, dimension].sum().backward()
        cells = (leaf * leaf.grad).sum(dim=1).unfold(1, 6, 6).unfold(2, 6, 6).sum(dim=(3, 4)).detach()
        expected += scale * texts[:, dimension][None, :, None, None] * cells[:, None]
    assert_close(found.values, expected)
    assert_close(found.scores, target.score(backbone.encode_image(pixels)))


def test_embedding_space_of_a_relu_needs_every_dimension(
    backbone: OpenClipBackbone, pixels: Tensor, similarity: SimilarityTarget
) -> None:
    with pytest.raises(UserError, match=r"not linear in its target.*mode=per_dimension"):
        EmbeddingSpace("gradcam").explain(backbone, pixels, similarity)
    found = EmbeddingSpace("gradcam", "per_dimension", {"layer": -2}).explain(backbone, pixels, similarity).values
    texts = nn.functional.normalize(backbone.encode_text(TEXTS), dim=-1)
    expected = sum(
        texts[:, d][None, :, None, None] * GradCam(-2).explain(backbone, pixels, EmbeddingDimensionTarget([d])).values
        for d in range(16)
    )
    assert_close(found, expected)
    assert (found - GradCam(-2).explain(backbone, pixels, similarity).values).abs().max() > 1e-3 * found.abs().max()


@pytest.mark.parametrize(
    ("method", "message"), [("attention_rollout", "same for every target"), ("token_gradxinput", "choose one of")]
)
def test_embedding_space_of_other_methods_is_refused(
    backbone: OpenClipBackbone, pixels: Tensor, similarity: SimilarityTarget, method: str, message: str
) -> None:
    with pytest.raises(UserError, match=message):
        EmbeddingSpace(method).explain(backbone, pixels, similarity)


@pytest.mark.parametrize(
    "make",
    [
        lambda: Saliency("cells"),
        lambda: GuidedBackprop("cells"),
        lambda: IntegratedGradients(baseline="green"),
        lambda: GradientShap(samples=0),
        lambda: SmoothGrad(resolution="cells"),
        lambda: EmbeddingSpace(mode="some"),
    ],
)
def test_settings_without_meaning_are_refused(make: object) -> None:
    with pytest.raises(UserError, match=r"choose|give at least 1"):
        make()  # type: ignore[operator]


def test_a_chunk_that_does_not_fit_is_halved(
    backbone: OpenClipBackbone, pixels: Tensor, similarity: SimilarityTarget, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = IntegratedGradients(6).explain(backbone, pixels, similarity).values
    tower, sizes = type(backbone), []
    trace = tower.trace

    def short_of_memory(self: OpenClipBackbone, images: Tensor, **asked: object) -> object:
        sizes.append(len(images))
        if len(images) > 3:
            raise torch.OutOfMemoryError("too much")
        return trace(self, images, **asked)

    monkeypatch.setattr(tower, "trace", short_of_memory)
    found = IntegratedGradients(6, chunk_size=12).explain(backbone, pixels, similarity).values
    assert sizes == [12, 6, 3, 3, 3, 3]
    assert_close(found, expected)
