"""Heads that turn what a vision tower hands over into the logits of classes."""

from __future__ import annotations

import torch
from torch import Tensor, nn

LINEAR, ATTENTION_POOL = "linear", "attention_pool"


class AttentionPool(nn.Module):
    """A learned query that looks at the patch tokens, and a linear layer on what it saw.

    ``a = softmax(q W_k LN(x)^T / sqrt(W))``, ``z = V (a LN(x)) + b``, in one head: the weights ``a`` say which patches
    the logits are read at.
    """

    def __init__(self, width: int, classes: int) -> None:
        """Make the head.

        Args:
            width: W of the patch tokens.
            classes: C.
        """
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.query = nn.Parameter(torch.randn(width) * width**-0.5)
        self.key = nn.Linear(width, width, bias=False)
        self.output = nn.Linear(width, classes)

    def forward(self, tokens: Tensor) -> Tensor:
        """Return logits ``[B, C]`` of patch tokens ``[B, N, W]``."""
        tokens = self.norm(tokens)
        weights = (self.key(tokens) @ self.query * tokens.shape[-1] ** -0.5).softmax(dim=1)
        return self.output((weights.unsqueeze(-1) * tokens).sum(dim=1))


def reads_of(head: str) -> str:
    """Return what a head reads of a tower: ``pooled`` or ``patches``."""
    return "patches" if head == ATTENTION_POOL else "pooled"


def build_head(head: str, embed_dim: int, width: int, classes: int) -> nn.Module:
    """Build a head at random weights.

    Args:
        head: ``linear`` or ``attention_pool``.
        embed_dim: D of the pooled embedding.
        width: W of the patch tokens.
        classes: C.
    """
    if head == ATTENTION_POOL:
        return AttentionPool(width, classes)
    linear = nn.Linear(embed_dim, classes)
    nn.init.zeros_(linear.bias)
    return linear
