"""Mappers that make the whole prefix from the pooled embedding with one hidden layer."""

from __future__ import annotations

from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from clip_xai.models.mappers.base import Count, Mapper, Share, mappers


@mappers.register("bottleneck_mlp", order=0)
class BottleneckMLP(Mapper):
    """The original captioner's mapper: one hidden layer, K slots, LayerNorm and a learnable scale.

    ``prefix = dropout(alpha * LayerNorm(reshape(W2 GELU(W1 e / |e|))))`` with Xavier-uniform weights of gain 1 and 0.5,
    zero biases and alpha starting at 0.5. With D 512, hidden 2,048, K 32 and E 1,024 it has 68,194,305 parameters.
    """

    reads: ClassVar[str] = "pooled"
    idea: ClassVar[str] = "one narrow hidden layer, LayerNorm, a learned scale: the original's"

    def __init__(
        self,
        feature_dim: int,
        embedding_dim: int,
        prefix_length: Count = 32,
        hidden: Count = 2048,
        dropout: Share = 0.05,
    ) -> None:
        """Build the mapper.

        Args:
            feature_dim: D.
            embedding_dim: E.
            prefix_length: Number of prefix vectors.
            hidden: Width of the hidden layer.
            dropout: Probability of dropping an activation while training.
        """
        super().__init__()
        self.prefix_length = prefix_length
        self.hidden = nn.Linear(feature_dim, hidden)
        self.output = nn.Linear(hidden, prefix_length * embedding_dim)
        self.norm = nn.LayerNorm(embedding_dim)
        self.scale = nn.Parameter(torch.tensor(0.5))
        self.dropout = nn.Dropout(dropout)
        for layer, gain in ((self.hidden, 1.0), (self.output, 0.5)):
            nn.init.xavier_uniform_(layer.weight, gain=gain)
            nn.init.zeros_(layer.bias)

    def forward(self, pooled: Tensor) -> Tensor:
        """Map ``[B, D]`` image embeddings to ``[B, K, E]``."""
        hidden = F.gelu(self.hidden(F.normalize(pooled, dim=-1)))
        slots = self.output(hidden).unflatten(-1, (self.prefix_length, -1))
        return self.dropout(self.scale * self.norm(slots))


@mappers.register("clipcap_mlp", order=1)
class ClipCapMLP(Mapper):
    """ClipCap's MLP (arXiv 2111.09734): ``prefix = reshape(W2 tanh(W1 e))``, hidden half as wide as the output.

    Its parameters grow with the square of K; with D 512, K 10 and E 768 there are 31,468,800. As in the training of
    ClipCap's published weights of this kind, the embedding is not normalised unless ``normalize`` says so.
    """

    reads: ClassVar[str] = "pooled"
    idea: ClassVar[str] = "one wide tanh layer; grows with the square of its length"

    def __init__(
        self,
        feature_dim: int,
        embedding_dim: int,
        prefix_length: Count = 10,
        dropout: Share = 0.0,
        normalize: bool = False,
    ) -> None:
        """Build the mapper.

        Args:
            feature_dim: D.
            embedding_dim: E.
            prefix_length: Number of prefix vectors.
            dropout: Probability of dropping an activation while training.
            normalize: Whether the embedding is brought to length 1 first; ClipCap trains without unless told so.
        """
        super().__init__()
        self.prefix_length = prefix_length
        self.normalize = normalize
        size = prefix_length * embedding_dim
        self.hidden = nn.Linear(feature_dim, size // 2)
        self.output = nn.Linear(size // 2, size)
        self.dropout = nn.Dropout(dropout)

    def forward(self, pooled: Tensor) -> Tensor:
        """Map ``[B, D]`` image embeddings to ``[B, K, E]``."""
        pooled = F.normalize(pooled, dim=-1) if self.normalize else pooled
        hidden = self.dropout(torch.tanh(self.hidden(pooled)))
        return self.output(hidden).unflatten(-1, (self.prefix_length, -1))
