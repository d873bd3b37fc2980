"""timm's ``VisionTransformer``: by itself, or as open_clip's image tower, such as BiomedCLIP's."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from timm.layers import AttentionPoolLatent
from timm.models.vision_transformer import Attention, VisionTransformer
from timm.models.vision_transformer import Block as TimmModule
from torch import Tensor, nn

from clip_xai.errors import UserError
from clip_xai.models.backbones.timm_trunk import input_size, output_dim, projected, trunk_of
from clip_xai.models.backbones.transformer import (
    AttentionPool,
    Block,
    TransformerTower,
    resample_positions,
    split_heads,
    whole_grid,
)
from clip_xai.private_api import timm_positions


class TimmBlock(Block):
    """timm's pre-norm ``Block``."""

    def require_openable(self) -> None:
        """Raise a UserError for blocks of another kind."""
        attention = getattr(self.module, "attn", None)
        if type(self.module) is not TimmModule or type(attention) is not Attention or attention.gate is not None:
            raise UserError(
                f"blocks of type {type(self.module).__name__} cannot be traced: choose a ViT with timm's plain blocks"
            )

    def run(self, tokens: Tensor, mask: Tensor | None) -> Tensor:
        """Return the block's output."""
        return self.module(tokens)

    def normed(self, tokens: Tensor) -> Tensor:
        """Return the output of ``norm1``."""
        return self.module.norm1(tokens)

    def query_key_value(self, normed: Tensor, rows: slice) -> tuple[Tensor, Tensor, Tensor]:
        """Project with ``qkv``, then normalise queries and keys where the tower does."""
        attention = self.module.attn
        query, key, value = attention.qkv(normed).chunk(3, dim=-1)
        query, key, value = (split_heads(part, attention.num_heads) for part in (query[:, rows], key, value))
        return attention.q_norm(query), attention.k_norm(key), value

    def project(self, context: Tensor) -> Tensor:
        """Apply ``proj``."""
        return self.module.attn.proj(self.module.attn.norm(context))

    def scaled(self, attended: Tensor) -> Tensor:
        """Apply the layer scale of attention."""
        return self.module.ls1(attended)

    def finish(self, tokens: Tensor, attended: Tensor) -> Tensor:
        """Add what attention gave, then the feed-forward part."""
        tokens = tokens + self.scaled(attended)
        return tokens + self.module.ls2(self.module.mlp(self.module.norm2(tokens)))


class TimmPool(AttentionPool):
    """timm's ``AttentionPoolLatent`` (SigLIP's)."""

    def __init__(self, tower: TimmVisionTower) -> None:
        self.tower = tower
        self.module: AttentionPoolLatent = tower.trunk.attn_pool

    def normed(self, tokens: Tensor) -> Tensor:
        """Return the tokens after the trunk's norm; the pool has none of its own."""
        trunk = self.tower.trunk
        tokens = trunk.norm(tokens)
        return tokens if trunk.pool_include_prefix else tokens[:, self.tower.prefix_tokens :]

    def query_key_value(self, normed: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Project the latents and the tokens."""
        pool = self.module
        query = split_heads(pool.q(pool.latent.expand(len(normed), -1, -1)), pool.num_heads)
        key, value = (split_heads(part, pool.num_heads) for part in pool.kv(normed).chunk(2, dim=-1))
        return pool.q_norm(query), pool.k_norm(key), value

    def project(self, context: Tensor) -> Tensor:
        """Apply ``proj``."""
        return self.module.proj(context)

    def finish(self, attended: Tensor) -> Tensor:
        """Apply the feed-forward part, choose or average the latents' rows, then the heads."""
        if self.module.mlp is not None:
            attended = attended + self.module.mlp(self.module.norm(attended))
        return self.tower.of_pooled(attended[:, 0] if self.module.pool == "token" else attended.mean(dim=1))


class TimmVisionTower(TransformerTower):
    """timm's ``VisionTransformer``, by itself or in open_clip's ``TimmModel``: class token, mean, or attention pool.

    By itself, its embedding is what its classifier reads.
    """

    def __init__(self, visual: nn.Module, image_size: int | None = None) -> None:
        """Wrap a tower.

        Args:
            visual: The tower.
            image_size: Side of the input if it is not the tower's own.

        Raises:
            TypeError: The trunk is of another family.
            UserError: The image size is not a multiple of the patches.
        """
        trunk = trunk_of(visual)
        if not isinstance(trunk, VisionTransformer):
            raise TypeError(f"expected timm's VisionTransformer, got {type(trunk).__name__}")
        self.module: Any = visual
        self.image_size = input_size(visual) if image_size is None else image_size
        self.grid = whole_grid(self.image_size, int(trunk.patch_embed.patch_size[0]))
        self.prefix_tokens = int(trunk.num_prefix_tokens)
        self.reads_class_token = trunk.attn_pool is None and trunk.global_pool == "token"
        self.width = int(trunk.embed_dim)
        self.embed_dim = output_dim(visual)

    @property
    def trunk(self) -> Any:
        """Timm's network."""
        return trunk_of(self.module)

    @property
    def blocks(self) -> Sequence[Block]:
        """The trunk's blocks."""
        return [TimmBlock(block) for block in self.trunk.blocks]

    @property
    def pool(self) -> AttentionPool | None:
        """The latent attention pool, where there is one.

        Raises:
            UserError: It is of another kind.
        """
        pool = self.trunk.attn_pool
        if pool is None:
            return None
        if type(pool) is not AttentionPoolLatent or pool.pos_embed is not None:
            raise UserError(f"a pool of type {type(pool).__name__} cannot be traced: choose occlusion")
        return TimmPool(self)

    def embed(self, pixels: Tensor) -> Tensor:
        """Return patches with positions, prefix tokens in front; positions are resampled for other sizes."""
        trunk = self.trunk
        if self.grid == tuple(trunk.patch_embed.grid_size):
            tokens = timm_positions(trunk, trunk.patch_embed(pixels))
            return trunk.norm_pre(trunk.patch_drop(tokens))
        patches = trunk.patch_embed.norm(trunk.patch_embed.proj(pixels).flatten(2).transpose(1, 2))
        prefix = [t.expand(len(patches), -1, -1) for t in (trunk.cls_token, trunk.reg_token) if t is not None]
        if trunk.no_embed_class:
            tokens = torch.cat([*prefix, patches + resample_positions(trunk.pos_embed[0], self.grid, 0)], dim=1)
        else:
            positions = resample_positions(trunk.pos_embed[0], self.grid, self.prefix_tokens)
            tokens = torch.cat([*prefix, patches], dim=1) + positions
        return trunk.norm_pre(trunk.patch_drop(trunk.pos_drop(tokens)))

    def pooled(self, tokens: Tensor) -> Tensor:
        """Normalise, pool and project as the tower does."""
        trunk = self.trunk
        return self.of_pooled(trunk.pool(trunk.norm(tokens)))

    def last_norm(self, tokens: Tensor) -> Tensor:
        """Return all tokens after the trunk's last norm."""
        trunk = self.trunk
        return trunk.fc_norm(trunk.norm(tokens))

    def project(self, tokens: Tensor) -> Tensor:
        """Normalise and project.

        Raises:
            UserError: The tower makes its embedding by attention, so that no single token has one.
        """
        if self.trunk.attn_pool is not None:
            raise UserError("a tower that pools by attention has no embedding of single patches: choose another method")
        return self.of_pooled(self.trunk.norm(tokens))

    def of_pooled(self, pooled: Tensor) -> Tensor:
        """Return the embedding of what was pooled."""
        return projected(self.module, pooled)
