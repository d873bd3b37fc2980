"""Mappers: from an image tower's features to the prefix that a language model reads as if it were words."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Mapper(nn.Module):
    """Turns what it reads of an image into K prefix embeddings ``[B, K, E]``.

    Attributes:
        reads: ``"pooled"`` (``[B, D]``) or ``"patches"`` (``[B, N, W]``). Behind a pooled mapper every word's evidence
            passes through one vector, so the words of a caption have no spatial evidence of their own.
        prefix_length: K.
    """

    reads: str
    prefix_length: int


class BottleneckMLP(Mapper):
    """The original captioner's mapper: one hidden layer, K slots, LayerNorm and a learnable scale.

    ``prefix = dropout(alpha * LayerNorm(reshape(W2 GELU(W1 e / |e|))))`` with Xavier-uniform weights of gain 1 and 0.5,
    zero biases and alpha starting at 0.5. With D 512, hidden 2,048, K 32 and E 1,024 it has 68,194,305 parameters.
    """

    reads = "pooled"

    def __init__(
        self, feature_dim: int, embedding_dim: int, prefix_length: int = 32, hidden: int = 2048, dropout: float = 0.05
    ) -> None:
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


class Resampler(Mapper):
    """A Perceiver resampler (Flamingo, arXiv 2204.14198): K learned latents look at the patch tokens.

    Each layer is pre-norm cross-attention of the latents over patches and latents, then an MLP of ratio 4. A latent
    keeps a location: its attention over the patches.
    """

    reads = "patches"

    def __init__(
        self,
        feature_dim: int,
        embedding_dim: int,
        prefix_length: int = 32,
        layers: int = 2,
        head_width: int = 64,
        dropout: float = 0.0,
    ) -> None:
        """Build the resampler.

        Raises:
            ValueError: The embedding does not divide into heads of ``head_width``.
        """
        super().__init__()
        if embedding_dim % head_width:
            raise ValueError(f"an embedding of {embedding_dim} does not divide into heads of {head_width}")
        self.prefix_length = prefix_length
        self.latents = nn.Parameter(torch.randn(prefix_length, embedding_dim) * embedding_dim**-0.5)
        self.project = nn.Linear(feature_dim, embedding_dim)
        self.layers = nn.ModuleList(
            ResamplerLayer(embedding_dim, embedding_dim // head_width, dropout) for _ in range(layers)
        )
        self.norm = nn.LayerNorm(embedding_dim)

    def forward(self, patches: Tensor) -> Tensor:
        """Map ``[B, N, W]`` patch tokens to ``[B, K, E]``."""
        context = self.project(patches)
        latents = self.latents.expand(patches.shape[0], -1, -1)
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


MAPPERS: dict[str, Callable[..., Mapper]] = {"bottleneck_mlp": BottleneckMLP, "resampler": Resampler}


def build_mapper(name: str, *, embed_dim: int, width: int, embedding_dim: int, **settings: Any) -> Mapper:
    """Build a mapper for a backbone and a language model.

    Args:
        name: A key of ``MAPPERS``.
        embed_dim: D of the backbone, read by pooled mappers.
        width: W of the backbone, read by patch mappers.
        embedding_dim: E of the language model.
        settings: The mapper's own settings, such as ``prefix_length``.

    Raises:
        ValueError: No mapper has that name.
    """
    if name not in MAPPERS:
        raise ValueError(f"no mapper is called {name!r}; choose one of {', '.join(MAPPERS)}")
    cls = MAPPERS[name]
    feature_dim = embed_dim if getattr(cls, "reads", "pooled") == "pooled" else width
    return cls(feature_dim=feature_dim, embedding_dim=embedding_dim, **settings)
