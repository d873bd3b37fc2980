"""Networks of timm of other kinds, by themselves or in an open_clip model: they encode, but are not opened."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

from clip_xai.errors import UserError
from clip_xai.models.backbones.recording import Point, Record, VisualTrace, evaluation_mode
from clip_xai.models.backbones.timm_trunk import embedding_of, input_size, trunk_of
from clip_xai.models.backbones.tower import Features, ImageTower


class OpaqueTower(ImageTower):
    """A network of another kind: it encodes, and perturbation methods can explain it, but it is not opened."""

    family = "convolutional"
    supports: frozenset[str] = frozenset()

    def __init__(self, visual: nn.Module, image_size: int | None = None) -> None:
        """Wrap a tower.

        Raises:
            UserError: Another image size than the trunk's own is asked for.
        """
        self.module: Any = visual
        self.image_size = input_size(visual)
        if image_size not in (None, self.image_size):
            raise UserError(f"this tower takes only {self.image_size} pixels: leave backbone.image_size out")
        weight = next(visual.parameters())
        trunk = trunk_of(visual)
        with evaluation_mode(visual), torch.no_grad():
            pixels = torch.zeros(1, 3, self.image_size, self.image_size, device=weight.device, dtype=weight.dtype)
            features = trunk.forward_features(pixels)
            self.embed_dim = int(embedding_of(visual, features).shape[1])
        self.width = int(trunk.num_features)
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
        features = trunk_of(self.module).forward_features(pixels)
        return Features(embedding_of(self.module, features), self._tokens(features), self.prefix_tokens)

    def project(self, tokens: Tensor) -> Tensor:
        """Raise a UserError."""
        raise self._refusal()

    def trace(
        self, pixels: Tensor, *, reads: str = "pooled", record: Record = (), watch: Iterable[Point] = ()
    ) -> VisualTrace:
        """Raise a UserError."""
        raise self._refusal()

    def _refusal(self) -> UserError:
        kind = type(trunk_of(self.module)).__name__
        return UserError(f"a {kind} cannot be traced: choose occlusion, or a backbone with a CLIP ViT or ResNet")
