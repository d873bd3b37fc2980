"""Building a mapper by name for a backbone and a language model."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

from clip_xai.errors import UserError
from clip_xai.models.mappers.base import NEIGHBOURS, Mapper, mappers
from clip_xai.ranges import check


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
        name: A key of ``mappers``.
        embed_dim: D of the backbone, read by pooled mappers.
        width: W of the backbone, read by patch mappers.
        embedding_dim: E of the language model.
        grid: Rows and columns of the backbone's patch grid, for mappers whose length follows from it.
        blocks: Number of the language model's blocks, for mappers that sit in each of them.
        class_token: Whether the backbone's embedding is read at a class token, for mappers that treat it apart.
        settings: The mapper's own settings, such as ``prefix_length``.

    Raises:
        UserError: No mapper has that name, or it does not have such a setting.
        ValueError: It needs a grid or blocks that were not given.
    """
    cls = mappers.named(name, "mapper.name")
    known = [item.name for item in fields(cls.settings())]
    unknown = [key for key in settings if key not in known]
    if unknown:
        raise UserError(f"mapper.{unknown[0]}: {name} does not have this setting; its own are {', '.join(known)}")
    check(cls.settings()(**settings), "mapper")
    told = zip(NEIGHBOURS, (grid, blocks, class_token), strict=True)
    neighbours = {key: value for key, value in told if key in cls.needs}
    if None in neighbours.values():
        raise ValueError(f"the mapper {name} needs {' and '.join(cls.needs)} of its neighbours")
    feature_dim = embed_dim if cls.reads == "pooled" else width
    build: Any = cls
    return build(feature_dim=feature_dim, embedding_dim=embedding_dim, **neighbours, **settings)
