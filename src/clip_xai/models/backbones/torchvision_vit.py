"""torchvision's ``VisionTransformer``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torchvision.models import VisionTransformer

from clip_xai.models.backbones.torchvision_heads import before_last
from clip_xai.models.backbones.transformer import (
    Block,
    TransformerTower,
    multihead_query_key_value,
    resample_positions,
    whole_grid,
)


class TorchvisionBlock(Block):
    """torchvision's pre-norm ``EncoderBlock``."""

    def run(self, tokens: Tensor, mask: Tensor | None) -> Tensor:
        """Return the block's output."""
        return self.module(tokens)

    def normed(self, tokens: Tensor) -> Tensor:
        """Return the output of ``ln_1``."""
        return self.module.ln_1(tokens)

    def query_key_value(self, normed: Tensor, rows: slice) -> tuple[Tensor, Tensor, Tensor]:
        """Project with the weights of ``self_attention``."""
        return multihead_query_key_value(self.module.self_attention, normed[:, rows], normed)

    def project(self, context: Tensor) -> Tensor:
        """Apply ``out_proj``."""
        return self.module.self_attention.out_proj(context)

    def finish(self, tokens: Tensor, attended: Tensor) -> Tensor:
        """Add what attention gave, then the feed-forward part."""
        tokens = tokens + attended
        return tokens + self.module.mlp(self.module.ln_2(tokens))


class TorchvisionVisionTower(TransformerTower):
    """torchvision's ``VisionTransformer``; its embedding is what its classifier's last layer reads."""

    prefix_tokens = 1
    reads_class_token = True

    def __init__(self, network: VisionTransformer, image_size: int | None = None) -> None:
        """Wrap a network.

        Raises:
            UserError: The image size is not a multiple of the patches.
        """
        self.module: Any = network
        self.image_size = int(network.image_size) if image_size is None else image_size
        self.grid = whole_grid(self.image_size, int(network.patch_size))
        self.width = int(network.hidden_dim)
        self.embed_dim = int(list(network.heads)[-1].in_features)

    @property
    def blocks(self) -> Sequence[Block]:
        """The encoder's layers."""
        return [TorchvisionBlock(block) for block in self.module.encoder.layers]

    def embed(self, pixels: Tensor) -> Tensor:
        """Return patches with positions, the class token in front; positions are resampled for other sizes."""
        patches = self.module.conv_proj(pixels).flatten(2).transpose(1, 2)
        tokens = torch.cat([self.module.class_token.expand(len(patches), -1, -1), patches], dim=1)
        positions = resample_positions(self.module.encoder.pos_embedding[0], self.grid, 1)
        return self.module.encoder.dropout(tokens + positions)

    def pooled(self, tokens: Tensor) -> Tensor:
        """Normalise the class token and apply the classifier's layers but the last."""
        return self.project(tokens[:, 0])

    def last_norm(self, tokens: Tensor) -> Tensor:
        """Return all tokens after the encoder's last norm."""
        return self.module.encoder.ln(tokens)

    def project(self, tokens: Tensor) -> Tensor:
        """Normalise and apply the classifier's layers but the last."""
        return before_last(self.module, self.module.encoder.ln(tokens))
