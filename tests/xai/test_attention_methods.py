"""Attention methods against eager attention, one backward pass a score, and matrices written out."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from clip_xai.errors import UserError
from clip_xai.models.backbones.open_clip_vit import OpenClipBackbone
from clip_xai.models.tokenizer import CaptionTokenizer
from clip_xai.xai.explainer import TraceExplainer
from clip_xai.xai.methods import AttentionGradient, AttentionRollout, ClipSurgery, GradEclip, LeGrad
from clip_xai.xai.target import CaptionTarget, ContrastTarget, SimilarityTarget, Target
from tests.xai import eager
from tests.xai.conftest import TEXTS, Build, assert_close, build_captioner
from tests.xai.test_methods import naive_gradeclip


@pytest.fixture(params=["pooled", "patches", "tokens"])
def target(request: pytest.FixtureRequest, backbone: OpenClipBackbone, tokenizer: CaptionTokenizer) -> Target:
    if request.param == "pooled":
        return SimilarityTarget.from_texts(backbone, TEXTS)
    mapper = {"patches": "linear_patch", "tokens": "resampler"}[request.param]
    return CaptionTarget.words(build_captioner(mapper, backbone, tokenizer), tokenizer.encode("a nevus, brown"))


@pytest.mark.parametrize("start", [0, 1, -1])
def test_attention_gradient_is_chefers_matrix_product(
    backbone: OpenClipBackbone, pixels: Tensor, target: Target, start: int
) -> None:
    kept = eager.run(backbone, pixels)
    scores = eager.scores(backbone, kept, target)
    found = AttentionGradient(start_layer=start).explain(backbone, pixels, target)
    for text in range(scores.shape[1]):
        gradients = torch.autograd.grad(scores[:, text].sum(), kept.attention, retain_graph=True)
        relevance = torch.eye(17).expand(2, 17, 17)
        for layer in list(range(3))[start:]:
            mean = (gradients[layer] * kept.attention[layer]).relu().mean(dim=1)
            relevance = relevance + mean @ relevance
        read = {"pooled": slice(0, 1), "patches": slice(1, None), "tokens": slice(None)}[target.reads]
        rows = (relevance - torch.eye(17))[:, read]
        assert_close(found.values[:, text].flatten(1), rows.mean(dim=1)[:, 1:].detach())
    assert_close(found.scores, scores.detach())


@pytest.mark.parametrize("layers", [1, 2, 3])
def test_legrad_is_the_gradient_at_the_attention(
    backbone: OpenClipBackbone, pixels: Tensor, target: Target, layers: int
) -> None:
    kept = eager.run(backbone, pixels)
    found = LeGrad(layers=layers).explain(backbone, pixels, target).values
    for text in range(found.shape[1]):
        expected = torch.zeros(2, 16)
        for layer in range(3 - layers, 3):
            output = kept.output[layer]
            tokens = output.mean(dim=1, keepdim=True) if target.reads == "pooled" else output
            score = target.score(eager.read(backbone, tokens, target.reads))[:, text]
            (gradient,) = torch.autograd.grad(score.sum(), kept.attention[layer], retain_graph=True)
            expected += gradient.relu().mean(dim=(1, 2))[:, 1:]
        assert_close(found[:, text].flatten(1), expected)


def test_gradeclip_of_several_layers_is_the_sum_of_their_maps(
    backbone: OpenClipBackbone, pixels: Tensor, similarity: SimilarityTarget
) -> None:
    found = GradEclip(layers=2).explain(backbone, pixels, similarity).values
    assert_close(found, sum(naive_gradeclip(backbone, pixels, similarity, layer, [0]) for layer in (2, 1)))


def test_gradeclip_with_a_single_head_runs_the_last_block_again(
    backbone: OpenClipBackbone, pixels: Tensor, similarity: SimilarityTarget
) -> None:
    kept = eager.run(backbone, pixels, heads_of_last=1)
    scores = eager.scores(backbone, kept, similarity)
    found = GradEclip(heads="single").explain(backbone, pixels, similarity)
    for text in range(3):
        (gradient,) = torch.autograd.grad(scores[:, text].sum(), kept.context[-1], retain_graph=True)
        for image in range(2):
            query, key, value = kept.query[-1][image, 0], kept.key[-1][image, 1:], kept.value[-1][image, 1:]
            similar = torch.stack([F.cosine_similarity(query, one, dim=0) for one in key])
            loosened = (similar - similar.min()) / (similar.max() - similar.min())
            expected = (gradient[image, 0] * loosened[:, None] * value).sum(1).relu().detach()
            assert_close(found.values[image, text].flatten(), expected)
    whole = eager.scores(backbone, eager.run(backbone, pixels), similarity).detach()
    assert_close(found.scores, whole)
    assert (whole - scores).abs().max() > 1e-3  # which is why the model's own heads are the default


def test_a_single_head_is_for_class_tokens_and_last_blocks(
    build_backbone: Build, pixels: Tensor, tokenizer: CaptionTokenizer
) -> None:
    with pytest.raises(UserError, match="last block alone"):
        GradEclip(heads="single", layer=0)
    backbone = build_backbone(pool_type="avg")
    with pytest.raises(UserError, match="class token"):
        GradEclip(heads="single").explain(backbone, pixels, SimilarityTarget.from_texts(backbone, TEXTS))


@pytest.mark.parametrize("fusion", ["max", "min"])
def test_rollout_fuses_heads(
    backbone: OpenClipBackbone, pixels: Tensor, similarity: SimilarityTarget, fusion: str
) -> None:
    product = torch.eye(17)
    for attention in eager.run(backbone, pixels).attention:
        fused = (attention.amax(1) if fusion == "max" else attention.amin(1)) + torch.eye(17)
        product = fused / fused.sum(dim=-1, keepdim=True) @ product
    found = AttentionRollout(fusion).explain(backbone, pixels, similarity).values[:, 0]
    assert_close(found.flatten(1), product[:, 0, 1:].detach())


def surgery_features(backbone: OpenClipBackbone, pixels: Tensor, layers: int) -> Tensor:
    """The second stream of the last blocks, one head at a time."""
    kept = eager.run(backbone, pixels)
    first = 3 - layers
    stream = kept.entered[first]
    for layer in range(first, 3):
        block = backbone.visual.transformer.resblocks[layer]
        value = kept.value[layer]
        context = eager.by_heads(eager.attend(value, value, 4), value)
        stream = stream + block.ls_1(block.attn.out_proj(context))
    return F.normalize(backbone.visual.ln_post(stream)[:, 1:] @ backbone.visual.proj, dim=-1).detach()


@pytest.mark.parametrize("layers", [1, 2, 6])
@pytest.mark.parametrize("vision", [{}, {"ls_init_value": 0.5}])
def test_surgery_of_one_text_is_against_the_empty_one(
    build_backbone: Build, pixels: Tensor, layers: int, vision: dict
) -> None:
    backbone = build_backbone(**vision)
    similarity = SimilarityTarget.from_texts(backbone, TEXTS)
    features = surgery_features(backbone, pixels, min(layers, 3))
    texts = F.normalize(backbone.encode_text(TEXTS), dim=-1)
    (empty,) = F.normalize(backbone.encode_text([""]), dim=-1)
    found = ClipSurgery(layers=layers).explain(backbone, pixels, similarity).values
    for text in range(3):
        assert_close(found[:, text].flatten(1), features @ (texts[text] - empty))


def test_surgery_of_a_set_of_texts_takes_away_what_they_share(
    backbone: OpenClipBackbone, pixels: Tensor, similarity: SimilarityTarget
) -> None:
    features = surgery_features(backbone, pixels, 3)
    texts = F.normalize(backbone.encode_text(TEXTS), dim=-1)
    image = F.normalize(backbone.encode_image(pixels), dim=-1)
    found = ClipSurgery(redundancy="texts").explain(backbone, pixels, similarity).values
    for row in range(2):
        weights = torch.stack([(2 * image[row] @ text).exp() for text in texts])
        weights = weights / weights.sum()
        weights = weights / weights.mean()
        products = torch.stack([features[row] * texts[c] * weights[c] for c in range(3)], dim=1)  # [N, C, D]
        expected = (products - products.mean(dim=1, keepdim=True)).sum(dim=-1).T
        assert_close(found[row].flatten(1), expected)
    with pytest.raises(UserError, match="several texts"):
        ClipSurgery(redundancy="texts").explain(backbone, pixels, SimilarityTarget.from_texts(backbone, TEXTS[:1]))


def test_surgery_follows_the_direction_of_other_targets(
    backbone: OpenClipBackbone, tokenizer: CaptionTokenizer, pixels: Tensor
) -> None:
    features, read = surgery_features(backbone, pixels, 3), backbone.encode_image(pixels)
    captioner = build_captioner("bottleneck_mlp", backbone, tokenizer)
    words = CaptionTarget.words(captioner, tokenizer.encode("a nevus"))
    for target in (ContrastTarget.from_texts(backbone, TEXTS), words):
        found = ClipSurgery().explain(backbone, pixels, target).values
        assert_close(found.flatten(2), torch.einsum("bnd,btd->btn", features, target.cotangent(read)))
    patches = CaptionTarget.words(build_captioner("resampler", backbone, tokenizer), tokenizer.encode("a nevus"))
    with pytest.raises(UserError, match=r"direction in the embedding space.*choose one of gradcam"):
        ClipSurgery().explain(backbone, pixels, patches)


@pytest.mark.parametrize(
    "make",
    [
        lambda: GradEclip(heads="two"),
        lambda: GradEclip(layers=0),
        lambda: AttentionRollout("sum"),
        lambda: LeGrad(0),
        lambda: ClipSurgery(redundancy="all"),
    ],
)
def test_settings_without_meaning_are_refused(make: object) -> None:
    with pytest.raises(UserError, match=r"choose|give at least"):
        make()  # type: ignore[operator]


def test_a_first_layer_that_is_not_there_is_refused(
    backbone: OpenClipBackbone, pixels: Tensor, similarity: SimilarityTarget
) -> None:
    with pytest.raises(UserError, match="set -3 to 2"):
        AttentionGradient(start_layer=3).explain(backbone, pixels, similarity)


@pytest.mark.parametrize(
    "explainer",
    [ClipSurgery(layers=99), LeGrad(layers=4), GradEclip(layers=4), GradEclip(layer=1, layers=3)],
    ids=["surgery", "legrad", "gradeclip", "gradeclip up to a block"],
)
def test_more_blocks_than_there_are_are_refused(
    backbone: OpenClipBackbone, pixels: Tensor, similarity: SimilarityTarget, explainer: TraceExplainer
) -> None:
    with pytest.raises(
        UserError, match=rf"asks for \d+ blocks of a tower of [23] \(xai.{explainer.name}.layers\): set"
    ):
        explainer.explain(backbone, pixels, similarity)
    assert explainer.refusal(backbone, similarity)  # so that it is left out by name beside others
