from __future__ import annotations

import open_clip
import pytest
import torch
from open_clip.model import CLIP
from torch import Tensor

from clip_xai.errors import UserError
from clip_xai.models.backbones.open_clip_vit import OpenClipTextTower, OpenClipVisionTower
from clip_xai.models.backbones.transformer import TextTrace, resample_positions
from tests.support.towers import assert_close, check_trace, pixels_for, shaken

VISION = {"image_size": 24, "patch_size": 6, "width": 32, "layers": 3, "head_width": 8}
TEXT = {"context_length": 12, "vocab_size": 40, "width": 16, "heads": 2, "layers": 3}
POOLS = [
    {},
    {"pool_type": "avg"},
    {"pool_type": "avg", "final_ln_after_pool": True},
    {"attentional_pool": True, "attn_pooler_heads": 4, "attn_pooler_queries": 5},
    {"attentional_pool": True, "attn_pooler_heads": 4, "attn_pooler_queries": 5, "pool_type": "avg"},
]


def small(quick_gelu: bool = False, **vision: object) -> CLIP:
    torch.manual_seed(0)
    return shaken(CLIP(embed_dim=16, vision_cfg={**VISION, **vision}, text_cfg=TEXT, quick_gelu=quick_gelu))


@pytest.mark.parametrize("vision", POOLS)
def test_the_tower_and_its_trace_are_open_clips_own(vision: dict[str, object]) -> None:
    model = small(**vision)
    tower = OpenClipVisionTower(model.visual)
    assert_close(tower.features(pixels_for(tower)).pooled, model.encode_image(pixels_for(tower)))
    check_trace(tower)


def test_what_the_towers_support_follows_from_their_pooling() -> None:
    able = {"attention", "output_gradients"}
    assert OpenClipVisionTower(small().visual).supports == able | {"class_token"}
    assert OpenClipVisionTower(small(pool_type="avg").visual).supports == able


@torch.no_grad()
def test_the_attention_pool_is_opened() -> None:
    model = small(attentional_pool=True, attn_pooler_heads=4, attn_pooler_queries=5, pool_type="avg")
    tower = OpenClipVisionTower(model.visual)
    pixels = pixels_for(tower)
    trace = tower.trace(pixels, watch=[("pool", "context"), ("pool", "normed")])
    pool = model.visual.attn_pool
    tokens = tower.trace(pixels, record=(-1,)).block(-1).output
    normed, queries = pool.ln_k(tokens), pool.ln_q(pool.query).expand(2, -1, -1)
    attended, weights = pool.attn(queries, normed, normed, need_weights=True, average_attn_weights=False)
    assert trace.pool is not None
    assert_close(trace.pool.normed, normed)
    assert_close(trace.pool.attention(), weights)
    assert_close(trace.pool.output, attended)
    gradients = trace.gradients(torch.ones(2, 1, 16), [("pool", "context")])
    assert gradients["pool", "context"].shape == (2, 1, 4, 5, 4)
    assert tower.trace(pixels, reads="patches").pool is None
    with pytest.raises(UserError, match="attention pool"):
        OpenClipVisionTower(small().visual).trace(pixels, watch=[("pool", "context")])


def test_the_last_output_has_all_rows_though_one_was_computed() -> None:
    tower = OpenClipVisionTower(small().visual)
    pixels = pixels_for(tower)
    block = tower.trace(pixels, record=(-1,)).block(-1)
    assert block.computed.shape[1] == 1
    expected = tower.module.forward_intermediates(pixels, indices=1, output_fmt="NLC", output_extra_tokens=True)
    tokens = torch.cat([expected["image_intermediates_prefix"][0], expected["image_intermediates"][0]], dim=1)
    assert_close(block.output, tokens)
    watched = tower.trace(pixels, watch=[(-1, "output")])
    assert watched.block(-1).computed.shape[1] == 17
    assert watched.gradients(torch.ones(2, 1, 16), [(-1, "output")])[-1, "output"][:, :, 1:].abs().max() == 0


def test_a_single_token_projected_is_the_embedding() -> None:
    tower = OpenClipVisionTower(small().visual)
    pixels = pixels_for(tower)
    tokens = tower.trace(pixels, record=(-1,)).block(-1).output
    assert_close(tower.project(tokens)[:, 0], tower.features(pixels).pooled)
    block = tower.trace(pixels, reads="patches", record=(-1,)).block(-1)
    attended = tower.module.transformer.resblocks[-1].attn(*[block.normed] * 3, need_weights=False)[0]
    assert block.projected is not None
    assert_close(block.projected(block.context), attended)


@pytest.mark.parametrize("size", [36, 12])
def test_positions_are_resampled_as_open_clip_resamples_stored_ones(size: int) -> None:
    model = small()
    before = {key: value.clone() for key, value in model.visual.state_dict().items()}
    tower = OpenClipVisionTower(model.visual, size)
    other = CLIP(embed_dim=16, vision_cfg={**VISION, "image_size": size}, text_cfg=TEXT).eval()
    state = {key: value.clone() for key, value in model.state_dict().items()}
    open_clip.model.resize_pos_embed(state, other)
    other.load_state_dict(state)
    assert tower.grid == (size // 6, size // 6)
    features = tower.features(pixels_for(tower))
    assert_close(features.pooled, other.encode_image(pixels_for(tower)))
    assert features.patches.shape == (2, (size // 6) ** 2, 32)
    check_trace(tower)
    assert all(torch.equal(value, before[key]) for key, value in model.visual.state_dict().items())


def test_positions_of_the_own_grid_are_left_alone_and_the_resampling_can_be_learnt_through() -> None:
    positions = torch.randn(17, 8, requires_grad=True)
    assert resample_positions(positions, (4, 4), 1) is positions
    resample_positions(positions, (6, 6), 1).sum().backward()
    assert positions.grad is not None and (positions.grad != 0).all()


def test_an_image_size_that_patches_do_not_fill_is_refused() -> None:
    with pytest.raises(UserError, match="choose 24 or 30"):
        OpenClipVisionTower(small().visual, 25)


@pytest.fixture()
def ids() -> Tensor:
    ids = torch.randint(1, 38, (3, 12), generator=torch.Generator().manual_seed(0))
    for row, length in zip(ids, (4, 9, 12), strict=True):
        row[length - 1] = 39
        row[length:] = 0
    return ids


def test_the_text_tower_opens_like_the_image_tower(ids: Tensor) -> None:
    model = small(quick_gelu=True)
    tower = OpenClipTextTower(model)
    points = [(0, "normed"), (1, "context"), (-1, "output")]
    trace = TextTrace(tower, ids, record=None, watch=points)
    assert_close(trace.read.detach(), model.encode_text(ids))
    assert trace.read_rows is not None and trace.read_rows.tolist() == [3, 8, 11]
    tokens = model.token_embedding(ids) + model.positional_embedding
    for index, block in enumerate(model.transformer.resblocks):
        normed = block.ln_1(tokens)
        _, weights = block.attn(normed, normed, normed, attn_mask=model.attn_mask, average_attn_weights=False)
        assert_close(trace.block(index).attention(), weights)
        tokens = block(tokens, attn_mask=model.attn_mask)
        assert_close(trace.block(index).output.detach(), tokens)
    cotangents = torch.randn(3, 2, 16)
    found = trace.gradients(cotangents, points)
    last = trace.block(-1).output.detach().requires_grad_()
    read = model.ln_final(last)[torch.arange(3), torch.tensor([3, 8, 11])] @ model.text_projection
    for column in range(2):
        (expected,) = torch.autograd.grad(read, last, cotangents[:, column], retain_graph=True)
        assert_close(found[-1, "output"][:, column], expected)
    assert found[0, "normed"].shape == (3, 2, 12, 16) and found[1, "context"].shape == (3, 2, 2, 12, 8)
    assert trace.gradients(cotangents).shape == (3, 2, 12, 16)


def test_only_what_was_asked_for_is_there(ids: Tensor) -> None:
    tower = OpenClipVisionTower(small().visual)
    trace = tower.trace(pixels_for(tower), record=(1,))
    with pytest.raises(KeyError, match="not opened"):
        trace.block(0)
    with pytest.raises(KeyError, match="not watched"):
        trace.gradients(torch.ones(2, 1, 16), [(1, "normed")])
    with pytest.raises(ValueError, match="a point is one of"):
        tower.trace(pixels_for(tower), watch=[(0, "query")])
