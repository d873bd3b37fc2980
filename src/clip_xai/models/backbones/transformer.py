"""Transformer towers of any library, taken apart by adapters that are keyed on the class they wrap."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from typing import Any, overload

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from clip_xai.errors import UserError
from clip_xai.models.backbones.recording import (
    POOL,
    BlockIndex,
    BlockTrace,
    Point,
    Record,
    Recorder,
    VisualTrace,
    batched_vjp,
    evaluation_mode,
    outside_inference,
)
from clip_xai.models.backbones.tower import Features, ImageTower, known_read

#: Patches a side beyond which attention alone would take tens of gigabytes.
MAX_SIDE = 128


class Block(ABC):
    """One transformer block in the four steps that a trace needs.

    ``finish(tokens[:, rows], project(context of those rows))`` is the block's output at those rows, whether the block
    normalises before attention (a ViT) or after it (BERT).
    """

    def __init__(self, module: nn.Module) -> None:
        self.module: Any = module

    def require_openable(self) -> None:  # noqa: B027 - most blocks can be
        """Raise a UserError if the block can run but not be opened."""

    @abstractmethod
    def run(self, tokens: Tensor, mask: Tensor | None) -> Tensor:
        """Return the block's output ``[B, S, W]`` by its own forward pass."""

    @abstractmethod
    def normed(self, tokens: Tensor) -> Tensor:
        """Return the input of attention ``[B, S, W]``."""

    @abstractmethod
    def query_key_value(self, normed: Tensor, rows: slice) -> tuple[Tensor, Tensor, Tensor]:
        """Return queries of some rows ``[B, H, R, d]``, keys and values of all ``[B, H, S, d]``."""

    @abstractmethod
    def project(self, context: Tensor) -> Tensor:
        """Return attention's output ``[B, R, W]`` of contexts with their heads side by side, ``[B, R, H * d]``."""

    def scaled(self, attended: Tensor) -> Tensor:
        """Return what attention's output adds to the tokens: times the layer scale, where the block has one."""
        return attended

    @abstractmethod
    def finish(self, tokens: Tensor, attended: Tensor) -> Tensor:
        """Return the block's output of rows ``[B, R, W]`` and of what attention gave them."""


class AttentionPool(ABC):
    """Attention with learned or mean queries that makes one embedding of all tokens."""

    @abstractmethod
    def normed(self, tokens: Tensor) -> Tensor:
        """Return what keys and values are made of, ``[B, S, W]``."""

    @abstractmethod
    def query_key_value(self, normed: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return queries ``[B, H, R, d]``, keys and values ``[B, H, S, d]``."""

    @abstractmethod
    def project(self, context: Tensor) -> Tensor:
        """Return attention's output of contexts with their heads side by side, ``[B, R, H * d]``."""

    @abstractmethod
    def finish(self, attended: Tensor) -> Tensor:
        """Return the embedding ``[B, D]`` of attention's output."""


class TransformerTower(ImageTower):
    """An image tower whose blocks attend over all tokens.

    Attributes:
        prefix_tokens: Tokens before the patches.
        reads_class_token: The pooled embedding is made of the class token alone.
    """

    family = "transformer"
    prefix_tokens: int
    reads_class_token: bool

    @property
    @abstractmethod
    def blocks(self) -> Sequence[Block]:
        """The blocks, first to last."""

    @property
    def pool(self) -> AttentionPool | None:
        """The attention pool, if the tower has one."""
        return None

    @abstractmethod
    def embed(self, pixels: Tensor) -> Tensor:
        """Return the first block's input ``[B, S, W]`` of images ``[B, 3, S, S]``."""

    @abstractmethod
    def pooled(self, tokens: Tensor) -> Tensor:
        """Return embeddings ``[B, D]`` of the last block's output, which may lack all rows but the class token's."""

    @abstractmethod
    def last_norm(self, tokens: Tensor) -> Tensor:
        """Return all tokens ``[B, S, W]`` of the last block's output after the last norm."""

    def read(self, tokens: Tensor, reads: str) -> Tensor:
        """Return what is read of the last block's output ``[B, S, W]``; see ``Features.read``."""
        if known_read(reads) == "pooled":
            return self.pooled(tokens)
        normed = self.last_norm(tokens)
        return normed if reads == "tokens" else normed[:, self.prefix_tokens :]

    def features(self, pixels: Tensor) -> Features:
        """Encode images ``[B, 3, S, S]`` in one pass."""
        tokens = self.embed(pixels)
        for block in self.blocks:
            tokens = block.run(tokens, None)
        return Features(self.pooled(tokens), self.last_norm(tokens), self.prefix_tokens)

    def encode(self, pixels: Tensor) -> Tensor:
        """Return image embeddings alone; of a class token, the last block computes its row and no other."""
        *others, last = self.blocks
        if not self.reads_class_token or not openable(self):
            return super().encode(pixels)
        tokens = self.embed(pixels)
        for block in others:
            tokens = block.run(tokens, None)
        recorder = Recorder(len(self.blocks), (), ())
        return self.pooled(open_block(recorder, len(others), last, tokens, slice(0, 1)))

    def trace(
        self, pixels: Tensor, *, reads: str = "pooled", record: Record = (), watch: Iterable[Point] = ()
    ) -> TransformerTrace:
        """Run the tower once, opened up; see ``TransformerTrace``."""
        return TransformerTrace(self, pixels, reads=reads, record=record, watch=watch)

    @property
    def supports(self) -> frozenset[str]:  # type: ignore[override]
        """What explainers may ask of this tower; nothing where its blocks cannot be opened."""
        if not openable(self):
            return frozenset()
        able = {"attention", "output_gradients"}
        return frozenset(able | {"class_token"} if self.reads_class_token else able)


class TransformerTrace(VisualTrace):
    """One pass of a transformer tower.

    When only the class token is read, a last block that is opened computes the class token's row alone, unless its
    ``output`` is watched.
    """

    family = "transformer"

    def __init__(
        self,
        tower: TransformerTower,
        pixels: Tensor,
        *,
        reads: str = "pooled",
        record: Record = (),
        watch: Iterable[Point] = (),
    ) -> None:
        """Run the tower; see the base class."""
        self._tower, self._blocks = tower, tower.blocks
        for block in self._blocks:
            block.require_openable()
        self._from_class_token = reads == "pooled" and tower.reads_class_token
        rows = slice(0, 1) if self._from_class_token else slice(tower.prefix_tokens, None)
        if reads == "tokens" or (reads == "pooled" and tower.pool is not None):
            rows = slice(None)
        super().__init__(
            tower.module,
            pixels,
            depth=len(self._blocks),
            grid=tower.grid,
            prefix_tokens=tower.prefix_tokens,
            read_rows=rows,
            reads=reads,
            record=record,
            watch=watch,
        )

    def _run(self, pixels: Tensor, recorder: Recorder) -> Tensor:
        pool = self._tower.pool if self.reads == "pooled" else None
        if pool is None and any(block == POOL for block, _ in recorder.watch):
            raise UserError("what is read of this tower does not come from an attention pool: choose a block")
        tokens = self._tower.embed(pixels)
        for index, block in enumerate(self._blocks):
            if index in recorder.opened:
                alone = index == self.depth - 1 and self._from_class_token and (index, "output") not in recorder.watch
                tokens = open_block(recorder, index, block, tokens, slice(0, 1) if alone else slice(None))
            else:
                tokens = block.run(tokens, None)
        return self._tower.read(tokens, self.reads) if pool is None else open_pool(recorder, pool, tokens)


class TextTower(ABC):
    """A text tower whose blocks attend over all tokens.

    Attributes:
        module: The wrapped module, or a larger one that holds it.
        context_length: M, the tokens of a text, markers and padding included.
        width: Width of its tokens.
        vocabulary_size: Number of ids.
    """

    module: Any
    context_length: int
    width: int
    vocabulary_size: int

    @property
    @abstractmethod
    def blocks(self) -> Sequence[Block]:
        """The blocks, first to last."""

    @abstractmethod
    def encode(self, token_ids: Tensor) -> Tensor:
        """Return text embeddings ``[T, D]`` by the tower's own forward pass."""

    @abstractmethod
    def embeddings(self, token_ids: Tensor) -> Tensor:
        """Return token embeddings before positions are added, ``[T, M, W_text]``."""

    @abstractmethod
    def embed(self, embeddings: Tensor) -> Tensor:
        """Return the first block's input, positions added."""

    @abstractmethod
    def mask(self, token_ids: Tensor) -> Tensor | None:
        """Return what is added to the products of queries and keys, broadcastable to ``[T, H, M, M]``."""

    @abstractmethod
    def read_rows(self, token_ids: Tensor) -> Tensor | None:
        """Return the position that each text is read at, ``[T]``; None where several are averaged."""

    @abstractmethod
    def pooled(self, outputs: Sequence[Tensor], token_ids: Tensor) -> Tensor:
        """Return embeddings ``[T, D]`` of the outputs of all blocks, the first block's input in front."""


class TextTrace:
    """One forward pass of a text tower, differentiable from its token embeddings on.

    Attributes:
        inputs: Token embeddings before the position embedding is added, ``[T, M, W_text]``.
        read: Text embeddings ``[T, D]``, projected and not normalised.
        depth: L.
        read_rows: Position that each text is read at (its end marker, or the class token), ``[T]``; None where several
            are averaged.
    """

    def __init__(
        self, tower: TextTower, token_ids: Tensor, *, record: Record = (), watch: Iterable[Point] = ()
    ) -> None:
        """Run the tower.

        Args:
            tower: The text tower.
            token_ids: ``[T, M]``.
            record: Blocks to open, -1 for the last; None opens all.
            watch: Points ``(block, "normed" | "context" | "output")`` whose gradients may be asked for.

        Raises:
            UserError: The tower has blocks that cannot be opened, or fewer than asked for.
        """
        blocks = tower.blocks
        for block in blocks:
            block.require_openable()
        self.depth = len(blocks)
        self._recorder = Recorder(self.depth, record, watch)
        with evaluation_mode(tower.module), torch.inference_mode(False), torch.enable_grad():
            token_ids = outside_inference(token_ids)
            mask = tower.mask(token_ids)
            self.inputs = tower.embeddings(token_ids).detach().requires_grad_()
            outputs = [tower.embed(self.inputs)]
            for index, block in enumerate(blocks):
                opened = index in self._recorder.opened
                outputs.append(
                    open_block(self._recorder, index, block, outputs[-1], slice(None), mask)
                    if opened
                    else block.run(outputs[-1], mask)
                )
            self.read = tower.pooled(outputs, token_ids)
            self.read_rows = tower.read_rows(token_ids)

    def block(self, index: BlockIndex) -> BlockTrace:
        """Return an opened block; -1 is the last. Row i of its tensors is token i, the start marker in front."""
        return self._recorder.block(index)

    @overload
    def gradients(self, cotangents: Tensor) -> Tensor: ...

    @overload
    def gradients(self, cotangents: Tensor, points: Sequence[Point]) -> dict[Point, Tensor]: ...

    def gradients(self, cotangents: Tensor, points: Sequence[Point] | None = None) -> Tensor | dict[Point, Tensor]:
        """Pull B cotangents of each text back to its token embeddings, or to watched points.

        Args:
            cotangents: ``[T, B, D]``.
            points: Watched points, or None for the token embeddings.

        Returns:
            ``[T, B, M, W_text]``; for points, of each as given ``[T, B, *shape of the activation without T]``.
        """
        if points is None:
            return batched_vjp(self.read, [self.inputs], cotangents)[0]
        inputs = self._recorder.activations(points)
        return dict(zip(points, batched_vjp(self.read, inputs, cotangents), strict=True))


def open_block(
    recorder: Recorder, index: int, block: Block, tokens: Tensor, rows: slice, mask: Tensor | None = None
) -> Tensor:
    """Compute a block from its parts, keep what it computed, and return its output at some rows."""

    def projected(context: Tensor) -> Tensor:
        return block.project(context.transpose(1, 2).flatten(2))

    def complete() -> Tensor:
        with evaluation_mode(block.module), torch.inference_mode(False), torch.no_grad():
            return block.run(tokens, mask)

    def added(context: Tensor) -> Tensor:
        return block.scaled(projected(context))

    def finished(context: Tensor) -> Tensor:
        return block.finish(tokens[:, rows], projected(context))

    normed = recorder.mark((index, "normed"), block.normed(tokens))
    query, key, value = block.query_key_value(normed, rows)
    context = F.scaled_dot_product_attention(query, key, value, attn_mask=mask)
    context = recorder.mark((index, "context"), context)
    output = recorder.mark((index, "output"), finished(context))
    rest = complete if output.shape[1] < tokens.shape[1] else None
    recorder.blocks[index] = BlockTrace(
        normed, query, key, value, context, output, mask, projected, rest, added, finished, tokens
    )
    return output


def open_pool(recorder: Recorder, pool: AttentionPool, tokens: Tensor) -> Tensor:
    """Compute an attention pool from its parts, keep what it computed, and return the embeddings ``[B, D]``."""

    def projected(context: Tensor) -> Tensor:
        return pool.project(context.transpose(1, 2).flatten(2))

    normed = recorder.mark((POOL, "normed"), pool.normed(tokens))
    query, key, value = pool.query_key_value(normed)
    context = recorder.mark((POOL, "context"), F.scaled_dot_product_attention(query, key, value))
    output = recorder.mark((POOL, "output"), projected(context))
    recorder.blocks[POOL] = BlockTrace(normed, query, key, value, context, output, projected=projected)
    return pool.finish(output)


def openable(tower: TransformerTower | TextTower) -> bool:
    """Tell whether all blocks of a tower can be opened."""
    try:
        for block in tower.blocks:
            block.require_openable()
    except UserError:
        return False
    return True


def split_heads(tensor: Tensor, heads: int) -> Tensor:
    """Return ``[B, H, S, d]`` of ``[B, S, H * d]``."""
    return tensor.unflatten(-1, (heads, -1)).transpose(1, 2)


def multihead_query_key_value(
    attention: nn.MultiheadAttention, queries: Tensor, others: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Project with the weights of PyTorch's ``nn.MultiheadAttention``.

    Args:
        attention: The module.
        queries: What asks, ``[B, R, E]``.
        others: What is asked, ``[B, S, W]``.

    Returns:
        ``[B, H, R, d]`` and twice ``[B, H, S, d]``.
    """
    width = attention.embed_dim
    if attention.in_proj_weight is not None:
        weights = attention.in_proj_weight.chunk(3)
    else:
        weights = (attention.q_proj_weight, attention.k_proj_weight, attention.v_proj_weight)
    bias = attention.in_proj_bias
    biases = (None, None, None) if bias is None else bias.split(width)
    parts = (F.linear(x, w, b) for x, w, b in zip((queries, others, others), weights, biases, strict=True))
    query, key, value = (split_heads(part, attention.num_heads) for part in parts)
    return query, key, value


def resample_positions(positions: Tensor, grid: tuple[int, int], prefix_tokens: int) -> Tensor:
    """Lay learned position embeddings of a square grid over another grid; bicubic and antialiased, as open_clip does.

    The stored weights stay as they are: this is computed anew in each pass, and differentiable.

    Args:
        positions: ``[prefix_tokens + n * n, W]``, row by row.
        grid: Rows and columns wanted.
        prefix_tokens: Rows in front that have no place; they are kept.

    Returns:
        ``[prefix_tokens + h * w, W]``.
    """
    prefix, patches = positions[:prefix_tokens], positions[prefix_tokens:]
    side = round(len(patches) ** 0.5)
    if (side, side) == grid:
        return positions
    square = patches.float().unflatten(0, (side, side)).permute(2, 0, 1).unsqueeze(0)
    resized = F.interpolate(square, size=grid, mode="bicubic", antialias=True, align_corners=False)
    return torch.cat([prefix, resized[0].permute(1, 2, 0).flatten(0, 1).to(patches)])


def whole_grid(image_size: int, patch_size: int) -> tuple[int, int]:
    """Return rows and columns of patches.

    Raises:
        UserError: The patches do not fill the image, or are too many.
    """
    if image_size < patch_size or image_size % patch_size:
        lower = max(1, image_size // patch_size) * patch_size
        raise UserError(
            f"backbone.image_size={image_size} is not a multiple of {patch_size}: choose {lower} or "
            f"{lower + patch_size}"
        )
    side = image_size // patch_size
    if side > MAX_SIDE:
        raise UserError(
            f"backbone.image_size={image_size} makes {side} x {side} patches, for which no memory suffices: choose at "
            f"most {MAX_SIDE * patch_size}"
        )
    return side, side
