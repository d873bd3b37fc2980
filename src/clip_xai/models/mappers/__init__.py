"""Mappers: from an image tower's features to what a language model reads before it writes."""

from clip_xai.models.mappers.base import Mapper, mappers
from clip_xai.models.mappers.clipcap_transformer import ClipCapTransformer
from clip_xai.models.mappers.cross_attention import CrossAttention
from clip_xai.models.mappers.linear_patch import LinearPatch
from clip_xai.models.mappers.mapper_builder import build_mapper
from clip_xai.models.mappers.mlp import BottleneckMLP, ClipCapMLP
from clip_xai.models.mappers.resampler import Resampler, ResamplerLayer

__all__ = [
    "BottleneckMLP",
    "ClipCapMLP",
    "ClipCapTransformer",
    "CrossAttention",
    "LinearPatch",
    "Mapper",
    "Resampler",
    "ResamplerLayer",
    "build_mapper",
    "mappers",
]
