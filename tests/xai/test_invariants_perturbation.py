"""What must hold for every explainer that changes its input; the fixtures are those of ``test_invariants``."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from clip_xai.models.backbones.open_clip_vit import OpenClipBackbone
from clip_xai.models.captioner import Captioner
from clip_xai.xai.explainer import Explainer, explain_together
from clip_xai.xai.methods import (
    AblationCam,
    AbsCamFinal,
    AbsCamInit,
    Cci,
    ExtremalPerturbation,
    Fixlip,
    KernelShap,
    M2ib,
    Occlusion,
    Rise,
    ScoreCam,
    TokenAttentionGradient,
    TokenGradEclip,
    TokenIntegratedGradients,
    TokenKernelShap,
    TokenOcclusion,
)
from clip_xai.xai.perturbation_bank import PerturbationBank
from clip_xai.xai.target import CaptionTarget, SimilarityTarget, Target
from tests.xai.conftest import TEXTS, assert_close
from tests.xai.test_invariants import PLANTED, assert_same_state, planted, state  # noqa: F401

pytestmark = pytest.mark.slow  # many passes of every perturbation method

IMAGE = [
    Rise(masks=400, cells=4),
    KernelShap(cells=4, samples=400),
    ScoreCam(layer=-1, weighting="linear"),
    AblationCam(),
    AbsCamInit(),
    AbsCamFinal(),
    Cci(clusters=2),
    M2ib(layer=0, beta=0.01),
    ExtremalPerturbation(
        areas=[0.07], iterations=60, cells=8, smoothing=1.0, jitter=False, perturbation="fade", scale=30.0
    ),
]
LIGHT = [
    Rise(masks=10, cells=3),
    KernelShap(cells=2),
    ScoreCam(),
    AblationCam(),
    AbsCamInit(),
    AbsCamFinal(),
    Cci(clusters=2),
    M2ib(layer=0, steps=2, draws=2),
    ExtremalPerturbation(iterations=40, cells=12, smoothing=1.5),
    TokenIntegratedGradients(steps=2),
    TokenOcclusion(),
    TokenKernelShap(),
    TokenGradEclip(),
    TokenAttentionGradient(),
    Fixlip(cells=2),
]


def named(explainers: list) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("explainer", explainers, ids=lambda explainer: explainer.name)


def targets_of(explainer: Explainer, captioner: Captioner) -> list[SimilarityTarget | CaptionTarget]:
    similarity = SimilarityTarget.from_texts(captioner.backbone, TEXTS[1:])
    caption = CaptionTarget.words(captioner, captioner.tokenizer.encode("a nevus"))
    return [one for one in (similarity, caption) if explainer.refusal(captioner.backbone, one) is None]


@named(LIGHT)
def test_the_model_is_left_as_it_was_and_callers_without_gradients_get_the_same(
    explainer: Explainer, captioner: Captioner, pixels: Tensor
) -> None:
    captioner.requires_grad_(True)
    captioner.train()
    captioner.backbone.visual.ln_post.eval()
    before = state(captioner)
    expected = [explainer.explain(captioner.backbone, pixels, one) for one in targets_of(explainer, captioner)]
    assert_same_state(captioner, before)
    assert torch.is_grad_enabled()
    for guard in (torch.no_grad, torch.inference_mode):
        with guard():
            for one, target in zip(expected, targets_of(explainer, captioner), strict=True):
                found = explainer.explain(captioner.backbone, pixels * 1, target).values
                assert not found.requires_grad
                assert_close(found.nan_to_num(), one.values.nan_to_num(), 5e-3)
    assert_same_state(captioner, before)


@named(LIGHT)
def test_the_model_is_left_as_it_was_after_an_error(explainer: Explainer, captioner: Captioner, pixels: Tensor) -> None:
    captioner.train()
    before = state(captioner)
    target = SimilarityTarget.from_texts(captioner.backbone, TEXTS[1:2])
    with pytest.raises(RuntimeError):
        explainer.explain(captioner.backbone, pixels[:, :2], target)  # two colours
    assert torch.is_grad_enabled()
    assert_same_state(captioner, before)


@named(LIGHT)
def test_declarations_hold(
    explainer: Explainer, backbone: OpenClipBackbone, pixels: Tensor, similarity: SimilarityTarget
) -> None:
    assert type(explainer)(**explainer.settings) == explainer
    document = type(explainer).__doc__ or ""
    assert all(part in document for part in ("Cost", "Shapes:", "Deviations", "Example:", ">>>"))
    together = explainer.explain(backbone, pixels, similarity)
    values = together.values.nan_to_num()
    assert not torch.equal(values[:, 0], values[:, 1])  # swapped texts change the map
    for image, text in ((0, 1), (1, 0)):
        alone = explainer.explain(
            backbone, pixels[image : image + 1], SimilarityTarget.from_texts(backbone, [TEXTS[text]])
        ).values.nan_to_num()
        found = values[image : image + 1, text : text + 1]
        if explainer.modality != "image":
            found = found[:, :, : alone.shape[2]]
        if alone.abs().max() == 0:  # a ReLU left nothing
            assert found.abs().max() <= 1e-6
            continue
        assert_close(found, alone, 5e-2 if explainer.name in ("extremal_perturbation", "m2ib") else 1e-4)


class Summed(Target):
    """Two scores of opposite signs and their sum: log-probabilities all have one sign, which hides what takes sizes."""

    name, reads, labels = "summed", "pooled", ["one", "against", "sum"]

    def score(self, read: Tensor) -> Tensor:
        one = read @ torch.linspace(-1, 1, read.shape[1])
        return torch.stack([one, 0.3 * read[:, 0] - 2 * one, 0.3 * read[:, 0] - one], dim=1)


@named([one for one in LIGHT if one.modality == "image"])
def test_methods_linear_in_the_target_add_up_and_others_do_not(
    explainer: Explainer, captioner: Captioner, pixels: Tensor
) -> None:
    gaps = []
    words = CaptionTarget.words(captioner, captioner.tokenizer.encode("a nevus"), whole=True)
    for target in (one for one in (words, Summed()) if explainer.refusal(captioner.backbone, one) is None):
        values = explainer.explain(captioner.backbone, pixels, target).values
        gaps.append((values[:, :-1].sum(1) - values[:, -1]).abs().max() / values[:, -1].abs().max())
    assert (max(gaps) < 1e-3) == explainer.linear_in_target


@named(IMAGE)
def test_a_planted_patch_is_found(explainer: Explainer, planted: OpenClipBackbone) -> None:  # noqa: F811
    pixels = torch.zeros(1, 3, 24, 24)
    row, column = divmod(PLANTED, 4)
    pixels[:, :, row * 6 : row * 6 + 6, column * 6 : column * 6 + 6] = 3.0
    target = SimilarityTarget(torch.eye(16)[:1], ["bright"], kind="dot")
    values = explainer.explain(planted, pixels, target).values[0, 0].flatten()
    assert values.argmax() == PLANTED and values[PLANTED] > 0


def test_explainers_together_are_explainers_alone_on_one_bank(
    backbone: OpenClipBackbone, pixels: Tensor, similarity: SimilarityTarget
) -> None:
    explainers = [Occlusion(), Rise(masks=10, cells=3), replace(Rise(masks=10, cells=3), normalisation="paper"),
                  KernelShap(cells=2), ScoreCam(), AbsCamFinal(), AbsCamInit()]  # fmt: skip
    bank = PerturbationBank(backbone, pixels)
    together = explain_together(explainers, backbone, pixels, similarity, bank)
    # The images, 9 windows, 10 masks for both normalisations, 15 coalitions, and 32 channels for both CAMs.
    assert bank.forwards == 2 * (1 + 9 + 10 + 15 + 32)
    for explainer, found in zip(explainers, together, strict=True):
        alone = explainer.explain(backbone, pixels, similarity)
        assert_close(found.values, alone.values, 1e-4)
        assert replace(found, values=alone.values, scores=alone.scores).metadata() == alone.metadata()


def passes(explainer: Explainer, backbone: OpenClipBackbone, pixels: Tensor, texts: int) -> tuple[int, int, int]:
    """Images through the first convolution, images back through it, and rows through the text tower's first block."""
    counts = [0, 0, 0]

    def forward(_: object, __: object, output: Tensor) -> None:
        counts[0] += len(output)
        if output.requires_grad:
            output.register_hook(backward)

    def backward(gradient: Tensor) -> None:
        counts[1] += len(gradient)

    def text(_: object, inputs: tuple[Tensor, ...]) -> None:
        counts[2] += len(inputs[0])

    target = SimilarityTarget.from_texts(backbone, (TEXTS * 4)[:texts])
    handles = [
        backbone.visual.conv1.register_forward_hook(forward),
        backbone.model.transformer.resblocks[0].ln_1.register_forward_pre_hook(text),
    ]
    try:
        explainer.explain(backbone, pixels, target)
    finally:
        for handle in handles:
            handle.remove()
    return counts[0], counts[1], counts[2]


# Of two images and T texts of w words in all: what must go through the towers, however many texts there are.
COSTS = {
    "rise": lambda t: (2 * (10 + 1), 0, 0),
    "kernelshap": lambda t: (2 * (2**4 - 2 + 2), 0, 0),
    "scorecam": lambda t: (2 * (32 + 1 + 1), 0, 0),
    "ablationcam": lambda t: (2 * 2, 0, 0),
    "abscam_init": lambda t: (2, 0, 0),
    "abscam_final": lambda t: (2 * (1 + 1 + 32), 0, 0),
    "cci": lambda t: (2 * (1 + 2), 0, 0),
    "m2ib": lambda t: (2 * 2, 0, 0),
    "extremal_perturbation": lambda t: (2 + 40 * 2 * t, 40 * 2 * t, 0),
}


@named([one for one in LIGHT if one.modality == "image"])
def test_the_cost_is_what_it_says(explainer: Explainer, backbone: OpenClipBackbone, pixels: Tensor) -> None:
    backbone.requires_grad_(True)  # so that a graph below would be built if anything let it
    for texts in (1, 12):
        assert passes(explainer, backbone, pixels, texts) == COSTS[explainer.name](texts)


@named([one for one in LIGHT if one.modality != "image"])
def test_texts_are_encoded_once_for_all_images(
    explainer: Explainer, backbone: OpenClipBackbone, pixels: Tensor
) -> None:
    for texts in (1, 3):
        one, both = (passes(explainer, backbone, some, texts) for some in (pixels[:1], pixels))
        assert both[2] == one[2]  # coalitions of words, or one pass a text
        assert both[0] == 2 * one[0] and both[1] == one[1] == 0
    alone, three = (passes(explainer, backbone, pixels, texts) for texts in (1, 3))
    assert alone[0] == three[0]  # further texts cost the image tower nothing
