"""Known mechanisms: the tower passes nothing across cells, and every method gives what was derived for it."""

from __future__ import annotations

import itertools

import pytest
import torch

from clip_xai.errors import UserError
from clip_xai.explanations.causes.mechanisms import (
    ADAPTED,
    CELL,
    EXPECTED,
    MECHANISMS,
    PARTS,
    SIDE,
    TRUTH,
    MechanismTarget,
    given,
    mechanism_picture,
    mechanism_tower,
    on_parts,
)
from clip_xai.models.backbones.open_clip_vit import OpenClipBackbone
from clip_xai.xai.explainer import explainers
from clip_xai.xai.trace import Needs, Trace


@pytest.fixture(scope="module")
def tower() -> OpenClipBackbone:
    return mechanism_tower()


def drawn(tower: OpenClipBackbone, *parts: int) -> torch.Tensor:
    """The picture with some of its parts alone, the others filled with 0."""
    picture = mechanism_picture()
    for part in {0, 1} - set(parts):
        for cell in PARTS[part]:
            row, column = divmod(cell, SIDE // CELL)
            picture[..., CELL * row : CELL * (row + 1), CELL * column : CELL * (column + 1)] = 0
    return picture


def test_attention_is_the_identity_and_tokens_are_the_means_of_their_cells(tower: OpenClipBackbone) -> None:
    picture = mechanism_picture()
    trace = Trace(tower, picture, MechanismTarget("linear"), Needs(activations=frozenset({-1})))
    attention = trace.block(-1).attention()[0, 0]
    torch.testing.assert_close(attention, torch.eye(10), atol=0, rtol=0)
    means = torch.nn.functional.adaptive_avg_pool2d(picture, 3).flatten(2).transpose(1, 2)
    torch.testing.assert_close(tower.features(picture).patches[..., :3], 4 * means)


@pytest.mark.parametrize("mechanism", MECHANISMS)
def test_the_truth_is_the_shapley_value_of_the_parts(tower: OpenClipBackbone, mechanism: str) -> None:
    def score(*parts: int) -> float:
        return float(MechanismTarget(mechanism).score(tower.features(drawn(tower, *parts)).patches))

    for part, other in itertools.permutations((0, 1)):
        value = ((score(part) - score()) + (score(0, 1) - score(other))) / 2
        assert value == pytest.approx(TRUTH[mechanism][part], abs=1e-6)


@pytest.mark.parametrize("mechanism", MECHANISMS)
@pytest.mark.parametrize("method", sorted(EXPECTED))
def test_every_method_gives_what_was_derived(tower: OpenClipBackbone, method: str, mechanism: str) -> None:
    expected = EXPECTED[method][mechanism]
    explainer = explainers[method](**ADAPTED.get(method, {}))
    try:
        values = explainer.explain(tower, mechanism_picture(), MechanismTarget(mechanism)).values[0, 0]
    except UserError as error:  # where nothing reaches the score
        assert "zero" in str(error)
        values = torch.zeros(3, 3)
    first, second, rest = on_parts(values)
    if expected.values is not None:
        assert (first, second) == pytest.approx(expected.values, abs=1e-4)
    if expected.shares is None:
        assert float(values.clamp(min=0).sum()) == pytest.approx(0, abs=1e-6)
        return
    positive = on_parts(values.clamp(min=0))
    total = sum(positive)
    assert (positive[0] / total, positive[1] / total) == pytest.approx(expected.shares, abs=1e-4)
    assert rest == pytest.approx(0, abs=1e-4)


def test_the_table_says_what_is_true_and_what_was_derived() -> None:
    found = given([explainers[name]() for name in ("integrated_gradients", "gradcam", "occlusion")])
    assert all(one.derived for one in found)
    true = {(one.method, one.mechanism) for one in found if one.true}
    assert {mechanism for method, mechanism in true if method == "integrated_gradients"} == set(MECHANISMS)
    assert ("gradcam", "linear") not in true and ("gradcam", "and") in true and ("occlusion", "or") not in true
    assert given([explainers["token_gradxinput"]()]) == []
