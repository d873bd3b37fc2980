"""A mapper: one linear layer from the embedding to the prefix."""

from torch import Tensor, nn

from clip_xai.models.mappers.base import Count, Mapper, mappers


@mappers.register("one_layer")
class OneLayer(Mapper):
    """One linear layer; the parameters with a default are its settings."""

    reads = "pooled"
    idea = "one linear layer"

    def __init__(
        self, feature_dim: int, embedding_dim: int, prefix_length: Count = 4, slots_scale: float = 1.0
    ) -> None:
        super().__init__()
        self.prefix_length, self.slots_scale = prefix_length, slots_scale
        self.layer = nn.Linear(feature_dim, prefix_length * embedding_dim)

    def forward(self, pooled: Tensor) -> Tensor:
        """Map ``[B, D]`` embeddings to ``[B, K, E]``."""
        return self.slots_scale * self.layer(pooled).unflatten(-1, (self.prefix_length, -1))
