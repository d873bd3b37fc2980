"""CCI: groups of patches that look alike to the tower, taken out of its attention one after the other."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from sklearn.cluster import KMeans
from threadpoolctl import threadpool_limits
from torch import Tensor

from clip_xai.errors import UserError
from clip_xai.models.backbones.chunks import in_chunks
from clip_xai.models.backbones.recording import evaluation_mode
from clip_xai.models.backbones.transformer import TransformerTower
from clip_xai.ranges import setting
from clip_xai.xai.explainer import BankExplainer
from clip_xai.xai.perturbation_bank import PerturbationBank
from clip_xai.xai.target import Target
from clip_xai.xai.trace import Trace


@dataclass(frozen=True)
class Cci(BankExplainer):
    """Cluster-based concept importance, CCI (Agarwal, Karanam and Gandhi, CVPR 2026, arXiv 2511.12978).

    The tower's own patch tokens are grouped by k-means into clusters C_1 ... C_K. With s_k the score once no token of
    any block attends to the patches of C_k (their attention logits are minus infinity)::

        H_i = s - s_k        for the patches i of C_k

    So a patch has the importance of the concept that it belongs to, however large that is.

    Shapes: maps ``[B, T, h, w]``, signed, in units of the score. Cost: K + 1 forward passes, shared by all T targets;
    no backward pass. The result does not depend on ``chunk_size``.

    Deviations from the paper: none is known; no code is published. The tokens are those after the last norm, before the
    projection. In towers without a class token the patches of C_k are left out of the pooling, too; a target that reads
    patch tokens still reads those of C_k, which only the others do not.

    Attributes:
        clusters: K.
        seed: Seed of k-means.
        chunk_size: Images in one forward pass; halved when memory runs out.

    Raises:
        UserError: The tower has no attention over all tokens, or not as many different patches as clusters.

    Example:
        >>> from clip_xai.xai.examples import example
        >>> found = Cci(clusters=3).explain(*example())
        >>> [len(found.values[0, 0].unique()), *found.values.shape]
        [3, 2, 2, 4, 4]
    """

    clusters: int = setting(7, least=2)
    seed: int = setting(0, least=0)
    chunk_size: int = setting(64, least=1)

    name: ClassVar[str] = "cci"
    linear_in_target: ClassVar[bool] = True
    needs_of_tower: ClassVar[frozenset[str]] = frozenset({"attention"})
    cost: ClassVar[str] = "K + 1 F"

    def maps(self, bank: PerturbationBank, target: Target, trace: Trace | None) -> tuple[Tensor, Tensor]:
        """Return raw maps ``[B, T, h, w]`` and the scores of the images."""
        tower = bank.backbone.image_tower
        assert isinstance(tower, TransformerTower)
        labels = torch.stack([self._cluster(tokens) for tokens in bank.whole("patches")]).to(bank.pixels.device)
        numbers = torch.arange(self.clusters, device=labels.device)
        kept = labels[:, None] != numbers[None, :, None]  # [B, K, N]
        rows = kept.flatten(0, 1)
        images = torch.arange(len(kept), device=labels.device).repeat_interleave(self.clusters)

        def score(chunk: slice) -> Tensor:
            return target.score(attending_to(tower, bank.pixels[images[chunk]], rows[chunk], target.reads)).float()

        with evaluation_mode(tower.module), torch.no_grad():
            scores = [part for _, part in in_chunks(score, len(rows), self.chunk_size)]
        whole = bank.whole_scores(target)
        drops = whole[:, None] - torch.cat(scores).unflatten(0, kept.shape[:2])  # [B, K, T]
        own = drops.gather(1, labels[..., None].expand(-1, -1, drops.shape[-1]))
        return own.transpose(1, 2).unflatten(2, tower.grid), whole

    def _cluster(self, tokens: Tensor) -> Tensor:
        points = tokens.detach().float().cpu().numpy()
        if len(np.unique(points, axis=0)) < self.clusters:
            raise UserError(
                f"xai.cci.clusters={self.clusters} is more than the number of distinct patches in the image: lower it"
            )
        with threadpool_limits(1):  # the same sums in the same order whatever the machine
            found = KMeans(self.clusters, n_init=10, random_state=self.seed).fit_predict(points)
        return torch.from_numpy(found).long()


def attending_to(tower: TransformerTower, pixels: Tensor, kept: Tensor, reads: str) -> Tensor:
    """Run a tower in which no token attends to some patches.

    Args:
        tower: The tower, in evaluation mode.
        pixels: ``[n, 3, S, S]``.
        kept: The patches that may be attended to, bool ``[n, N]``.
        reads: ``"pooled"``, ``"patches"`` or ``"tokens"``.

    Returns:
        ``[n, D]``, ``[n, N, W]`` or ``[n, P + N, W]``.
    """
    tokens = tower.embed(pixels)
    seen = F.pad(kept, (tower.prefix_tokens, 0), value=True)
    for block in tower.blocks:
        query, key, value = block.query_key_value(block.normed(tokens), slice(None))
        context = F.scaled_dot_product_attention(query, key, value, attn_mask=seen[:, None, None])
        tokens = block.finish(tokens, block.project(context.transpose(1, 2).flatten(2)))
    if reads != "pooled" or tower.reads_class_token:
        return tower.read(tokens, reads)
    return torch.cat([tower.pooled(one[None, mask]) for one, mask in zip(tokens, seen, strict=True)])
