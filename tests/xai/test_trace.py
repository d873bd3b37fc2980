from __future__ import annotations

import pytest
import torch
from torch import Tensor

from clip_xai.errors import UserError
from clip_xai.models.backbones.open_clip_vit import OpenClipBackbone
from clip_xai.models.backbones.recording import batched_vjp
from tests.xai.conftest import TEXTS, Build, assert_close

TOWERS = [
    {},
    {"pool_type": "avg"},
    {"final_ln_after_pool": True},
    {"pool_type": "avg", "final_ln_after_pool": True},
    {"no_ln_pre": True, "ls_init_value": 0.5},
]


@pytest.mark.parametrize("vision", TOWERS)
@pytest.mark.parametrize("reads", ["pooled", "patches", "tokens"])
@pytest.mark.parametrize("record", [(), (-1,), (0, 2), None])
def test_a_trace_reads_what_the_tower_gives(
    build_backbone: Build, pixels: Tensor, vision: dict, reads: str, record: tuple[int, ...] | None
) -> None:
    backbone = build_backbone(**vision)
    trace = backbone.trace(pixels, reads=reads, record=record)
    assert_close(trace.read, backbone.features(pixels).read(reads))
    assert not trace.read.requires_grad


def test_activations_are_those_inside_the_modules(backbone: OpenClipBackbone, pixels: Tensor) -> None:
    trace = backbone.trace(pixels, reads="patches", record=None)
    tokens = backbone.visual._embeds(pixels)
    for index, block in enumerate(backbone.visual.transformer.resblocks):
        normed = block.ln_1(tokens)
        attended, weights = block.attn(normed, normed, normed, need_weights=True, average_attn_weights=False)
        opened = trace.block(index)
        assert_close(opened.normed, normed)
        assert_close(opened.attention(), weights)
        assert_close(block.attn.out_proj(opened.context.transpose(1, 2).flatten(2)), attended)
        tokens = block(tokens)


@pytest.mark.parametrize("reads", ["pooled", "patches", "tokens"])
@pytest.mark.parametrize(
    "points", [[(-1, "context")], [(1, "normed"), (2, "context")], [(0, "context"), (2, "normed")]]
)
def test_gradients_match_those_of_the_whole_graph(
    backbone: OpenClipBackbone, pixels: Tensor, reads: str, points: list[tuple[int, str]]
) -> None:
    trace = backbone.trace(pixels, reads=reads, watch=points)
    cotangents = torch.randn(2, 5, *trace.read.shape[1:])
    found = trace.gradients(cotangents, points)
    for block, name in points:
        layer = backbone.visual.transformer.resblocks[block]
        inside: list[Tensor] = []
        part = layer.ln_1 if name == "normed" else layer.attn
        if name == "normed":
            handle = part.register_forward_hook(lambda module, args, out, kept=inside: kept.append(out))
        else:
            # The fused kernel has no module for the context; its gradient follows from that of attention's output.
            handle = part.register_forward_hook(lambda module, args, out, kept=inside: kept.append(out[0]))
        read = backbone.features(pixels.clone().requires_grad_()).read(reads)
        handle.remove()
        for target in range(5):
            (gradient,) = torch.autograd.grad(read, inside[0], cotangents[:, target], retain_graph=True)
            if name == "context":
                gradient = (gradient @ layer.attn.out_proj.weight).unflatten(-1, (4, 8)).transpose(1, 2)
                gradient = gradient[:, :, : found[block, name].shape[3]]
            assert_close(found[block, name][:, target], gradient)


def test_an_opened_last_block_computes_the_class_row_alone(backbone: OpenClipBackbone, pixels: Tensor) -> None:
    assert backbone.trace(pixels, watch=[(-1, "context")]).block(-1).query.shape == (2, 4, 1, 8)
    assert backbone.trace(pixels, reads="patches", watch=[(-1, "context")]).block(-1).query.shape == (2, 4, 17, 8)


@pytest.mark.parametrize("guard", [torch.no_grad, torch.inference_mode])
def test_callers_without_gradients_are_served_and_left_as_they_were(
    backbone: OpenClipBackbone, pixels: Tensor, guard: type
) -> None:
    points = [(1, "normed")]
    expected = backbone.trace(pixels, watch=points).gradients(torch.ones(2, 1, 16), points)[1, "normed"]
    with guard():
        inner = backbone.trace(pixels * 1, watch=points)
        assert not torch.is_grad_enabled()
        found = inner.gradients(torch.ones(2, 1, 16), points)[1, "normed"]
    assert torch.is_grad_enabled() and not torch.is_inference_mode_enabled()
    assert torch.equal(found, expected)


def test_traces_nest(backbone: OpenClipBackbone, pixels: Tensor) -> None:
    points = [(1, "context")]
    outer = backbone.trace(pixels, watch=points)
    inner = backbone.trace(pixels.flip(0), watch=points)
    one = torch.ones(2, 1, 16)
    assert_close(outer.gradients(one, points)[1, "context"], inner.gradients(one, points)[1, "context"].flip(0))


def test_vectors_pulled_back_in_chunks_are_those_pulled_back_at_once() -> None:
    leaf = torch.randn(3, 4, requires_grad=True)
    output, cotangents = leaf.sin().cumsum(1), torch.randn(3, 7, 4)
    whole = batched_vjp(output, [leaf], cotangents)[0]
    for row in range(7):
        assert_close(whole[:, row], torch.autograd.grad(output, leaf, cotangents[:, row], retain_graph=True)[0])
    assert torch.equal(batched_vjp(output, [leaf], cotangents, chunk_size=2)[0], whole)
    other = torch.randn(3, 2, requires_grad=True)  # of which the output does not know
    both = batched_vjp(output, [leaf, other], cotangents)
    assert torch.equal(both[0], whole) and torch.equal(both[1], torch.zeros(3, 7, 2))
    assert torch.equal(batched_vjp(output, [other], cotangents[:, :1])[0], torch.zeros(3, 1, 2))


def test_vectors_are_pulled_back_in_halves_when_memory_runs_out() -> None:
    calls: list[bool] = []

    class Greedy(torch.autograd.Function):
        @staticmethod
        def forward(ctx: object, value: Tensor) -> Tensor:
            return value * 2

        @staticmethod
        def backward(ctx: object, gradient: Tensor) -> Tensor:
            calls.append(len(calls) >= 2)
            if not calls[-1]:
                raise torch.OutOfMemoryError("asked for too much")
            return gradient * 2

    leaf = torch.randn(2, 4, requires_grad=True)
    cotangents = torch.randn(2, 7, 4)
    found = batched_vjp(Greedy.apply(leaf), [leaf], cotangents, chunk_size=7)[0]
    assert calls == [False, False, True, True, True, True]  # 7 fails, 4 fails, then 2, 2, 2 and 1
    assert torch.equal(found, cotangents * 2)


def test_the_text_trace_is_the_text_tower(backbone: OpenClipBackbone) -> None:
    ids = backbone.tokenize(TEXTS)
    trace = backbone.trace_text(ids)
    assert_close(trace.read.detach(), backbone.encode_tokens(ids))
    assert_close(trace.inputs.detach(), backbone.model.token_embedding(ids))


def test_what_cannot_be_traced_is_refused(build_backbone: Build, pixels: Tensor) -> None:
    with pytest.raises(UserError, match="cannot be traced"):
        build_backbone(qk_norm=True).trace(pixels)
    with pytest.raises(UserError, match="pools by attention twice"):
        build_backbone(attentional_pool="cascade", attn_pooler_heads=4).trace(pixels)
    with pytest.raises(UserError, match="3 blocks: choose a layer from -3 to 2"):
        build_backbone().trace(pixels, record=(3,))
    with pytest.raises(ValueError, match="reads"):
        build_backbone().trace(pixels, reads="words")
