"""Single directions of the embedding space."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from clip_xai.errors import UserError
from clip_xai.models.backbones.recording import outside_inference
from clip_xai.xai.targets.base import Target, TargetContext, targets


class EmbeddingDimensionTarget(Target):
    """Single dimensions of the image embedding: ``s_d = e'_d`` at unit length, or ``e_d`` as it is.

    Weighted with a unit text embedding, the dimensions at unit length add up to the cosine, the others to the dot
    product: ``sum_d t'_d s_d = e'.t'``.

    Shapes: scores ``[B, T]`` of T dimensions.

    Example:
        >>> import torch
        >>> EmbeddingDimensionTarget([1, 0], unit=True).score(torch.tensor([[3.0, 4.0]])).tolist()
        [[0.800000011920929, 0.6000000238418579]]
    """

    name = "embedding_dimension"
    reads = "pooled"

    def __init__(self, dimensions: Sequence[int], unit: bool = True, embed_dim: int | None = None) -> None:
        """Take dimensions.

        Args:
            dimensions: T of them, from 0.
            unit: Scale the embedding to unit length first.
            embed_dim: D, to check the dimensions against; not checked if None.

        Raises:
            UserError: There is no dimension, or one lies outside of the embedding.
        """
        top = max(dimensions, default=-1) + 1 if embed_dim is None else embed_dim
        if not dimensions or not all(0 <= dimension < top for dimension in dimensions):
            raise UserError(f"dimensions {list(dimensions)} are not all from 0 to {top - 1}: set target.dimensions")
        self.dimensions = list(dimensions)
        self.unit = unit
        self.labels = [f"dimension {dimension}" for dimension in self.dimensions]
        self.score_name = "unit embedding" if unit else "embedding"

    @property
    def settings(self) -> dict[str, Any]:
        """Whether the embedding has unit length."""
        return {"target": self.name, "unit": self.unit}

    def score(self, read: Tensor) -> Tensor:
        """Return the values ``[B, T]`` of embeddings ``[B, D]``."""
        return (F.normalize(read, dim=-1) if self.unit else read)[:, self.dimensions]

    def score_and_cotangent(self, read: Tensor) -> tuple[Tensor, Tensor]:
        """Return scores and cotangents in closed form: ``(1_d - e'_d e') / |e|``, or ``1_d``."""
        read = outside_inference(read).detach()
        chosen = torch.zeros(len(self.dimensions), read.shape[-1], device=read.device, dtype=read.dtype)
        chosen[torch.arange(len(self.dimensions)), self.dimensions] = 1.0
        scores = self.score(read)
        if not self.unit:
            return scores, chosen.expand(len(read), -1, -1)
        unit, length = F.normalize(read, dim=-1), read.norm(dim=-1)
        return scores, (chosen - scores[..., None] * unit[:, None]) / length[:, None, None]


@targets.register("embedding_dimension", order=9)
def embedding_dimension(context: TargetContext) -> EmbeddingDimensionTarget:
    """Make the dimensions of the embedding that are asked."""
    return EmbeddingDimensionTarget(context.question.dimensions, embed_dim=context.backbone.embed_dim)
