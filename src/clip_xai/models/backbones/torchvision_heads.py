"""The end of torchvision's networks: how they pool, and which of their layers is the classifier."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
import torchvision.models as tv
from torch import Tensor, nn

HEADS = ("fc", "classifier", "head", "heads")


def pooled_by_torchvision(network: Any, features: Tensor) -> Tensor:
    """Return what the last layer of a network's classifier reads, ``[B, D]``, of its features."""
    if isinstance(network, tv.SwinTransformer):
        features = network.permute(features)
    pooled = network.avgpool(features) if hasattr(network, "avgpool") else F.adaptive_avg_pool2d(features, 1)
    if not isinstance(network, tv.ConvNeXt):  # its classifier normalises first, then flattens
        pooled = torch.flatten(pooled, 1)
    return before_last(network, pooled)


def before_last(network: Any, pooled: Tensor) -> Tensor:
    """Apply the classifier's layers but the last."""
    head = _head(network)
    for layer in list(head)[:-1] if isinstance(head, nn.Sequential) else ():
        pooled = layer(pooled)
    return pooled


def last_layer(network: Any) -> nn.Module:
    """Return the classifier's last layer."""
    head = _head(network)
    return list(head)[-1] if isinstance(head, nn.Sequential) else head


def _head(network: Any) -> nn.Module:
    return next(getattr(network, name) for name in HEADS if hasattr(network, name))
