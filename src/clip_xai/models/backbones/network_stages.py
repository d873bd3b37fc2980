"""Networks of timm and torchvision cut into stages: each is a chain of modules that are applied one after the other.

Keyed on the class that is wrapped. A network whose own forward pass is no such chain is not in the table, and is not
opened.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torchvision.models as tv
from timm.models.convnext import ConvNeXt
from timm.models.densenet import DenseNet
from timm.models.efficientnet import EfficientNet
from timm.models.maxxvit import MaxxVit
from timm.models.mobilenetv3 import MobileNetV3
from timm.models.regnet import RegNet
from timm.models.resnet import ResNet
from timm.models.resnetv2 import ResNetV2
from timm.models.swin_transformer import SwinTransformer
from timm.models.swin_transformer_v2 import SwinTransformerV2
from timm.models.vgg import VGG
from torch import Tensor, nn

Step = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Chain:
    """A network's features as steps, first to last.

    Attributes:
        stem: From pixels to the first stage's input.
        stages: Each stage's steps; its output is the last one's.
        tail: From the last stage's output to what is pooled.
    """

    stem: Sequence[Step]
    stages: Sequence[Sequence[Step]]
    tail: Sequence[Step] = ()


@dataclass(frozen=True)
class Cut:
    """How networks of one class are cut.

    Attributes:
        chain: Cuts one.
        channels_last: Its maps are ``[B, h, w, C]``, as of windowed transformers, and not ``[B, C, h, w]``.
    """

    chain: Callable[[Any], Chain]
    channels_last: bool = False


def applied(steps: Iterable[Step], features: Tensor) -> Tensor:
    """Return what steps make of features, one after the other."""
    for step in steps:
        features = step(features)
    return features


def cut_of(network: nn.Module) -> Cut | None:
    """Return how a network is cut; None where its own forward pass is not the chain that is known of its class."""
    for kind in type(network).__mro__:
        if kind in CUTS:
            own = "forward_features" if hasattr(kind, "forward_features") else "forward"
            return CUTS[kind] if getattr(type(network), own) is getattr(kind, own) else None
    return None


def _resnet(network: Any) -> Chain:
    activation = network.act1 if hasattr(network, "act1") else network.relu
    stem = (network.conv1, network.bn1, activation, network.maxpool)
    return Chain(stem, [(network.layer1,), (network.layer2,), (network.layer3,), (network.layer4,)])


def _densenet(network: Any) -> Chain:
    """Each dense block, with the transition before it; the last norm belongs to the last."""
    stem: list[Step] = []
    stages: list[tuple[Step, ...]] = []
    waiting: list[Step] = []
    for name, module in network.features.named_children():
        waiting.append(module)
        if name.startswith("denseblock"):
            stem, waiting = (waiting[:-1], waiting[-1:]) if not stages else (stem, waiting)
            stages.append(tuple(waiting))
            waiting = []
    stages[-1] = (*stages[-1], *waiting)
    # timm's last norm has its activation in it
    return Chain(stem, stages, (torch.relu,) if isinstance(network, tv.DenseNet) else ())


def _vgg(network: Any) -> Chain:
    """The convolutions between two poolings, each with the pooling before it."""
    starts = [index for index, layer in enumerate(network.features) if isinstance(layer, nn.MaxPool2d)]
    layers = list(network.features)
    bounds = [0, *starts]
    stages = [tuple(layers[start:end]) for start, end in zip(bounds, starts, strict=False)]
    return Chain((), stages, tuple(layers[starts[-1] :]))


def _efficientnet(network: Any) -> Chain:
    stages = [(stage,) for stage in network.blocks]
    tail = (network.conv_head, network.bn2) if isinstance(network, EfficientNet) else ()
    return Chain((network.conv_stem, network.bn1), stages, tail)


def _stem_and_stages(network: Any) -> Chain:
    norm = network.norm_pre if isinstance(network, ConvNeXt) else network.norm
    return Chain((network.stem,), [(stage,) for stage in network.stages], (norm,))


def _regnet(network: Any) -> Chain:
    stages = [(network.s1,), (network.s2,), (network.s3,), (network.s4,)]
    return Chain((network.stem,), stages, (network.final_conv,))


def _swin(network: Any) -> Chain:
    """Every block by itself, a stage's first with the merging of patches before it."""
    blocks: list[tuple[Step, ...]] = []
    for stage in network.layers:
        first, *others = stage.blocks
        blocks += [(stage.downsample, first), *((block,) for block in others)]
    return Chain((network.patch_embed,), blocks, (network.norm,))


def _torchvision_blocks(network: Any) -> Chain:
    """A stem, stages or blocks, and a last convolution, all in ``features``."""
    stem, *stages, last = network.features
    return Chain((stem,), [(stage,) for stage in stages], (last,))


def _torchvision_convnext(network: Any) -> Chain:
    stem, first, *others = network.features
    return Chain((stem,), [(first,), *zip(others[::2], others[1::2], strict=True)])


def _torchvision_regnet(network: Any) -> Chain:
    return Chain((network.stem,), [(stage,) for stage in network.trunk_output])


def _torchvision_swin(network: Any) -> Chain:
    embedding, *others = network.features
    blocks: list[tuple[Step, ...]] = []
    merging: tuple[Step, ...] = ()
    for part in others:
        if isinstance(part, nn.Sequential):
            first, *rest = part
            blocks += [(*merging, first), *((block,) for block in rest)]
        else:
            merging = (part,)
    return Chain((embedding,), blocks, (network.norm,))


CUTS: dict[type, Cut] = {
    ResNet: Cut(_resnet),
    DenseNet: Cut(_densenet),
    EfficientNet: Cut(_efficientnet),
    MobileNetV3: Cut(_efficientnet),
    ConvNeXt: Cut(_stem_and_stages),
    ResNetV2: Cut(_stem_and_stages),
    MaxxVit: Cut(_stem_and_stages),
    RegNet: Cut(_regnet),
    VGG: Cut(_vgg),
    SwinTransformer: Cut(_swin, channels_last=True),
    SwinTransformerV2: Cut(_swin, channels_last=True),
    tv.ResNet: Cut(_resnet),
    tv.DenseNet: Cut(_densenet),
    tv.EfficientNet: Cut(_torchvision_blocks),
    tv.MobileNetV2: Cut(_torchvision_blocks),
    tv.MobileNetV3: Cut(_torchvision_blocks),
    tv.ConvNeXt: Cut(_torchvision_convnext),
    tv.RegNet: Cut(_torchvision_regnet),
    tv.VGG: Cut(_vgg),
    tv.SwinTransformer: Cut(_torchvision_swin, channels_last=True),
}
