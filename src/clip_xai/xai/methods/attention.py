"""Explainers that read attention: its probabilities, queries, keys, values and context."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from clip_xai.xai.explainer import TraceExplainer
from clip_xai.xai.trace import Needs, Trace


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

    Shapes: maps ``[B, T, h, w]``, raw; the ReLU is part of the definition. Cost for T targets: one forward pass; at
    the last block the backward pass ends at that block's context, so no earlier block is differentiated.

    Deviations from the published code: it runs the last block with a single head, which changes the score that is
    explained, and takes q and k after ``out_proj``; here the model's own heads and the raw q and k are used. Where
    the similarity is the same for all patches, the published min-max is 0 / 0; here lambda is then 1, no patch being
    preferred.

    Attributes:
        layer: Block, -1 for the last.

    Raises:
        UserError: The gradient is exactly zero for some target.
    """

    layer: int = -1

    name: ClassVar[str] = "gradeclip"
    linear_in_target: ClassVar[bool] = False

    def needs(self) -> Needs:
        """Queries, keys and values, and the gradient at the context."""
        return Needs(gradients=frozenset({(self.layer, "context")}))

    def maps(self, trace: Trace) -> Tensor:
        """Return raw maps ``[B, T, h, w]``."""
        block, rows = trace.block(self.layer), trace.read_rows
        weights = trace.gradient(self.layer, "context")[:, :, :, rows].float()
        query, key = block.query[:, :, rows].detach().float(), block.key[:, :, 1:].detach().float()
        value = block.value[:, :, 1:].detach().float()
        loosened = _min_max(F.normalize(query, dim=-1) @ F.normalize(key, dim=-1).transpose(-2, -1))
        # Summing the rows first keeps the largest tensor at [B, T, H, N, W / H] however many rows are read.
        at_patches = torch.einsum("bhrn,bthrd->bthnd", loosened, weights)
        return torch.einsum("bthnd,bhnd->btn", at_patches, value).relu().unflatten(-1, trace.grid)


@dataclass(frozen=True)
class AttentionRollout(TraceExplainer):
    """Attention rollout (Abnar and Zuidema, ACL 2020, arXiv 2005.00928).

    With A^l the attention probabilities of block l, averaged over heads::

        A'^l = rownorm(A^l + I)         H = row of the class token of  A'^L ... A'^1,  patches only

    The map is the same whatever is asked (``text_dependent`` is False): it is a control, not an explanation of a text.
    The class token's row is read also for targets that read patch tokens.

    Shapes: maps ``[B, T, h, w]``, the same for all T; together with the class token's own share a map sums to 1.
    Cost: one forward pass, no backward pass; the product is taken as a row vector, one attention matrix at a time.

    Deviations from vit-explain: rows are normalised as rows (its normalisation lacks ``keepdim``), and no part of the
    attention is discarded.
    """

    name: ClassVar[str] = "attention_rollout"
    text_dependent: ClassVar[bool] = False
    linear_in_target: ClassVar[bool] = False

    def needs(self) -> Needs:
        """Attention probabilities of all blocks."""
        return Needs(activations=None)

    def maps(self, trace: Trace) -> Tensor:
        """Return the same raw map for every target, ``[B, T, h, w]``."""
        last = trace.block(-1).attention().float().mean(dim=1)[:, 0]
        class_token = torch.zeros_like(last)
        class_token[:, 0] = 1.0
        # Rows of A sum to 1, so the row norm of A + I is 2.
        row = (last + class_token) / 2
        for index in reversed(range(trace.depth - 1)):
            attention = trace.block(index).attention().float().mean(dim=1)
            row = (torch.einsum("bi,bij->bj", row, attention) + row) / 2
        grid = row[:, 1:].unflatten(-1, trace.grid)
        return grid[:, None].repeat(1, trace.scores.shape[1], 1, 1)


def _min_max(similarity: Tensor) -> Tensor:
    """Scale the last axis to [0, 1]; ones where it is constant."""
    low, high = similarity.amin(dim=-1, keepdim=True), similarity.amax(dim=-1, keepdim=True)
    constant = high == low
    return torch.where(constant, 1.0, (similarity - low) / torch.where(constant, 1.0, high - low))
