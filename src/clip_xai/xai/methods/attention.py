"""Explainers that read attention: its probabilities, queries, keys, values and context."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from clip_xai.errors import UserError
from clip_xai.models.backbones.base import VisionBackbone
from clip_xai.models.backbones.recording import POOL, BlockIndex, BlockTrace, batched_vjp, evaluation_mode
from clip_xai.ranges import setting
from clip_xai.xai.explainer import TraceExplainer, explainers
from clip_xai.xai.methods.depth import no_such_block, too_deep
from clip_xai.xai.target import Target
from clip_xai.xai.trace import Needs, Trace, refuse_zero

ATTENTION = frozenset({"attention"})
FUSIONS = ("mean", "max", "min")


def reads_pool(backbone: VisionBackbone, target: Target) -> bool:
    """Tell whether what the target reads comes out of an attention pool behind the blocks."""
    return target.reads == "pooled" and getattr(backbone.image_tower, "pool", None) is not None


def blocks_of(backbone: VisionBackbone) -> int:
    """Return L of a tower whose blocks attend over all patches."""
    return len(backbone.image_tower.blocks)  # type: ignore[attr-defined]


@explainers.register("gradeclip", title="Grad-ECLIP", group="attention", order=3)
@dataclass(frozen=True)
class GradEclip(TraceExplainer):
    """Grad-ECLIP (Zhao et al., ICML 2024, arXiv 2502.18816), multi-head.

    In one block and head h, with o the attention's context before ``out_proj``, q, k, v its queries, keys and values,
    and R the query rows that the target reads::

        w_r = ds/do_r
        lambda_ri = minmax over patches i of cos(q_r, k_i)
        H_i = ReLU( sum over h, r in R, channels c of  w_rc * lambda_ri * v_ic )

    For a target that reads the pooled embedding, R is the class token and this is the paper's map in the multi-head
    form of its journal version. For a target that reads patch tokens (a captioner with a patch mapper), R is all
    patches: each read token brings its own gradient and its own loosened attention. With R of one row the two agree.
    Where the embedding comes out of an attention pool (SigLIP, CLIP's ResNets), the last block is the pool, and R its
    queries. Several layers add up after each one's ReLU, as in the paper's notebook.

    ``heads="single"`` is the map of the published code: the last block is run again with one head in place of all,
    which changes the score that is explained (the scores of the result are the model's own).

    Shapes: maps ``[B, T, h, w]``, raw; the ReLU is part of the definition. Cost for T targets: one forward pass; at
    the last block the backward pass ends at that block's context, so no earlier block is differentiated. A single head
    adds one pass of one row through the last block's feed-forward part.

    Deviations from the published code: it takes q and k after ``out_proj`` in its script and before in its notebook;
    here they are the raw q and k. Where the similarity is the same for all patches, the published min-max is 0 / 0;
    here lambda is then 1, no patch being preferred.

    Attributes:
        layer: Block, -1 for the last.
        layers: How many blocks, ``layer`` and those before it.
        heads: ``per_head``: the model's own; ``single``: as published, for the last block and pooled embeddings.

    Raises:
        UserError: The gradient is exactly zero for some target, or a single head is not defined there.

    Example:
        >>> from clip_xai.xai.examples import example
        >>> GradEclip().explain(*example()).values.shape
        torch.Size([2, 2, 4, 4])
    """

    layer: int = -1
    layers: int = setting(1, least=1)
    heads: str = setting("per_head", one_of=("per_head", "single"))

    reading: ClassVar[str] = (
        "Last block: the score's gradient at the attention output × values, weighted by query-key similarity."
    )
    linear_in_target: ClassVar[bool] = False
    where: ClassVar[str] = "transformers and attention pools"
    cost: ClassVar[str] = "1 F, B of the last block's class-token row"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.heads == "single" and (self.layer, self.layers) != (-1, 1):
            raise UserError("a single head is defined for the last block alone: set layer=-1 and layers=1")

    def refusal(self, backbone: VisionBackbone, target: Target) -> str | None:
        """Blocks that attend over all patches are needed, or an attention pool that the target reads."""
        if self.heads == "single" and (target.reads != "pooled" or not self._class_token(backbone)):
            return (
                "with a single head reads the class token, which this tower does not have or this target does not read"
            )
        if reads_pool(backbone, target) and self.layers == 1 and self.layer == -1:
            return None
        reason = super().refusal(backbone, target) or _lacking(backbone)
        return reason or self._outside(blocks_of(backbone), reads_pool(backbone, target))

    def needs(self, backbone: VisionBackbone, target: Target) -> Needs:
        """Queries, keys and values, and the gradient at the context."""
        if self.heads == "single":
            return Needs(activations=frozenset({-1}))
        return Needs(gradients=frozenset((block, "context") for block in self._blocks(backbone, target)))

    def maps(self, trace: Trace) -> Tensor:
        """Return raw maps ``[B, T, h, w]``."""
        if self.heads == "single":
            return self._single(trace)
        maps = [self._map(trace, block) for block in self._blocks(trace.backbone, trace.target)]
        return torch.stack(maps).sum(dim=0).unflatten(-1, trace.grid)

    def _map(self, trace: Trace, index: BlockIndex) -> Tensor:
        block = trace.block(index)
        rows = slice(None) if index == POOL else trace.read_rows
        weights = trace.gradient(index, "context")[:, :, :, rows].float()
        skipped = block.key.shape[2] - trace.grid[0] * trace.grid[1]
        query, key = block.query[:, :, rows].detach().float(), block.key[:, :, skipped:].detach().float()
        return _loosened_map(query, key, block.value[:, :, skipped:].detach().float(), weights)

    def _single(self, trace: Trace) -> Tensor:
        block, tower = trace.block(-1), trace.backbone.image_tower
        assert block.finished is not None
        with evaluation_mode(trace.backbone), torch.inference_mode(False), torch.enable_grad():
            query, key, value = (_one_head(part.detach()) for part in (block.query, block.key, block.value))
            context = F.scaled_dot_product_attention(query, key, value).requires_grad_()
            read = tower.pooled(block.finished(context))  # type: ignore[attr-defined]
            cotangents = trace.target.cotangent(read)
        (weights,) = batched_vjp(read, [context], cotangents)
        skipped = slice(trace.prefix_tokens, None)
        parts = (query[:, :, :1], key[:, :, skipped], value[:, :, skipped], weights[:, :, :, :1])
        return _loosened_map(*(part.float() for part in parts)).unflatten(-1, trace.grid)

    def _outside(self, depth: int, pooled: bool) -> str | None:
        above = self.layer % depth + 1 + int(pooled and self.layer == -1)  # blocks that there are up to this one
        return no_such_block("gradeclip.layer", self.layer, depth) or too_deep("gradeclip.layers", self.layers, above)

    def _blocks(self, backbone: VisionBackbone, target: Target) -> list[BlockIndex]:
        blocks: list[BlockIndex] = [self.layer - step for step in range(self.layers)]
        if self.layer == -1 and reads_pool(backbone, target):
            return [POOL, *blocks[:-1]]
        return blocks

    @staticmethod
    def _class_token(backbone: VisionBackbone) -> bool:
        return {"attention", "class_token"} <= backbone.supports


@explainers.register("attention_rollout", title="Attention rollout", group="attention", order=1)
@dataclass(frozen=True)
class AttentionRollout(TraceExplainer):
    """Attention rollout (Abnar and Zuidema, ACL 2020, arXiv 2005.00928).

    With A^l the attention probabilities of block l, fused over heads::

        A'^l = rownorm(A^l + I)         H = row of the class token of  A'^L ... A'^1,  patches only

    The map is the same whatever is asked (``text_dependent`` is False): it is a control, not an explanation of a text.
    The class token's row is read also for targets that read patch tokens. A tower without one is read at its attention
    pool, whose own attention comes last, or at the mean of all patches.

    Shapes: maps ``[B, T, h, w]``, the same for all T; with heads averaged, a map and the class token's own share sum
    to 1. Cost: one forward pass, no backward pass; the product is taken as a row vector, one attention matrix at a
    time.

    Deviations from vit-explain: rows are normalised as rows (its normalisation lacks ``keepdim``), and no part of the
    attention is discarded.

    Attributes:
        head_fusion: ``mean``, ``max`` or ``min`` over heads.

    Example:
        >>> from clip_xai.xai.examples import example
        >>> maps = AttentionRollout().explain(*example()).values
        >>> bool((maps[:, 0] == maps[:, 1]).all())
        True
    """

    head_fusion: str = setting("mean", one_of=FUSIONS)

    reading: ClassVar[str] = "Attention multiplied through all blocks: where the tower gathers from, whatever the word."
    text_dependent: ClassVar[bool] = False
    linear_in_target: ClassVar[bool] = False
    needs_of_tower: ClassVar[frozenset[str]] = ATTENTION
    cost: ClassVar[str] = "1 F"

    def needs(self, backbone: VisionBackbone, target: Target) -> Needs:
        """Attention probabilities of all blocks."""
        return Needs(activations=None)

    def maps(self, trace: Trace) -> Tensor:
        """Return the same raw map for every target, ``[B, T, h, w]``."""
        row = self._read_row(trace)
        for index in reversed(range(trace.depth)):
            attention = self._fused(trace.block(index))
            # Where the last block computed the class token's row alone, the others weigh nothing yet.
            share = row[:, : attention.shape[1]] / (1 + attention.sum(dim=-1))
            row = torch.einsum("bi,bij->bj", share, attention) + F.pad(share, (0, row.shape[1] - share.shape[1]))
        grid = row[:, trace.prefix_tokens :].unflatten(-1, trace.grid)
        return grid[:, None].repeat(1, trace.scores.shape[1], 1, 1)

    def _read_row(self, trace: Trace) -> Tensor:
        last = trace.block(-1)
        tokens = last.key.shape[2]
        if trace.tower.pool is not None:
            pooled = self._fused(trace.tower.pool).mean(dim=1)
            return F.pad(pooled, (tokens - pooled.shape[1], 0))
        row = torch.zeros(len(last.key), tokens, device=last.key.device)
        if "class_token" in trace.backbone.supports:
            row[:, 0] = 1.0
        else:
            row[:, trace.prefix_tokens :] = 1.0 / (tokens - trace.prefix_tokens)
        return row

    def _fused(self, block: BlockTrace) -> Tensor:
        attention = block.attention().float()
        if self.head_fusion == "mean":
            return attention.mean(dim=1)
        return attention.amax(dim=1) if self.head_fusion == "max" else attention.amin(dim=1)


@explainers.register("attention_gradient", title="Attention × gradient", group="attention", order=2)
@dataclass(frozen=True)
class AttentionGradient(TraceExplainer):
    """Attention times its gradient, rolled out (Chefer et al., ICCV 2021, arXiv 2103.15679; "GAME").

    For the blocks from ``start_layer`` on, with A^l the attention probabilities of block l and G^l = ds/dA^l::

        A'^l = mean over heads of ReLU(G^l * A^l)         R = (I + A'^L) ... (I + A'^start)
        H    = mean over the rows r that the target reads of (R - I)_r,  patches only

    For the pooled embedding of a class token this is the paper's row ``R[0, 1:]``; the identity adds nothing there. For
    patch tokens it would add the same to every patch and is left out. An attention pool is the last factor, without
    identity. Because ``I + A'`` is not free of scale, a cosine, a logit and a log-probability give different maps once
    more than one block is rolled out; the scale is in the settings. The paper's CLIP notebook rolls out the last block
    alone: ``start_layer=-1``.

    Shapes: maps ``[B, T, h, w]``, at least 0. Cost for T targets: one forward pass and one batched backward pass down
    to ``start_layer``. Attention stays the fused kernel: G is the gradient at the context times the values, one block
    and target at a time, and R is taken as a row vector.

    Deviations from the published code: none in the numbers; nothing is normalised.

    Attributes:
        start_layer: First block that counts, from 0, or from the end if negative.

    Raises:
        UserError: The gradient is exactly zero in every block for some target, or the tower has fewer blocks.

    Example:
        >>> from clip_xai.xai.examples import example
        >>> bool((AttentionGradient().explain(*example()).values >= 0).all())
        True
    """

    reading: ClassVar[str] = "Attention × its gradient, carried through the blocks: attention that raises the score."

    start_layer: int = 0

    linear_in_target: ClassVar[bool] = False
    needs_of_tower: ClassVar[frozenset[str]] = ATTENTION
    cost: ClassVar[str] = "1 F, 1 batched B down to `start_layer`"

    def refusal(self, backbone: VisionBackbone, target: Target) -> str | None:
        """The first block must be there."""
        reason = super().refusal(backbone, target)
        return reason or no_such_block("attention_gradient.start_layer", self.start_layer, blocks_of(backbone))

    def needs(self, backbone: VisionBackbone, target: Target) -> Needs:
        """Attention probabilities, values, and the gradient at the context, of the blocks from the first one on."""
        return Needs(weak=frozenset((block, "context") for block in self._blocks(backbone, target)))

    def maps(self, trace: Trace) -> Tensor:
        """Return raw maps ``[B, T, h, w]``."""
        blocks = self._blocks(trace.backbone, trace.target)
        reached = [(trace.gradient(block, "context") != 0).flatten(2).any(dim=2) for block in blocks]
        refuse_zero(torch.stack(reached).any(dim=0).unsqueeze(-1), trace.target, "the attention of every block")
        targets = range(trace.scores.shape[1])
        return torch.stack([self._row(trace, target) for target in targets], dim=1).unflatten(-1, trace.grid)

    def _row(self, trace: Trace, target: int) -> Tensor:
        blocks = self._blocks(trace.backbone, trace.target)
        # What is gathered is kept apart from the rows that are read: their difference would drown in rounding.
        start = self._start(trace)
        gathered = torch.zeros_like(start)
        for index in reversed(blocks):
            relevance = self._relevance(trace, index, target)
            if index == POOL:
                pooled = relevance.mean(dim=1)
                gathered, start = F.pad(pooled, (start.shape[1] - pooled.shape[1], 0)), torch.zeros_like(start)
            else:
                rows = (start + gathered)[:, : relevance.shape[1]]
                gathered = gathered + torch.einsum("br,brs->bs", rows, relevance)
        return gathered[:, trace.prefix_tokens :]

    def _start(self, trace: Trace) -> Tensor:
        """The rows that are read, averaged: ``[B, S]``."""
        tokens = trace.prefix_tokens + trace.grid[0] * trace.grid[1]
        row = torch.zeros(len(trace.scores), tokens, device=trace.scores.device)
        row[:, trace.read_rows] = 1.0
        return row / row.sum(dim=1, keepdim=True)

    @staticmethod
    def _relevance(trace: Trace, index: BlockIndex, target: int) -> Tensor:
        block = trace.block(index)
        gradient = trace.gradient(index, "context")[:, target].float() @ block.value.detach().float().transpose(-2, -1)
        return (gradient * block.attention().float()).relu().mean(dim=1)

    def _blocks(self, backbone: VisionBackbone, target: Target) -> list[BlockIndex]:
        depth = blocks_of(backbone)
        blocks: list[BlockIndex] = list(range(self.start_layer % depth, depth))
        return [*blocks, POOL] if reads_pool(backbone, target) else blocks


def _loosened_map(query: Tensor, key: Tensor, value: Tensor, weights: Tensor) -> Tensor:
    """Grad-ECLIP's map ``[B, T, N]`` of queries ``[B, H, R, d]``, keys and values ``[B, H, N, d]``."""
    loosened = _min_max(F.normalize(query, dim=-1) @ F.normalize(key, dim=-1).transpose(-2, -1))
    # Summing the rows first keeps the largest tensor at [B, T, H, N, W / H] however many rows are read.
    at_patches = torch.einsum("bhrn,bthrd->bthnd", loosened, weights)
    return torch.einsum("bthnd,bhnd->btn", at_patches, value).relu()


def _min_max(similarity: Tensor) -> Tensor:
    """Scale the last axis to [0, 1]; ones where it is constant."""
    low, high = similarity.amin(dim=-1, keepdim=True), similarity.amax(dim=-1, keepdim=True)
    constant = high == low
    return torch.where(constant, 1.0, (similarity - low) / torch.where(constant, 1.0, high - low))


def _one_head(heads: Tensor) -> Tensor:
    """Return ``[B, 1, S, H * d]`` of ``[B, H, S, d]``."""
    return heads.transpose(1, 2).flatten(2).unsqueeze(1)


def _lacking(backbone: VisionBackbone) -> str | None:
    if "attention" in backbone.supports:
        return None
    return f"reads attention over all patches, which backbone {backbone.name} does not have"
