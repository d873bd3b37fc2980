"""A model small enough for the examples in docstrings."""

from __future__ import annotations

import torch
from torch import Tensor

from clip_xai.models.backbones.backbone_builder import tiny_backbone
from clip_xai.models.backbones.open_clip_vit import OpenClipBackbone
from clip_xai.models.tokenizer import CaptionTokenizer
from clip_xai.xai.target import SimilarityTarget

TEXTS = ("a brown lesion", "melanoma")


def example() -> tuple[OpenClipBackbone, Tensor, SimilarityTarget]:
    """Return a CLIP of two blocks at random weights, two images of noise and the similarity to two texts.

    Example:
        >>> backbone, pixels, target = example()
        >>> backbone.grid, tuple(pixels.shape), target.labels
        ((4, 4), (2, 3, 24, 24), ['a brown lesion', 'melanoma'])
    """
    tokenizer = CaptionTokenizer.train(list(TEXTS), vocabulary_size=262)
    vision = {"image_size": 24, "patch_size": 6, "width": 16, "layers": 2, "head_width": 8}
    text = {"context_length": 16, "vocab_size": tokenizer.vocabulary_size, "width": 16, "heads": 2, "layers": 2}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        backbone = tiny_backbone({"embed_dim": 16, "vision_cfg": vision, "text_cfg": text}, tokenizer)
        pixels = torch.randn(2, 3, 24, 24)
    backbone.eval().requires_grad_(False)
    return backbone, pixels, SimilarityTarget.from_texts(backbone, TEXTS)
