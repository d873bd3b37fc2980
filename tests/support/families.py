"""One small tower of every family beside its own library's forward pass, which is all that the oracles use of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from unittest import mock

import pytest
import torch
from open_clip.model import CLIP
from torch import Tensor, nn

from clip_xai.data.preprocess import Preprocess
from clip_xai.models.backbones.clip import CLIPBackbone
from clip_xai.models.backbones.open_clip_vit import OpenClipVisionTower
from clip_xai.models.backbones.tower import ImageTower
from clip_xai.xai.target import SimilarityTarget
from tests.support.tower_families import (
    build_clip,
    build_panderm,
    build_resnet,
    build_siglip,
    build_swin,
    build_timm,
    build_timm_attention_pool,
    build_timm_mean,
)
from tests.support.towers import shaken


class Family(CLIPBackbone):
    """A backbone around the image tower of any family, without texts."""

    def __init__(self, tower: ImageTower) -> None:
        super().__init__(tower.module, tower, None, None, Preprocess(image_size=tower.image_size), "family")

    @property
    def logit_scale(self) -> Tensor:
        return torch.tensor(100.0)


def build_open_clip() -> tuple[ImageTower, Callable[[Tensor], Tensor]]:
    vision = {"image_size": 24, "patch_size": 6, "width": 32, "layers": 3, "head_width": 8}
    text = {"context_length": 8, "vocab_size": 16, "width": 16, "heads": 2, "layers": 1}
    visual = shaken(CLIP(embed_dim=16, vision_cfg=vision, text_cfg=text)).visual
    return OpenClipVisionTower(visual), visual


@dataclass
class Subject:
    """A tower, two images, three texts, and how its library sees them.

    Attributes:
        backbone: What explainers get.
        target: Similarities to random texts.
        pixels: Two images.
        embed: The library's own forward pass, images to embeddings.
        blocks: The library's blocks or stages, first to last.
        norms: In transformers, each block's norm in front of attention.
    """

    backbone: CLIPBackbone
    target: SimilarityTarget
    pixels: Tensor
    embed: Callable[[Tensor], Tensor]
    blocks: list[nn.Module]
    norms: list[nn.Module]

    @property
    def tower(self) -> ImageTower:
        return self.backbone.image_tower

    @property
    def read_at(self) -> list[nn.Module]:
        """Where class activation maps read: the norms of a transformer, else the blocks."""
        return self.norms or self.blocks

    def score(self, pixels: Tensor) -> Tensor:
        """Scores ``[B, T]`` by the library's forward pass."""
        return self.target.score(self.embed(pixels))

    def as_channels(self, output: Tensor | tuple[Tensor, ...]) -> Tensor:
        """A block's output as ``[B, C, h, w]``, patches only; gradients pass."""
        tokens = output[0] if isinstance(output, tuple) else output
        if tokens.ndim == 4:
            return tokens
        side = int((tokens.shape[1] - self.prefix) ** 0.5)
        return tokens[:, self.prefix :].unflatten(1, (side, side)).permute(0, 3, 1, 2)

    @property
    def prefix(self) -> int:
        return self.tower.prefix_tokens if self.norms else 0


def parts_of(tower: ImageTower) -> tuple[list[nn.Module], list[nn.Module]]:
    """A library's blocks, and the norms in front of their attention."""
    module = tower.module
    if tower.family == "convolutional":
        return [module.layer1, module.layer2, module.layer3, module.layer4], []
    if tower.family == "windowed":
        return [block for stage in module.model.encoder.layers for block in stage.blocks], []
    for holder, blocks, norm in (
        ("transformer", "resblocks", "ln_1"),
        ("trunk", "blocks", "norm1"),
        ("encoder", "layers", "layer_norm1"),
        ("", "blocks", "norm1"),
    ):
        inner = getattr(module, holder, None) if holder else module
        if inner is not None and hasattr(inner, blocks):
            found = list(getattr(inner, blocks))
            return found, [getattr(block, norm) for block in found]
    raise AssertionError(f"nobody told where {type(module).__name__} keeps its blocks")


def subject(build: Callable) -> Subject:
    torch.manual_seed(0)
    tower, embed = build()
    if build is build_panderm:  # its oracle has no modules to hook; that both are one, its own test shows
        embed = tower.module
    generator = torch.Generator().manual_seed(6)
    target = SimilarityTarget(torch.randn(3, tower.embed_dim, generator=generator), ["one", "other", "third"])
    pixels = torch.randn(2, 3, tower.image_size, tower.image_size, generator=generator)
    return Subject(Family(tower), target, pixels, embed, *parts_of(tower))


CLASS_TOKEN = [build_open_clip, build_timm, build_clip]
MEAN = [build_timm_mean, build_panderm]
POOLED = [build_timm_attention_pool, build_siglip]
TRANSFORMERS = [*CLASS_TOKEN, *MEAN, *POOLED]
STAGED = [build_resnet, build_swin]
EVERY = [*TRANSFORMERS, *STAGED]


def on(builds: list[Callable]) -> pytest.MarkDecorator:
    """Run a test, which takes ``build``, on some families."""
    return pytest.mark.parametrize("build", builds, ids=_name)


def mostly_slow(builds: list[Callable]) -> pytest.MarkDecorator:
    """Run a test of many passes on some families, on the first and the last two alone where time is short."""
    marked = [pytest.param(build, marks=pytest.mark.slow) for build in builds[1:-2]]
    return pytest.mark.parametrize("build", [builds[0], *marked, *builds[-2:]], ids=_name)


def _name(build: Callable) -> str:
    return build.__name__.removeprefix("build_")


@dataclass
class Attending:
    """One call of attention, written out: ``[B, H, R, S]``, ``[B, H, R, d]`` and so on, all in the library's graph."""

    query: Tensor
    key: Tensor
    value: Tensor
    attention: Tensor
    context: Tensor


@contextmanager
def eager_attention(masked: Tensor | None = None) -> Iterator[list[Attending]]:
    """Replace PyTorch's fused attention by sums written out, under whatever library calls it, and keep all of it.

    Args:
        masked: Tokens that nobody may attend to, bool ``[S]``.
    """
    calls: list[Attending] = []

    def attend(query: Tensor, key: Tensor, value: Tensor, *_: object, **options: object) -> Tensor:
        assert not options.get("is_causal") and not options.get("dropout_p") and options.get("attn_mask") is None
        products = query @ key.transpose(-2, -1) / query.shape[-1] ** 0.5
        if masked is not None:
            products = products.masked_fill(masked, -torch.inf)
        attention = products.softmax(dim=-1)
        context = attention @ value
        calls.append(Attending(query, key, value, attention, context))
        return context

    with mock.patch("torch.nn.functional.scaled_dot_product_attention", attend):
        yield calls
