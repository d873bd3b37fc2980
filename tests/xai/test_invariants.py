"""What must hold for every explainer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from scipy.stats import spearmanr
from torch import Tensor, nn

from clip_xai.errors import UserError
from clip_xai.models.backbones.open_clip_vit import OpenClipBackbone
from clip_xai.models.captioner import Captioner
from clip_xai.models.tokenizer import CaptionTokenizer
from clip_xai.xai.explainer import Explainer, defined_for, explain_together
from clip_xai.xai.methods import (
    AttentionGradient,
    AttentionRollout,
    ClipSurgery,
    EmbeddingSpace,
    GradCam,
    GradCamPlusPlus,
    GradEclip,
    GradientShap,
    GuidedBackprop,
    HiResCam,
    InputXGradient,
    IntegratedGradients,
    LayerCam,
    LeGrad,
    Occlusion,
    Saliency,
    SmoothGrad,
    TokenGradXInput,
)
from clip_xai.xai.target import CaptionTarget, SimilarityTarget, Target
from tests.xai.conftest import CAPTION, TEXTS, Build, assert_close, build_captioner

TRACED = [
    GradEclip(),
    GradCam(),
    GradCamPlusPlus(),
    LayerCam(),
    HiResCam(),
    AttentionRollout(),
    AttentionGradient(),
    LeGrad(),
    ClipSurgery(),
    Saliency(),
    InputXGradient(),
]
IMAGE = [
    *TRACED,
    SmoothGrad(samples=3),
    IntegratedGradients(steps=4),
    GradientShap(samples=4),
    GuidedBackprop(),
    EmbeddingSpace(),
    Occlusion(window=1),
]
EVERY = [*IMAGE, TokenGradXInput()]
every_explainer = pytest.mark.parametrize("explainer", EVERY, ids=lambda explainer: explainer.name)
image_explainer = pytest.mark.parametrize("explainer", IMAGE, ids=lambda explainer: explainer.name)


def defined(explainer: Explainer, backbone: OpenClipBackbone, target: Target) -> bool:
    """Whether a method is defined for a target; if not, it must say so."""
    if explainer.refusal(backbone, target) is None:
        return True
    with pytest.raises(UserError, match="choose one of"):
        explainer.require(backbone, target)
    return False


def state(module: nn.Module) -> list[object]:
    """Everything about a model that an explainer could leave behind."""
    hooks = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    parts = [(part.training, [len(getattr(part, name)) for name in hooks]) for part in module.modules()]
    weights = [
        (parameter.requires_grad, parameter.grad is None, parameter._backward_hooks)
        for parameter in module.parameters()
    ]
    return [parts, weights, [parameter.detach().clone() for parameter in module.parameters()]]


def assert_same_state(module: nn.Module, before: list[object]) -> None:
    after = state(module)
    assert after[:2] == before[:2]
    assert all(torch.equal(one, other) for one, other in zip(after[2], before[2], strict=True))


@every_explainer
def test_names_and_declarations(explainer: Explainer) -> None:
    assert explainer.modality in ("image", "text")
    assert isinstance(explainer.text_dependent, bool) and isinstance(explainer.linear_in_target, bool)
    assert type(explainer)(**explainer.settings) == explainer
    assert "Cost" in type(explainer).__doc__ and "Shapes" in type(explainer).__doc__


@every_explainer
def test_texts_together_are_texts_one_by_one(
    explainer: Explainer, backbone: OpenClipBackbone, pixels: Tensor, similarity: SimilarityTarget
) -> None:
    together = explainer.explain(backbone, pixels, similarity)
    assert together.labels == TEXTS and together.method == explainer.name
    assert together.settings == {**explainer.settings, "target": "similarity", "kind": "cosine"}
    for row, text in enumerate(TEXTS):
        for image in range(2):
            alone = explainer.explain(
                backbone, pixels[image : image + 1], SimilarityTarget.from_texts(backbone, [text])
            ).values
            found = together.values[image : image + 1, row : row + 1]
            found = found[..., : alone.shape[-1]]
            if together.tokens is None and alone.abs().max() == 0:
                assert found.abs().max() <= 1e-6
                continue
            assert_close(found, alone, 5e-5 if explainer.name == "occlusion" else 1e-5)


@image_explainer
def test_texts_change_the_map_unless_declared(
    explainer: Explainer, backbone: OpenClipBackbone, pixels: Tensor, similarity: SimilarityTarget
) -> None:
    values = explainer.explain(backbone, pixels, similarity).values
    assert torch.equal(values[:, 0], values[:, 1]) is not explainer.text_dependent


@every_explainer
def test_methods_linear_in_the_target_add_up_and_others_do_not(
    explainer: Explainer, captioner: Captioner, pixels: Tensor
) -> None:
    target = CaptionTarget.words(captioner, captioner.tokenizer.encode(CAPTION), whole=True)
    if not defined(explainer, captioner.backbone, target):
        return
    values = explainer.explain(captioner.backbone, pixels, target).values
    gap = (values[:, :-1].sum(1) - values[:, -1]).abs().max() / values[:, -1].abs().max()
    # CLIP Surgery is linear where it follows a cotangent, not where it compares texts.
    assert (gap < 1e-4) == (explainer.linear_in_target or explainer.name == "clip_surgery")


@every_explainer
@pytest.mark.parametrize("frozen", [True, False])
def test_the_model_is_left_as_it_was(explainer: Explainer, captioner: Captioner, pixels: Tensor, frozen: bool) -> None:
    captioner.requires_grad_(not frozen)
    captioner.train()
    captioner.backbone.visual.ln_post.eval()
    before = state(captioner)
    similarity = SimilarityTarget.from_texts(captioner.backbone, TEXTS)
    for target in (similarity, CaptionTarget.words(captioner, captioner.tokenizer.encode(CAPTION))):
        if not defined(explainer, captioner.backbone, target):
            continue
        result = explainer.explain(captioner.backbone, pixels, target)
        assert not result.values.requires_grad and not result.scores.requires_grad
    assert_same_state(captioner, before)


@every_explainer
def test_the_model_is_left_as_it_was_after_an_error(explainer: Explainer, captioner: Captioner, pixels: Tensor) -> None:
    class Broken(CaptionTarget):
        def score_of(self, prefix: Tensor, embeddings: Tensor) -> Tensor:
            super().score_of(prefix, embeddings)
            raise RuntimeError("broken")

    class BrokenSimilarity(SimilarityTarget):
        def score(self, read: Tensor) -> Tensor:
            super().score(read)
            raise RuntimeError("broken")

    captioner.train()
    before = state(captioner)
    target = CaptionTarget.words(captioner, captioner.tokenizer.encode(CAPTION))
    broken = Broken.words(captioner, captioner.tokenizer.encode(CAPTION))
    if not defined(explainer, captioner.backbone, target):
        target = SimilarityTarget.from_texts(captioner.backbone, TEXTS)
        broken = BrokenSimilarity.from_texts(captioner.backbone, TEXTS)
    with pytest.raises(RuntimeError, match="broken"):
        explainer.explain(captioner.backbone, pixels, broken)
    with pytest.raises(RuntimeError):
        explainer.explain(captioner.backbone, pixels[:, :2], target)  # two colours
    assert torch.is_grad_enabled()
    assert_same_state(captioner, before)


@every_explainer
@pytest.mark.parametrize("guard", [torch.no_grad, torch.inference_mode])
def test_callers_without_gradients_get_the_same(
    explainer: Explainer, captioner: Captioner, pixels: Tensor, guard: Callable
) -> None:
    ids = captioner.tokenizer.encode(CAPTION)

    def maps() -> list[Tensor]:
        targets = (SimilarityTarget.from_texts(captioner.backbone, TEXTS), CaptionTarget.words(captioner, ids))
        able = [target for target in targets if defined(explainer, captioner.backbone, target)]
        return [explainer.explain(captioner.backbone, pixels * 1, target).values for target in able]

    expected = maps()
    with guard():
        found = maps()
    for one, other in zip(found, expected, strict=True):
        assert torch.equal(one.nan_to_num(), other.nan_to_num())


def test_explainers_together_are_explainers_alone_in_one_pass(
    backbone: OpenClipBackbone, pixels: Tensor, similarity: SimilarityTarget
) -> None:
    explainers = [*TRACED, GradCam(layer=1), GradEclip(layer=0), GradEclip(heads="single")]
    passes: list[int] = []
    handle = backbone.visual.conv1.register_forward_hook(lambda module, inputs, output: passes.append(1))
    together = explain_together([*explainers, TokenGradXInput()], backbone, pixels, similarity)
    handle.remove()
    # The shared trace, the embedding that the text side needs, and Grad-CAM++ once more in double precision.
    assert len(passes) == 2 + any(isinstance(explainer, GradCamPlusPlus) for explainer in explainers)
    for explainer, found in zip(explainers, together, strict=False):
        alone = explainer.explain(backbone, pixels, similarity)
        assert_close(found.values, alone.values)
        assert replace(found, values=alone.values, scores=alone.scores).metadata() == alone.metadata()


def counted(backbone: OpenClipBackbone, explainer: Explainer, pixels: Tensor) -> tuple[list[int], list[int]]:
    """Forward passes of conv1 and of each block's ln_1, and backward passes through each block's ln_1."""
    target = SimilarityTarget(torch.randn(16, 16), [str(index) for index in range(16)])
    parts = [backbone.visual.conv1, *(block.ln_1 for block in backbone.visual.transformer.resblocks)]
    forward, backward = [0] * len(parts), [0] * len(parts)
    handles = []
    for index, part in enumerate(parts):

        def count_forward(module: nn.Module, inputs: object, output: Tensor, index: int = index) -> None:
            forward[index] += 1
            if output.requires_grad:
                output.register_hook(lambda gradient: count_backward(index))

        def count_backward(index: int) -> None:
            backward[index] += 1

        handles.append(part.register_forward_hook(count_forward))
    explainer.explain(backbone, pixels, target)
    for handle in handles:
        handle.remove()
    return forward, backward


def test_sixteen_texts_cost_one_forward_and_no_backward_below_the_layer(
    backbone: OpenClipBackbone, pixels: Tensor
) -> None:
    backbone.requires_grad_(True)  # so that a graph below would be built if anything let it
    nothing, everything = [0] * 4, [1] * 4
    for explainer in (LeGrad(), ClipSurgery(), GradEclip(heads="single"), LayerCam(), HiResCam(), GradCamPlusPlus()):
        assert counted(backbone, explainer, pixels) == ([1] * 4, nothing), explainer.name
    for explainer in (Saliency(), InputXGradient(), GuidedBackprop(), EmbeddingSpace()):
        assert counted(backbone, explainer, pixels) == ([1] * 4, everything), explainer.name
    # Four points of two images in one chunk and one backward pass; two passes more for the scores at both ends.
    assert counted(backbone, IntegratedGradients(steps=4), pixels) == ([3] * 4, everything)
    assert counted(backbone, SmoothGrad(samples=3), pixels) == ([2] * 4, everything)
    assert counted(backbone, GradientShap(samples=20, chunk_size=16), pixels) == ([4] * 4, [3] * 4)
    assert counted(backbone, AttentionGradient(start_layer=-1), pixels) == ([1] * 4, nothing)
    assert counted(backbone, AttentionGradient(), pixels) == ([1] * 4, [0, 0, 1, 1])
    assert counted(backbone, GradEclip(), pixels) == ([1] * 4, [0] * 4)
    assert counted(backbone, GradCam(), pixels) == ([1] * 4, [0] * 4)
    assert counted(backbone, AttentionRollout(), pixels) == ([1] * 4, [0] * 4)
    # From layer 0 on, one batched backward pass reaches the two blocks above.
    assert counted(backbone, GradEclip(layer=0), pixels) == ([1] * 4, [0, 0, 1, 1])


def test_no_warning_is_given(captioner: Captioner, pixels: Tensor, recwarn: pytest.WarningsRecorder) -> None:
    target = CaptionTarget.words(captioner, captioner.tokenizer.encode(CAPTION))
    for explainer in EVERY:
        if defined(explainer, captioner.backbone, target):
            explainer.explain(captioner.backbone, pixels, target)
    assert not [str(warning.message) for warning in recwarn]


@pytest.mark.parametrize("explainer", TRACED, ids=lambda one: one.name)
def test_half_precision_ranks_patches_alike(
    explainer: Explainer, backbone: OpenClipBackbone, pixels: Tensor, similarity: SimilarityTarget
) -> None:
    whole = explainer.explain(backbone, pixels, similarity).values
    half = explainer.explain(backbone.to(torch.bfloat16), pixels.to(torch.bfloat16), similarity)
    assert half.values.dtype == half.scores.dtype == torch.float32
    assert spearmanr(whole.flatten(), half.values.flatten()).statistic > 0.97


PLANTED = 9


@pytest.fixture()
def planted(build_backbone: Build) -> OpenClipBackbone:
    """A tower whose class token looks at one patch position only, and reads one channel there: how bright it is."""
    backbone = build_backbone(layers=2, head_width=32)
    visual = backbone.visual
    with torch.no_grad():
        for parameter in visual.parameters():
            parameter.zero_()
        visual.conv1.weight[0] = 1 / 108  # channel 0: mean brightness of the patch
        visual.class_embedding[1] = 4.0  # channel 1 marks the class token, channel 2 the planted place
        visual.positional_embedding[1 + PLANTED, 2] = 4.0
        visual.positional_embedding[1:, 3] = 4.0  # keeps the norm of every token up
        for norm in (visual.ln_pre, visual.ln_post, *(block.ln_1 for block in visual.transformer.resblocks)):
            norm.weight.fill_(1.0)
        attention = visual.transformer.resblocks[-1].attn
        attention.in_proj_weight[0, 1] = 6.0  # query: am I the class token
        attention.in_proj_weight[32, 2] = 6.0  # key: am I the planted place
        attention.in_proj_weight[64, 0] = 1.0  # value: brightness
        attention.out_proj.weight[5, 0] = 4.0
        visual.proj[5, 0] = 1.0
        visual.proj[6, 1] = 1.0
    return backbone


@image_explainer
@pytest.mark.parametrize("reads", ["pooled", "patches"])
def test_a_planted_patch_is_found(
    explainer: Explainer, planted: OpenClipBackbone, tokenizer: CaptionTokenizer, reads: str
) -> None:
    pixels = torch.zeros(1, 3, 24, 24)
    row, column = divmod(PLANTED, 4)
    pixels[:, :, row * 6 : row * 6 + 6, column * 6 : column * 6 + 6] = 3.0
    if reads == "pooled":
        target = SimilarityTarget(torch.eye(16)[:1], ["bright"], kind="dot")
    else:
        # Every row must look where the class token looked for a patch target to have one place.
        with torch.no_grad():
            planted.visual.transformer.resblocks[-1].attn.in_proj_bias[0] = 6.0
        target = SimilarityTarget(torch.eye(32)[5:6], ["bright"], kind="dot")
        target.reads = "patches"
        target.score_of = lambda read, texts: read.sum(1) @ texts.T
    if not defined(explainer, planted, target):
        return
    values = explainer.explain(planted, pixels, target).values[0, 0].flatten()
    assert values.argmax() == PLANTED and values[PLANTED] > 0
    others = values[torch.arange(16) != PLANTED]
    # CLIP Surgery compares directions: elsewhere it says no, as loudly as it says yes here.
    others = others.clamp(min=0) if explainer.name == "clip_surgery" else others.abs()
    assert values[PLANTED] > 2 * others.max()


def test_methods_that_are_not_defined_are_left_out_by_name(
    backbone: OpenClipBackbone, tokenizer: CaptionTokenizer, similarity: SimilarityTarget
) -> None:
    caption = CaptionTarget.words(build_captioner("resampler", backbone, tokenizer), tokenizer.encode("a nevus"))
    able, refused = defined_for([GradCam(), ClipSurgery(), EmbeddingSpace()], backbone, caption)
    assert able == [GradCam()]
    assert [reason.split()[0] for reason in refused] == ["clip_surgery", "embedding_space"]
    assert defined_for([ClipSurgery()], backbone, similarity) == ([ClipSurgery()], [])
    with pytest.raises(UserError, match="none of the requested methods is defined for target=caption"):
        defined_for([ClipSurgery()], backbone, caption)
