"""open_clip's ViT once more, with attention written out, so that everything in it can be differentiated."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from clip_xai.models.backbones.open_clip_vit import OpenClipBackbone
from clip_xai.xai.target import Target


@dataclass
class Eager:
    """Everything of one pass with a graph from the pixels on; lists run over blocks."""

    attention: list[Tensor]  # [B, H, S, S]
    context: list[Tensor]  # [B, S, W]
    query: list[Tensor]  # [B, S, W]
    key: list[Tensor]
    value: list[Tensor]
    entered: list[Tensor]
    output: list[Tensor]


def run(backbone: OpenClipBackbone, pixels: Tensor, heads: int = 4, heads_of_last: int | None = None) -> Eager:
    visual = backbone.visual
    kept = Eager([], [], [], [], [], [], [])
    tokens = visual._embeds(pixels.clone().requires_grad_())
    blocks = list(visual.transformer.resblocks)
    for index, block in enumerate(blocks):
        count = heads_of_last if heads_of_last and index == len(blocks) - 1 else heads
        kept.entered.append(tokens)
        parts = F.linear(block.ln_1(tokens), block.attn.in_proj_weight, block.attn.in_proj_bias)
        query, key, value = parts.chunk(3, dim=-1)
        attention = attend(query, key, count)
        context = by_heads(attention, value)
        found = {"query": query, "key": key, "value": value, "attention": attention, "context": context}
        for name, tensor in found.items():
            getattr(kept, name).append(tensor)
        tokens = tokens + block.ls_1(block.attn.out_proj(context))
        tokens = tokens + block.ls_2(block.mlp(block.ln_2(tokens)))
        kept.output.append(tokens)
    return kept


def attend(query: Tensor, key: Tensor, heads: int) -> Tensor:
    """Attention probabilities, one head at a time."""
    size = query.shape[-1] // heads
    return torch.stack(
        [
            (query[..., at : at + size] @ key[..., at : at + size].transpose(1, 2) / size**0.5).softmax(-1)
            for at in range(0, query.shape[-1], size)
        ],
        dim=1,
    )


def by_heads(attention: Tensor, value: Tensor) -> Tensor:
    size = value.shape[-1] // attention.shape[1]
    return torch.cat(
        [attention[:, h] @ value[..., h * size : (h + 1) * size] for h in range(attention.shape[1])], dim=-1
    )


def read(backbone: OpenClipBackbone, tokens: Tensor, reads: str) -> Tensor:
    post = backbone.visual.ln_post(tokens)
    return {"pooled": post[:, 0] @ backbone.visual.proj, "patches": post[:, 1:], "tokens": post}[reads]


def scores(backbone: OpenClipBackbone, kept: Eager, target: Target) -> Tensor:
    return target.score(read(backbone, kept.output[-1], target.reads))
