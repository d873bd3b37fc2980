"""Class activation maps against pytorch-grad-cam, on a ViT and on CLIP's ResNet; and what each family has."""

from __future__ import annotations

import copy
from collections.abc import Callable

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from captum.attr import GuidedBackprop as LibraryGuided
from open_clip.timm_model import TimmModel
from pytorch_grad_cam import GradCAM, GradCAMPlusPlus, HiResCAM, LayerCAM
from pytorch_grad_cam.base_cam import BaseCAM
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
from torch import Tensor

from clip_xai.errors import UserError
from clip_xai.models.backbones.backbone_builder import EMBEDDED, build_backbone
from clip_xai.models.backbones.opaque import OpaqueTower
from clip_xai.models.backbones.open_clip_vit import OpenClipBackbone
from clip_xai.models.backbones.tower import ImageTower
from clip_xai.xai.explainer import Explainer, defined_for, explain_together, explainers
from clip_xai.xai.methods import (
    AttentionGradient,
    ClipSurgery,
    GradCam,
    GradCamPlusPlus,
    GradEclip,
    GuidedBackprop,
    HiResCam,
    LayerCam,
    LeGrad,
    Saliency,
)
from clip_xai.xai.target import SimilarityTarget
from tests.support.families import Family
from tests.support.tower_families import STAGED, TRANSFORMERS, build_resnet
from tests.support.towers import shaken
from tests.xai.conftest import assert_close
from tests.xai.test_methods import Scores

PAIRS = [(GradCam, GradCAM), (GradCamPlusPlus, GradCAMPlusPlus), (LayerCam, LayerCAM), (HiResCam, HiResCAM)]


def images_for(tower: ImageTower) -> Tensor:
    return torch.randn(2, 3, tower.image_size, tower.image_size, generator=torch.Generator().manual_seed(5))


def texts(tower: ImageTower) -> SimilarityTarget:
    return SimilarityTarget(
        torch.randn(2, tower.embed_dim, generator=torch.Generator().manual_seed(6)), ["one", "other"]
    )


def library_map(
    cam: type[BaseCAM], scores: Scores, module: object, pixels: Tensor, text: int, reshape: Callable | None
) -> Tensor:
    """The library's map before it is scaled to [0, 1] and enlarged."""
    targets = [ClassifierOutputTarget(text)] * len(pixels)
    with cam(scores, [module], reshape) as found:
        leaf = pixels.clone().requires_grad_()
        found(leaf, targets)
        kept = found.activations_and_grads
        activations, gradients = (np.asarray(part[0].detach()) for part in (kept.activations, kept.gradients))
        return torch.from_numpy(found.get_cam_image(leaf, module, targets, activations, gradients, False)).relu()


@pytest.mark.parametrize("layer", [-1, 0])
@pytest.mark.parametrize(("own", "library"), PAIRS)
def test_maps_of_a_vit_match_the_library(
    backbone: OpenClipBackbone,
    pixels: Tensor,
    similarity: SimilarityTarget,
    own: type[Explainer],
    library: type[BaseCAM],
    layer: int,
) -> None:
    found = own(layer=layer).explain(backbone, pixels, similarity).values
    module = backbone.visual.transformer.resblocks[layer].ln_1

    def reshape(tokens: Tensor) -> Tensor:
        return tokens[:, 1:].unflatten(1, (4, 4)).permute(0, 3, 1, 2)

    for text in range(3):
        expected = library_map(library, Scores(backbone, similarity), module, pixels, text, reshape)
        assert_close(found[:, text], expected)


@pytest.mark.parametrize("stage", [3, 2])
@pytest.mark.parametrize(("own", "library"), PAIRS)
def test_maps_of_a_resnet_match_the_library(own: type[Explainer], library: type[BaseCAM], stage: int) -> None:
    tower, _ = build_resnet()
    backbone, target, pixels = Family(tower), texts(tower), images_for(tower)
    found = own(layer=stage).explain(backbone, pixels, target).values
    module = getattr(tower.module, f"layer{stage + 1}")
    for text in range(2):
        expected = library_map(library, Scores(backbone, target), module, pixels, text, None)
        if expected.abs().max() == 0:
            assert found[:, text].abs().max() <= 1e-6
            continue
        assert_close(found[:, text], expected, 5e-5)


def test_guided_backprop_of_a_resnet_matches_captum() -> None:
    tower, _ = build_resnet()
    backbone, target, pixels = Family(tower), texts(tower), images_for(tower)
    found = GuidedBackprop("pixels").explain(backbone, pixels, target).values
    for text in range(2):
        leaf = pixels.clone().requires_grad_()
        expected = LibraryGuided(Scores(backbone, target)).attribute(leaf, target=text)
        assert_close(found[:, text], expected.abs().amax(dim=1))


def test_gradeclip_of_a_resnet_reads_its_attention_pool() -> None:
    tower, _ = build_resnet()
    backbone, target, pixels = Family(tower), texts(tower), images_for(tower)
    found = GradEclip().explain(backbone, pixels, target).values
    pool = tower.module.attnpool
    with torch.no_grad():
        cells = tower.features(pixels).patches  # [B, N, C]
    tokens = torch.cat([cells.mean(1, keepdim=True), cells], dim=1) + pool.positional_embedding
    query, key, value = pool.q_proj(tokens[:, :1]), pool.k_proj(tokens), pool.v_proj(tokens)
    heads = pool.num_heads
    size = query.shape[-1] // heads
    contexts = []
    for start in range(0, heads * size, size):
        own = slice(start, start + size)
        attention = (query[..., own] @ key[..., own].transpose(1, 2) / size**0.5).softmax(-1)
        contexts.append((attention @ value[..., own]).detach().requires_grad_())
    scores = target.score(pool.c_proj(torch.cat(contexts, dim=-1))[:, 0])
    for text in range(2):
        gradients = torch.autograd.grad(scores[:, text].sum(), contexts, retain_graph=True)
        expected = torch.zeros(2, cells.shape[1])
        for head, gradient in enumerate(gradients):
            own = slice(head * size, (head + 1) * size)
            similar = torch.cosine_similarity(query[..., own], key[:, 1:, own], dim=-1)
            low, high = similar.amin(1, keepdim=True), similar.amax(1, keepdim=True)
            loosened = (similar - low) / (high - low)
            expected += (gradient * loosened[..., None] * value[:, 1:, own]).sum(-1).detach()
        assert_close(found[:, text].flatten(1), expected.relu())


@pytest.mark.parametrize("build", [*TRANSFORMERS, *STAGED], ids=lambda build: build.__name__.removeprefix("build_"))
def test_every_family_has_maps_or_says_which_methods_it_has(build: Callable) -> None:
    torch.manual_seed(0)  # of some random weights no place is for any text, and Grad-CAM cuts negative heat off
    tower, _ = build()
    backbone, target, pixels = Family(tower), texts(tower), images_for(tower)
    methods = [
        GradCam(),
        HiResCam(),
        GradEclip(),
        AttentionGradient(),
        LeGrad(),
        ClipSurgery(redundancy="none"),
        Saliency(),
    ]
    methods += [ClipSurgery(redundancy="none"), explainers["attention_rollout"]()]
    able = [method for method in methods if method.refusal(backbone, target) is None]
    for method, found in zip(able, explain_together(able, backbone, pixels, target), strict=True):
        assert found.values.shape == (2, 2, *tower.grid)
        assert found.values.isfinite().all() and found.values.abs().max() > 0, method.name
    attends = "attention" in backbone.supports
    names = {method.name for method in able}
    assert {"gradcam", "hirescam", "saliency"} <= names
    assert ({"attention_gradient", "legrad", "attention_rollout"} <= names) is attends
    for method in methods:
        if method not in able:
            with pytest.raises(UserError, match=r"choose one of gradcam"):
                method.explain(backbone, pixels, target)


@pytest.mark.parametrize("build", TRANSFORMERS, ids=lambda build: build.__name__.removeprefix("build_"))
def test_attention_gradient_is_the_same_on_every_transformer(build: Callable) -> None:
    """Against sums written out, one probability at a time; an attention pool stands behind the last block."""
    tower, _ = build()
    backbone, target, pixels = Family(tower), texts(tower), images_for(tower)[:1]
    found = AttentionGradient(start_layer=-1).explain(backbone, pixels, target).values
    points = [(-1, "context"), *([("pool", "context")] if tower.pool is not None else [])]
    trace = backbone.trace(pixels, watch=points)
    gradients = trace.gradients(target.cotangent(trace.read), points)
    relevance = []
    for point in points:
        block = trace.block(point[0])
        attention, gradient = block.attention()[0].double(), gradients[point][0].double()
        heads, rows, tokens = attention.shape
        matrix = torch.zeros(2, rows, tokens, dtype=torch.double)
        for text in range(2):
            for head in range(heads):
                for row in range(rows):
                    for token in range(tokens):
                        at = gradient[text, head, row] @ block.value[0, head, token].double()
                        matrix[text, row, token] += (at * attention[head, row, token]).relu() / heads
        relevance.append(matrix)
    own = relevance[0]
    if len(points) == 2:
        pooled = relevance[1].mean(1, keepdim=True)
        wanted = (pooled + pooled @ own)[:, 0]
    else:
        wanted = own[:, trace.read_rows].mean(1)
    assert_close(found[0].flatten(1), wanted[:, -tower.grid[0] * tower.grid[1] :].float())


def test_a_tower_that_cannot_be_opened_still_has_pixel_gradients() -> None:
    visual = shaken(TimmModel("test_convnext", embed_dim=16, image_size=96, pool="", proj="linear"))
    backbone = Family(OpaqueTower(visual))
    target, pixels = texts(backbone.image_tower), images_for(backbone.image_tower)
    able, refused = defined_for([Saliency("pixels"), GradCam(), LeGrad(), GradEclip()], backbone, target)
    assert [method.name for method in able] == ["saliency"] and len(refused) == 3
    (found,) = explain_together(able, backbone, pixels, target)
    for text in range(2):
        leaf = pixels.clone().requires_grad_()
        target.score(visual(leaf))[:, text].sum().backward()
        assert_close(found.values[:, text], leaf.grad.abs().amax(dim=1))
    assert_close(found.scores, target.score(visual(pixels)))


def test_gradcam_plusplus_of_a_logit_is_that_of_double_precision() -> None:
    """open_clip's own forward pass in float64, where gradients of a logit meet the pole of alpha."""
    backbone = build_backbone("tiny", "tiny", EMBEDDED)
    pixels = torch.randn(4, 3, 96, 96, generator=torch.Generator().manual_seed(0))
    target = SimilarityTarget.from_texts(backbone, ["a photo of melanoma", "a photo of psoriasis"], "logit")
    found = GradCamPlusPlus().explain(backbone, pixels, target).values
    together = explain_together([GradCam(), GradCamPlusPlus()], backbone, pixels, target)
    assert torch.equal(together[1].values, found) and found.dtype == torch.float32
    assert next(backbone.parameters()).dtype == torch.float32

    exact = copy.deepcopy(backbone.model).double().requires_grad_(True)
    kept: list[Tensor] = []
    exact.visual.transformer.resblocks[-1].ln_1.register_forward_hook(lambda *call: kept.append(call[2]))
    images = F.normalize(exact.encode_image(pixels.double()), dim=-1)
    scores = target.logit_scale * images @ F.normalize(target.text_embeddings.double(), dim=-1).T
    activations = kept[0][:, 1:]
    for text in range(2):
        gradient = torch.autograd.grad(scores[:, text].sum(), kept[0], retain_graph=True)[0][:, 1:]
        below = 2 * gradient**2 + activations.sum(dim=1, keepdim=True) * gradient**3 + 1e-6
        weights = (gradient**2 / below * gradient.relu()).sum(dim=1, keepdim=True)
        expected = (weights * activations).sum(dim=-1).relu().detach()
        assert_close(found[:, text].flatten(1).double(), expected, 1e-5)
