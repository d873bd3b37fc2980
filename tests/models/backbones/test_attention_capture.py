"""Where each library hides or silently loses attention: the libraries' own behaviour beside what a trace gives.

Each test first shows the trap on the library itself, so that a release that closes it is noticed, then that a trace
has probabilities with gradients all the same: dScore/dAttention is the gradient at the context times the values.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from clip_xai.models.backbones.open_clip_vit import OpenClipVisionTower
from clip_xai.models.backbones.recording import VisualTrace
from clip_xai.models.backbones.transformer import TransformerTower, split_heads
from tests.models.backbones.test_open_clip_vit import small
from tests.support.tower_families import (
    build_clip,
    build_panderm,
    build_resnet,
    build_siglip,
    build_swin,
    build_timm,
)
from tests.support.towers import assert_close, pixels_for


def build_native() -> tuple[TransformerTower, Callable[[Tensor], Tensor]]:
    visual = small().visual
    return OpenClipVisionTower(visual), visual


def eager_gradient(tower: TransformerTower, pixels: Tensor, index: int, cotangent: Tensor) -> tuple[Tensor, Tensor]:
    """Probabilities of one block and the score's gradient there, by writing softmax(q k) v out in full."""
    tokens = tower.embed(pixels)
    kept: list[Tensor] = []
    for number, block in enumerate(tower.blocks):
        if number != index:
            tokens = block.run(tokens, None)
            continue
        query, key, value = block.query_key_value(block.normed(tokens), slice(None))
        attention = (query @ key.transpose(-2, -1) / query.shape[-1] ** 0.5).softmax(-1).detach().requires_grad_()
        kept.append(attention)
        tokens = block.finish(tokens, block.project((attention @ value).transpose(1, 2).flatten(2)))
    read = tower.pooled(tokens)
    (gradient,) = torch.autograd.grad((read * cotangent).sum(), kept[0])
    return kept[0].detach(), gradient


@pytest.mark.parametrize("build", [build_native, build_timm, build_clip, build_siglip, build_panderm])
def test_the_gradient_of_attention_follows_from_that_of_the_context(build: Callable[[], tuple]) -> None:
    tower = build()[0]
    pixels = pixels_for(tower)
    cotangent = torch.randn(2, tower.embed_dim)
    trace = tower.trace(pixels, watch=[(1, "context")])
    block = trace.block(1)
    found = trace.gradients(cotangent[:, None], [(1, "context")])[1, "context"][:, 0] @ block.value.transpose(-2, -1)
    attention, expected = eager_gradient(tower, pixels, 1, cotangent)
    assert_close(block.attention(), attention)
    assert_close(found, expected)


def test_the_fused_fast_path_calls_no_python_function(monkeypatch: pytest.MonkeyPatch) -> None:
    tower, visual = build_native()
    pixels = pixels_for(tower)
    calls: list[str] = []
    for name in ("multi_head_attention_forward", "scaled_dot_product_attention"):
        original = getattr(F, name)
        monkeypatch.setattr(
            F, name, lambda *args, kept=name, run=original, **kwargs: (calls.append(kept), run(*args, **kwargs))[1]
        )
    with torch.no_grad():
        expected = visual(pixels)
    assert calls == []  # whoever patches these functions sees nothing
    trace = tower.trace(pixels, record=None)
    assert_close(trace.read, expected)
    assert all(trace.block(index).attention().shape[1] == 4 for index in range(3))


def test_weights_that_multihead_attention_returns_have_no_gradient() -> None:
    tower, visual = build_native()
    kept: list[Tensor] = []
    attention = visual.transformer.resblocks[1].attn  # type: ignore[attr-defined]
    handles = [
        attention.register_forward_pre_hook(
            lambda module, args, kwargs: (args, {**kwargs, "need_weights": True, "average_attn_weights": False}),
            with_kwargs=True,
        ),
        attention.register_forward_hook(lambda module, args, output: kept.append(output[1])),
    ]
    read = visual(pixels_for(tower).requires_grad_())
    for handle in handles:
        handle.remove()
    (gradient,) = torch.autograd.grad(read.sum(), kept[0], allow_unused=True)
    assert gradient is None  # a side branch of the graph
    assert_close(tower.trace(pixels_for(tower), record=(1,)).block(1).attention(), kept[0].detach())


def test_timms_fused_attention_never_reaches_attn_drop() -> None:
    tower, visual = build_timm()
    pixels = pixels_for(tower)
    attention = tower.module.trunk.blocks[1].attn
    kept: list[Tensor] = []
    handle = attention.attn_drop.register_forward_hook(lambda module, args, output: kept.append(output))
    with torch.no_grad():
        expected = visual(pixels)
    assert attention.fused_attn and kept == []
    attention.fused_attn = False
    with torch.no_grad():
        assert_close(visual(pixels), expected)
    attention.fused_attn = True
    handle.remove()
    assert_close(tower.trace(pixels, record=(1,)).block(1).attention(), kept[0])
    assert attention.fused_attn


@torch.no_grad()
def test_transformers_gives_attention_in_eager_mode_alone() -> None:
    tower, _ = build_clip()
    pixels = pixels_for(tower)
    silent = tower.module(pixels, output_attentions=True).attentions
    assert not silent or all(attention is None for attention in silent)  # and no error
    trace = tower.trace(pixels, record=None, reads="patches")
    tower.module.set_attn_implementation("eager")
    spoken = tower.module(pixels, output_attentions=True).attentions
    for index in range(3):
        assert_close(trace.block(index).attention(), spoken[index])


@torch.no_grad()
def test_panderms_attention_written_out() -> None:
    tower, _ = build_panderm()
    trace = tower.trace(pixels_for(tower), record=(2,), reads="patches")
    block, attention = trace.block(2), tower.module.blocks[2].attn
    query, key, _ = (block.normed @ attention.qkv.weight.T).chunk(3, dim=-1)
    query = split_heads(query + attention.q_bias, 4) * 8**-0.5
    assert_close(block.attention(), (query @ split_heads(key, 4).transpose(-2, -1)).softmax(-1))


@pytest.mark.parametrize("build", [build_resnet, build_swin])
def test_resnets_and_swins_have_gradients_at_their_outputs_alone(build: Callable[[], tuple]) -> None:
    tower = build()[0]
    assert tower.supports == {"output_gradients"}
    trace: VisualTrace = tower.trace(pixels_for(tower), watch=[(-1, "output")])
    gradients = trace.gradients(torch.ones(2, 1, tower.embed_dim), [(-1, "output")])
    assert gradients[-1, "output"].abs().max() > 0
    assert isinstance(tower.module, nn.Module)
