"""timm's networks as image towers: by themselves, or as open_clip hosts them, with a projection behind them."""

from __future__ import annotations

from typing import Any

from open_clip.timm_model import TimmModel
from torch import Tensor, nn


def trunk_of(module: Any) -> Any:
    """Return timm's network, whether it stands by itself or in an open_clip model."""
    return module.trunk if isinstance(module, TimmModel) else module


def embedding_of(module: Any, features: Tensor) -> Tensor:
    """Return the embedding ``[B, D]`` of a network's features: pooled, and projected where there is a projection.

    Of a network by itself it is what its classifier reads.
    """
    if isinstance(module, TimmModel):
        return module.head(module.trunk.forward_head(features))
    return module.forward_head(features, pre_logits=True)


def projected(module: Any, pooled: Tensor) -> Tensor:
    """Return the embedding of what a ``VisionTransformer`` has pooled, normalised where it normalises after pooling."""
    trunk = trunk_of(module)
    pooled = trunk.head_drop(trunk.fc_norm(pooled))
    return module.head(trunk.head(pooled)) if isinstance(module, TimmModel) else pooled


def output_dim(module: Any) -> int:
    """Return the embedding's dimension of a ``VisionTransformer``, from whichever layer is last."""
    trunk = trunk_of(module)
    if isinstance(module, TimmModel):
        for part in reversed([*trunk.head.modules(), *module.head.modules()]):
            if isinstance(part, nn.Linear):
                return int(part.out_features)
    return int(trunk.num_features)


def input_size(module: Any) -> int:
    """Return the side of the square that a network of timm was made for."""
    if isinstance(module, TimmModel):
        return int(module.image_size[0])
    fixed = getattr(getattr(module, "patch_embed", None), "img_size", None)
    return int(fixed[0] if fixed else module.pretrained_cfg["input_size"][-1])
