"""Small classifiers of timm and torchvision, of every family that is opened."""

from __future__ import annotations

from collections.abc import Callable

import timm
import torch
import torchvision.models as tv
from torch import nn

from clip_xai.models.backbones.networks import TIMM, TORCHVISION, tower_of
from clip_xai.models.backbones.tower import ImageTower
from tests.support.towers import shaken

Built = tuple[str, nn.Module, ImageTower]


def of_timm(name: str, image_size: int, **settings: object) -> Callable[[], Built]:
    """Build one of timm's networks, smaller than it is published."""

    def build() -> Built:
        torch.manual_seed(0)
        network = shaken(timm.create_model(name, num_classes=5, **settings))
        return TIMM, network, tower_of(TIMM, network, image_size)

    return build


def of_torchvision(kind: Callable[..., nn.Module], side: int, **settings: object) -> Callable[[], Built]:
    """Build one of torchvision's networks."""

    def build() -> Built:
        torch.manual_seed(0)
        network = shaken(kind(num_classes=5, **settings))
        return TORCHVISION, network, tower_of(TORCHVISION, network, side)

    return build


SWIN = {"img_size": 56, "embed_dim": 16, "depths": (2, 2), "num_heads": (2, 4), "window_size": 7}
SWIN_OF_TORCHVISION = {"patch_size": [4, 4], "embed_dim": 16, "depths": [2, 2], "num_heads": [2, 2]}
VIT = {"img_size": 48, "patch_size": 8, "embed_dim": 32, "depth": 3, "num_heads": 4}
CONVOLUTIONAL: dict[str, Callable[[], Built]] = {
    "timm_resnet": of_timm("test_resnet", 64),
    "timm_resnet_v2": of_timm("resnetv2_50", 64, layers=(1, 1, 1, 1), channels=(16, 32, 32, 64), stem_chs=16),
    "timm_densenet": of_timm("densenet121", 64, growth_rate=8, block_config=(2, 2, 2)),
    "timm_efficientnet": of_timm("test_efficientnet", 64),
    "timm_mobilenet": of_timm("mobilenetv3_small_050", 64),
    "timm_convnext": of_timm("test_convnext", 64),
    "timm_regnet": of_timm("regnetx_002", 64),
    "torchvision_resnet": of_torchvision(tv.resnet18, 64),
    "torchvision_densenet": of_torchvision(
        tv.DenseNet, 64, growth_rate=8, block_config=(2, 2, 2), num_init_features=16
    ),
    "torchvision_efficientnet": of_torchvision(tv.efficientnet_b0, 64),
    "torchvision_mobilenet": of_torchvision(tv.mobilenet_v3_small, 64),
    "torchvision_regnet": of_torchvision(tv.regnet_x_400mf, 64),
}
WINDOWED: dict[str, Callable[[], Built]] = {
    "timm_swin": of_timm("swin_tiny_patch4_window7_224", 56, **SWIN),
    "torchvision_swin": of_torchvision(tv.SwinTransformer, 56, window_size=[7, 7], **SWIN_OF_TORCHVISION),
}
TRANSFORMERS: dict[str, Callable[[], Built]] = {
    "timm_vit": of_timm("vit_small_patch16_224", 48, **VIT),
    "timm_vit_mean": of_timm("vit_small_patch16_224", 48, global_pool="avg", class_token=False, **VIT),
    "torchvision_vit": of_torchvision(
        tv.VisionTransformer, 48, image_size=48, patch_size=8, num_layers=3, num_heads=4, hidden_dim=32, mlp_dim=64
    ),
}
NETWORKS = CONVOLUTIONAL | WINDOWED | TRANSFORMERS
