"""CLIP Surgery: patches that look at patches like themselves, and what all texts share taken away."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from clip_xai.models.backbones.base import VisionBackbone
from clip_xai.models.backbones.clip import with_texts
from clip_xai.models.backbones.recording import evaluation_mode
from clip_xai.ranges import setting
from clip_xai.xai.explainer import TraceExplainer, explainers
from clip_xai.xai.methods.attention import ATTENTION, blocks_of, reads_pool
from clip_xai.xai.methods.depth import too_deep
from clip_xai.xai.target import ContrastTarget, SimilarityTarget, Target
from clip_xai.xai.trace import Needs, Trace

REDUNDANCY = ("empty", "texts", "none")


@explainers.register("clip_surgery", title="CLIP Surgery", group="attention", order=5)
@dataclass(frozen=True)
class ClipSurgery(TraceExplainer):
    """CLIP Surgery (Li et al., Pattern Recognition 2025, arXiv 2304.05653): architecture and feature surgery.

    Architecture: beside the tower's own tokens X runs a second stream Y from the block ``l_0`` on, ``layers`` blocks
    before the end. It starts as ``X^(l_0)`` and skips the feed-forward parts; v are the values of the tower's own
    stream::

        Y <- Y + O( softmax(v v^T / sqrt(d)) v )         F_i = project(Y_i) at unit length, patches only

    Features: with t_t the unit text embedding, the evidence is ``F_i . t_t`` without what says nothing about the text::

        empty:  H_ti = F_i . t_t - F_i . t_empty         t_empty: the text tower on the empty text
        texts:  H_ti = w_t F_i . t_t - mean over u of w_u F_i . t_u
                w_t  = softmax over texts of (2 e . t_t), divided by its mean, with e the unit image embedding
        none:   H_ti = F_i . t_t

    ``empty`` is the paper's form for a single text and makes each text's map independent of the others; ``texts`` needs
    a set of texts that compete (with one it would be zero). A logit is scaled by tau. A target that is not a similarity
    but reads the pooled embedding (a contrast, a caption behind a pooled mapper, a dimension) gives its cotangent as
    the direction, and nothing is taken away. A target that reads patch tokens has no direction in the embedding space:
    refused.

    Shapes: maps ``[B, T, h, w]``, signed. Cost for any number of targets: one forward pass, ``layers`` attentions more,
    no backward pass of the tower; the empty text is one pass of the text tower.

    Deviations from the published code: the empty text is not ensembled over 85 templates (give a ``class`` target to
    ensemble the texts), and nothing is scaled to [0, 1].

    Attributes:
        layers: How many of the last blocks have the second stream; the paper takes 6, which stands for all of them in
            a tower of fewer. Any other number beyond the tower's is refused.
        redundancy: ``empty``, ``texts`` or ``none``.

    Raises:
        UserError: The target reads patch tokens, the embedding comes out of an attention pool, or the tower has fewer
            blocks.

    Example:
        >>> from clip_xai.xai.examples import example
        >>> ClipSurgery().explain(*example()).values.shape
        torch.Size([2, 2, 4, 4])
    """

    reading: ClassVar[str] = "How alike each patch is to the text, less what all texts share."

    layers: int = setting(6, least=1)
    redundancy: str = setting("empty", one_of=REDUNDANCY)

    linear_in_target: ClassVar[bool] = False
    needs_of_tower: ClassVar[frozenset[str]] = ATTENTION
    cost: ClassVar[str] = "1 F and `layers` attentions"

    def refusal(self, backbone: VisionBackbone, target: Target) -> str | None:
        """Directions in the embedding space are needed, and patches that can be projected into it."""
        if target.reads != "pooled":
            return f"compares patches with a direction in the embedding space, which target {target.name} does not have"
        if reads_pool(backbone, target):
            return "projects single patches into the embedding space, which an attention pool does not allow"
        if self.redundancy == "texts" and len(target.labels) < 2:
            return "needs several texts to find what they share (redundancy=texts)"
        reason = super().refusal(backbone, target)
        return reason or too_deep("clip_surgery.layers", self.layers, blocks_of(backbone), published=6)

    def needs(self, backbone: VisionBackbone, target: Target) -> Needs:
        """Values and outputs of the last blocks."""
        return Needs(activations=frozenset(-1 - step for step in range(self._count(backbone))))

    def maps(self, trace: Trace) -> Tensor:
        """Return raw maps ``[B, T, h, w]``."""
        features, target = self.features(trace), trace.target
        if not isinstance(target, SimilarityTarget) or isinstance(target, ContrastTarget) or _softmax(target):
            directions = trace.cotangents if trace.cotangents is not None else target.cotangent(trace.tower.read)
            return torch.einsum("bnd,btd->btn", features, directions.float()).unflatten(-1, trace.grid)
        texts = F.normalize(target.text_embeddings.to(features), dim=-1)
        maps = torch.einsum("bnd,td->btn", features, texts)
        if self.redundancy == "empty":
            maps = maps - torch.einsum("bnd,d->bn", features, _empty(trace.backbone).to(features)).unsqueeze(1)
        elif self.redundancy == "texts":
            image = F.normalize(trace.tower.read.detach().float(), dim=-1)
            weights = (2 * image @ texts.T).softmax(dim=-1)
            maps = maps * (weights / weights.mean(dim=-1, keepdim=True)).unsqueeze(-1)
            maps = maps - maps.mean(dim=1, keepdim=True)
        scale = target.logit_scale if target.kind == "logit" and target.logit_scale else 1.0
        return (maps * scale).unflatten(-1, trace.grid)

    def features(self, trace: Trace) -> Tensor:
        """Return the second stream's patches in the embedding space at unit length, ``[B, N, D]``."""
        count = self._count(trace.backbone)
        with evaluation_mode(trace.backbone), torch.inference_mode(False), torch.no_grad():
            first = trace.block(-count)
            assert first.entered is not None
            stream = first.entered.detach()
            for layer in range(-count, 0):
                block = trace.block(layer)
                assert block.added is not None
                stream = stream + block.added(F.scaled_dot_product_attention(block.value, block.value, block.value))
            patches = trace.backbone.project_tokens(stream[:, trace.prefix_tokens :])
            return F.normalize(patches.float(), dim=-1)

    def _count(self, backbone: VisionBackbone) -> int:
        return min(self.layers, blocks_of(backbone))


def _softmax(target: SimilarityTarget) -> bool:
    return bool(getattr(target, "softmax", False))


def _empty(backbone: VisionBackbone) -> Tensor:
    """The unit embedding of the empty text, ``[D]``."""
    with torch.no_grad(), evaluation_mode(backbone):
        return F.normalize(with_texts(backbone).encode_text([""]), dim=-1)[0]
