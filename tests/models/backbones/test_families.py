"""Every family at a small size: the adapter's numbers are the library's own, and its trace keeps the contract."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import timm
import torch
from open_clip.timm_model import TimmModel
from torch import Tensor
from transformers import (
    BertModel,
)

from clip_xai.errors import UserError
from clip_xai.models.backbones.bert import BertText, BertTower
from clip_xai.models.backbones.huggingface import (
    SiglipTower,
)
from clip_xai.models.backbones.opaque import OpaqueTower
from clip_xai.models.backbones.panderm import PanDermVisionTransformer
from clip_xai.models.backbones.timm_vit import TimmVisionTower
from clip_xai.models.backbones.tower import READS, ImageTower
from clip_xai.models.backbones.transformer import TextTower, TextTrace, TransformerTower
from tests.support.tower_families import (
    STAGED,
    TEXT_TOWERS,
    TRANSFORMERS,
    Oracle,
    bert_config,
    build_clip,
    build_panderm,
    build_resnet,
    build_siglip,
    build_swin,
    build_timm,
    build_timm_mean,
    siglip,
    timm_tower,
    token_ids,
)
from tests.support.towers import assert_close, check_trace, pixels_for, shaken


@pytest.mark.parametrize("build", [*TRANSFORMERS, *STAGED])
@torch.no_grad()
def test_features_are_those_of_the_library(build: Callable[[], tuple[ImageTower, Oracle]]) -> None:
    tower, oracle = build()
    pixels = pixels_for(tower)
    features = tower.features(pixels)
    assert_close(features.pooled, oracle(pixels))
    assert features.pooled.shape == (2, tower.embed_dim)
    assert features.patches.shape == (2, tower.grid[0] * tower.grid[1], tower.width)


@pytest.mark.parametrize("build", TRANSFORMERS)
def test_the_trace_of_a_transformer_keeps_the_contract(build: Callable[[], tuple[ImageTower, Oracle]]) -> None:
    tower = build()[0]
    assert isinstance(tower, TransformerTower)
    check_trace(tower)
    trace = tower.trace(pixels_for(tower), reads="patches", record=None, watch=[(-1, "normed"), (-1, "context")])
    tokens = tower.prefix_tokens + tower.grid[0] * tower.grid[1]
    assert trace.family == "transformer" and trace.depth == 3 and trace.grid_of(0) == tower.grid
    for index in range(3):
        opened = trace.block(index)
        attention = opened.attention()
        assert attention.shape == (2, 4, tokens, tokens)
        assert_close(attention.sum(-1), torch.ones(2, 4, tokens))
        # What attention gives is the probabilities times the values: the kernel and the probabilities agree.
        assert_close(attention @ opened.value, opened.context)
        assert opened.normed.shape == opened.output.shape == (2, tokens, tower.width)
    cotangents = torch.randn(2, 2, *trace.read.shape[1:])
    gradients = trace.gradients(cotangents, [(-1, "normed"), (-1, "context")])
    assert gradients[-1, "context"].shape == (2, 2, 4, tokens, tower.width // 4)
    assert gradients[-1, "normed"].abs().max() > 0


@pytest.mark.parametrize("build", STAGED)
def test_the_trace_of_a_staged_tower_keeps_the_contract(build: Callable[[], tuple[ImageTower, Oracle]]) -> None:
    tower, oracle = build()
    pixels = pixels_for(tower)
    features = tower.features(pixels)
    depth = len(tower.grids)  # type: ignore[attr-defined]
    for reads in READS:
        trace = tower.trace(pixels, reads=reads, record=None, watch=[(0, "output"), (-1, "output")])
        assert_close(trace.read.detach(), features.read(reads))
        assert trace.depth == depth
        for index in range(depth):
            block = trace.block(index)
            rows, columns = trace.grid_of(index)
            assert block.output.shape[:2] == (2, rows * columns)
            assert block.query is None and block.normed is None
            with pytest.raises(UserError, match="no attention over all patches"):
                block.attention()
        assert trace.grid_of(-1) == tower.grid
    with pytest.raises(UserError, match="only the output of its blocks"):
        tower.trace(pixels, watch=[(0, "context")])
    with pytest.raises(ValueError, match="reads is 'words'"):
        tower.trace(pixels, reads="words")
    # The gradient at the first stage's output against the whole graph of the library's own pass.
    trace = tower.trace(pixels, watch=[(0, "output")])
    cotangent = torch.randn(2, 1, 16)
    found = trace.gradients(cotangent, [(0, "output")])[0, "output"][:, 0]
    kept: list[Tensor] = []
    first = tower.module.layer1 if tower.family == "convolutional" else tower.module.model.encoder.layers[0].blocks[0]
    handle = first.register_forward_hook(
        lambda module, args, output: kept.append(output[0] if isinstance(output, tuple) else output)
    )
    read = oracle(pixels.clone().requires_grad_())
    handle.remove()
    (expected,) = torch.autograd.grad(read, kept[0], cotangent[:, 0])
    assert_close(found, expected.flatten(2).transpose(1, 2) if expected.ndim == 4 else expected)


@torch.no_grad()
def test_the_outputs_of_the_stages_are_in_picture_order() -> None:
    tower, _ = build_swin()
    pixels = pixels_for(tower)
    swin = tower.module.model
    hidden = swin(pixels, output_hidden_states=True)
    trace = tower.trace(pixels, record=(-1,))
    assert_close(swin.layernorm(trace.block(-1).output), hidden.last_hidden_state)
    tower, _ = build_resnet()
    pixels = pixels_for(tower)
    maps = tower.module.forward_intermediates(pixels)["image_intermediates"]
    trace = tower.trace(pixels, record=None)
    for index in range(4):
        expected = maps[index + 1]
        assert trace.grid_of(index) == tuple(expected.shape[2:])
        assert_close(trace.block(index).output, expected.flatten(2).transpose(1, 2))


def test_the_attention_pools_are_opened() -> None:
    tower, _ = build_resnet()
    pixels = pixels_for(tower)
    trace = tower.trace(pixels, watch=[("pool", "context")])
    pool = trace.pool
    assert pool is not None and pool.attention().shape == (2, 8, 1, 5)
    assert_close(pool.attention() @ pool.value.detach(), pool.context.detach())
    assert trace.gradients(torch.ones(2, 1, 16), [("pool", "context")])["pool", "context"].shape == (2, 1, 8, 1, 32)
    model = siglip()
    siglip_tower = SiglipTower(model)
    pixels = pixels_for(siglip_tower)
    pool = siglip_tower.trace(pixels, record=None).pool
    assert pool is not None
    head, normed = model.vision_model.head, pool.normed
    attended, weights = head.attention(head.probe.repeat(2, 1, 1), normed, normed, average_attn_weights=False)
    assert_close(pool.attention(), weights)
    assert_close(pool.output, attended)
    assert siglip_tower.supports == {"attention", "output_gradients"}


@pytest.mark.parametrize(
    ("build", "size"),
    [(build_timm, 36), (build_timm_mean, 36), (build_clip, 36), (build_siglip, 36), (build_panderm, 36),
     (build_resnet, 128), (build_swin, 96)],
)  # fmt: skip
def test_larger_inputs_leave_the_stored_weights_alone(
    build: Callable[[], tuple[ImageTower, Oracle]], size: int
) -> None:
    native, _ = build()
    before = {key: value.clone() for key, value in native.module.state_dict().items()}
    wrapped = getattr(native, "model", native.module)
    tower = type(native)(wrapped, size)  # type: ignore[call-arg]
    features = tower.features(pixels_for(tower))
    assert features.patches.shape == (2, tower.grid[0] * tower.grid[1], native.width)
    assert tower.grid == (native.grid[0] * size // native.image_size,) * 2
    if isinstance(tower, TransformerTower):
        check_trace(tower)
    assert all(torch.equal(value, before[key]) for key, value in native.module.state_dict().items())


def test_timm_resamples_positions_alike() -> None:
    visual = shaken(timm_tower())
    tower = TimmVisionTower(visual, 36)
    other = timm_tower(img_size=36)
    state = {key: value.clone() for key, value in visual.state_dict().items()}
    positions = timm.layers.resample_abs_pos_embed(state["trunk.pos_embed"], (6, 6), num_prefix_tokens=1)
    state["trunk.pos_embed"] = positions
    other.load_state_dict(state)
    assert_close(tower.features(pixels_for(tower)).pooled, other.eval()(pixels_for(tower)))


@torch.no_grad()
def test_other_timm_trunks_encode_and_say_that_they_cannot_be_opened() -> None:
    visual = shaken(TimmModel("test_nfnet", embed_dim=16, image_size=96, pool="", proj="linear"))
    tower = OpaqueTower(visual)
    features = tower.features(pixels_for(tower))
    assert_close(features.pooled, visual(pixels_for(tower)))
    expected = visual.trunk.forward_features(pixels_for(tower))
    assert_close(features.patches, expected.flatten(2).transpose(1, 2))
    assert tower.supports == frozenset() and tower.grid == tuple(expected.shape[2:])
    with pytest.raises(UserError, match="choose occlusion"):
        tower.trace(pixels_for(tower))


@pytest.mark.parametrize("build", TEXT_TOWERS, ids=["bert-class", "bert-mean", "medclip", "clip", "siglip"])
def test_text_towers_and_their_traces_are_the_librarys(build: Callable[[], tuple[TextTower, Oracle]]) -> None:
    tower, oracle = build()
    ids = token_ids()
    expected = oracle(ids).detach()
    assert_close(tower.encode(ids).detach(), expected)
    points = [(0, "output"), (1, "context"), (-1, "normed")]
    trace = TextTrace(tower, ids, record=None, watch=points)
    assert_close(trace.read.detach(), expected)
    for index in range(3):
        opened = trace.block(index)
        assert_close(opened.attention().sum(-1), torch.ones(3, 2, 12))
        assert_close(opened.attention() @ opened.value.detach(), opened.context.detach())
    cotangents = torch.randn(3, 2, expected.shape[1])
    gradients = trace.gradients(cotangents, points)
    # The rest of the tower behind the first block, by the layers' own forward pass.
    first = trace.block(0).output.detach().requires_grad_()
    outputs = [tower.embed(tower.embeddings(ids)).detach(), first]
    for block in tower.blocks[1:]:
        outputs.append(block.run(outputs[-1], tower.mask(ids)))
    read = tower.pooled(outputs, ids)
    for column in range(2):
        (whole,) = torch.autograd.grad(read, first, cotangents[:, column], retain_graph=True)
        assert_close(gradients[0, "output"][:, column], whole)
    inputs = trace.gradients(cotangents)
    leaf = tower.embeddings(ids).detach().requires_grad_()
    (whole,) = torch.autograd.grad(_read_at(tower, ids, leaf), leaf, cotangents[:, 0])
    assert_close(inputs[:, 0], whole)


def _read_at(tower: TextTower, ids: Tensor, inputs: Tensor) -> Tensor:
    outputs = [tower.embed(inputs)]
    for block in tower.blocks:
        outputs.append(block.run(outputs[-1], tower.mask(ids)))
    return tower.pooled(outputs, ids)


@torch.no_grad()
def test_padding_changes_no_text_but_siglips() -> None:
    for build in TEXT_TOWERS[:4]:
        tower, _ = build()
        ids = token_ids()[:1]
        assert_close(tower.encode(ids), tower.encode(ids[:, :4]))


def test_positions_of_panderm_are_sines_and_cosines() -> None:
    table = PanDermVisionTransformer(24, 6, width=32, layers=1, heads=4).pos_embed[0]
    assert (table[0] == 0).all()
    row, column, channel = 2, 3, 5
    rate = 10_000 ** -(channel / 8)
    expected = torch.tensor([row * rate]).sin(), torch.tensor([column * rate]).cos()
    cell = table[1 + row * 4 + column]
    assert torch.allclose(cell[channel], expected[0]) and torch.allclose(cell[24 + channel], expected[1])


def test_bert_pads_are_told_by_the_configuration() -> None:
    config = bert_config()
    config.pad_token_id = 7
    tower = BertTower(BertText(config, 16, "mean", "linear").eval(), 12)
    ids = torch.tensor([[2, 5, 7, 7]])
    assert (tower.mask(ids)[0, 0, 0] < 0).tolist() == [False, False, True, True]
    assert isinstance(tower.bert, BertModel)
