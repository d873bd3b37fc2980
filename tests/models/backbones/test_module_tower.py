"""A module of one's own: the same maps as its library's network gives, and captum's."""

from __future__ import annotations

import doctest

import numpy as np
import pytest
import torch
import torchvision.models as tv
from captum.attr import LayerGradCam
from PIL import Image
from torch import Tensor, nn

import clip_xai
from clip_xai.errors import UserError
from clip_xai.models.backbones import module_tower
from clip_xai.models.backbones.backbone_builder import build_backbone
from clip_xai.models.backbones.classifier import VisionClassifier
from clip_xai.xai.explainer import Explainer, explainers
from clip_xai.xai.methods import AblationCam, GradCam, GradCamPlusPlus, Rise, Saliency, ScoreCam
from clip_xai.xai.target import ClassifierTarget

STAGES = ["layer1", "layer2", "layer3", "layer4"]


@pytest.fixture(scope="module")
def network() -> nn.Module:
    torch.manual_seed(0)
    return tv.resnet18(weights=None, num_classes=3).eval()


@pytest.fixture(scope="module")
def wrapped(network: nn.Module) -> VisionClassifier:
    return module_tower.wrapped_classifier(network, ["a", "b", "c"], image_size=96, layers=STAGES)


@pytest.mark.parametrize(
    "explainer",
    [
        GradCam(),
        GradCamPlusPlus(),
        Saliency(),
        Rise(masks=50),
        pytest.param(AblationCam(), marks=pytest.mark.slow),
        pytest.param(ScoreCam(), marks=pytest.mark.slow),
    ],
)
def test_its_maps_are_those_of_the_library_s_own_adapter(
    network: nn.Module, wrapped: VisionClassifier, explainer: Explainer
) -> None:
    own = build_backbone("torchvision", "resnet18", None, image_size=96, library="torchvision", num_classes=3)
    own.model.load_state_dict(network.state_dict())
    pixels = torch.randn(1, 3, 96, 96, generator=torch.Generator().manual_seed(1))
    found, expected = (
        explainer.explain(one, pixels, ClassifierTarget.of(one, ["2"] if one is wrapped else [2])).values
        for one in (_renamed(wrapped), own)
    )
    assert expected.abs().max() > 0
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5 * float(expected.abs().max()))


def _renamed(classifier: VisionClassifier) -> VisionClassifier:
    classifier.classes = ["0", "1", "2"]
    return classifier


def test_grad_cam_is_captum_s(network: nn.Module, wrapped: VisionClassifier) -> None:
    pixels = torch.randn(1, 3, 96, 96, generator=torch.Generator().manual_seed(2))
    found = explainers["gradcam"]().explain(wrapped, pixels, ClassifierTarget.of(wrapped, [1])).values[0, 0]
    grad_cam = LayerGradCam(network.requires_grad_(True), network.layer4)  # type: ignore[arg-type]
    expected = grad_cam.attribute(pixels, target=1, relu_attributions=True)[0, 0].detach()
    network.requires_grad_(False)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6)


class Grey(nn.Module):
    """Counts light on the left and on the right of a grey picture."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(1))

    def forward(self, pixels: Tensor) -> Tensor:
        assert pixels.shape[1] == 1
        half = pixels.shape[-1] // 2
        return torch.stack([pixels[..., :half].mean((1, 2, 3)), pixels[..., half:].mean((1, 2, 3))], 1) * self.scale


def test_five_lines_explain_a_grey_module_of_one_s_own() -> None:
    classifier = clip_xai.wrap_classifier(Grey(), ["left", "right"], image_size=32, mean=[0.5], std=[0.25])
    photograph = Image.fromarray(np.full((32, 32), 200, dtype=np.uint8))
    explanations = clip_xai.explain(classifier, photograph, methods=["saliency"], classes="left")
    [heat] = explanations.attributions[0].values[0].abs()
    left, right = heat.mean(0)  # a grid of two columns
    assert left > 0 and right == 0


def test_methods_that_read_activations_are_left_out_by_name_where_no_layer_was_named() -> None:
    classifier = clip_xai.wrap_classifier(Grey(), ["left", "right"], image_size=32, mean=[0.5], std=[0.25])
    photograph = Image.new("L", (32, 32), 200)
    with pytest.warns(UserWarning, match="gradcam"):
        found = clip_xai.explain(classifier, photograph, methods=["gradcam", "occlusion"], classes="left")
    assert [one.method for one in found.attributions] == ["occlusion"]


def test_of_a_module_without_layers_every_method_answers_or_is_refused_beforehand() -> None:
    torch.manual_seed(0)
    body = nn.Sequential(nn.Conv2d(3, 4, 3, 2), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2))
    classifier = module_tower.wrapped_classifier(body, ["a", "b"], image_size=32)
    target, pixels = ClassifierTarget.of(classifier, [1]), torch.randn(1, 3, 32, 32)
    brief = {
        "rise": {"masks": 9},
        "kernelshap": {"samples": 14, "cells": 2},
        "extremal_perturbation": {"iterations": 2},
    }
    methods = [method(**brief.get(name, {})) for name, method in explainers.items() if method.modality == "image"]
    able = [one for one in methods if one.refusal(classifier, target) is None]
    assert {one.name for one in able} == {
        "saliency", "input_x_gradient", "smoothgrad", "integrated_gradients", "gradient_shap", "guided_backprop",
        "occlusion", "rise", "kernelshap", "extremal_perturbation",
    }  # fmt: skip
    for one in able:
        assert one.explain(classifier, pixels, target).values.isfinite().all()
    reasons = {one.name: one.refusal(classifier, target) or "" for one in methods if one not in able}
    assert {name for name, said in reasons.items() if "(name layers=[...] where it is wrapped)" in said} == {
        "gradcam", "gradcam_plusplus", "layercam", "hirescam", "scorecam", "ablationcam", "abscam_init", "abscam_final",
    }  # fmt: skip


def test_logits_are_not_handed_out_as_features_of_a_place() -> None:
    classifier = clip_xai.wrap_classifier(Grey(), ["left", "right"], image_size=32, mean=[0.5], std=[0.25])
    features = classifier.features(torch.rand(2, 3, 32, 32))
    assert features.read("pooled").shape == (2, 2)
    for reads in ("patches", "tokens"):
        with pytest.raises(UserError, match=r"no patch tokens: name layers=\[\.\.\.\] where it is wrapped"):
            features.read(reads)


@pytest.mark.parametrize(
    ("layers", "said"),
    [
        (["layer9"], "the module has no layer 'layer9'; its first are conv1, bn1"),
        (["layer4.1.conv1"], r"not all that the logits depend on passes through layer4\.1\.conv1"),
        (["fc"], r"fc does not give one map \[B, C, h, w\]"),
    ],
)
def test_layers_that_cannot_be_used_are_refused(network: nn.Module, layers: list[str], said: str) -> None:
    with pytest.raises(UserError, match=said):
        module_tower.wrapped_classifier(network, ["a", "b", "c"], image_size=64, layers=layers)


def test_what_is_no_classifier_of_these_classes_is_refused(network: nn.Module) -> None:
    with pytest.raises(UserError, match=r"gives 3 logits, and classes has 2 names"):
        module_tower.wrapped_classifier(network, ["a", "b"], image_size=64)
    with pytest.raises(UserError, match=r"must return logits \[B, C\]"):
        module_tower.wrapped_classifier(nn.Conv2d(3, 4, 3), ["a"], image_size=64)
    with pytest.raises(UserError, match=r"does not take pixels \[1, 3, 64, 64\]"):
        module_tower.wrapped_classifier(nn.Sequential(nn.Flatten(), nn.Linear(7, 2)), ["a", "b"], image_size=64)
    with pytest.raises(UserError, match="of one channel or of three, not of 2 and 3"):
        module_tower.wrapped_classifier(network, ["a", "b", "c"], mean=[0.1, 0.2], std=[1, 1, 1])


def test_the_example_runs() -> None:
    assert doctest.testmod(module_tower).failed == 0
