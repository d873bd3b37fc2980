"""LeGrad: how the score of each layer reacts to that layer's attention."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from clip_xai.models.backbones.base import VisionBackbone
from clip_xai.models.backbones.recording import BlockIndex, Point, batched_vjp, evaluation_mode
from clip_xai.ranges import setting
from clip_xai.xai.explainer import TraceExplainer, explainers
from clip_xai.xai.methods.attention import ATTENTION, blocks_of, reads_pool
from clip_xai.xai.methods.depth import too_deep
from clip_xai.xai.target import Target
from clip_xai.xai.trace import Needs, Trace


@explainers.register("legrad", title="LeGrad", group="attention", order=4)
@dataclass(frozen=True)
class LeGrad(TraceExplainer):
    """LeGrad (Bousselham et al., ICCV 2025, arXiv 2404.03214).

    Each of the last ``layers`` blocks has a score of its own, made of that block's output Z^l alone::

        s^l = s( project(mean over all tokens of Z^l) )         project: the tower's last norm and projection
        E^l = mean over heads and query rows of ReLU(ds^l / dA^l),  patches only
        H   = sum over the blocks of E^l

    The attention A^l enters by its gradient only; it is not multiplied in. For a target that reads patch tokens, s^l
    reads those of Z^l after the last norm. Where the embedding comes out of an attention pool (SigLIP), Z^l goes
    through the pool and A^l is the pool's attention, as in the released code.

    Shapes: maps ``[B, T, h, w]``, at least 0. Cost for T targets: one forward pass, with a graph from the first
    of the blocks on; for each of them, one batched backward pass through its feed-forward part: nothing goes through
    earlier blocks, because s^l depends on its own block's attention only through its own output.

    Deviations from the published code: the image is not repeated for every text, no second graph is asked for, and
    nothing is normalised. The empty prompt's map is not subtracted for SigLIP.

    Attributes:
        layers: How many of the last blocks count; the released code takes 2.

    Raises:
        UserError: There are fewer blocks.

    Example:
        >>> from clip_xai.xai.examples import example
        >>> bool((LeGrad().explain(*example()).values >= 0).all())
        True
    """

    reading: ClassVar[str] = (
        "Gradient of the score at the attention of each block: where more attention would raise it."
    )

    layers: int = setting(2, least=1)

    linear_in_target: ClassVar[bool] = False
    needs_of_tower: ClassVar[frozenset[str]] = ATTENTION
    cost: ClassVar[str] = "1 F, batched B of each block's feed-forward part"

    def refusal(self, backbone: VisionBackbone, target: Target) -> str | None:
        """So many blocks are needed."""
        reason = super().refusal(backbone, target)
        return reason or too_deep("legrad.layers", self.layers, blocks_of(backbone))

    def needs(self, backbone: VisionBackbone, target: Target) -> Needs:
        """The activations of the last blocks, with all rows of the very last one."""
        blocks: frozenset[BlockIndex] = frozenset(-1 - step for step in range(self.layers))
        if reads_pool(backbone, target):
            return Needs(activations=blocks)
        contexts: frozenset[Point] = frozenset((block, "context") for block in blocks)
        return Needs(activations=blocks, watched=contexts | {(-1, "output")})

    def maps(self, trace: Trace) -> Tensor:
        """Return raw maps ``[B, T, h, w]``."""
        pooled = reads_pool(trace.backbone, trace.target)
        layers = range(-self.layers, 0)
        with evaluation_mode(trace.backbone), torch.inference_mode(False), torch.enable_grad():
            maps = [self._of_pool(trace, layer) if pooled else self._of_block(trace, layer) for layer in layers]
        return torch.stack(maps).sum(dim=0).unflatten(-1, trace.grid)

    @staticmethod
    def _of_block(trace: Trace, layer: int) -> Tensor:
        block, tower = trace.block(layer), trace.backbone.image_tower
        output, reads = block.computed, trace.target.reads
        read = tower.project(output.mean(dim=1)) if reads == "pooled" else tower.read(output, reads)  # type: ignore[attr-defined]
        return _reaction(trace, read, block.context, block.value)

    @staticmethod
    def _of_pool(trace: Trace, layer: int) -> Tensor:
        pool = trace.backbone.image_tower.pool  # type: ignore[attr-defined]
        query, key, value = pool.query_key_value(pool.normed(trace.block(layer).output.detach()))
        context = F.scaled_dot_product_attention(query, key, value).detach().requires_grad_()
        read = pool.finish(pool.project(context.transpose(1, 2).flatten(2)))
        return _reaction(trace, read, context, value)


def _reaction(trace: Trace, read: Tensor, context: Tensor, value: Tensor) -> Tensor:
    """Mean over heads and rows of the positive gradient at the attention, ``[B, T, N]``; one target at a time."""
    cotangents = trace.target.cotangent(read)
    (gradients,) = batched_vjp(read, [context], cotangents)
    value = value.detach().float().transpose(-2, -1)
    maps = [(gradient.float() @ value).relu().mean(dim=(1, 2)) for gradient in gradients.unbind(dim=1)]
    skipped = value.shape[-1] - trace.grid[0] * trace.grid[1]
    return torch.stack(maps, dim=1)[..., skipped:]
