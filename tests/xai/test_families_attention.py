"""Methods that read attention, on every family, against its library's own pass with attention written out."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from sklearn.cluster import KMeans
from torch import Tensor, nn

from clip_xai.errors import UserError
from clip_xai.xai.explainer import explainers
from clip_xai.xai.methods import (
    AttentionGradient,
    AttentionRollout,
    Cci,
    ClipSurgery,
    GradEclip,
    LeGrad,
    M2ib,
)
from tests.support.families import (
    CLASS_TOKEN,
    MEAN,
    STAGED,
    TRANSFORMERS,
    Attending,
    Subject,
    eager_attention,
    on,
    subject,
)
from tests.xai.conftest import assert_close
from tests.xai.test_families import assert_equal, kept_output


def eager(one: Subject, masked: Tensor | None = None) -> tuple[list[Attending], Tensor]:
    """Every attention of one pass of the library from the pixels on, and the scores."""
    with eager_attention(masked) as calls:
        scores = one.score(one.pixels.clone().requires_grad_())
    return calls, scores


def rows_read(one: Subject) -> slice:
    """The rows of the last block that the embedding is made of: the class token's, or all patches."""
    return slice(0, 1) if "class_token" in one.backbone.supports else slice(one.prefix, None)


@on([*CLASS_TOKEN, *MEAN])
def test_rollout_is_a_product_of_matrices(build: Callable) -> None:
    one = subject(build)
    found = AttentionRollout().explain(one.backbone, one.pixels, one.target).values
    calls, _ = eager(one)
    product = torch.eye(calls[0].key.shape[2])
    for call in calls:
        mixed = call.attention.mean(dim=1) + torch.eye(product.shape[-1])
        product = mixed / mixed.sum(dim=-1, keepdim=True) @ product
    expected = product[:, rows_read(one)].mean(dim=1)[:, one.prefix :].detach()
    for text in range(3):
        assert_close(found[:, text].flatten(1), expected)


@on([*CLASS_TOKEN, *MEAN])
def test_attention_gradient_is_chefers_product(build: Callable) -> None:
    one = subject(build)
    found = AttentionGradient().explain(one.backbone, one.pixels, one.target).values
    calls, scores = eager(one)
    for text in range(3):
        slopes = torch.autograd.grad(scores[:, text].sum(), [call.attention for call in calls], retain_graph=True)
        gained = torch.zeros_like(calls[0].attention[:, 0])  # relevance without the identity, which would drown it
        for call, slope in zip(calls, slopes, strict=True):
            mean = (slope * call.attention).relu().mean(dim=1)
            gained = gained + mean + mean @ gained
        expected = gained[:, rows_read(one)].mean(dim=1)[:, one.prefix :]
        assert_close(found[:, text].flatten(1), expected.detach())


@on([*CLASS_TOKEN, *MEAN])
@pytest.mark.parametrize("layer", [-1, 0])
def test_gradeclip_loosens_each_heads_attention(build: Callable, layer: int) -> None:
    one = subject(build)
    found = GradEclip(layer=layer).explain(one.backbone, one.pixels, one.target).values
    calls, scores = eager(one)
    call = calls[layer]
    # In an earlier block the class token is one row of many, and the one that the paper reads.
    rows = range(call.query.shape[2])[rows_read(one)]
    for text in range(3):
        (slope,) = torch.autograd.grad(scores[:, text].sum(), call.context, retain_graph=True)
        expected = torch.zeros(2, call.key.shape[2] - one.prefix)
        for row in rows:
            for head in range(call.query.shape[1]):
                key, value = call.key[:, head, one.prefix :], call.value[:, head, one.prefix :]
                similar = F.cosine_similarity(call.query[:, head, row, None], key, dim=-1)
                low, high = similar.amin(1, keepdim=True), similar.amax(1, keepdim=True)
                loosened = (similar - low) / (high - low)
                expected += (slope[:, head, row, None] * loosened[..., None] * value).sum(-1).detach()
        assert_close(found[:, text].flatten(1), expected.relu())


@on(CLASS_TOKEN)
def test_legrad_is_the_gradient_at_the_attention(build: Callable) -> None:
    """Each block's output, averaged, goes through what stands behind the last block, by a hook on its library."""
    one = subject(build)
    found = LeGrad(layers=2).explain(one.backbone, one.pixels, one.target).values
    outputs: list[Tensor] = []
    handles = [block.register_forward_hook(lambda *call: outputs.append(first(call[2]))) for block in one.blocks[-2:]]
    calls, _ = eager(one)
    for handle in handles:
        handle.remove()
    for text in range(3):
        expected = torch.zeros(2, calls[0].key.shape[2] - one.prefix)
        for output, call in zip(outputs, calls[-2:], strict=True):
            mean = output.mean(dim=1, keepdim=True).expand_as(output)

            def instead(_: nn.Module, __: object, given: object, mean: Tensor = mean) -> object:
                return (mean, *given[1:]) if isinstance(given, tuple) else mean

            handle = one.blocks[-1].register_forward_hook(instead)
            score = one.score(one.pixels)[:, text].sum()
            handle.remove()
            (slope,) = torch.autograd.grad(score, call.attention, retain_graph=True)
            expected += slope.relu().mean(dim=(1, 2))[:, one.prefix :]
        assert_close(found[:, text].flatten(1), expected)


def first(output: Tensor | tuple[Tensor, ...]) -> Tensor:
    return output[0] if isinstance(output, tuple) else output


@on(CLASS_TOKEN)
def test_cci_hides_patches_from_every_block(build: Callable) -> None:
    one = subject(build)
    found = Cci(clusters=3, seed=4).explain(one.backbone, one.pixels, one.target).values.flatten(2)
    whole = one.score(one.pixels).detach()
    tokens = one.tower.features(one.pixels).patches.detach()
    for image in range(2):
        labels = KMeans(3, n_init=10, random_state=4).fit_predict(tokens[image].numpy())
        for cluster in range(3):
            members = torch.from_numpy(labels == cluster)
            _, scores = eager(one, F.pad(members, (one.prefix, 0)))
            drop = (whole - scores.detach())[image]
            expected = drop[:, None].expand(-1, int(members.sum()))
            assert_equal(found[image][:, members], expected, whole.abs().max())


@on([*CLASS_TOKEN, *MEAN])
def test_m2ib_is_a_hook_behind_one_block(build: Callable) -> None:
    one = subject(build)
    settings = {"layer": 1, "beta": 0.2, "steps": 3, "draws": 2, "seed": 2}
    found = M2ib(**settings).explain(one.backbone, one.pixels, one.target).values.flatten(2)
    with kept_output(one.blocks[1]) as kept:
        one.embed(one.pixels)
    tokens = kept[0].detach()
    noise = torch.randn(3, 2, *tokens.shape[1:], generator=torch.Generator().manual_seed(2))
    for image, text in ((0, 0), (1, 2)):
        alpha = torch.full(tokens.shape[1:], 5.0, requires_grad=True)
        optimiser = torch.optim.Adam([alpha], lr=1.0)
        for step in range(3):
            gate = alpha.sigmoid()
            scores = []
            for drawn in noise[step]:
                mixed = gate * tokens[image] + (1 - gate) * drawn
                with kept_output(one.blocks[1], lambda _, mixed=mixed: mixed[None]):
                    scores.append(one.score(one.pixels[image : image + 1])[0, text])
            loss = 0.2 * capacity(alpha, tokens[image]).mean() - torch.stack(scores).mean()
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
        expected = capacity(alpha, tokens[image]).detach().sum(-1)[one.prefix :]
        assert_close(found[image, text], expected, 2e-4)  # Adam divides by the size of small gradients


def capacity(alpha: Tensor, tokens: Tensor) -> Tensor:
    """KL( N(gate z, (1 - gate)^2) || N(0, 1) ) of each entry, from the definition."""
    gate = alpha.sigmoid()
    mean, deviation = gate * tokens, 1 - gate
    return -deviation.log() + (deviation**2 + mean**2) / 2 - 0.5


@on(CLASS_TOKEN)
def test_surgery_adds_values_that_attend_to_values(build: Callable) -> None:
    one = subject(build)
    found = ClipSurgery(layers=2, redundancy="none").explain(one.backbone, one.pixels, one.target).values
    with kept_output(one.blocks[0]) as entered:
        calls, _ = eager(one)
    stream = entered[0].detach()
    for block, call in zip(one.blocks[1:], calls[1:], strict=True):
        value = call.value.detach()
        context = (value @ value.transpose(-2, -1) / value.shape[-1] ** 0.5).softmax(dim=-1) @ value
        stream = stream + projected(one, block, context)
    # What single tokens are in the embedding space: each in the place of the class token, behind the last block.
    embedded = []
    for patch in range(one.prefix, stream.shape[1]):
        with torch.no_grad(), kept_output(one.blocks[-1], lambda out, at=patch: stream[:, at, None].expand_as(out)):
            embedded.append(one.embed(one.pixels))
    features = F.normalize(torch.stack(embedded, dim=1), dim=-1)
    texts = F.normalize(one.target.text_embeddings, dim=-1)
    assert_close(found.flatten(2), torch.einsum("bnd,td->btn", features, texts))


def projected(one: Subject, block: nn.Module, context: Tensor) -> Tensor:
    """What a block's attention adds to the tokens with this context: the library runs with it put in its place."""
    found: list[Tensor] = []

    def attend(*_: object, **__: object) -> Tensor:
        return context

    attention = next(part for name, part in block.named_children() if name in ("attn", "self_attn"))
    handle = attention.register_forward_hook(lambda *call: found.append(first(call[2])))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(F, "scaled_dot_product_attention", attend)
        one.embed(one.pixels.clone().requires_grad_())  # without gradients, PyTorch's modules take a faster way
    handle.remove()
    scale = getattr(block, "ls1", None) or getattr(block, "ls_1", None) or nn.Identity()
    assert len(found) == 1
    return scale(found[0]).detach()


@on(TRANSFORMERS)
def test_every_transformer_has_every_method_or_a_reason(build: Callable) -> None:
    """Of all image methods of the table, at settings that a tower of three blocks allows."""
    one = subject(build)
    light = {"m2ib": {"layer": 0, "steps": 1, "draws": 1}, "extremal_perturbation": {"iterations": 1, "cells": 4}}
    light |= {"rise": {"masks": 4}, "cci": {"clusters": 2}, "clip_surgery": {"redundancy": "none"}}
    light |= {"kernelshap": {"cells": 2}, "smoothgrad": {"samples": 1}, "gradient_shap": {"samples": 1}}
    refused = []
    for name, method in explainers.items():
        explainer = method(**light.get(name, {}))
        if explainer.modality != "image":
            continue
        if explainer.refusal(one.backbone, one.target):
            refused.append(name)
            continue
        values = explainer.explain(one.backbone, one.pixels, one.target).values
        assert values.shape[:2] == (2, 3) and values.isfinite().all() and values.abs().max() > 0, name
    pooled = one.tower.pool is not None  # type: ignore[attr-defined]
    assert refused == (["clip_surgery"] if pooled else [])


@on(STAGED)
def test_towers_without_attention_say_what_they_have(build: Callable) -> None:
    one = subject(build)
    refused = [
        name
        for name, method in explainers.items()
        if method().modality == "image" and method().refusal(one.backbone, one.target)
    ]
    reads_pool = build.__name__ == "build_resnet"
    expected = {"attention_rollout", "attention_gradient", "legrad", "clip_surgery", "cci", "m2ib"}
    assert set(refused) == expected | (set() if reads_pool else {"gradeclip"})
    for name in refused:
        with pytest.raises(UserError, match=r"choose one of gradcam.*ablationcam"):
            explainers[name]().explain(one.backbone, one.pixels, one.target)
