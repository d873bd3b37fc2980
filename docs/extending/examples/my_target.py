"""A target: how long the embedding is."""

from typing import Annotated

from torch import Tensor

from clip_xai.ranges import bounds
from clip_xai.xai.targets.base import Target, TargetContext, targets


class EmbeddingLength(Target):
    """The length of the embedding, to a power."""

    name, reads, labels = "embedding_length", "pooled", ["length"]

    def __init__(self, power: float) -> None:
        self.power = power

    def score(self, read: Tensor) -> Tensor:
        """Return the scores ``[B, 1]`` of embeddings ``[B, D]``."""
        return read.norm(dim=-1, keepdim=True) ** self.power


@targets.register("embedding_length")
def embedding_length(context: TargetContext, power: Annotated[float, bounds(above=0)] = 1.0) -> EmbeddingLength:
    """Make it; ``target.power`` is a setting of this target, because the parameter has a default."""
    return EmbeddingLength(power)
