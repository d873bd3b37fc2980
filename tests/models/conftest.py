"""A captioner of real architectures at random weights, small enough for milliseconds."""

from __future__ import annotations

from typing import Any, TypeVar

import pytest
import torch
from torch import nn
from transformers import GPT2LMHeadModel

from clip_xai.models.backbones.backbone_builder import tiny_backbone
from clip_xai.models.backbones.open_clip_vit import OpenClipBackbone
from clip_xai.models.captioner import Captioner
from clip_xai.models.language_model import tiny_config
from clip_xai.models.mappers import build_mapper
from clip_xai.models.tokenizer import CaptionTokenizer

TEXTS = ["a brown lesion in the upper left, most likely melanoma.", "a small pink papule with scale", "two words"]
SMALL_CLIP = {
    "embed_dim": 16,
    "vision_cfg": {"image_size": 24, "patch_size": 8, "width": 32, "layers": 2, "head_width": 8},
    "text_cfg": {"context_length": 24, "vocab_size": 0, "width": 16, "heads": 2, "layers": 2},
}
SMALL_MAPPERS: dict[str, dict[str, Any]] = {
    "bottleneck_mlp": {"prefix_length": 4, "hidden": 16},
    "clipcap_mlp": {"prefix_length": 4},
    "clipcap_transformer": {"prefix_length": 4, "clip_length": 2, "layers": 2},
    "linear_patch": {},
    "resampler": {"prefix_length": 4},
    "cross_attention": {"heads": 2, "head_width": 8},
}
M = TypeVar("M", bound=nn.Module)


def shaken(module: M, by: float = 0.3) -> M:
    """Move every weight: fresh biases, norms and gates are 0 and 1, which would hide a forgotten one."""
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(by * torch.randn_like(parameter) * parameter.square().mean().sqrt().clamp(min=0.3))
    return module


@pytest.fixture(scope="session")
def tokenizer() -> CaptionTokenizer:
    return CaptionTokenizer.train(TEXTS * 3, vocabulary_size=300)


@pytest.fixture()
def backbone(tokenizer: CaptionTokenizer) -> OpenClipBackbone:
    torch.manual_seed(0)
    text = {**SMALL_CLIP["text_cfg"], "vocab_size": tokenizer.vocabulary_size}
    return tiny_backbone({**SMALL_CLIP, "text_cfg": text}, tokenizer).eval()


@pytest.fixture()
def captioner_parts(
    backbone: OpenClipBackbone, tokenizer: CaptionTokenizer
) -> tuple[OpenClipBackbone, GPT2LMHeadModel, CaptionTokenizer]:
    torch.manual_seed(1)
    language_model = GPT2LMHeadModel(tiny_config(tokenizer.vocabulary_size, tokenizer.eos_id)).eval()
    return backbone, language_model, tokenizer


def build_captioner(
    name: str, backbone: OpenClipBackbone, language_model: GPT2LMHeadModel, tokenizer: CaptionTokenizer
) -> Captioner:
    torch.manual_seed(2)
    neighbours = {"grid": backbone.grid, "blocks": language_model.config.n_layer}
    mapper = build_mapper(name, embed_dim=16, width=32, embedding_dim=128, **neighbours, **SMALL_MAPPERS[name])
    if name == "cross_attention":
        shaken(mapper)
    return Captioner(backbone, mapper, language_model, tokenizer, prompt="two").eval()


@pytest.fixture(params=list(SMALL_MAPPERS))
def captioner(request: pytest.FixtureRequest, captioner_parts: tuple) -> Captioner:
    return build_captioner(request.param, *captioner_parts)
