"""PanDerm's image tower (Yan et al., Nature Medicine 2025), as DermLIP-PanDerm uses it.

A BEiT-like ViT of the CAE family that stock open_clip cannot build. Its peculiarities, all of which decide the
numbers: positions are a fixed 2-D sine-cosine table with zeros for the class token; queries and values have biases,
keys have none; each branch is scaled by a learned gain; the one final LayerNorm is applied twice, first to all tokens,
then to the mean of the patches; the head has a bias. The names of the weights are those of the published file.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from clip_xai.models.backbones.transformer import (
    Block,
    TransformerTower,
    resample_positions,
    split_heads,
    whole_grid,
)

EPSILON = 1e-6
GAIN = 0.1


class PanDermAttention(nn.Module):
    """Self-attention whose keys have no bias."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.q_bias = nn.Parameter(torch.zeros(width))
        self.v_bias = nn.Parameter(torch.zeros(width))
        self.proj = nn.Linear(width, width)

    def query_key_value(self, tokens: Tensor, rows: slice = slice(None)) -> tuple[Tensor, Tensor, Tensor]:
        """Return queries of some rows ``[B, H, R, d]``, keys and values of all ``[B, H, S, d]``."""
        query, key, value = self.qkv.weight.chunk(3)
        parts = (
            F.linear(tokens[:, rows], query, self.q_bias),
            F.linear(tokens, key),
            F.linear(tokens, value, self.v_bias),
        )
        query, key, value = (split_heads(part, self.heads) for part in parts)
        return query, key, value

    def forward(self, tokens: Tensor) -> Tensor:
        """Return attention's output ``[B, S, W]``."""
        context = F.scaled_dot_product_attention(*self.query_key_value(tokens))
        return self.proj(context.transpose(1, 2).flatten(2))


class PanDermMlp(nn.Module):
    """Linear, GELU, linear."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, hidden)
        self.act = nn.GELU()
        self.fc2 = nn.Linear(hidden, width)

    def forward(self, tokens: Tensor) -> Tensor:
        """Return ``[B, S, W]``."""
        return self.fc2(self.act(self.fc1(tokens)))


class PanDermBlock(nn.Module):
    """A pre-norm block with a learned gain on each branch."""

    def __init__(self, width: int, heads: int, mlp_ratio: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width, eps=EPSILON)
        self.attn = PanDermAttention(width, heads)
        self.norm2 = nn.LayerNorm(width, eps=EPSILON)
        self.mlp = PanDermMlp(width, mlp_ratio * width)
        self.gamma_1 = nn.Parameter(torch.full((width,), GAIN))
        self.gamma_2 = nn.Parameter(torch.full((width,), GAIN))

    def forward(self, tokens: Tensor) -> Tensor:
        """Return ``[B, S, W]``."""
        return self.finish(tokens, self.attn(self.norm1(tokens)))

    def finish(self, tokens: Tensor, attended: Tensor) -> Tensor:
        """Add what attention gave, then the feed-forward part."""
        tokens = tokens + self.gamma_1 * attended
        return tokens + self.gamma_2 * self.mlp(self.norm2(tokens))


class PatchEmbedding(nn.Module):
    """Patches by a convolution as wide as its step."""

    def __init__(self, width: int, patch_size: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, width, kernel_size=patch_size, stride=patch_size)

    def forward(self, pixels: Tensor) -> Tensor:
        """Return ``[B, N, W]``."""
        return self.proj(pixels).flatten(2).transpose(1, 2)


class PanDermVisionTransformer(nn.Module):
    """The tower: images ``[B, 3, S, S]`` to embeddings ``[B, D]``."""

    def __init__(
        self,
        image_size: int = 224,
        patch_size: int = 16,
        width: int = 768,
        layers: int = 12,
        heads: int = 12,
        mlp_ratio: int = 4,
        embed_dim: int = 512,
    ) -> None:
        """Build the tower at random weights."""
        super().__init__()
        self.image_size, self.patch_size = image_size, patch_size
        self.patch_embed = PatchEmbedding(width, patch_size)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, width))
        self.pos_embed = nn.Parameter(sine_positions(image_size // patch_size, width), requires_grad=False)
        self.blocks = nn.ModuleList(PanDermBlock(width, heads, mlp_ratio) for _ in range(layers))
        self.norm = nn.LayerNorm(width, eps=EPSILON)
        self.head = nn.Linear(width, embed_dim)
        nn.init.trunc_normal_(self.cls_token, std=0.02)
        for part in self.modules():
            if isinstance(part, nn.Linear):
                nn.init.trunc_normal_(part.weight, std=0.02)
                if part.bias is not None:
                    nn.init.zeros_(part.bias)

    def embed(self, pixels: Tensor, positions: Tensor) -> Tensor:
        """Return the first block's input ``[B, 1 + N, W]``, with positions ``[1 + N, W]``."""
        patches = self.patch_embed(pixels)
        return torch.cat([self.cls_token.expand(len(patches), -1, -1), patches], dim=1) + positions

    def pool(self, tokens: Tensor) -> Tensor:
        """Return embeddings ``[B, D]`` of the last block's output."""
        return self.head(self.norm(self.norm(tokens)[:, 1:].mean(dim=1)))

    def forward(self, pixels: Tensor) -> Tensor:
        """Return embeddings ``[B, D]``."""
        tokens = self.embed(pixels, self.pos_embed[0])
        for block in self.blocks:
            tokens = block(tokens)
        return self.pool(tokens)


def sine_positions(side: int, width: int, temperature: float = 10_000.0) -> Tensor:
    """Return the table ``[1, 1 + side * side, W]``: sine and cosine of the row, then of the column; zeros in front."""
    places = torch.arange(side, dtype=torch.float32)
    rates = temperature ** -(torch.arange(width // 4, dtype=torch.float32) / (width // 4))
    rows = torch.outer(places.repeat_interleave(side), rates)
    columns = torch.outer(places.repeat(side), rates)
    table = torch.cat([rows.sin(), rows.cos(), columns.sin(), columns.cos()], dim=1)
    return torch.cat([torch.zeros(1, width), table]).unsqueeze(0)


class PanDermOpened(Block):
    """The adapter of a block."""

    def run(self, tokens: Tensor, mask: Tensor | None) -> Tensor:
        """Return the block's output."""
        return self.module(tokens)

    def normed(self, tokens: Tensor) -> Tensor:
        """Return the output of ``norm1``."""
        return self.module.norm1(tokens)

    def query_key_value(self, normed: Tensor, rows: slice) -> tuple[Tensor, Tensor, Tensor]:
        """Project."""
        return self.module.attn.query_key_value(normed, rows)

    def project(self, context: Tensor) -> Tensor:
        """Apply ``proj``."""
        return self.module.attn.proj(context)

    def scaled(self, attended: Tensor) -> Tensor:
        """Apply the gain."""
        return self.module.gamma_1 * attended

    def finish(self, tokens: Tensor, attended: Tensor) -> Tensor:
        """Add what attention gave, then the feed-forward part."""
        return self.module.finish(tokens, attended)


class PanDermTower(TransformerTower):
    """The adapter of the tower. It has a class token and does not read it: the embedding is of the patches' mean."""

    prefix_tokens = 1
    reads_class_token = False

    def __init__(self, visual: PanDermVisionTransformer, image_size: int | None = None) -> None:
        """Wrap a tower.

        Raises:
            UserError: The image size is not a multiple of the patches.
        """
        self.module: Any = visual
        self.image_size = visual.image_size if image_size is None else image_size
        self.grid = whole_grid(self.image_size, visual.patch_size)
        self.width, self.embed_dim = visual.norm.normalized_shape[0], visual.head.out_features

    @property
    def blocks(self) -> Sequence[Block]:
        """The blocks."""
        return [PanDermOpened(block) for block in self.module.blocks]

    def embed(self, pixels: Tensor) -> Tensor:
        """Return patches with positions, the class token in front; positions are resampled for other sizes."""
        return self.module.embed(pixels, resample_positions(self.module.pos_embed[0], self.grid, 1))

    def pooled(self, tokens: Tensor) -> Tensor:
        """Normalise, average the patches, normalise again, project."""
        return self.module.pool(tokens)

    def last_norm(self, tokens: Tensor) -> Tensor:
        """Return all tokens after their norm."""
        return self.module.norm(tokens)

    def project(self, tokens: Tensor) -> Tensor:
        """Normalise twice and project."""
        return self.module.head(self.module.norm(self.module.norm(tokens)))
