"""A classifier of every family is trained, exported and explained by each image method that is defined for it."""

from __future__ import annotations

from pathlib import Path

import pytest

import clip_xai
from clip_xai.jobs.explain import explain
from tests.support.small_classes import folder_of_classes, settings, trained

VIT = "img_size: 32, patch_size: 8, embed_dim: 16, depth: 3, num_heads: 2"
NARROW = {
    "resnet": ("resnet18", 64, "channels: [8, 16, 24, 32]"),
    "densenet": ("densenet121", 64, "growth_rate: 8, block_config: [2, 2, 2, 2]"),
    "efficientnet": ("test_efficientnet", 64, ""),
    "vit_class_token": ("vit_small_patch16_224", 32, VIT),
    "vit_mean": ("vit_small_patch16_224", 32, f"{VIT}, global_pool: avg"),
    "swin": ("swin_tiny_patch4_window7_224", 56, "img_size: 56, embed_dim: 16, depths: [2, 2], num_heads: [2, 4]"),
    "convnext": ("test_convnext", 64, ""),
}  # fmt: skip
FEW = [
    "xai=all", "xai.rise.masks=20", "xai.kernelshap.cells=2", "xai.kernelshap.samples=14",
    "xai.extremal_perturbation.iterations=3",
    "xai.smoothgrad.samples=2", "xai.integrated_gradients.steps=3", "xai.gradient_shap.samples=2",
    "xai.m2ib.steps=2", "xai.m2ib.draws=2", "xai.scorecam.temperature=1",
]  # fmt: skip
CONVOLUTIONAL = {
    "gradcam", "gradcam_plusplus", "layercam", "hirescam", "scorecam", "ablationcam", "abscam_init", "abscam_final",
    "guided_backprop", "saliency", "input_x_gradient", "smoothgrad", "integrated_gradients", "gradient_shap",
    "occlusion", "rise", "kernelshap", "extremal_perturbation",
}  # fmt: skip
ATTENTIVE = {"attention_rollout", "attention_gradient", "gradeclip", "legrad", "cci"}
WANTED = {
    "resnet": CONVOLUTIONAL, "densenet": CONVOLUTIONAL, "efficientnet": CONVOLUTIONAL - {"guided_backprop"},
    "convnext": CONVOLUTIONAL - {"guided_backprop"}, "swin": CONVOLUTIONAL - {"guided_backprop"},
    "vit_class_token": (CONVOLUTIONAL - {"guided_backprop"}) | ATTENTIVE,
    "vit_mean": (CONVOLUTIONAL - {"guided_backprop"}),
}  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return folder_of_classes(tmp_path_factory.mktemp("data") / "shapes", train=3, val=2, test=1)


@pytest.mark.slow
@pytest.mark.parametrize("family", NARROW)
def test_a_trained_classifier_is_explained_by_all_that_its_family_allows(
    folder: Path, tmp_path: Path, family: str
) -> None:
    architecture, side, narrow = NARROW[family]
    tower = ["backbone=timm", f"backbone.architecture={architecture}", f"backbone.image_size={side}",
             "backbone.crop_pct=1.0", f"backbone.model_args={{{narrow}}}"]  # fmt: skip
    run = trained(folder, tmp_path / "run", "stage.trains=[head,image]", "stage.epochs=1", tower=tower)
    asked = [f"ckpt={run}", f"image={folder / 'test' / 'disc' / 'test_disc_00.png'}", "target.classes=[disc]", *FEW]
    assert explain(settings("explain", tmp_path / "explained", *asked))["explained"] == 1
    [result] = clip_xai.read_run(tmp_path / "explained").results
    [answer] = result.answers.values()
    found = {one.method: one for one in answer.attributions}
    assert WANTED[family] <= set(found), (WANTED[family] - set(found), answer.left_out)
    for name, one in found.items():
        assert one.values.isfinite().all(), name
