"""One pass through open_clip's towers, opened up: activations and gradients without hooks.

The blocks are called one after the other. A block that someone wants to look into is computed here from its own
modules and weights (``ln_1``, ``in_proj_weight``, ``out_proj`` ...), which gives queries, keys, values and the context
as ordinary tensors while attention itself stays the fused kernel. Nothing is registered on the model, so nothing can
be left behind on it, and traces may be nested.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import open_clip
import torch
import torch.nn.functional as F
from open_clip.transformer import ResidualAttentionBlock, VisionTransformer, text_global_pool
from torch import Tensor, nn

from clip_xai.errors import UserError

POINTS = ("normed", "context")
Point = tuple[int, str]


@dataclass(frozen=True)
class BlockTrace:
    """What one block computed. Row 0 is the class token, the others are the patches row by row.

    R is the number of query rows that were computed: 1 (the class token) in the last block when only the pooled
    embedding is read, 1 + N otherwise.

    Attributes:
        normed: Output of ``ln_1``, ``[B, 1 + N, W]``.
        query: ``[B, H, R, W / H]``.
        key: ``[B, H, 1 + N, W / H]``.
        value: ``[B, H, 1 + N, W / H]``.
        context: Attention's output before ``out_proj``, ``[B, H, R, W / H]``.
    """

    normed: Tensor
    query: Tensor
    key: Tensor
    value: Tensor
    context: Tensor

    def attention(self) -> Tensor:
        """Return the attention probabilities ``[B, H, R, 1 + N]``, computed when asked for."""
        with torch.no_grad():
            similarity = self.query @ self.key.transpose(-2, -1)
            return (similarity / self.query.shape[-1] ** 0.5).softmax(dim=-1)


class OpenClipVisualTrace:
    """One forward pass of open_clip's ``VisionTransformer`` that can be differentiated from chosen points on.

    Below the first watched point no graph is built. When only the pooled embedding is read, a last block that is
    opened computes its class-token row alone. Works for frozen towers and for callers under ``no_grad`` or
    ``inference_mode``. The tower runs in evaluation mode and is given back in the mode it came in.

    Attributes:
        reads: What is read: ``"pooled"`` or ``"patches"``.
        read: ``[B, D]`` or ``[B, N, W]``.
        blocks: The opened blocks by index.
        depth: L.
        grid: Rows and columns of the patch grid.
        read_rows: Query rows that the read depends on in the last block: the class token, or the patches.
    """

    def __init__(
        self,
        visual: VisionTransformer,
        pixels: Tensor,
        *,
        reads: str = "pooled",
        record: Iterable[int] | None = (),
        watch: Iterable[Point] = (),
    ) -> None:
        """Run the tower.

        Args:
            visual: The tower.
            pixels: ``[B, 3, S, S]``.
            reads: ``"pooled"`` (after the projection) or ``"patches"`` (after ``ln_post``).
            record: Blocks to open, -1 for the last; None opens all.
            watch: Points ``(block, "normed" | "context")`` whose gradients may be asked for; they are opened too.

        Raises:
            UserError: The tower has blocks or pooling that cannot be opened, or fewer blocks than asked for.
        """
        _require_supported(visual)
        if reads not in ("pooled", "patches"):
            raise ValueError(f"reads is {reads!r}; choose 'pooled' or 'patches'")
        self.reads = reads
        self.depth = len(visual.transformer.resblocks)
        self.grid: tuple[int, int] = (int(visual.grid_size[0]), int(visual.grid_size[1]))
        self.blocks: dict[int, BlockTrace] = {}
        from_class_token = reads == "pooled" and visual.pool_type == "tok"
        self.read_rows = slice(0, 1) if from_class_token else slice(1, None)
        self._watch = {self._point(point) for point in watch}
        opened = set(range(self.depth)) if record is None else {self._index(block) for block in record}
        opened |= {block for block, _ in self._watch}
        with evaluation_mode(visual), torch.inference_mode(False), torch.no_grad():
            # From the first watched point on, gradients are switched on; leaving this context switches them back.
            self.read = self._run(visual, outside_inference(pixels), opened, from_class_token)

    def block(self, index: int) -> BlockTrace:
        """Return an opened block; -1 is the last."""
        return self.blocks[self._index(index)]

    def gradients(self, cotangents: Tensor, points: Sequence[Point]) -> dict[Point, Tensor]:
        """Pull T cotangents back to watched points in one batched backward pass.

        Args:
            cotangents: Derivatives of T scores with respect to ``read``, ``[B, T, *read.shape[1:]]``.
            points: Watched points; block -1 is the last.

        Returns:
            For each point as given, ``[B, T, *shape of the activation without B]``.
        """
        inputs = [getattr(self.block(block), name) for block, name in points]
        return dict(zip(points, batched_vjp(self.read, inputs, cotangents), strict=True))

    def _run(self, visual: VisionTransformer, pixels: Tensor, opened: Collection[int], class_row_only: bool) -> Tensor:
        tokens = visual._embeds(pixels)
        for index, block in enumerate(visual.transformer.resblocks):
            if index in opened:
                last = index == self.depth - 1
                rows = slice(0, 1) if last and class_row_only else slice(None)
                tokens = self._open(index, block, tokens, rows)
            else:
                tokens = block(tokens)
        if self.reads == "patches":
            return visual.ln_post(tokens)[:, 1:]
        pooled, _ = visual._pool(tokens)
        return pooled if visual.proj is None else pooled @ visual.proj

    def _open(self, index: int, block: ResidualAttentionBlock, tokens: Tensor, rows: slice) -> Tensor:
        normed = self._mark((index, "normed"), block.ln_1(tokens))
        query, key, value = _query_key_value(block.attn, normed, rows)
        context = self._mark((index, "context"), F.scaled_dot_product_attention(query, key, value))
        self.blocks[index] = BlockTrace(normed, query, key, value, context)
        attended = block.attn.out_proj(context.transpose(1, 2).flatten(2))
        tokens = tokens[:, rows] + block.ls_1(attended)
        return tokens + block.ls_2(block.mlp(block.ln_2(tokens)))

    def _mark(self, point: Point, activation: Tensor) -> Tensor:
        if point not in self._watch or torch.is_grad_enabled():
            return activation
        torch.set_grad_enabled(True)
        return activation.detach().requires_grad_()

    def _index(self, block: int) -> int:
        if not -self.depth <= block < self.depth:
            raise UserError(f"the tower has {self.depth} blocks: choose a layer from {-self.depth} to {self.depth - 1}")
        return block % self.depth

    def _point(self, point: Point) -> Point:
        block, name = point
        if name not in POINTS:
            raise ValueError(f"a point is one of {', '.join(POINTS)}, not {name!r}")
        return self._index(block), name


class OpenClipTextTrace:
    """One forward pass of open_clip's text tower, differentiable from its token embeddings on.

    Attributes:
        inputs: Token embeddings before the position embedding is added, ``[T, M, W_text]``.
        read: Text embeddings ``[T, D]``, projected and not normalised.
    """

    def __init__(self, model: open_clip.CLIP, token_ids: Tensor) -> None:
        """Run the text tower on token ids ``[T, M]``."""
        with evaluation_mode(model), torch.inference_mode(False), torch.enable_grad():
            token_ids = outside_inference(token_ids)
            dtype = model.transformer.get_cast_dtype()
            self.inputs = model.token_embedding(token_ids).to(dtype).detach().requires_grad_()
            tokens = self.inputs + model.positional_embedding.to(dtype)
            tokens = model.ln_final(model.transformer(tokens, attn_mask=model.attn_mask))
            pooled = text_global_pool(tokens, token_ids, model.text_pool_type, eos_token_id=model.text_eos_id)
            self.read = _projected(pooled, model.text_projection)

    def gradients(self, cotangents: Tensor) -> Tensor:
        """Pull B cotangents of each text back to its token embeddings.

        Args:
            cotangents: ``[T, B, D]``.

        Returns:
            ``[T, B, M, W_text]``.
        """
        return batched_vjp(self.read, [self.inputs], cotangents)[0]


def batched_vjp(output: Tensor, inputs: Sequence[Tensor], cotangents: Tensor, chunk_size: int = 64) -> list[Tensor]:
    """Pull many cotangents back through one graph at once.

    Each row of ``output`` may depend on its own row of the inputs only.

    Args:
        output: ``[B, ...]``.
        inputs: Tensors ``[B, ...]`` in the graph of ``output``.
        cotangents: ``[B, T, ...]``, the rest shaped like ``output``.
        chunk_size: Cotangents in one backward pass. Halved as often as the memory demands.

    Returns:
        For each input, ``[B, T, ...]``, the rest shaped like the input; zero where ``output`` does not depend on it.
    """
    columns = cotangents.detach().transpose(0, 1).to(output.dtype)
    parts: list[tuple[Tensor, ...]] = []
    start = 0
    while start < len(columns):
        try:
            parts.append(_vjp(output, inputs, columns[start : start + chunk_size]))
        except torch.OutOfMemoryError:
            if chunk_size == 1:
                raise
            chunk_size = (chunk_size + 1) // 2
            continue
        start += chunk_size
    return [torch.cat(pieces).transpose(0, 1) for pieces in zip(*parts, strict=True)]


def _vjp(output: Tensor, inputs: Sequence[Tensor], columns: Tensor) -> tuple[Tensor, ...]:
    return torch.autograd.grad(
        output, inputs, columns, retain_graph=True, is_grads_batched=True, allow_unused=True, materialize_grads=True
    )


@contextmanager
def evaluation_mode(module: nn.Module) -> Iterator[None]:
    """Run a module in evaluation mode and give each of its parts back in the mode it came in."""
    modes: Mapping[nn.Module, bool] = {part: part.training for part in module.modules()}
    module.eval()
    try:
        yield
    finally:
        for part, training in modes.items():
            part.training = training


def outside_inference(tensor: Tensor) -> Tensor:
    """Return a tensor that autograd may save, a copy if this one was made under ``inference_mode``."""
    return tensor.clone() if tensor.is_inference() else tensor


def _projected(pooled: Tensor, projection: nn.Linear | Tensor | None) -> Tensor:
    if projection is None:
        return pooled
    return projection(pooled) if isinstance(projection, nn.Linear) else pooled @ projection


def _query_key_value(attention: nn.MultiheadAttention, normed: Tensor, rows: slice) -> tuple[Tensor, Tensor, Tensor]:
    """Return queries of the wanted rows, keys and values of all, each ``[B, H, rows, W / H]``."""
    width = attention.embed_dim
    weight, bias = attention.in_proj_weight, attention.in_proj_bias
    query = F.linear(normed[:, rows], weight[:width], None if bias is None else bias[:width])
    key, value = F.linear(normed, weight[width:], None if bias is None else bias[width:]).chunk(2, dim=-1)
    heads = attention.num_heads
    query, key, value = (part.unflatten(-1, (heads, -1)).transpose(1, 2) for part in (query, key, value))
    return query, key, value


def _require_supported(visual: VisionTransformer) -> None:
    if visual.attn_pool is not None or visual.pool_type not in ("tok", "avg"):
        raise UserError("this tower pools by attention, which cannot be traced: choose a CLIP ViT with a class token")
    for block in visual.transformer.resblocks:
        attention = block.attn
        plain = isinstance(block, ResidualAttentionBlock) and isinstance(attention, nn.MultiheadAttention)
        if not plain or not attention.batch_first or attention.in_proj_weight is None:
            raise UserError(
                f"blocks of type {type(block).__name__} cannot be traced: "
                "choose a CLIP ViT with open_clip's standard blocks"
            )
