"""A Perceiver resampler over the tower's tokens."""

from __future__ import annotations

from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from clip_xai.models.mappers.base import Count, Mapper, Share, mappers


@mappers.register("resampler", order=4)
class Resampler(Mapper):
    """A Perceiver resampler (Flamingo, arXiv 2204.14198): K learned latents look at the tower's tokens.

    Each layer is pre-norm cross-attention of the latents over tokens and latents, then an MLP of ratio 4. A latent
    keeps a location: its attention over the patches. It starts as what was learned for it plus one linear layer on the
    class token (where a tower's embedding is not read at one, on the mean of the tokens), because nothing has taught
    the patches of a last block what the class token was trained to know.
    """

    reads: ClassVar[str] = "tokens"
    idea: ClassVar[str] = "learned latents, moved by the class token, look at it and the patches, 2 layers: the default"
    needs: ClassVar[tuple[str, ...]] = ("class_token",)
    any_number: ClassVar[bool] = True

    def __init__(
        self,
        feature_dim: int,
        embedding_dim: int,
        prefix_length: Count = 32,
        layers: Count = 2,
        head_width: Count = 64,
        dropout: Share = 0.0,
        class_token: bool = True,
    ) -> None:
        """Build the resampler.

        Args:
            feature_dim: W.
            embedding_dim: E.
            prefix_length: Number of prefix vectors.
            layers: Number of layers.
            head_width: Width of one attention head.
            dropout: Probability of dropping an activation while training.
            class_token: Whether the first token is a class token that the tower's embedding is read at.

        Raises:
            ValueError: The embedding does not divide into heads of ``head_width``.
        """
        super().__init__()
        if embedding_dim % head_width:
            raise ValueError(f"an embedding of {embedding_dim} does not divide into heads of {head_width}")
        self.prefix_length = prefix_length
        self.latents = nn.Parameter(torch.randn(prefix_length, embedding_dim) * embedding_dim**-0.5)
        self.class_token = class_token
        self.start = nn.Linear(feature_dim, embedding_dim, bias=False)
        self.project = nn.Linear(feature_dim, embedding_dim)
        self.layers = nn.ModuleList(
            ResamplerLayer(embedding_dim, embedding_dim // head_width, dropout) for _ in range(layers)
        )
        self.norm = nn.LayerNorm(embedding_dim)

    def forward(self, tokens: Tensor) -> Tensor:
        """Map ``[B, P + N, W]`` tokens to ``[B, K, E]``."""
        context = self.project(tokens)
        latents = self.latents + self.start(tokens[:, :1] if self.class_token else tokens.mean(dim=1, keepdim=True))
        for layer in self.layers:
            latents = layer(latents, context)
        return self.norm(latents)


class ResamplerLayer(nn.Module):
    """Cross-attention of the latents over patches and latents, then an MLP; both pre-norm and residual."""

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.norm_latents = nn.LayerNorm(width)
        self.norm_context = nn.LayerNorm(width)
        self.query = nn.Linear(width, width, bias=False)
        self.key_value = nn.Linear(width, 2 * width, bias=False)
        self.output = nn.Linear(width, width, bias=False)
        self.mlp = nn.Sequential(
            nn.LayerNorm(width), nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width)
        )
        self.dropout = nn.Dropout(dropout)

    def forward(self, latents: Tensor, context: Tensor) -> Tensor:
        """Update ``[B, K, E]`` latents from ``[B, N, E]`` context."""
        normed = self.norm_latents(latents)
        query = self._split(self.query(normed))
        keys, values = self.key_value(torch.cat([self.norm_context(context), normed], dim=1)).chunk(2, dim=-1)
        attended = F.scaled_dot_product_attention(query, self._split(keys), self._split(values))
        latents = latents + self.dropout(self.output(attended.transpose(1, 2).flatten(2)))
        return latents + self.dropout(self.mlp(latents))

    def _split(self, tokens: Tensor) -> Tensor:
        return tokens.unflatten(-1, (self.heads, -1)).transpose(1, 2)
