"""ClipCap's transformer mapper."""

from __future__ import annotations

from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from clip_xai.models.mappers.base import Count, Mapper, Share, mappers


@mappers.register("clipcap_transformer", order=2)
class ClipCapTransformer(Mapper):
    """ClipCap's transformer (arXiv 2111.09734): the embedding as a few tokens beside K learned constants.

    One linear layer spreads the pooled embedding over ``clip_length`` tokens; together with K learned constants they
    pass pre-norm self-attention layers of MLP ratio 2 with ReLU; the constants' outputs are the prefix. Queries, keys
    and values have no bias. With D 512, K = clip_length = 10 and E 768 there are 41,745,408 parameters. ClipCap's
    training leaves the embedding as it is unless it is told to bring it to length 1; ``normalize`` is that switch.
    """

    reads: ClassVar[str] = "pooled"
    idea: ClassVar[str] = "learned constants and the embedding attend to each other, 8 layers"

    def __init__(
        self,
        feature_dim: int,
        embedding_dim: int,
        prefix_length: Count = 10,
        clip_length: Count = 10,
        layers: Count = 8,
        heads: Count = 8,
        dropout: Share = 0.0,
        normalize: bool = False,
    ) -> None:
        """Build the mapper.

        Args:
            feature_dim: D.
            embedding_dim: E.
            prefix_length: Number of prefix vectors.
            clip_length: Vectors that the embedding is spread over.
            layers: Number of layers.
            heads: Attention heads of each layer.
            dropout: Probability of dropping an activation while training.
            normalize: Whether the embedding is brought to length 1 first; ClipCap trains without unless told so.

        Raises:
            ValueError: The embedding does not divide into the heads.
        """
        super().__init__()
        if embedding_dim % heads:
            raise ValueError(f"an embedding of {embedding_dim} does not divide into {heads} heads")
        self.prefix_length = prefix_length
        self.clip_length = clip_length
        self.normalize = normalize
        self.project = nn.Linear(feature_dim, clip_length * embedding_dim)
        self.latents = nn.Parameter(torch.randn(prefix_length, embedding_dim))
        self.layers = nn.ModuleList(SelfAttentionLayer(embedding_dim, heads, dropout) for _ in range(layers))

    def forward(self, pooled: Tensor) -> Tensor:
        """Map ``[B, D]`` image embeddings to ``[B, K, E]``."""
        pooled = F.normalize(pooled, dim=-1) if self.normalize else pooled
        clip = self.project(pooled).unflatten(-1, (self.clip_length, -1))
        tokens = torch.cat([clip, self.latents.expand(len(pooled), -1, -1)], dim=1)
        for layer in self.layers:
            tokens = layer(tokens)
        return tokens[:, self.clip_length :]


class SelfAttentionLayer(nn.Module):
    """Self-attention without biases on queries, keys and values, then an MLP of ratio 2; both pre-norm and residual."""

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.norm_attention = nn.LayerNorm(width)
        self.query = nn.Linear(width, width, bias=False)
        self.key_value = nn.Linear(width, 2 * width, bias=False)
        self.output = nn.Linear(width, width)
        self.norm_mlp = nn.LayerNorm(width)
        self.mlp = nn.Sequential(nn.Linear(width, 2 * width), nn.ReLU(), nn.Linear(2 * width, width))
        self.dropout = nn.Dropout(dropout)

    def forward(self, tokens: Tensor) -> Tensor:
        """Update ``[B, N, E]`` tokens."""
        normed = self.norm_attention(tokens)
        keys, values = self.key_value(normed).chunk(2, dim=-1)
        query, keys, values = (
            part.unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in (self.query(normed), keys, values)
        )
        attended = F.scaled_dot_product_attention(query, keys, values).transpose(1, 2).flatten(2)
        tokens = tokens + self.dropout(self.output(attended))
        return tokens + self.dropout(self.mlp(self.norm_mlp(tokens)))
