"""Classifiers explained: against hooks on the plain network and captum on it, and from the command line's settings."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from captum.attr import LayerGradCam
from captum.attr import Occlusion as CaptumOcclusion
from PIL import Image
from torch import Tensor, nn

import clip_xai
from clip_xai.config.cli import compose_job
from clip_xai.config.schemas import TargetConfig
from clip_xai.data.preprocess import Preprocess
from clip_xai.errors import UserError
from clip_xai.explanations.questions import question_of
from clip_xai.jobs.explain import explain
from clip_xai.models.backbones.classifier import VisionClassifier
from clip_xai.xai.double import in_double
from clip_xai.xai.explainer import defined_for, explainers
from clip_xai.xai.methods import GradCam, Occlusion, Saliency
from clip_xai.xai.target import ClassifierTarget
from clip_xai.xai.targets.question import Question
from clip_xai.xai.targets.target_builder import targets_of
from tests.support.networks import NETWORKS
from tests.support.towers import assert_close, pixels_for

NAMES = ["melanoma", "nevus", "7", "wart", "burn"]


def classifier(name: str) -> tuple[VisionClassifier, nn.Module, Tensor]:
    library, network, tower = NETWORKS[name]()
    backbone = VisionClassifier(network, tower, Preprocess(image_size=tower.image_size), name, library, NAMES)
    return backbone, network, pixels_for(tower)


@pytest.mark.parametrize(
    ("name", "stage", "layer"),
    [
        ("torchvision_resnet", "layer3", 2),
        ("timm_convnext", "stages.3", -1),
        ("torchvision_densenet", "features", -1),
    ],
)
def test_gradcam_is_captums_on_the_plain_network(name: str, stage: str, layer: int) -> None:
    backbone, network, pixels = classifier(name)
    target = ClassifierTarget.of(backbone, [3, "melanoma"])
    found = GradCam(layer=layer).explain(backbone, pixels, target)
    library = LayerGradCam(network, network.get_submodule(stage))
    for column, number in enumerate((3, 0)):
        expected = library.attribute(pixels.clone().requires_grad_(), target=number, relu_attributions=True)
        assert_close(found.values[:, column], expected[:, 0].detach())
    assert found.labels == ["wart", "melanoma"]
    assert_close(found.scores, network(pixels)[:, [3, 0]].detach())


def test_occlusion_of_a_network_with_a_grid_of_two_has_more_than_one_window() -> None:
    backbone, network, pixels = classifier("torchvision_resnet")
    assert backbone.grid == (2, 2)
    found = Occlusion().explain(backbone, pixels, ClassifierTarget.of(backbone, [3]))
    assert found.values.shape[2:] == (8, 8)
    expected = CaptumOcclusion(network).attribute(pixels, (3, 16, 16), strides=(3, 8, 8), baselines=0, target=3)
    assert_close(found.values[:, 0], expected[:, 0, ::8, ::8])


@pytest.mark.parametrize("name", ["timm_vit", "torchvision_swin", "timm_efficientnet"])
@pytest.mark.parametrize("kind", ["logit", "margin", "log_probability"])
def test_scores_are_the_plain_networks_in_single_and_in_double_precision(name: str, kind: str) -> None:
    backbone, network, pixels = classifier(name)
    target = ClassifierTarget.of(backbone, ["nevus"], kind)
    logits = network(pixels)
    expected = {
        "logit": logits[:, 1],
        "margin": logits[:, 1] - logits[:, [0, 2, 3, 4]].mean(dim=1),
        "log_probability": logits[:, 1] - logits.exp().sum(1).log(),
    }[kind]
    found = Saliency().explain(backbone, pixels, target)
    assert_close(found.scores[:, 0], expected.detach())
    assert found.values.shape == (2, 1, *backbone.grid) and found.values.isfinite().all()
    tower, asked = in_double(backbone, target)
    exact = asked.score(tower.encode_image(pixels.double()))
    assert exact.dtype == torch.float64
    assert_close(exact[:, 0].float(), expected.detach())


@pytest.mark.parametrize(
    ("name", "able", "unable"),
    [
        ("timm_resnet", {"gradcam", "hirescam", "layercam", "ablationcam", "scorecam", "guided_backprop", "rise"},
         {"gradeclip", "attention_rollout", "clip_surgery", "legrad", "fixlip", "token_gradxinput", "embedding_space"}),
        ("timm_swin", {"gradcam", "integrated_gradients", "occlusion"}, {"gradeclip", "attention_gradient", "m2ib"}),
        ("timm_vit", {"gradcam", "gradeclip", "attention_rollout", "attention_gradient", "legrad"},
         {"fixlip", "token_occlusion"}),
    ],
)  # fmt: skip
def test_every_method_that_the_family_allows_answers(name: str, able: set[str], unable: set[str]) -> None:
    backbone, _, pixels = classifier(name)
    target = ClassifierTarget.of(backbone, [1])
    defined, refused = defined_for([explainers[one]() for one in sorted(able | unable)], backbone, target)
    assert {method.name for method in defined} == able
    assert {line.split()[0] for line in refused} == unable
    for method in defined:
        if method.name in ("gradcam", "gradeclip", "attention_rollout", "attention_gradient", "legrad", "layercam"):
            values = method.explain(backbone, pixels, target).values
            assert values.shape[:2] == (2, 1) and values.isfinite().all()


def test_classes_are_named_numbered_or_found() -> None:
    backbone, network, pixels = classifier("timm_resnet")
    assert ClassifierTarget.of(backbone, ["7", "4", "nevus", "1"]).labels == ["7", "burn", "nevus"]
    best = network(pixels).argmax(1)
    assert ClassifierTarget.of(backbone, pixels=pixels[:1]).classes == [int(best[0])]
    for asked, said in ((["melanom"], "did you mean 'melanoma'"), (["9"], "0 to 4"), ([-1], "is none of them")):
        with pytest.raises(UserError, match=said):
            ClassifierTarget.of(backbone, asked)
    with pytest.raises(UserError, match=r"set target\.classes"):
        ClassifierTarget.of(backbone)
    with pytest.raises(UserError, match="not a score of a classifier"):
        ClassifierTarget.of(backbone, [0], "cosine")
    with pytest.raises(UserError, match="without a text tower"):
        targets_of(Question(("similarity",), text="a photo"), backbone)
    with pytest.raises(UserError, match="is not a classifier"):
        ClassifierTarget.of(clip_xai.load_backbone("tiny"), [0])
    assert question_of(TargetConfig(), captioner=False, classifier=True).names == ("logit",)


def test_a_photograph_is_explained_from_python(tmp_path: Path) -> None:
    names = tmp_path / "names.txt"
    names.write_text("cat\ndog\n")
    backbone = clip_xai.load_backbone("timm", None, architecture="test_resnet", classes=names)
    photograph = Image.fromarray(np.random.default_rng(0).integers(0, 255, (90, 120, 3), dtype=np.uint8))
    found = clip_xai.explain(backbone, photograph, methods=["gradcam", "occlusion"], classes="dog")
    assert [one.labels for one in found.attributions] == [["dog"], ["dog"]]
    assert found.picture().size[0] > 100
    with pytest.raises(UserError, match="without a text tower"):
        clip_xai.explain(backbone, photograph, "a cat")
    with pytest.warns(UserWarning, match="gradeclip reads attention over all patches"):
        clip_xai.explain(backbone, photograph, methods=["gradcam", "gradeclip"])


def test_a_photograph_is_explained_by_the_job(tmp_path: Path) -> None:
    photograph = tmp_path / "photo.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (90, 120, 3), dtype=np.uint8)).save(photograph)
    asked = ["backbone=timm", "backbone.architecture=test_resnet", "backbone.num_classes=4", "target=logit"]
    asked += ["target.kind=margin", "target.classes=[3]", "xai=[gradcam,gradeclip]", f"image={photograph}"]
    asked += ["trainer=cpu", "logger=csv", f"runs_root={tmp_path}"]
    config = compose_job("explain", asked, tmp_path / "run")
    metrics = explain(config)
    assert metrics["explained"] == 1
    assert metrics["model"].startswith("tower test_resnet of timm at random weights, fingerprint ")
    [result] = clip_xai.read_run(tmp_path / "run").results
    answer = result.answers["logit"]
    assert [one.method for one in answer.attributions] == ["gradcam"] and "gradeclip" in answer.left_out[0]
    assert answer.attributions[0].labels == ["class 3"] and answer.score_name == "class logit margin"
