"""Fine-tuned classifiers of chest studies: files of the same key schemes, every key accounted for."""

from __future__ import annotations

import argparse
import logging
import re
from pathlib import Path

import pytest
import timm
import torch
import torchvision.models as tv
from torch import nn

from clip_xai.errors import UserError
from clip_xai.models.backbones.backbone_builder import build_backbone
from clip_xai.models.backbones.classifier import VisionClassifier

VIT = "vit_tiny_patch16_224"
MEAN, STD = [0.5056], [0.252]


def mae_fine_tuned() -> nn.Module:
    """A transformer as masked autoencoders are fine-tuned: the mean of patches, then ``fc_norm``, no ``norm``."""
    torch.manual_seed(0)
    model = timm.create_model(VIT, num_classes=14, global_pool="avg", depth=2)
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.05)
    return model.eval()


def as_published(model: nn.Module, file: Path) -> Path:
    content = {"model": model.state_dict(), "epoch": 74, "args": argparse.Namespace(lr=0.1, model=VIT)}
    torch.save(content, file)
    return file


def opened(file: Path, library: str, architecture: str, **settings: object) -> VisionClassifier:
    backbone = build_backbone(library, architecture, str(file), library=library, mean=MEAN, std=STD, **settings)
    assert isinstance(backbone, VisionClassifier)
    return backbone


@pytest.fixture
def two_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """The published networks have twelve blocks; two show the same keys."""
    whole = timm.create_model
    monkeypatch.setattr(timm, "create_model", lambda name, **told: whole(name, **{"depth": 2, **told}))


@pytest.mark.usefixtures("two_blocks")
def test_a_fine_tuned_masked_autoencoder_is_read_with_the_pooling_it_was_trained_with(tmp_path: Path) -> None:
    model = mae_fine_tuned()
    classifier = opened(as_published(model, tmp_path / "vit.pth"), "timm", VIT)
    assert not list(classifier.model.norm.parameters()) and isinstance(classifier.model.fc_norm, nn.LayerNorm)
    pixels = torch.randn(2, 3, 224, 224)
    tokens = model.forward_features(pixels)
    expected = model.head(model.fc_norm(tokens[:, 1:].mean(dim=1)))  # written out
    torch.testing.assert_close(classifier.logits(pixels), expected)
    assert "class_token" not in classifier.supports
    assert classifier.preprocess.mean == (0.5056,) * 3 and classifier.preprocess.std == (0.252,) * 3


@pytest.mark.usefixtures("two_blocks")
def test_every_key_counts(tmp_path: Path) -> None:
    state = mae_fine_tuned().state_dict()
    for key in ("fc_norm.bias", "blocks.1.mlp.fc2.bias", "head.bias"):
        torch.save({"model": {k: v for k, v in state.items() if k != key}}, tmp_path / "less.pth")
        with pytest.raises(UserError, match=key.replace(".", r"\.")):
            opened(tmp_path / "less.pth", "timm", VIT)
    torch.save({"model": {**state, "norm.extra": torch.ones(1)}}, tmp_path / "more.pth")
    with pytest.raises(UserError, match=r"norm\.extra"):
        opened(tmp_path / "more.pth", "timm", VIT)


@pytest.mark.usefixtures("two_blocks")
def test_a_decoder_is_left_out_by_number_and_a_tower_without_a_head_is_taken_for_another(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    state = timm.create_model(VIT, num_classes=0, depth=2).state_dict()
    decoder = {"decoder_pos_embed": torch.ones(1), "decoder_blocks.0.w": torch.ones(2), "mask_token": torch.ones(1)}
    torch.save({"model": {**state, **decoder}}, tmp_path / "mae.pth")
    with pytest.raises(UserError, match=r"has no classifier \(head\.weight\)"):
        opened(tmp_path / "mae.pth", "timm", VIT)
    with caplog.at_level(logging.INFO):
        tower = opened(tmp_path / "mae.pth", "timm", VIT, text=False)
    assert "3 weights of a decoder" in caplog.text and "has no classifier; the tower is taken" in caplog.text
    torch.testing.assert_close(tower.model.state_dict()["cls_token"], state["cls_token"])


@pytest.mark.parametrize("old", [False, True])
def test_a_densenet_s_weights_are_read_under_old_names_and_new(tmp_path: Path, old: bool) -> None:
    torch.manual_seed(0)
    model = tv.densenet121(num_classes=14).eval()
    state = model.state_dict()
    if old:
        state = {re.sub(r"(denselayer\d+\.(?:norm|conv))(\d)", r"\1.\2", key): value for key, value in state.items()}
        assert "features.denseblock1.denselayer1.norm.1.weight" in state
    torch.save({"state_dict": {f"module.{key}": value for key, value in state.items()}}, tmp_path / "densenet.pth.tar")
    classifier = opened(tmp_path / "densenet.pth.tar", "torchvision", "densenet121")
    pixels = torch.randn(1, 3, 64, 64)
    torch.testing.assert_close(classifier.logits(pixels), model(pixels))
    assert len(classifier.classes) == 14


def test_what_is_said_of_normalisation_is_whole() -> None:
    with pytest.raises(UserError, match="give both, one value or three"):
        build_backbone("timm", "test_resnet", None, library="timm", mean=[0.5])
    with pytest.raises(UserError, match=r"backbone\.mean is a setting of classifiers"):
        build_backbone("tiny", "tiny", None, mean=[0.5], std=[0.5])


def test_a_pickle_with_more_than_settings_is_still_refused(tmp_path: Path) -> None:
    torch.save({"model": {"a": torch.ones(1)}, "args": nn.Linear(2, 2)}, tmp_path / "odd.pth")
    with pytest.raises(UserError, match="a pickle that holds more than tensors"):
        build_backbone("timm", "test_resnet", str(tmp_path / "odd.pth"), library="timm")
