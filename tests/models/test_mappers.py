"""Every mapper against another way to the same numbers."""

from __future__ import annotations

from math import ceil

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import GPT2Config, GPT2LMHeadModel

from clip_xai.errors import UserError
from clip_xai.models.captioner import Captioner
from clip_xai.models.mappers import (
    BottleneckMLP,
    ClipCapMLP,
    ClipCapTransformer,
    CrossAttention,
    LinearPatch,
    Resampler,
    build_mapper,
    mappers,
)
from clip_xai.models.mappers.mapper_table import mapper_table
from tests.models.conftest import build_captioner, shaken
from tests.support.captions import log_prob


def parameters(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


@pytest.mark.parametrize(
    ("mapper", "count"),
    [
        (lambda: BottleneckMLP(512, 1024), 68_194_305),  # the original's log
        (lambda: ClipCapMLP(512, 768), 31_468_800),  # 512 x 3,840 and 3,840 x 7,680 with biases
        (lambda: ClipCapTransformer(512, 768), 41_745_408),  # 8 x 4,724,736 + 3,939,840 + 7,680
        (lambda: LinearPatch(768, 768, (14, 14)), 590_592),
        # A SmallCap of factor 4 (7.1 million) with gates, norms, memory projection and start vector.
        (lambda: CrossAttention(768, 768, (14, 14), 12), 12 * (4 * 768 * 192 + 3 * 192 + 768 + 1536 + 1) + 591_360),
    ],
)
def test_published_sizes(mapper: object, count: int) -> None:
    with torch.device("meta"):
        assert parameters(mapper()) == count  # type: ignore[operator]


def test_the_bottleneck_is_its_formula() -> None:
    torch.manual_seed(0)
    mapper = shaken(BottleneckMLP(5, 4, prefix_length=3, hidden=7)).eval()
    pooled = torch.randn(2, 5)
    found = mapper(pooled)
    for row, vector in zip(found, pooled, strict=True):
        unit = vector / vector.norm()
        hidden = mapper.hidden.weight @ unit + mapper.hidden.bias
        hidden = hidden * 0.5 * (1 + torch.erf(hidden / 2**0.5))
        slots = (mapper.output.weight @ hidden + mapper.output.bias).reshape(3, 4)
        for slot, expected in zip(row, slots, strict=True):
            normed = (expected - expected.mean()) / (expected.var(correction=0) + 1e-5).sqrt()
            normed = normed * mapper.norm.weight + mapper.norm.bias
            torch.testing.assert_close(slot, mapper.scale * normed, rtol=1e-4, atol=1e-5)


def test_clipcaps_mlp_is_its_formula() -> None:
    torch.manual_seed(0)
    mapper = ClipCapMLP(5, 4, prefix_length=3).eval()
    pooled = torch.randn(2, 5)
    hidden = torch.einsum("bd,hd->bh", pooled, mapper.hidden.weight) + mapper.hidden.bias
    assert hidden.shape == (2, 6)  # half of 3 x 4
    hidden = (hidden.exp() - (-hidden).exp()) / (hidden.exp() + (-hidden).exp())
    slots = torch.einsum("bh,oh->bo", hidden, mapper.output.weight) + mapper.output.bias
    torch.testing.assert_close(mapper(pooled), slots.reshape(2, 3, 4))


@pytest.mark.parametrize("cls", [ClipCapMLP, ClipCapTransformer])
def test_clipcaps_mappers_bring_the_embedding_to_length_1_where_that_is_asked(cls: type) -> None:
    built = []
    for settings in ({}, {"normalize": True}):
        torch.manual_seed(0)
        built.append(shaken(cls(5, 16, prefix_length=3, **settings)).eval())
    pooled = 7 * torch.randn(2, 5)
    unit = pooled / (pooled**2).sum(dim=1, keepdim=True) ** 0.5
    torch.testing.assert_close(built[1](pooled), built[0](unit))
    assert not torch.allclose(built[0](pooled), built[0](unit), atol=1e-3)


def test_clipcaps_transformer_equals_torchs_encoder() -> None:
    torch.manual_seed(0)
    mapper = shaken(ClipCapTransformer(5, 16, prefix_length=3, clip_length=2, layers=2, heads=4)).eval()
    pooled = torch.randn(2, 5)
    clip = F.linear(pooled, mapper.project.weight, mapper.project.bias).reshape(2, 2, 16)
    tokens = torch.cat([clip, mapper.latents.repeat(2, 1, 1)], dim=1)
    for layer in mapper.layers:
        peer = nn.TransformerEncoderLayer(16, 4, 32, 0.0, "relu", batch_first=True, norm_first=True).eval()
        attention = torch.cat([layer.query.weight, layer.key_value.weight])
        state = {
            "self_attn.in_proj_weight": attention, "self_attn.in_proj_bias": torch.zeros(48),
            "self_attn.out_proj.weight": layer.output.weight, "self_attn.out_proj.bias": layer.output.bias,
            "linear1.weight": layer.mlp[0].weight, "linear1.bias": layer.mlp[0].bias,
            "linear2.weight": layer.mlp[2].weight, "linear2.bias": layer.mlp[2].bias,
            "norm1.weight": layer.norm_attention.weight, "norm1.bias": layer.norm_attention.bias,
            "norm2.weight": layer.norm_mlp.weight, "norm2.bias": layer.norm_mlp.bias,
        }  # fmt: skip
        peer.load_state_dict(state)
        tokens = peer(tokens)
    torch.testing.assert_close(mapper(pooled), tokens[:, 2:], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("class_token", [True, False])
def test_the_resampler_equals_torchs_attention(class_token: bool) -> None:
    torch.manual_seed(0)
    mapper = shaken(Resampler(6, 16, prefix_length=3, layers=2, head_width=4, class_token=class_token)).eval()
    tokens = torch.randn(2, 5, 6)
    context = F.linear(tokens, mapper.project.weight, mapper.project.bias)
    whole = [image[0] if class_token else sum(image) / 5 for image in tokens]
    latents = torch.stack([torch.stack([slot + mapper.start.weight @ one for slot in mapper.latents]) for one in whole])
    for layer in mapper.layers:
        normed = layer.norm_latents(latents)
        both = torch.cat([layer.norm_context(context), normed], dim=1)
        peer = nn.MultiheadAttention(16, 4, bias=False, batch_first=True).eval()
        peer.load_state_dict(
            {
                "in_proj_weight": torch.cat([layer.query.weight, layer.key_value.weight]),
                "out_proj.weight": layer.output.weight,
            }
        )
        latents = latents + peer(normed, both, both, need_weights=False)[0]
        hidden = layer.mlp[0](latents) @ layer.mlp[1].weight.T + layer.mlp[1].bias
        latents = latents + F.gelu(hidden) @ layer.mlp[3].weight.T + layer.mlp[3].bias
    torch.testing.assert_close(mapper(tokens), mapper.norm(latents), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("grid", "pool"), [((4, 6), 2), ((3, 3), 2), ((5, 4), 3), ((3, 2), 1)])
def test_a_linear_slot_is_the_mean_of_its_square_alone(grid: tuple[int, int], pool: int) -> None:
    torch.manual_seed(0)
    mapper = LinearPatch(4, 6, grid, pool).eval()
    patches = torch.randn(2, grid[0] * grid[1], 4)
    found = mapper(patches)
    columns = ceil(grid[1] / pool)
    assert found.shape == (2, mapper.prefix_length, 6)
    for slot in range(mapper.prefix_length):
        top, left = slot // columns * pool, slot % columns * pool
        square = [
            row * grid[1] + column
            for row in range(top, min(top + pool, grid[0]))
            for column in range(left, min(left + pool, grid[1]))
        ]
        expected = patches[:, square].mean(1) @ mapper.project.weight.T + mapper.project.bias
        torch.testing.assert_close(found[:, slot], expected, rtol=1e-4, atol=1e-5)


def peer_of(language_model: GPT2LMHeadModel, mapper: CrossAttention) -> GPT2LMHeadModel:
    """transformers' own GPT-2 with cross-attention, with the same weights."""
    config = GPT2Config(**{**language_model.config.to_diff_dict(), "add_cross_attention": True})
    peer = GPT2LMHeadModel(config).eval()
    assert not peer.load_state_dict(language_model.state_dict(), strict=False).unexpected_keys
    for block, layer in zip(peer.transformer.h, mapper.layers, strict=True):
        pairs = (
            (block.crossattention.q_attn, layer.query),
            (block.crossattention.c_attn, layer.key_value),
            (block.crossattention.c_proj, layer.output),
        )
        for conv, linear in pairs:
            conv.weight.data, conv.bias.data = linear.weight.data.T.contiguous(), linear.bias.data
        block.ln_cross_attn.load_state_dict(layer.norm.state_dict())
    return peer


@pytest.mark.parametrize("gated", [False, True])
def test_cross_attention_equals_that_of_transformers(captioner_parts: tuple, gated: bool) -> None:
    backbone, language_model, tokenizer = captioner_parts
    torch.manual_seed(3)
    config = language_model.config
    settings = {"heads": config.n_head, "head_width": config.n_embd // config.n_head, "gated": gated}
    mapper = shaken(CrossAttention(32, config.n_embd, (3, 3), config.n_layer, **settings)).eval()
    captioner = Captioner(backbone, mapper, language_model, tokenizer, prompt="two").eval()
    if gated:
        for layer in mapper.layers:
            nn.init.constant_(layer.gate, 20.0)  # tanh 1: the gate wide open
    read, ids = torch.randn(2, 9, 32), captioner.encode_captions(["a small pink papule", "two words"])
    prefix = captioner.prefix(read)
    memory, prompt = prefix[:, 1:10].contiguous(), prefix[:, 10:]
    torch.testing.assert_close(memory, F.linear(read, mapper.project.weight, mapper.project.bias))
    words = language_model.transformer.wte(ids.clamp(min=0))
    inputs = torch.cat([prefix[:, :1], prompt, words[:, :-1]], dim=1)
    peer = peer_of(language_model, mapper)
    expected = peer(inputs_embeds=inputs, encoder_hidden_states=memory, use_cache=False).logits
    found = captioner.caption_logits(prefix, words)
    torch.testing.assert_close(found, expected[:, prompt.shape[1] :], rtol=1e-4, atol=1e-4)


def test_a_closed_gate_leaves_the_language_model_as_it_was(captioner_parts: tuple) -> None:
    backbone, language_model, tokenizer = captioner_parts
    config = language_model.config
    mapper = CrossAttention(32, config.n_embd, (3, 3), config.n_layer).eval()
    captioner = Captioner(backbone, mapper, language_model, tokenizer).eval()
    ids = captioner.encode_captions(["a small pink papule"])
    words = language_model.transformer.wte(ids)
    expected = language_model(inputs_embeds=torch.cat([mapper.latents[None], words[:, :-1]], 1)).logits
    torch.testing.assert_close(captioner.caption_logits(captioner.prefix(torch.randn(1, 9, 32)), words), expected)
    assert not any(block._forward_pre_hooks or block.attn._forward_hooks for block in language_model.transformer.h)


@pytest.mark.parametrize("name", mappers)
def test_log_probabilities_differentiate_to_what_the_mapper_reads(name: str, captioner_parts: tuple) -> None:
    captioner = build_captioner(name, *captioner_parts).double()
    torch.manual_seed(4)
    shape = (1, 16) if captioner.reads == "pooled" else (1, 9, 32)
    read = torch.randn(shape, dtype=torch.float64, requires_grad=True)
    ids = captioner.encode_captions(["a small pink papule"])
    gradient: Tensor
    (gradient,) = torch.autograd.grad(log_prob(captioner, read, ids).sum(), read)
    assert gradient.abs().amax(dim=-1).min() > 0  # every patch has a say
    step = 1e-5 * torch.randn(shape, dtype=torch.float64)
    with torch.no_grad():
        slope = log_prob(captioner, read + step, ids) - log_prob(captioner, read - step, ids)
    torch.testing.assert_close(slope, 2 * (gradient * step).sum().reshape(1), rtol=1e-5, atol=1e-12)


@pytest.mark.parametrize("name", mappers)
def test_what_a_mapper_says_of_itself_is_true(name: str) -> None:
    mapper = build_mapper(name, embed_dim=16, width=24, embedding_dim=64, grid=(3, 4), blocks=2).eval()
    read = torch.randn(2, 16) if mapper.reads == "pooled" else torch.randn(2, 12, 24)
    assert mapper(read).shape == (2, mapper.prefix_length, 64)
    assert 0 <= mapper.memory_length < mapper.prefix_length
    assert mapper.idea


def test_an_unknown_mapper_is_refused() -> None:
    with pytest.raises(UserError, match=r"^mapper\.name=nothing: there is no mapper 'nothing'; choose one of bott"):
        build_mapper("nothing", embed_dim=1, width=1, embedding_dim=1)
    with pytest.raises(UserError, match=r"^mapper\.heads: bottleneck_mlp does not have this setting; its own are p"):
        build_mapper("bottleneck_mlp", embed_dim=1, width=1, embedding_dim=1, heads=3)
    with pytest.raises(UserError, match=r"^mapper\.hidden=0: give at least 1$"):
        build_mapper("bottleneck_mlp", embed_dim=1, width=1, embedding_dim=1, hidden=0)


@pytest.mark.parametrize("name", ["linear_patch", "cross_attention"])
def test_a_mapper_that_needs_its_neighbours_says_so(name: str) -> None:
    with pytest.raises(ValueError, match=f"the mapper {name} needs grid"):
        build_mapper(name, embed_dim=16, width=24, embedding_dim=64)


def test_heads_must_divide_the_embedding() -> None:
    with pytest.raises(ValueError, match="does not divide into 8 heads"):
        ClipCapTransformer(4, 12)
    with pytest.raises(ValueError, match="heads of 64"):
        Resampler(4, 32)


def test_the_table_of_mappers_counts_them() -> None:
    counted = {row.split("`")[1]: row for row in mapper_table().splitlines()[2:]}
    assert counted["bottleneck_mlp"].endswith("| 68.2 M |")  # the original's, beside GPT-2 medium
    assert set(counted) == set(mappers)
