"""One pass through a tower, opened up: activations and gradients without hooks.

A trace calls the blocks of a tower one after the other. A block that someone wants to look into is computed from its
own modules and weights (norm, projections, feed-forward), which gives queries, keys, values and the context as
ordinary tensors while attention itself stays the fused kernel. Nothing is registered on the model, so nothing can be
left behind on it, and traces may be nested. What differs between families of towers stands in their adapters
(``transformer.py`` and the files that use it); here stands what all traces share.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, cast

import torch
from torch import Tensor, nn

from clip_xai.errors import UserError
from clip_xai.models.backbones.chunks import in_chunks

POINTS = ("normed", "context", "output")
POOL: Literal["pool"] = "pool"
PIXELS: Literal["pixels"] = "pixels"  # the input itself: watch ("pixels", "output")
BlockIndex = int | Literal["pool", "pixels"]
Point = tuple[BlockIndex, str]
Record = Iterable[int] | None
ABSENT = cast(
    Tensor, None
)  # what a family does not have: None, though declared a tensor for those who asked `supports`


@dataclass(frozen=True)
class BlockTrace:
    """What one block computed.

    S is the number of tokens in the block's sequence: first the tower's ``prefix_tokens`` (the class token), then the
    patches row by row. R is the number of query rows that were computed: 1 (the class token) in the last block when
    only the pooled embedding is read from it, else S; for an attention pool, its number of queries.

    A stage of a convolutional tower has an ``output`` alone, a windowed block a ``normed`` and an ``output``; what is
    not there is None.

    Attributes:
        normed: Input of attention, after its norm, ``[B, S, W]``.
        query: ``[B, H, R, d]``, as it enters the product with the keys.
        key: ``[B, H, S, d]``.
        value: ``[B, H, S, d]``.
        context: Attention's output before its output projection, ``[B, H, R, d]``.
        computed: The rows of ``output`` that the trace computed, ``[B, R, W]``.
        mask: Added to the products of queries and keys, or None.
        projected: Attention's output projection: a context ``[B, H, R, d]`` into ``[B, R, W]``; None without attention.
        complete: Computes the output of all rows where the trace did not.
        added: What attention adds to the tokens for a context ``[B, H, R, d]``: ``projected`` times the layer scale,
            ``[B, R, W]``.
        finished: What ``computed`` would be with another context ``[B, H, R, d]``.
        entered: The tokens that came in, ``[B, S, W]``.
    """

    normed: Tensor
    query: Tensor
    key: Tensor
    value: Tensor
    context: Tensor
    computed: Tensor
    mask: Tensor | None = None
    projected: Callable[[Tensor], Tensor] | None = None
    complete: Callable[[], Tensor] | None = None
    added: Callable[[Tensor], Tensor] | None = None
    finished: Callable[[Tensor], Tensor] | None = None
    entered: Tensor | None = None

    def attention(self) -> Tensor:
        """Return the attention probabilities ``[B, H, R, S]``, computed when asked for.

        Raises:
            UserError: The block has no attention over all tokens.
        """
        if self.query is None:
            raise UserError("this tower has no attention over all patches: choose a method that reads none")
        with torch.no_grad():
            similarity = self.query @ self.key.transpose(-2, -1) / self.query.shape[-1] ** 0.5
            return (similarity if self.mask is None else similarity + self.mask).softmax(dim=-1)

    @cached_property
    def output(self) -> Tensor:
        """The tokens after the block (the residual stream), ``[B, S, W]``.

        Where the trace computed the class token's row alone, the others are computed when asked for, without a graph.
        """
        return self.computed if self.complete is None else self.complete()


class Recorder:
    """What is watched and what was opened; switches gradients on at the first watched point."""

    def __init__(self, depth: int, record: Record, watch: Iterable[Point]) -> None:
        """Take what is asked for; see ``VisualTrace``."""
        self.depth = depth
        self.blocks: dict[BlockIndex, BlockTrace] = {}
        self.watch = {self._point(point) for point in watch}
        opened: set[BlockIndex] = set(range(depth)) if record is None else {self.index(block) for block in record}
        self.opened = opened | {block for block, _ in self.watch}

    def index(self, block: BlockIndex) -> BlockIndex:
        """Return a block's own index; -1 is the last.

        Raises:
            UserError: There is no such block.
        """
        if block in (POOL, PIXELS):
            return block
        number = cast(int, block)
        if not -self.depth <= number < self.depth:
            raise UserError(f"the tower has {self.depth} blocks: choose a layer from {-self.depth} to {self.depth - 1}")
        return number % self.depth

    def mark(self, point: Point, activation: Tensor) -> Tensor:
        """Return the activation, as the leaf that the graph starts from if this is the first watched point."""
        if point not in self.watch or torch.is_grad_enabled():
            return activation
        torch.set_grad_enabled(True)
        return activation.detach().requires_grad_()

    def block(self, block: BlockIndex) -> BlockTrace:
        """Return an opened block."""
        index = self.index(block)
        if index not in self.blocks:
            raise KeyError(f"block {block} was not opened: name it in record or watch")
        return self.blocks[index]

    def activations(self, points: Sequence[Point]) -> list[Tensor]:
        """Return the activations at watched points."""
        unknown = [point for point in points if self._point(point) not in self.watch]
        if unknown:
            raise KeyError(f"{unknown} are not watched")
        return [getattr(self.block(block), "computed" if name == "output" else name) for block, name in points]

    def _point(self, point: Point) -> Point:
        block, name = point
        if name not in POINTS:
            raise ValueError(f"a point is one of {', '.join(POINTS)}, not {name!r}")
        return self.index(block), name


class VisualTrace(ABC):
    """One forward pass of an image tower that can be differentiated from chosen points on.

    Below the first watched point no graph is built. Works for frozen towers and for callers under ``no_grad`` or
    ``inference_mode``. The tower runs in evaluation mode and is given back in the mode it came in.

    Attributes:
        family: ``"transformer"`` (attention over all tokens), ``"windowed"`` or ``"convolutional"``.
        reads: What is read: ``"pooled"``, ``"patches"`` or ``"tokens"``.
        read: ``[B, D]``, ``[B, N, W]`` or ``[B, P + N, W]``.
        depth: L, the number of blocks (of stages in a convolutional tower).
        grid: Rows and columns of the patch tokens that the tower hands over.
        prefix_tokens: Tokens before the patches in the blocks' sequences: 1 with a class token, else 0.
        read_rows: Rows that the read depends on in the last block: the class token, the patches, or all.
    """

    family: str = "transformer"

    def __init__(
        self,
        module: nn.Module,
        pixels: Tensor,
        *,
        depth: int,
        grid: tuple[int, int],
        prefix_tokens: int = 0,
        read_rows: slice = slice(None),
        reads: str = "pooled",
        record: Record = (),
        watch: Iterable[Point] = (),
    ) -> None:
        """Run the tower.

        Args:
            module: Put into evaluation mode meanwhile.
            pixels: ``[B, 3, S, S]``.
            depth: Number of blocks.
            grid: Rows and columns of the patch tokens.
            prefix_tokens: Tokens before the patches.
            read_rows: Rows of the last block that the read depends on.
            reads: ``"pooled"`` (after the projection), or ``"patches"`` or ``"tokens"`` (after the last norm).
            record: Blocks to open, -1 for the last; None opens all.
            watch: Points ``(block, "normed" | "context" | "output")`` whose gradients may be asked for; they are opened
                too. The block is a number, ``"pool"`` for the attention pool, or ``"pixels"`` (its output: the input).

        Raises:
            UserError: The tower has blocks or points that cannot be opened, or fewer blocks than asked for.
        """
        self.reads, self.depth, self.grid = reads, depth, grid
        self.prefix_tokens, self.read_rows = prefix_tokens, read_rows
        self._module = module
        self._recorder = Recorder(depth, record, watch)
        with evaluation_mode(module), torch.inference_mode(False), torch.no_grad():
            # From the first watched point on, gradients are switched on; leaving this context switches them back.
            pixels = self._recorder.mark((PIXELS, "output"), outside_inference(pixels))
            if PIXELS in self._recorder.opened:
                self._recorder.blocks[PIXELS] = BlockTrace(ABSENT, ABSENT, ABSENT, ABSENT, ABSENT, pixels)
            self.read = self._run(pixels, self._recorder)

    @abstractmethod
    def _run(self, pixels: Tensor, recorder: Recorder) -> Tensor:
        """Run the tower, put what is opened into ``recorder.blocks`` and return what is read."""

    def grid_of(self, block: BlockIndex) -> tuple[int, int]:
        """Return rows and columns of a block's own patch tokens."""
        self._recorder.index(block)
        return self.grid

    def block(self, index: BlockIndex) -> BlockTrace:
        """Return an opened block; -1 is the last."""
        return self._recorder.block(index)

    @property
    def blocks(self) -> Mapping[BlockIndex, BlockTrace]:
        """The opened blocks by index."""
        return self._recorder.blocks

    @property
    def pool(self) -> BlockTrace | None:
        """The attention pool that the pooled embedding comes from; None if there is none or patches are read."""
        return self._recorder.blocks.get(POOL)

    def gradients(self, cotangents: Tensor, points: Sequence[Point]) -> dict[Point, Tensor]:
        """Pull T cotangents back to watched points in one batched backward pass.

        Args:
            cotangents: Derivatives of T scores with respect to ``read``, ``[B, T, *read.shape[1:]]``.
            points: Watched points; block -1 is the last.

        Returns:
            For each point as given, ``[B, T, *shape of the activation without B]``.
        """
        inputs = self._recorder.activations(points)
        return dict(zip(points, batched_vjp(self.read, inputs, cotangents), strict=True))


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
    parts = [part for _, part in in_chunks(lambda rows: _vjp(output, inputs, columns[rows]), len(columns), chunk_size)]
    return [torch.cat(pieces).transpose(0, 1) for pieces in zip(*parts, strict=True)]


def _vjp(output: Tensor, inputs: Sequence[Tensor], columns: Tensor) -> tuple[Tensor, ...]:
    if len(columns) == 1:  # vmap costs more than it saves
        alone = torch.autograd.grad(
            output, inputs, columns[0], retain_graph=True, allow_unused=True, materialize_grads=True
        )
        return tuple(gradient[None] for gradient in alone)
    found = torch.autograd.grad(output, inputs, columns, retain_graph=True, is_grads_batched=True, allow_unused=True)
    # Not materialize_grads: its zeros do not have the dimension T.
    return tuple(
        input_.new_zeros(len(columns), *input_.shape) if gradient is None else gradient
        for input_, gradient in zip(inputs, found, strict=True)
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
