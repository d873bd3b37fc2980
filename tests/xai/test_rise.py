from __future__ import annotations

from itertools import product

import pytest
import torch
from torch import Tensor

from clip_xai.errors import UserError
from clip_xai.models.backbones.open_clip_vit import OpenClipBackbone
from clip_xai.xai.masks import SmoothMasks, smooth_masks
from clip_xai.xai.methods.rise import Rise
from clip_xai.xai.target import SimilarityTarget
from tests.xai.conftest import assert_close


@pytest.mark.parametrize("kind", ["bernoulli", "gaussian"])
@pytest.mark.parametrize("normalisation", ["paper", "centred"])
def test_rise_matches_the_loop(
    backbone: OpenClipBackbone, pixels: Tensor, similarity: SimilarityTarget, kind: str, normalisation: str
) -> None:
    settings = {"masks": 30, "cells": 3, "keep": 0.4, "kind": kind, "seed": 5}
    found = Rise(normalisation=normalisation, **settings).explain(backbone, pixels, similarity)
    rows = torch.arange(30)
    masks = smooth_masks(30, 3, 0.4, 24, seed=5, kind=kind).pixels(torch.zeros_like(rows), rows, 24)
    for image in range(2):
        scores = torch.stack([similarity.score(backbone.encode_image(pixels[image : image + 1] * m))[0] for m in masks])
        if normalisation == "centred":
            scores = scores - scores.mean(0)
        heat = sum(score[:, None, None] * mask for score, mask in zip(scores, masks, strict=True))
        heat = heat / (30 * (0.4 if kind == "bernoulli" else masks.mean()))
        assert_close(found.values[image], heat.unflatten(1, (4, 6)).unflatten(3, (4, 6)).mean(dim=(2, 4)), 3e-5)
    assert_close(found.scores, similarity.score(backbone.encode_image(pixels)))


def test_rise_tends_to_the_sum_over_all_masks(
    backbone: OpenClipBackbone, pixels: Tensor, similarity: SimilarityTarget
) -> None:
    """All 16 grids of 2 x 2 cells at all 144 offsets, each with its probability."""
    keep = 0.5
    grids = torch.tensor(list(product([0.0, 1.0], repeat=4))).unflatten(1, (2, 2))
    shifts = torch.tensor(list(product(range(12), range(12))))
    masks = SmoothMasks(grids.repeat_interleave(len(shifts), 0), shifts.repeat(len(grids), 1))
    rows = torch.arange(masks.count)
    kept = masks.pixels(torch.zeros_like(rows), rows, 24)
    scores = similarity.score(backbone.encode_image(pixels[:1] * kept[:, None])).detach()
    cells = masks.cells(rows, 24, (4, 4))
    expected = torch.einsum("mt,mhw->thw", scores - scores.mean(0), cells) / (masks.count * keep)
    found = Rise(masks=1500, cells=2, keep=keep).explain(backbone, pixels[:1], similarity).values[0]
    # Standard error of each cell of the mean over 1500 masks.
    products = (scores - scores.mean(0))[:, :, None, None] * cells[:, None] / keep
    error = products.std(0) / 1500**0.5
    assert ((found - expected).abs() < 4.5 * error).all()
    assert (expected.abs() > 4.5 * error).any()


@pytest.mark.parametrize("chunk_size", [1, 7, 1000])
def test_the_chunk_size_changes_nothing(
    backbone: OpenClipBackbone, pixels: Tensor, similarity: SimilarityTarget, chunk_size: int
) -> None:
    one = Rise(masks=20, cells=3).explain(backbone, pixels, similarity).values
    assert_close(Rise(masks=20, cells=3, chunk_size=chunk_size).explain(backbone, pixels, similarity).values, one, 5e-5)


def test_centring_removes_what_does_not_depend_on_the_image(
    backbone: OpenClipBackbone, pixels: Tensor, similarity: SimilarityTarget
) -> None:
    class Shifted(SimilarityTarget):
        def score_of(self, read: Tensor, text_embeddings: Tensor) -> Tensor:
            return super().score_of(read, text_embeddings) + 10

    shifted = Shifted(similarity.text_embeddings, similarity.labels)
    rise = Rise(masks=20, cells=3)
    assert_close(
        rise.explain(backbone, pixels, shifted).values, rise.explain(backbone, pixels, similarity).values, 2e-3
    )


def test_settings_without_meaning_are_refused() -> None:
    for settings in ({"kind": "salt"}, {"normalisation": "maximum"}, {"masks": 1}, {"keep": 1.0}, {"cells": 0}):
        with pytest.raises(UserError, match=r"xai\.rise"):
            Rise(**settings)  # type: ignore[arg-type]
