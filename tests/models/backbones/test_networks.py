"""Classifiers of timm and torchvision, opened: against their own forward pass and hooks on their own modules."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import timm
import torch
import torchvision.models as tv
from PIL import Image
from safetensors.torch import save_file
from timm.data import create_transform, resolve_data_config
from torch import Tensor, nn

from clip_xai.data.preprocess import Preprocess
from clip_xai.errors import UserError
from clip_xai.models.backbones.backbone_builder import BackboneSource, build_backbone
from clip_xai.models.backbones.blueprint import Blueprint
from clip_xai.models.backbones.classifier import VisionClassifier
from clip_xai.models.backbones.network_tower import NetworkTower
from clip_xai.models.backbones.networks import classifier_of
from tests.support.networks import CONVOLUTIONAL, NETWORKS, TRANSFORMERS, WINDOWED
from tests.support.towers import assert_close, check_trace, pixels_for


@pytest.mark.parametrize("name", NETWORKS)
@torch.no_grad()
def test_logits_are_the_librarys_own(name: str) -> None:
    library, network, tower = NETWORKS[name]()
    network.double()
    pixels = pixels_for(tower).double()
    backbone = VisionClassifier(network, tower, Preprocess(image_size=tower.image_size), name, library)
    expected = network(pixels)
    features = backbone.features(pixels)
    assert (backbone.logits(pixels) - expected).abs().max() < 1e-8 * expected.abs().max()
    assert (backbone.logits_of(features.pooled) - expected).abs().max() < 1e-8 * expected.abs().max()
    assert features.patches.shape == (2, tower.grid[0] * tower.grid[1], tower.width)
    assert features.pooled.shape == (2, tower.embed_dim) and len(backbone.classes) == 5
    own = network.forward_features(pixels) if library == "timm" else None
    if own is not None and own.ndim == 4:
        windowed = tower.family == "windowed"
        assert_close(features.patches, own.flatten(1, 2) if windowed else own.flatten(2).transpose(1, 2))


def last_of(network: nn.Module, name: str) -> nn.Module:
    """The module whose output is the second stage's (the second block's of a Swin), as its library names it."""
    places = {
        "timm_resnet": "layer2", "timm_resnet_v2": "stages.1", "timm_densenet": "features.denseblock2",
        "timm_efficientnet": "blocks.1", "timm_mobilenet": "blocks.1", "timm_convnext": "stages.1", "timm_regnet": "s2",
        "torchvision_resnet": "layer2", "torchvision_densenet": "features.denseblock2",
        "torchvision_efficientnet": "features.2", "torchvision_mobilenet": "features.2",
        "torchvision_regnet": "trunk_output.block2", "timm_swin": "layers.0.blocks.1",
        "torchvision_swin": "features.1.1",
    }  # fmt: skip
    return network.get_submodule(places[name])


@pytest.mark.parametrize("name", CONVOLUTIONAL | WINDOWED)
def test_stages_are_the_librarys_and_so_are_their_gradients(name: str) -> None:
    _, network, tower = NETWORKS[name]()
    assert isinstance(tower, NetworkTower) and tower.supports == {"output_gradients"}
    pixels = pixels_for(tower)
    before = {key: value.clone() for key, value in network.state_dict().items()}
    trace = tower.trace(pixels, record=None, watch=[(1, "output")])
    cotangent = torch.randn(2, 1, tower.embed_dim, generator=torch.Generator().manual_seed(0))
    found = trace.gradients(cotangent, [(1, "output")])[1, "output"][:, 0]
    kept: list[Tensor] = []
    stage = last_of(network, name)
    handle = stage.register_forward_hook(lambda module, args, output: kept.append(output))
    library, _, _ = NETWORKS[name]()
    reads: list[Tensor] = []
    head = classifier_of(library, network)[1].register_forward_hook(lambda module, args, output: reads.append(args[0]))
    network(pixels.clone().requires_grad_())
    handle.remove()
    head.remove()
    (expected,) = torch.autograd.grad(reads[0].flatten(1), kept[0], cotangent[:, 0])

    def rows(maps: Tensor) -> Tensor:
        return maps.flatten(1, 2) if tower.family == "windowed" else maps.flatten(2).transpose(1, 2)

    height, width = kept[0].shape[1:3] if tower.family == "windowed" else kept[0].shape[2:]
    assert trace.grid_of(1) == (height, width) and trace.grid_of(-1) == tower.grids[-1]
    assert_close(trace.block(1).output, rows(kept[0]).detach())
    assert_close(found, rows(expected))
    with torch.no_grad():
        assert_close(tower.behind(1, trace.block(1).output.detach(), "pooled"), reads[0].flatten(1))
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())
    assert not any(module._forward_hooks for module in network.modules())


@pytest.mark.parametrize("name", TRANSFORMERS)
def test_transformers_keep_the_contract_of_a_trace(name: str) -> None:
    _, _, tower = TRANSFORMERS[name]()
    assert "attention" in tower.supports
    check_trace(tower)


@pytest.mark.parametrize("name", ["timm_resnet", "timm_convnext", "torchvision_densenet"])
@torch.no_grad()
def test_one_cell_is_the_embedding_of_a_picture_of_one_cell(name: str) -> None:
    _, _, tower = NETWORKS[name]()
    assert isinstance(tower, NetworkTower)
    tokens = torch.randn(2, 3, tower.trace(pixels_for(tower), record=[-1]).block(-1).output.shape[-1])
    found = tower.project(tokens)
    tower.grids[-1] = (1, 1)
    for image in range(2):
        for cell in range(3):
            whole = tower.behind(len(tower.grids) - 1, tokens[image, cell][None, None], "pooled")
            assert_close(found[image, cell], whole[0])


def test_a_bright_corner_is_found_in_its_own_cell() -> None:
    """Each cell of the grid sees most of its own place: the geometry is not turned or mirrored."""
    _, _, tower = NETWORKS["timm_resnet"]()
    pixels = torch.zeros(1, 3, tower.image_size, tower.image_size)
    side = tower.image_size // tower.grids[0][0]  # type: ignore[attr-defined]
    plain = tower.trace(pixels, record=[0]).block(0).output
    pixels[..., 3 * side : 4 * side, 9 * side : 10 * side] = 4.0
    changed = (tower.trace(pixels, record=[0]).block(0).output - plain).abs().sum(-1)[0]
    rows, columns = tower.grids[0]  # type: ignore[attr-defined]
    row, column = divmod(int(changed.argmax()), columns)
    assert rows == 16 and abs(row - 3) <= 1 and abs(column - 9) <= 1


def test_weights_and_names_come_from_files(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    torch.manual_seed(1)
    network = timm.create_model("test_resnet", num_classes=3).eval()
    file, names = tmp_path / "weights" / "mine.safetensors", tmp_path / "names.txt"
    file.parent.mkdir()
    save_file(network.state_dict(), file)
    names.write_text("pneumonia\nedema\nno finding\n")
    built = build_backbone("timm", "test_resnet", str(file), library="timm", classes=str(names))
    assert isinstance(built, VisionClassifier) and built.classes == ["pneumonia", "edema", "no finding"]
    assert "assumed as for test_resnet" in caplog.text
    pixels = pixels_for(built)
    assert_close(built.logits(pixels), network(pixels).detach())
    picture = Image.linear_gradient("L").resize((300, 200)).convert("RGB")
    own = create_transform(**resolve_data_config({}, model=network))
    assert (built.preprocess(picture) - own(picture)).abs().max() < 1e-5
    again = Blueprint.from_plain(json.loads(json.dumps(built.blueprint.plain()))).build("again")  # type: ignore[union-attr]
    assert isinstance(again, VisionClassifier) and again.classes == built.classes
    assert again.preprocess == built.preprocess and again.grid == built.grid
    assert again.fingerprint != built.fingerprint
    for changes, said in (
        ({"num_classes": 4}, "has 3 classes"),
        ({"classes": str(file)}, "cannot be read as text"),
        ({"library": None}, "choose backbone=timm"),
        ({"quick_gelu": True}, "leave it out"),
        ({"architecture": "test_resnett"}, "did you mean test_resnet"),
        ({"architecture": "resnet18"}, "does not fit the model"),
    ):
        settings = {"name": "timm", "architecture": "test_resnet", "pretrained": str(file), "library": "timm"}
        with pytest.raises(UserError, match=said):
            build_backbone(**{**settings, "classes": str(names), **changes})  # type: ignore[arg-type]
    names.write_text("pneumonia\nedema\n")
    with pytest.raises(UserError, match="2 names, and there are 3 classes"):
        build_backbone("timm", "test_resnet", str(file), library="timm", classes=str(names))


def test_a_published_folder_says_how_it_is_built(tmp_path: Path) -> None:
    network = timm.create_model("test_convnext", num_classes=2)
    save_file(network.state_dict(), tmp_path / "model.safetensors")
    said = {
        "input_size": [3, 96, 96],
        "crop_pct": 1.0,
        "mean": [0.5] * 3,
        "std": [0.25] * 3,
        "interpolation": "bilinear",
    }
    config = {"architecture": "test_convnext", "label_names": ["a", "b"], "pretrained_cfg": said}
    (tmp_path / "config.json").write_text(json.dumps(config))
    built = build_backbone("timm", "test_convnext", str(tmp_path), library="timm")
    assert isinstance(built, VisionClassifier) and built.classes == ["a", "b"] and built.grid == (3, 3)
    assert built.preprocess == Preprocess(96, interpolation="bilinear", mean=(0.5,) * 3, std=(0.25,) * 3)
    with pytest.raises(UserError, match=r"set backbone\.architecture=test_convnext"):
        build_backbone("timm", "test_resnet", str(tmp_path), library="timm")
    file = tmp_path / "headless.safetensors"
    save_file(timm.create_model("test_convnext", num_classes=0).state_dict(), file)
    with pytest.raises(UserError, match="has no classifier"):
        build_backbone("timm", "test_convnext", str(file), library="timm")


def test_torchvision_prepares_photographs_as_it_says() -> None:
    built = build_backbone("torchvision", "resnet18", None, library="torchvision", num_classes=7)
    assert isinstance(built, VisionClassifier) and built.classes[6] == "class 6"
    picture = Image.linear_gradient("L").resize((300, 200)).convert("RGB")
    own = tv.ResNet18_Weights.IMAGENET1K_V1.transforms()
    assert (built.preprocess(picture) - own(picture)).abs().max() < 1e-5
    larger = build_backbone("torchvision", "resnet18", None, image_size=256, library="torchvision")
    assert larger.grid == (8, 8) and larger.preprocess.scaled == 293
    with pytest.raises(UserError, match="GoogLeNet is not supported"):
        build_backbone("torchvision", "googlenet", None, library="torchvision")
    source = BackboneSource("t", "resnet18", None, library="torchvision", num_classes=7)
    assert BackboneSource(**json.loads(json.dumps(vars(source)))) == source
