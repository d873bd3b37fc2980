"""A captioner of real architectures at random weights, small enough for milliseconds."""

from __future__ import annotations

import pytest
import torch
from transformers import GPT2LMHeadModel

from clip_xai.models.backbones.build import tiny_backbone
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


@pytest.fixture(scope="session")
def tokenizer() -> CaptionTokenizer:
    return CaptionTokenizer.train(TEXTS * 3, vocabulary_size=300)


@pytest.fixture()
def backbone(tokenizer: CaptionTokenizer) -> OpenClipBackbone:
    torch.manual_seed(0)
    text = {**SMALL_CLIP["text_cfg"], "vocab_size": tokenizer.vocabulary_size}
    return tiny_backbone({**SMALL_CLIP, "text_cfg": text}, tokenizer).eval()


@pytest.fixture(params=["bottleneck_mlp", "resampler"])
def captioner(request: pytest.FixtureRequest, backbone: OpenClipBackbone, tokenizer: CaptionTokenizer) -> Captioner:
    torch.manual_seed(1)
    language_model = GPT2LMHeadModel(tiny_config(tokenizer.vocabulary_size, tokenizer.eos_id)).eval()
    settings = {"prefix_length": 4, "hidden": 16} if request.param == "bottleneck_mlp" else {"prefix_length": 4}
    mapper = build_mapper(request.param, embed_dim=16, width=32, embedding_dim=128, **settings)
    return Captioner(backbone, mapper, language_model, tokenizer, prompt="two").eval()
