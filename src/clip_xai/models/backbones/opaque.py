"""open_clip's image towers around timm trunks of other kinds, such as ConvNeXt."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from open_clip.timm_model import TimmModel
from torch import Tensor

from clip_xai.errors import UserError
from clip_xai.models.backbones.recording import Point, Record, VisualTrace
from clip_xai.models.backbones.tower import Features, ImageTower


class OpaqueTower(ImageTower):
    """A timm trunk of another kind: it encodes, and perturbation methods can explain it, but it is not opened."""

    family = "convolutional"
    supports: frozenset[str] = frozenset()

    def __init__(self, visual: TimmModel, image_size: int | None = None) -> None:
        """Wrap a tower.

        Raises:
            UserError: Another image size than the trunk's own is asked for.
        """
        self.module: Any = visual
        self.image_size = int(visual.image_size[0])
        if image_size not in (None, self.image_size):
            raise UserError(f"this tower takes only {self.image_size} pixels: leave backbone.image_size out")
        weight = next(visual.parameters())
        with torch.no_grad():
            pixels = torch.zeros(1, 3, self.image_size, self.image_size, device=weight.device, dtype=weight.dtype)
            features = visual.eval().trunk.forward_features(pixels)
            self.embed_dim = int(visual(pixels).shape[1])
        trunk, self.width = visual.trunk, int(visual.trunk.num_features)
        self._tokens: Callable[[Tensor], Tensor]
        if features.ndim == 3:
            self.grid, self.prefix_tokens = tuple(trunk.patch_embed.grid_size), int(trunk.num_prefix_tokens)
            self._tokens = lambda tokens: tokens
        elif features.shape[-1] == self.width and features.shape[1] == features.shape[2]:
            # timm's hierarchical transformers give channels last, its convolutional trunks channels first.
            self.grid, self._tokens = tuple(features.shape[1:3]), lambda features: features.flatten(1, 2)
        else:
            self.grid = tuple(features.shape[2:])
            self._tokens = lambda features: features.flatten(2).transpose(1, 2)

    def features(self, pixels: Tensor) -> Features:
        """Encode images in one pass."""
        trunk = self.module.trunk
        features = trunk.forward_features(pixels)
        return Features(self.module.head(trunk.forward_head(features)), self._tokens(features), self.prefix_tokens)

    def project(self, tokens: Tensor) -> Tensor:
        """Raise a UserError."""
        raise self._refusal()

    def trace(
        self, pixels: Tensor, *, reads: str = "pooled", record: Record = (), watch: Iterable[Point] = ()
    ) -> VisualTrace:
        """Raise a UserError."""
        raise self._refusal()

    def _refusal(self) -> UserError:
        kind = type(self.module.trunk).__name__
        return UserError(f"a {kind} cannot be traced: choose occlusion, or a backbone with a CLIP ViT or ResNet")
