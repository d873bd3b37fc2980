"""The loss, the steps and what of a classifier trains, against torch, scikit-learn and timm written out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from sklearn.metrics import roc_auc_score
from timm.optim import param_groups_layer_decay
from torch import Tensor, nn

from clip_xai.models.backbones.backbone_builder import build_backbone
from clip_xai.models.backbones.classifier import VisionClassifier
from clip_xai.models.backbones.source import BackboneSource
from clip_xai.models.classifier_weights import HEAD, ClassifierSettings, put_head_on
from clip_xai.models.heads import AttentionPool
from clip_xai.tasks.classify.data import LabelDataset, LabelSteps
from clip_xai.tasks.classify.measures import MeanAuroc, aurocs
from clip_xai.tasks.classify.module import ClassifierModule, moved
from clip_xai.tasks.classify.plan import ClassifierPlan
from clip_xai.training.optimisation import Optimisation
from clip_xai.training.samplers import EpochSampler
from tests.support.small_classes import record

VIT = {"img_size": 32, "patch_size": 8, "embed_dim": 16, "depth": 3, "num_heads": 2}
SOURCE = BackboneSource(
    "timm", "vit_tiny_patch16_224", image_size=32, library="timm", text=False, crop_pct=1.0, model_args=VIT
)


class Given:
    """Pixels that a test made, by the number in a file's name."""

    def __init__(self, pixels: Tensor) -> None:
        self.pixels = pixels

    def stack(self, images: list[Path]) -> Tensor:
        return self.pixels[[int(image.stem) for image in images]]


def module_of(
    multilabel: bool, trains: tuple[str, ...] = ("head", "image"), classes: int = 3, **told: Any
) -> ClassifierModule:
    torch.manual_seed(0)
    settings = ClassifierSettings(SOURCE, tuple("abcdef"[:classes]), multilabel, told.pop("head", "linear"))
    tower = build_backbone(**vars(SOURCE))
    unfreeze = told.pop("unfreeze", [])
    plan = ClassifierPlan(trains, dict(enumerate(unfreeze)))
    optimisation = Optimisation(label_smoothing=told.pop("label_smoothing", 0.0))
    module = ClassifierModule(put_head_on(tower, settings), settings, optimisation, plan, **told)
    plan._thaw(module.backbone, plan.trained(module.backbone, 0))
    return module


def truth_of(multilabel: bool, count: int) -> np.ndarray:
    rng = np.random.default_rng(3)
    if not multilabel:
        return np.eye(3, dtype=np.float32)[rng.integers(0, 3, count)]
    truth = rng.integers(0, 2, (count, 3)).astype(np.float32)
    truth[rng.random((count, 3)) < 0.3] = np.nan
    truth[:, 0] = 1  # every row counts somewhere
    return truth


def test_several_labels_lose_a_binary_cross_entropy_of_those_that_count() -> None:
    module = module_of(True, weights=torch.tensor([2.0, 1.0, 0.5]))
    logits, truth = torch.randn(5, 3), torch.from_numpy(truth_of(True, 5))
    total, count = module.losses(logits, truth)
    said, n = 0.0, 0
    for row in range(5):
        for column, weight in enumerate((2.0, 1.0, 0.5)):
            value = truth[row, column].item()
            if value == value:
                p = 1 / (1 + np.exp(-logits[row, column].item()))
                said -= weight * value * np.log(p) + (1 - value) * np.log(1 - p)
                n += 1
    assert total.item() == pytest.approx(said, rel=1e-5) and count == n and n < 15


def test_one_class_loses_a_weighed_cross_entropy_smoothed_in_training_alone() -> None:
    weights = torch.tensor([2.0, 1.0, 0.5])
    module = module_of(False, weights=weights, label_smoothing=0.2)
    logits, truth = torch.randn(6, 3), torch.from_numpy(truth_of(False, 6))
    log_p = logits.log_softmax(1)
    plain = -(log_p * truth * weights).sum()
    even = -(log_p * weights).sum() / 3
    torch.testing.assert_close(module.train().losses(logits, truth)[0], 0.8 * plain + 0.2 * even)
    torch.testing.assert_close(module.eval().losses(logits, truth)[0], plain)


@pytest.mark.parametrize("multilabel", [True, False])
@pytest.mark.parametrize(("accumulate", "devices"), [(2, 1), (1, 2), (2, 2)])
def test_the_mean_over_a_step_s_parts_is_the_whole_step(multilabel: bool, accumulate: int, devices: int) -> None:
    module, truth = module_of(multilabel), truth_of(multilabel, 11)
    pixels = torch.randn(11, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    held = LabelDataset([record(f"{n}.png") for n in range(11)], truth, Given(pixels))

    def gradients(parts: int, ranks: int) -> list[list[Tensor]]:
        of_rank = []
        for rank in range(ranks):
            steps = LabelSteps(held, EpochSampler(range(11), [], 0.0, 5), 6, multilabel, parts, ranks, rank)
            of_rank.append([held.__getitems__(places) for places in steps])
        found = []
        for start in range(0, len(of_rank[0]), parts):
            module.zero_grad()
            for batches in of_rank:
                for batch in batches[start : start + parts]:
                    (module.training_step(batch, 0) / (parts * ranks)).backward()
            found.append([p.grad.clone() for p in module.parameters() if p.grad is not None])
        return found

    whole, cut = gradients(1, 1), gradients(accumulate, devices)
    assert len(whole) == len(cut) == 2
    for step, parts in zip(whole, cut, strict=True):
        for wanted, found in zip(step, parts, strict=True):
            torch.testing.assert_close(found, wanted, atol=1e-6, rtol=1e-4)


def test_the_area_is_scikit_learn_s_over_classes_for_which_it_is_defined() -> None:
    rng = np.random.default_rng(2)
    logits = rng.normal(0.3, 0.2, (40, 4))  # all in 0 to 1 in many a batch: no reason to take them for probabilities
    logits[::9] += 4
    truth = (rng.random((40, 4)) < 0.4).astype(np.float32)
    truth[rng.random((40, 4)) < 0.2] = np.nan
    truth[:, 3] = 0
    metric = MeanAuroc(multilabel=True)
    for start in range(0, 40, 8):
        metric.update(torch.tensor(logits[start : start + 8]), torch.tensor(truth[start : start + 8]))
    known = [~np.isnan(truth[:, column]) for column in range(3)]
    wanted = [roc_auc_score(truth[keep, column], logits[keep, column]) for column, keep in enumerate(known)]
    np.testing.assert_allclose(aurocs(logits, truth)[:3], wanted)
    assert metric.compute().item() == pytest.approx(np.mean(wanted), rel=1e-6)
    single = np.eye(4)[rng.integers(0, 4, 40)]
    one = MeanAuroc(multilabel=False)
    one.update(torch.tensor(logits), torch.tensor(single))
    p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    assert one.compute().item() == pytest.approx(roc_auc_score(single, p, average="macro"), rel=1e-6)
    nothing = MeanAuroc(multilabel=True)
    nothing.update(torch.zeros(3, 2), torch.zeros(3, 2))
    assert nothing.compute().isnan()


def test_layer_decay_is_timm_s_but_for_the_last_norm_which_stands_behind_the_blocks() -> None:
    module = module_of(False, layer_decay=0.5, head_factor=3.0)
    network = timm.create_model("vit_tiny_patch16_224", num_classes=3, **VIT)
    names = {id(weight): name for name, weight in network.named_parameters()}
    wanted = {
        names[id(weight)]: group["lr_scale"]
        for group in param_groups_layer_decay(network, layer_decay=0.5)
        for weight in group["params"]
    }
    found = module.rate_factors()
    for name, factor in wanted.items():
        if name.startswith("norm."):
            assert found[f"model.{name}"] == 1.0
        elif not name.startswith("head."):
            assert found[f"model.{name}"] == pytest.approx(factor), name
    assert {factor for name, factor in found.items() if name.startswith(HEAD)} == {3.0}
    assert found["model.cls_token"] == 0.5**4 and found["model.blocks.2.mlp.fc1.weight"] == 0.5


def test_decay_spares_what_timm_spares() -> None:
    module = module_of(False)
    groups = module.parameter_groups()
    names = {id(weight): name for name, weight in module.backbone.named_parameters()}
    spared = {names[id(p)] for group in groups if not group["weight_decay"] for p in group["params"]}
    network = timm.create_model("vit_tiny_patch16_224", num_classes=3, **VIT)
    wanted = {name for name, p in network.named_parameters() if p.ndim < 2 or name in network.no_weight_decay()}
    assert {name.removeprefix("model.") for name in spared if not name.startswith(HEAD)} == wanted


def test_the_last_blocks_train_and_nothing_before_them() -> None:
    module = module_of(False, unfreeze=[1])
    trains = {name for name, weight in module.backbone.named_parameters() if weight.requires_grad}
    assert {name.split(".")[2] for name in trains if ".blocks." in name} == {"2"}
    assert "model.norm.weight" in trains and "model.cls_token" not in trains and f"{HEAD}weight" in trains
    assert module.backbone.model.blocks[2].training and not module.backbone.model.blocks[1].training


class Slow(nn.Module):
    """The head as torch's own attention with one head and one query."""

    def __init__(self, head: AttentionPool) -> None:
        super().__init__()
        self.head, width = head, head.query.numel()
        self.attention = nn.MultiheadAttention(width, 1, bias=False, batch_first=True)
        with torch.no_grad():
            eye = torch.eye(width)
            self.attention.in_proj_weight.copy_(torch.cat([eye, head.key.weight, eye]))
            self.attention.out_proj.weight.copy_(eye)

    def forward(self, tokens: Tensor) -> Tensor:
        tokens = self.head.norm(tokens)
        query = self.head.query.expand(len(tokens), 1, -1)
        return self.head.output(self.attention(query, tokens, tokens)[0][:, 0])


def test_the_attention_pool_is_torch_s_attention() -> None:
    torch.manual_seed(1)
    head, tokens = AttentionPool(12, 4), torch.randn(3, 7, 12)
    torch.testing.assert_close(head(tokens), Slow(head)(tokens))


def test_a_batch_of_a_tower_s_patches_gives_the_logits_of_the_pool() -> None:
    module = module_of(False, head="attention_pool")
    assert isinstance(module.backbone, VisionClassifier) and module.backbone.reads == "patches"
    pixels = torch.randn(2, 3, 32, 32)
    module.backbone.eval()
    network: Any = module.backbone.model
    patches = network.forward_features(pixels)[:, 1:]
    torch.testing.assert_close(module.logits(pixels), module.backbone.trained_head(patches))  # type: ignore[misc]


def test_images_move_by_whole_pixels_and_edges_are_repeated() -> None:
    torch.manual_seed(0)
    images = torch.rand(80, 2, 4, 8)
    seen = set()
    for image, found in zip(images, moved(images, 0.25), strict=True):
        fits = [
            (down, right)
            for down in range(-2, 3)
            for right in range(-3, 4)
            if torch.equal(found, _slowly_moved(image, down, right))
        ]
        assert len(fits) == 1  # numbers are drawn: no other move makes the same picture
        seen.update(fits)
    assert seen == {(down, right) for down in range(-1, 2) for right in range(-2, 3)}


def _slowly_moved(image: Tensor, down: int, right: int) -> Tensor:
    result = torch.empty_like(image)
    for row in range(image.shape[1]):
        for column in range(image.shape[2]):
            above = min(max(row - down, 0), image.shape[1] - 1)
            result[:, row, column] = image[:, above, min(max(column - right, 0), image.shape[2] - 1)]
    return result
