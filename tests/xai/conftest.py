"""Towers and captioners of real architectures at random weights, small enough for milliseconds."""

from __future__ import annotations

from collections.abc import Callable

import open_clip
import pytest
import torch
from torch import Tensor
from transformers import GPT2Config, GPT2LMHeadModel

from clip_xai.data.preprocess import Preprocess
from clip_xai.models.backbones.open_clip_vit import OpenClipBackbone
from clip_xai.models.backbones.text_tokenizers import ByteLevelClipTokenizer
from clip_xai.models.captioner import Captioner
from clip_xai.models.mappers import build_mapper
from clip_xai.models.tokenizer import CaptionTokenizer
from clip_xai.xai.target import SimilarityTarget
from tests.support import towers

TEXTS = ["a brown lesion, upper left", "melanoma", "a well-circumscribed pink papule."]
CAPTION = "a brown lesion with scale, most likely melanoma."
Build = Callable[..., OpenClipBackbone]


def assert_close(found: Tensor, expected: Tensor, tolerance: float = 1e-5) -> None:
    """Equal to within the tolerance, relative to the largest expected value."""
    towers.assert_close(found, expected, tolerance)


@pytest.fixture(scope="session")
def tokenizer() -> CaptionTokenizer:
    return CaptionTokenizer.train([*TEXTS, CAPTION] * 3, vocabulary_size=290)


@pytest.fixture(scope="session")
def build_backbone(tokenizer: CaptionTokenizer) -> Build:
    def build(layers: int = 3, **vision: object) -> OpenClipBackbone:
        torch.manual_seed(0)
        model = open_clip.CLIP(
            embed_dim=16,
            vision_cfg={
                "image_size": 24, "patch_size": 6, "width": 32, "layers": layers, "head_width": 8, **vision,
            },
            text_cfg={
                "context_length": 32, "vocab_size": tokenizer.vocabulary_size, "width": 16, "heads": 2, "layers": 2,
            },
        )  # fmt: skip
        with torch.no_grad():
            # Fresh biases and LayerNorms are 0 and 1, which would hide a forgotten one.
            for parameter in model.parameters():
                parameter.add_(0.3 * torch.randn_like(parameter) * parameter.square().mean().sqrt().clamp(min=0.1))
        tokens = ByteLevelClipTokenizer(tokenizer, 32)
        return OpenClipBackbone(model, tokens, Preprocess(image_size=24), "small").eval().requires_grad_(False)

    return build


@pytest.fixture()
def backbone(build_backbone: Build) -> OpenClipBackbone:
    return build_backbone()


@pytest.fixture()
def pixels() -> Tensor:
    return torch.randn(2, 3, 24, 24, generator=torch.Generator().manual_seed(3))


@pytest.fixture()
def similarity(backbone: OpenClipBackbone) -> SimilarityTarget:
    return SimilarityTarget.from_texts(backbone, TEXTS)


@pytest.fixture(params=["bottleneck_mlp", "resampler"])
def captioner(request: pytest.FixtureRequest, backbone: OpenClipBackbone, tokenizer: CaptionTokenizer) -> Captioner:
    return build_captioner(request.param, backbone, tokenizer)


def build_captioner(
    mapper: str, backbone: OpenClipBackbone, tokenizer: CaptionTokenizer, prompt: str = "a"
) -> Captioner:
    torch.manual_seed(1)
    config = GPT2Config(
        vocab_size=tokenizer.vocabulary_size, n_positions=64, n_embd=32, n_layer=2, n_head=2, initializer_range=0.3
    )
    settings: dict[str, dict[str, int]] = {
        "bottleneck_mlp": {"prefix_length": 3, "hidden": 16},
        "resampler": {"prefix_length": 3, "head_width": 16, "layers": 1},
        "linear_patch": {},
    }
    built = build_mapper(mapper, embed_dim=16, width=32, embedding_dim=32, grid=backbone.grid, **settings[mapper])
    return Captioner(backbone, built, GPT2LMHeadModel(config), tokenizer, prompt=prompt).eval()
