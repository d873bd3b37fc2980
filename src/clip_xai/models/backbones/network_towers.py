"""Which adapter opens a network of timm or torchvision."""

from __future__ import annotations

import torchvision.models as tv
from timm.layers import PatchEmbed
from timm.models.vision_transformer import VisionTransformer
from torch import nn

from clip_xai.errors import UserError
from clip_xai.models.backbones.network_stages import CUTS, cut_of
from clip_xai.models.backbones.network_tower import NetworkTower
from clip_xai.models.backbones.opaque import OpaqueTower
from clip_xai.models.backbones.timm_trunk import trunk_of
from clip_xai.models.backbones.timm_vit import TimmVisionTower
from clip_xai.models.backbones.torchvision_vit import TorchvisionVisionTower
from clip_xai.models.backbones.tower import ImageTower
from clip_xai.private_api import TIMM_OWN_PASS


def timm_tower(module: nn.Module, image_size: int | None = None) -> ImageTower:
    """Return the adapter of a network of timm, by itself or in open_clip's ``TimmModel``.

    Raises:
        UserError: It does not take images of that size.
    """
    trunk = trunk_of(module)
    if isinstance(trunk, VisionTransformer):
        # Behind a convolutional stem, patches are no squares of the image: what is opened would have no place on it.
        hybrid = not isinstance(trunk.patch_embed, PatchEmbed)
        same = all(getattr(type(trunk), name) is getattr(VisionTransformer, name) for name in TIMM_OWN_PASS)
        return TimmVisionTower(module, image_size) if same and not hybrid else OpaqueTower(module, image_size)
    return OpaqueTower(module, image_size) if cut_of(trunk) is None else NetworkTower(module, image_size)


def torchvision_tower(network: nn.Module, image_size: int | None = None) -> ImageTower:
    """Return the adapter of a network of torchvision.

    Raises:
        UserError: Networks of its kind are not supported, or it does not take images of that size.
    """
    if isinstance(network, tv.VisionTransformer):
        return TorchvisionVisionTower(network, image_size)
    if cut_of(network) is None:
        known = sorted({kind.__name__ for kind in CUTS if kind.__module__.startswith("torchvision")})
        raise UserError(
            f"torchvision's {type(network).__name__} is not supported: choose a network of the kinds "
            f"{', '.join(known)} or VisionTransformer, or one of timm"
        )
    return NetworkTower(network, image_size)
