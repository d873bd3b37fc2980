"""Every family at a small size: the adapter's numbers are the library's own, and its trace keeps the contract."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import timm
import torch
import torch.nn.functional as F
from open_clip.model import CLIP
from open_clip.timm_model import TimmModel
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn
from transformers import (
    BertConfig,
    BertModel,
    CLIPConfig,
    CLIPModel,
    SiglipConfig,
    SiglipModel,
    SwinConfig,
    SwinModel,
)

from clip_xai.errors import UserError
from clip_xai.models.backbones.bert import BertText, BertTower, MedClipText
from clip_xai.models.backbones.huggingface import (
    HuggingFaceClipTextTower,
    HuggingFaceClipTower,
    SiglipTextTower,
    SiglipTower,
)
from clip_xai.models.backbones.opaque import OpaqueTower
from clip_xai.models.backbones.panderm import PanDermTower, PanDermVisionTransformer
from clip_xai.models.backbones.resnet import ResNetTower
from clip_xai.models.backbones.swin import MedClipVision, SwinTower
from clip_xai.models.backbones.timm_vit import TimmVisionTower
from clip_xai.models.backbones.tower import READS, ImageTower
from clip_xai.models.backbones.transformer import TextTower, TextTrace, TransformerTower
from tests.models.backbones.support import assert_close, check_trace, pixels_for, shaken

Oracle = Callable[[Tensor], Tensor]


def timm_tower(**settings: object) -> TimmModel:
    visual = TimmModel("vit_tiny_patch16_224", embed_dim=16, image_size=24, pool="", proj="linear")
    sizes = {"img_size": 24, "patch_size": 6, "embed_dim": 32, "depth": 3, "num_heads": 4, "num_classes": 0}
    visual.trunk = VisionTransformer(**{**sizes, **settings})  # type: ignore[arg-type]
    visual.head = nn.Sequential()
    visual.head.add_module("proj", nn.Linear(32, 16, bias=False))
    return visual


def build_timm() -> tuple[ImageTower, Oracle]:
    visual = shaken(timm_tower(init_values=0.5))
    return TimmVisionTower(visual), visual


def build_timm_mean() -> tuple[ImageTower, Oracle]:
    visual = shaken(timm_tower(global_pool="avg", reg_tokens=2, no_embed_class=True))
    return TimmVisionTower(visual), visual


def build_timm_attention_pool() -> tuple[ImageTower, Oracle]:
    visual = shaken(timm_tower(global_pool="map", class_token=False, qk_norm=True))
    return TimmVisionTower(visual), visual


CLIP_CONFIG = {
    "projection_dim": 16,
    "vision_config": {
        "image_size": 24, "patch_size": 6, "hidden_size": 32, "intermediate_size": 64,
        "num_hidden_layers": 3, "num_attention_heads": 4,
    },
    "text_config": {
        "vocab_size": 40, "max_position_embeddings": 12, "hidden_size": 24, "intermediate_size": 48,
        "num_hidden_layers": 3, "num_attention_heads": 2, "eos_token_id": 39, "bos_token_id": 38, "pad_token_id": 0,
    },
}  # fmt: skip


def clip() -> CLIPModel:
    return shaken(CLIPModel(CLIPConfig(**CLIP_CONFIG)))


def siglip() -> SiglipModel:
    text = {**CLIP_CONFIG["text_config"], "projection_size": 32}  # type: ignore[dict-item]
    vision = {**CLIP_CONFIG["vision_config"], "vision_use_head": True}  # type: ignore[dict-item]
    return shaken(SiglipModel(SiglipConfig(vision_config=vision, text_config=text)))


def embedding_of(output: object) -> Tensor:
    return getattr(output, "pooler_output", output)  # type: ignore[return-value]


def build_clip() -> tuple[ImageTower, Oracle]:
    model = clip()
    return HuggingFaceClipTower(model), lambda pixels: embedding_of(model.get_image_features(pixels))


def build_siglip() -> tuple[ImageTower, Oracle]:
    model = siglip()
    return SiglipTower(model), lambda pixels: embedding_of(model.get_image_features(pixels))


def build_panderm() -> tuple[ImageTower, Oracle]:
    visual = shaken(PanDermVisionTransformer(24, 6, width=32, layers=3, heads=4, embed_dim=16))
    return PanDermTower(visual), lambda pixels: panderm_by_hand(visual.state_dict(), pixels, heads=4)


def build_resnet() -> tuple[ImageTower, Oracle]:
    vision = {"image_size": 64, "layers": [2, 1, 1, 1], "width": 8, "head_width": 32}
    text = {"context_length": 8, "vocab_size": 16, "width": 16, "heads": 2, "layers": 1}
    model = shaken(CLIP(embed_dim=16, vision_cfg=vision, text_cfg=text))
    return ResNetTower(model.visual), model.visual


def build_swin() -> tuple[ImageTower, Oracle]:
    config = SwinConfig(image_size=64, patch_size=4, embed_dim=16, depths=[2, 2, 2], num_heads=[2, 2, 4], window_size=4)
    module = shaken(MedClipVision(SwinModel(config), 16))
    return SwinTower(module), lambda pixels: module.projection_head(module.model(pixels).pooler_output)


TRANSFORMERS = [build_timm, build_timm_mean, build_timm_attention_pool, build_clip, build_siglip, build_panderm]
STAGED = [build_resnet, build_swin]


def panderm_by_hand(weights: dict[str, Tensor], pixels: Tensor, heads: int) -> Tensor:
    """The tower once more, from its description alone: one image, one head, one query at a time."""

    def norm(x: Tensor, name: str) -> Tensor:
        centred = x - x.mean(-1, keepdim=True)
        scaled = centred / (centred.square().mean(-1, keepdim=True) + 1e-6).sqrt()
        return scaled * weights[f"{name}.weight"] + weights[f"{name}.bias"]

    def linear(x: Tensor, name: str) -> Tensor:
        return x @ weights[f"{name}.weight"].T + weights[f"{name}.bias"]

    kernel = weights["patch_embed.proj.weight"]
    side = kernel.shape[-1]
    embeddings = []
    for image in pixels:
        cells = [
            (kernel * image[:, top : top + side, left : left + side]).sum((1, 2, 3)) + weights["patch_embed.proj.bias"]
            for top in range(0, image.shape[1], side)
            for left in range(0, image.shape[2], side)
        ]
        tokens = torch.stack([weights["cls_token"][0, 0], *cells]) + weights["pos_embed"][0]
        for block in range(3):
            name = f"blocks.{block}"
            normed = norm(tokens, f"{name}.norm1")
            qkv = normed @ weights[f"{name}.attn.qkv.weight"].T
            query, key, value = qkv.chunk(3, dim=-1)
            query, value = query + weights[f"{name}.attn.q_bias"], value + weights[f"{name}.attn.v_bias"]
            width = query.shape[-1] // heads
            rows = []
            for row in range(len(tokens)):
                parts = []
                for head in range(heads):
                    own = slice(head * width, (head + 1) * width)
                    scores = torch.stack([query[row, own] @ other for other in key[:, own]]) / width**0.5
                    parts.append(scores.softmax(0) @ value[:, own])
                rows.append(torch.cat(parts))
            tokens = tokens + weights[f"{name}.gamma_1"] * linear(torch.stack(rows), f"{name}.attn.proj")
            hidden = F.gelu(linear(norm(tokens, f"{name}.norm2"), f"{name}.mlp.fc1"))
            tokens = tokens + weights[f"{name}.gamma_2"] * linear(hidden, f"{name}.mlp.fc2")
        mean = norm(tokens, "norm")[1:].mean(0)
        embeddings.append(linear(norm(mean, "norm"), "head"))
    return torch.stack(embeddings)


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


def token_ids(marker: int = 39) -> Tensor:
    ids = torch.randint(3, 38, (3, 12), generator=torch.Generator().manual_seed(0))
    for row, length in zip(ids, (4, 9, 12), strict=True):
        row[length - 1] = marker
        row[length:] = 0
    return ids


def bert_config() -> BertConfig:
    return BertConfig(
        vocab_size=40, hidden_size=24, num_hidden_layers=3, num_attention_heads=2, intermediate_size=48,
        max_position_embeddings=16,
    )  # fmt: skip


def build_bert(pooling: str) -> tuple[TextTower, Oracle]:
    module = shaken(BertText(bert_config(), 16, pooling, "mlp" if pooling == "class" else "linear"))

    def oracle(ids: Tensor) -> Tensor:
        rows = [module.transformer(row[row != 0][None]).last_hidden_state[0] for row in ids]
        return module.proj(torch.stack([row[0] if pooling == "class" else row.mean(0) for row in rows]))

    return BertTower(module, 12), oracle


def build_medclip_text() -> tuple[TextTower, Oracle]:
    module = shaken(MedClipText(bert_config(), 16))

    def oracle(ids: Tensor) -> Tensor:
        rows = []
        for row in ids:
            hidden = module.model(row[row != 0][None], output_hidden_states=True).hidden_states
            rows.append(torch.stack([hidden[1], hidden[2], hidden[-1]])[:, 0].mean(1).mean(0))
        return module.projection_head(torch.stack(rows))

    return BertTower(module, 12), oracle


def build_clip_text() -> tuple[TextTower, Oracle]:
    model = clip()
    return HuggingFaceClipTextTower(model), lambda ids: embedding_of(model.get_text_features(ids))


def build_siglip_text() -> tuple[TextTower, Oracle]:
    model = siglip()
    return SiglipTextTower(model), lambda ids: embedding_of(model.get_text_features(ids))


TEXT_TOWERS = [
    lambda: build_bert("class"), lambda: build_bert("mean"), build_medclip_text, build_clip_text, build_siglip_text,
]  # fmt: skip


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
