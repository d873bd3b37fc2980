"""Building a mapper by name for a backbone and a language model."""

from __future__ import annotations

from typing import Any

from clip_xai.models.mappers.base import Mapper
from clip_xai.models.mappers.clipcap_transformer import ClipCapTransformer
from clip_xai.models.mappers.cross_attention import CrossAttention
from clip_xai.models.mappers.linear_patch import LinearPatch
from clip_xai.models.mappers.mlp import BottleneckMLP, ClipCapMLP
from clip_xai.models.mappers.resampler import Resampler

MAPPERS: dict[str, type[Mapper]] = {
    "bottleneck_mlp": BottleneckMLP,
    "clipcap_mlp": ClipCapMLP,
    "clipcap_transformer": ClipCapTransformer,
    "linear_patch": LinearPatch,
    "resampler": Resampler,
    "cross_attention": CrossAttention,
}


def build_mapper(
    name: str,
    *,
    embed_dim: int,
    width: int,
    embedding_dim: int,
    grid: tuple[int, int] | None = None,
    blocks: int | None = None,
    class_token: bool = True,
    **settings: Any,
) -> Mapper:
    """Build a mapper for a backbone and a language model.

    Args:
        name: A key of ``MAPPERS``.
        embed_dim: D of the backbone, read by pooled mappers.
        width: W of the backbone, read by patch mappers.
        embedding_dim: E of the language model.
        grid: Rows and columns of the backbone's patch grid, for mappers whose length follows from it.
        blocks: Number of the language model's blocks, for mappers that sit in each of them.
        class_token: Whether the backbone's embedding is read at a class token, for mappers that treat it apart.
        settings: The mapper's own settings, such as ``prefix_length``.

    Raises:
        ValueError: No mapper has that name, or it needs a grid or blocks that were not given.
    """
    if name not in MAPPERS:
        raise ValueError(f"no mapper is called {name!r}; choose one of {', '.join(MAPPERS)}")
    cls = MAPPERS[name]
    neighbours = {
        key: value
        for key, value in (("grid", grid), ("blocks", blocks), ("class_token", class_token))
        if key in cls.needs
    }
    if None in neighbours.values():
        raise ValueError(f"the mapper {name} needs {' and '.join(cls.needs)} of its neighbours")
    feature_dim = embed_dim if cls.reads == "pooled" else width
    build: Any = cls
    return build(feature_dim=feature_dim, embedding_dim=embedding_dim, **neighbours, **settings)
