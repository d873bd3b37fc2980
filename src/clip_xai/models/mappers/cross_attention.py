"""A mapper that lets the language model's blocks look at the patches themselves."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import PreTrainedModel

from clip_xai.models.causal_model import attention_of, blocks_of
from clip_xai.models.mappers.base import Count, Mapper, Share, mappers


@mappers.register("cross_attention", order=5)
class CrossAttention(Mapper):
    """Thin cross-attention to the patches in every block of the language model, as in SmallCap (arXiv 2209.15323).

    Between a block's self-attention and its MLP stands ``h <- h + tanh(g) C(LayerNorm(h), memory)``: C is multi-head
    attention whose heads are only ``head_width`` wide, the gate g is Flamingo's (arXiv 2204.14198) and starts at 0, so
    that training begins with the language model as it was; ``gated=False`` leaves it out, as SmallCap does. The memory
    is one linear layer on the patch tokens; the sequence itself holds one learned start vector and the prompt.

    The weights belong to the mapper: the language model's own file stays what it was.
    """

    reads: ClassVar[str] = "patches"
    idea: ClassVar[str] = "the language model's blocks look at all patches through thin gated cross-attention"
    needs: ClassVar[tuple[str, ...]] = ("grid", "blocks")

    def __init__(
        self,
        feature_dim: int,
        embedding_dim: int,
        grid: tuple[int, int],
        blocks: int,
        heads: Count = 12,
        head_width: Count = 16,
        gated: bool = True,
        dropout: Share = 0.0,
    ) -> None:
        """Build the mapper.

        Args:
            feature_dim: W.
            embedding_dim: E.
            grid: Rows and columns of the patches.
            blocks: Number of the language model's blocks.
            heads: Attention heads of each layer.
            head_width: Width of one attention head.
            gated: Whether its gates open from zero, so that it begins as the language model alone; false for none.
            dropout: Probability of dropping an activation while training.
        """
        super().__init__()
        self.memory_length = grid[0] * grid[1]
        self.prefix_length = 1 + self.memory_length
        self.latents = nn.Parameter(torch.randn(1, embedding_dim) * 0.02)
        self.project = nn.Linear(feature_dim, embedding_dim)
        self.layers = nn.ModuleList(
            CrossAttentionLayer(embedding_dim, heads, head_width, gated, dropout) for _ in range(blocks)
        )

    def forward(self, patches: Tensor) -> Tensor:
        """Map ``[B, N, W]`` patch tokens to the start vector and the memory, ``[B, 1 + N, E]``."""
        return torch.cat([self.latents.expand(len(patches), -1, -1), self.project(patches)], dim=1)

    @contextmanager
    def looking_at(self, language_model: PreTrainedModel, memory: Tensor | None) -> Iterator[None]:
        """Hook the cross-attention into the blocks; rows may come as several beams of each image, side by side."""
        assert memory is not None
        blocks = blocks_of(language_model)[1]
        with ExitStack() as hooks:
            for block, layer in zip(blocks, self.layers, strict=True):
                look = _Look(layer, memory)  # type: ignore[arg-type]
                for handle in (
                    block.register_forward_pre_hook(look.remember),
                    attention_of(block).register_forward_hook(look.add),
                ):
                    hooks.callback(handle.remove)
            yield


class CrossAttentionLayer(nn.Module):
    """``tanh(g) C(LayerNorm(h), memory)`` with thin heads."""

    def __init__(self, width: int, heads: int, head_width: int, gated: bool, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        inner = heads * head_width
        self.norm = nn.LayerNorm(width)
        self.query = nn.Linear(width, inner)
        self.key_value = nn.Linear(width, 2 * inner)
        self.output = nn.Linear(inner, width)
        self.gate = nn.Parameter(torch.zeros(())) if gated else None
        self.dropout = nn.Dropout(dropout)

    def keys_values(self, memory: Tensor) -> tuple[Tensor, Tensor]:
        """Return keys and values of ``[B, M, E]``, ``[B, heads, M, head_width]`` each."""
        keys, values = self.key_value(memory).chunk(2, dim=-1)
        return self._split(keys), self._split(values)

    def forward(self, hidden: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        """Return what is added to ``[B, S, E]`` hidden states."""
        query = self._split(self.query(self.norm(hidden)))
        attended = F.scaled_dot_product_attention(query, keys, values).transpose(1, 2).flatten(2)
        added = self.dropout(self.output(attended))
        return added if self.gate is None else torch.tanh(self.gate) * added

    def _split(self, tokens: Tensor) -> Tensor:
        return tokens.unflatten(-1, (self.heads, -1)).transpose(1, 2)


class _Look:
    """The hooks of one block. Adding to self-attention's output adds to the residual stream right after it."""

    def __init__(self, layer: CrossAttentionLayer, memory: Tensor) -> None:
        self.layer = layer
        self.memory = memory
        self.kept: tuple[Tensor, Tensor] | None = None
        self.residual: Tensor | None = None

    def remember(self, block: nn.Module, inputs: tuple[Any, ...]) -> None:
        self.residual = inputs[0]

    def add(self, attention: nn.Module, inputs: tuple[Any, ...], output: Any) -> Any:
        assert self.residual is not None
        attended, *rest = output if isinstance(output, tuple) else (output,)
        hidden = self.residual + attended
        self.residual = None
        changed = attended + self.layer(hidden, *self._keys_values(len(hidden)))
        return (changed, *rest) if isinstance(output, tuple) else changed

    def _keys_values(self, rows: int) -> tuple[Tensor, Tensor]:
        """Keys and values of the memory, computed once however many steps read them."""
        if self.kept is None or len(self.kept[0]) != rows:
            keys, values = self.layer.keys_values(self.memory)
            times = rows // len(self.memory)
            self.kept = keys.repeat_interleave(times, dim=0), values.repeat_interleave(times, dim=0)
        return self.kept
