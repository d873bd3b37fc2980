"""Each explainer against an independent version of itself."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from captum.attr import LayerGradientXActivation
from pytorch_grad_cam import GradCAM as LibraryGradCam
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
from torch import Tensor, nn

from clip_xai.errors import UserError
from clip_xai.models.backbones.open_clip_vit import OpenClipBackbone
from clip_xai.models.captioner import Captioner
from clip_xai.models.tokenizer import CaptionTokenizer
from clip_xai.xai.methods import AttentionRollout, GradCam, GradEclip, TokenGradXInput
from clip_xai.xai.target import CaptionTarget, ContrastTarget, SimilarityTarget, Target
from tests.xai.conftest import CAPTION, TEXTS, Build, assert_close, build_captioner


def naive_gradeclip(backbone: OpenClipBackbone, pixels: Tensor, target: Target, layer: int, rows: list[int]) -> Tensor:
    """Eager attention head by head, one backward pass through the whole graph for each text, sums by loops."""
    visual, heads, size = backbone.visual, 4, 8
    layer %= len(visual.transformer.resblocks)
    tokens = visual._embeds(pixels.clone().requires_grad_())
    for index, block in enumerate(visual.transformer.resblocks):
        if index != layer:
            tokens = block(tokens)
            continue
        normed = block.ln_1(tokens)
        parts = F.linear(normed, block.attn.in_proj_weight, block.attn.in_proj_bias)
        q, k, v = (parts[..., start : start + 32] for start in (0, 32, 64))
        contexts = []
        for head in range(heads):
            channels = slice(head * size, (head + 1) * size)
            attention = (q[..., channels] @ k[..., channels].transpose(1, 2) / size**0.5).softmax(-1)
            contexts.append(attention @ v[..., channels])
        tokens = tokens + block.ls_1(block.attn.out_proj(torch.cat(contexts, dim=-1)))
        tokens = tokens + block.ls_2(block.mlp(block.ln_2(tokens)))
    post = visual.ln_post(tokens)
    scores = target.score(post[:, 0] @ visual.proj if target.reads == "pooled" else post)
    maps = torch.zeros(*scores.shape, 16)
    for image in range(scores.shape[0]):
        for text in range(scores.shape[1]):
            gradients = torch.autograd.grad(scores[image, text], contexts, retain_graph=True)
            for head, w in enumerate(gradients):
                channels = slice(head * size, (head + 1) * size)
                for row in rows:
                    similar = torch.stack(
                        [
                            F.cosine_similarity(q[image, row, channels], k[image, 1 + patch, channels], dim=0)
                            for patch in range(16)
                        ]
                    )
                    loosened = (similar - similar.min()) / (similar.max() - similar.min())
                    for patch in range(16):
                        v_patch = v[image, 1 + patch, channels]
                        maps[image, text, patch] += (w[image, row] * loosened[patch] * v_patch).sum().detach()
    return maps.relu().unflatten(-1, (4, 4))


@pytest.mark.parametrize("layer", [-1, 1])
def test_gradeclip_of_an_embedding_matches_the_loop(
    backbone: OpenClipBackbone, pixels: Tensor, similarity: SimilarityTarget, layer: int
) -> None:
    found = GradEclip(layer=layer).explain(backbone, pixels, similarity)
    assert_close(found.values, naive_gradeclip(backbone, pixels, similarity, layer, [0]))
    assert_close(found.scores, similarity.score(backbone.encode_image(pixels)))


@pytest.mark.parametrize("layer", [-1, 1])
def test_gradeclip_of_patch_tokens_matches_the_loop(
    backbone: OpenClipBackbone, tokenizer: CaptionTokenizer, pixels: Tensor, layer: int
) -> None:
    captioner = build_captioner("resampler", backbone, tokenizer)
    target = CaptionTarget.words(captioner, tokenizer.encode("a nevus, brown"))
    found = GradEclip(layer=layer).explain(backbone, pixels[:1], target)
    assert_close(found.values, naive_gradeclip(backbone, pixels[:1], target, layer, list(range(17))))


def test_gradeclip_prefers_no_patch_where_all_are_alike(backbone: OpenClipBackbone, pixels: Tensor) -> None:
    attention = backbone.visual.transformer.resblocks[-1].attn
    with torch.no_grad():
        attention.in_proj_weight[32:64] = 0  # every key is the bias
    target = SimilarityTarget.from_texts(backbone, TEXTS)
    found = GradEclip().explain(backbone, pixels, target).values
    points = [(-1, "context")]
    trace = backbone.trace(pixels, watch=points)
    gradient = trace.gradients(target.cotangent(trace.read), points)[-1, "context"]
    values = trace.block(-1).value[:, None, :, 1:]
    assert_close(found.flatten(2), (gradient * values).sum(dim=(2, 4)).relu().detach())


class Scores(nn.Module):
    def __init__(self, backbone: OpenClipBackbone, target: Target) -> None:
        super().__init__()
        self.backbone, self.target = backbone, target

    def forward(self, pixels: Tensor) -> Tensor:
        return self.target.score(self.backbone.features(pixels).read(self.target.reads))


@pytest.mark.parametrize("layer", [-1, 0])
def test_gradcam_matches_pytorch_grad_cam(
    backbone: OpenClipBackbone, pixels: Tensor, similarity: SimilarityTarget, layer: int
) -> None:
    found = GradCam(layer=layer).explain(backbone, pixels, similarity).values
    module = backbone.visual.transformer.resblocks[layer].ln_1
    for text in range(len(similarity.labels)):
        targets = [ClassifierOutputTarget(text)] * 2
        with LibraryGradCam(
            Scores(backbone, similarity), [module], lambda x: x[:, 1:].unflatten(1, (4, 4)).permute(0, 3, 1, 2)
        ) as cam:
            cam(pixels.clone().requires_grad_(), targets)
            kept = cam.activations_and_grads
            activations, gradients = (np.asarray(part[0].detach()) for part in (kept.activations, kept.gradients))
            raw = cam.get_cam_image(pixels, module, targets, activations, gradients)
        assert_close(found[:, text], torch.from_numpy(raw).relu())


def test_rollout_matches_the_product_of_explicit_matrices(
    backbone: OpenClipBackbone, pixels: Tensor, similarity: SimilarityTarget
) -> None:
    tokens, product = backbone.visual._embeds(pixels), torch.eye(17)
    for block in backbone.visual.transformer.resblocks:
        normed = block.ln_1(tokens)
        attention = block.attn(normed, normed, normed, need_weights=True)[1] + torch.eye(17)
        product = attention / attention.sum(dim=-1, keepdim=True) @ product
        tokens = block(tokens)
    found = AttentionRollout().explain(backbone, pixels, similarity)
    for text in range(3):
        assert_close(found.values[:, text], product[:, 0, 1:].unflatten(-1, (4, 4)))
    assert found.text_dependent is False


@pytest.mark.parametrize("cls", [SimilarityTarget, ContrastTarget])
def test_words_of_a_text_match_captum(backbone: OpenClipBackbone, pixels: Tensor, cls: type[SimilarityTarget]) -> None:
    target = cls.from_texts(backbone, TEXTS)
    found = TokenGradXInput().explain(backbone, pixels, target)
    read, fixed = backbone.encode_image(pixels), backbone.encode_text(TEXTS)
    assert found.tokens == [
        ["a", "brown", "lesion", ",", "upper", "left"],
        ["melanoma"],
        ["a", "well-circumscribed", "pink", "papule", "."],
    ]
    for row, text in enumerate(TEXTS):
        ids = backbone.tokenize([text])
        starts = [start for start, _ in backbone.token_spans(text)]

        def score(ids: Tensor, row: int = row, image: int = 0) -> Tensor:
            texts = torch.cat([fixed[:row], backbone.encode_tokens(ids), fixed[row + 1 :]])
            return target.score_of(read[image : image + 1], texts)[:, row]

        for image in range(2):
            layer = LayerGradientXActivation(
                lambda ids, image=image: score(ids, image=image), backbone.model.token_embedding
            )
            by_token = layer.attribute(ids)[0].sum(-1).detach()[1:]
            cursor, expected = 0, []
            for word in found.tokens[row]:
                begin = text.index(word, cursor)
                cursor = begin + len(word)
                expected.append(sum(by_token[i] for i, start in enumerate(starts) if begin <= start < cursor))
            assert_close(found.values[image, row, : len(expected)], torch.stack(expected))
            assert found.values[image, row, len(expected) :].isnan().all()


def test_words_of_a_caption_match_a_growing_prefix(captioner: Captioner, pixels: Tensor) -> None:
    ids = captioner.tokenizer.encode(CAPTION)
    target = CaptionTarget.words(captioner, ids, whole=True)
    found = TokenGradXInput().explain(captioner.backbone, pixels, target)
    words = target.caption_words()
    assert found.tokens == [["image", "prompt", *(word.text for word in words)]] * (len(words) + 1)
    owner = {token: 2 + index for index, word in enumerate(words) for token in word.tokens}
    embedding = captioner.language_model.transformer.wte
    for image in range(2):
        expected = torch.zeros(len(words), len(words) + 2)
        for step, token in enumerate(ids):
            prefix = captioner.prefix(captioner.read(pixels[image : image + 1])).detach()
            inputs = torch.cat([prefix, embedding(torch.tensor([ids[:step]], dtype=torch.long))], dim=1).detach()
            inputs.requires_grad_()
            logits = captioner.language_model(inputs_embeds=inputs).logits
            logits[0, -1].log_softmax(-1)[token].backward()
            products = (inputs * inputs.grad)[0].sum(-1).detach()
            row = expected[owner[step] - 2]
            row[0] += products[:3].sum()
            row[1] += products[3 : prefix.shape[1]].sum()
            for earlier in range(step):
                row[owner[earlier]] += products[prefix.shape[1] + earlier]
        assert_close(found.values[image, :-1], expected)
        assert_close(found.values[image, -1], expected.sum(0))
    assert (found.values[:, 0, 3:] == 0).all()


def test_without_a_prompt_there_is_no_column_for_it(
    backbone: OpenClipBackbone, tokenizer: CaptionTokenizer, pixels: Tensor
) -> None:
    captioner = build_captioner("resampler", backbone, tokenizer, prompt="")
    target = CaptionTarget.words(captioner, tokenizer.encode("melanoma"))
    assert TokenGradXInput().explain(backbone, pixels, target).tokens == [["image", "melanoma"]]


def test_texts_that_are_not_known_cannot_be_explained(backbone: OpenClipBackbone, pixels: Tensor) -> None:
    with pytest.raises(UserError, match="give the target its texts"):
        TokenGradXInput().explain(backbone, pixels, SimilarityTarget(torch.randn(1, 16), ["a"]))


@pytest.mark.parametrize("explainer", [GradEclip(), GradCam()])
def test_gradients_of_exactly_zero_are_refused(
    build_backbone: Build, pixels: Tensor, explainer: GradEclip | GradCam
) -> None:
    backbone = build_backbone()
    with torch.no_grad():
        backbone.visual.transformer.resblocks[-1].attn.out_proj.weight.zero_()
    target = SimilarityTarget.from_texts(backbone, TEXTS)
    with pytest.raises(UserError, match=r"gradient of exactly zero.*choose an earlier layer"):
        explainer.explain(backbone, pixels, target)
