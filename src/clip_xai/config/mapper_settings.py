"""The settings of every mapper, read without importing one.

Written by ``python -m clip_xai.jobs.generate`` from their own code; change that, and run it again.
"""

# fmt: off
from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from omegaconf import MISSING

from clip_xai.ranges import Checked, setting


@dataclass
class MapperConfig(Checked):
    """How image features reach the language model; what is null keeps the mapper's own default.

    Attributes:
        name: ``bottleneck_mlp``, ``clipcap_mlp``, ``clipcap_transformer``, ``linear_patch``, ``resampler``,
            ``cross_attention``.
        prefix_length: Of ``bottleneck_mlp``, ``clipcap_mlp``, ``clipcap_transformer``, ``resampler``: number of prefix
            vectors.
        hidden: Of ``bottleneck_mlp``: width of the hidden layer.
        dropout: Of ``bottleneck_mlp``, ``clipcap_mlp``, ``clipcap_transformer``, ``linear_patch``, ``resampler``,
            ``cross_attention``: probability of dropping an activation while training.
        normalize: Of ``clipcap_mlp``, ``clipcap_transformer``: whether the embedding is brought to length 1 first;
            ClipCap trains without unless told so.
        clip_length: Of ``clipcap_transformer``: vectors that the embedding is spread over.
        layers: Of ``clipcap_transformer``, ``resampler``: number of layers.
        heads: Of ``clipcap_transformer``, ``cross_attention``: attention heads of each layer.
        pool: Of ``linear_patch``: side of the squares of patches that are averaged.
        head_width: Of ``resampler``, ``cross_attention``: width of one attention head.
        gated: Of ``cross_attention``: whether its gates open from zero, so that it begins as the language model alone;
            false for none.
    """

    prefix: ClassVar[str] = "mapper"

    name: str = MISSING
    prefix_length: int | None = setting(None, least=1)
    hidden: int | None = setting(None, least=1)
    dropout: float | None = setting(None, least=0, below=1)
    normalize: bool | None = None
    clip_length: int | None = setting(None, least=1)
    layers: int | None = setting(None, least=1)
    heads: int | None = setting(None, least=1)
    pool: int | None = setting(None, least=1)
    head_width: int | None = setting(None, least=1)
    gated: bool | None = None
