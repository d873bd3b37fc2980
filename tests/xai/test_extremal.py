"""Extremal perturbations of scores that hardly tell places apart, and of those that do not."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from clip_xai.models.backbones.open_clip_vit import OpenClipBackbone
from clip_xai.xai.methods.extremal import Bumps, ExtremalPerturbation
from clip_xai.xai.target import SimilarityTarget


class Brightness:
    """What a tower would hand over that reads the brightness of the upper right quarter alone."""

    gain = 1.0

    def __init__(self, pixels: Tensor) -> None:
        self.pooled = F.pad(self.gain * pixels[:, :, 2:10, 14:22].mean(dim=(1, 2, 3))[:, None], (0, 15))

    def read(self, reads: str) -> Tensor:
        return self.pooled


def found(backbone: OpenClipBackbone, cells: int, gain: float, monkeypatch: pytest.MonkeyPatch) -> Tensor:
    monkeypatch.setattr(Brightness, "gain", gain)
    backbone.features = Brightness  # type: ignore[assignment, method-assign]
    target = SimilarityTarget(torch.eye(16)[:1], ["bright"], "dot")
    explainer = ExtremalPerturbation([0.25], "preserve", "fade", 100, cells, max(1.0, cells / 8), jitter=False)
    return explainer.explain(backbone, torch.ones(1, 3, 24, 24), target).values[0, 0]


@pytest.mark.parametrize("cells", [5, 12])
def test_a_score_of_nothing_has_no_region_however_few_the_cells(
    backbone: OpenClipBackbone, cells: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Few bumps leave ripples, which are not evidence."""
    values = found(backbone, cells, 0.0, monkeypatch)
    assert values.max() - values.min() < 1e-6 and abs(float(values.mean()) - 0.25) < 0.05


@pytest.mark.parametrize("cells", [5, 12])
def test_a_weak_score_finds_its_region(backbone: OpenClipBackbone, cells: int, monkeypatch: pytest.MonkeyPatch) -> None:
    values = found(backbone, cells, 0.3, monkeypatch)
    quarter = values[:2, 2:]
    assert quarter.mean() > 0.6 and quarter.mean() > 3 * (values.sum() - quarter.sum()) / 12


def test_equal_bumps_without_their_ripples_are_flat() -> None:
    bumps = Bumps(24, 5, 1.0)
    parameters = torch.full((2, 5, 5), 0.3)
    masks, ripples = bumps.masks(parameters), bumps.ripples(parameters)
    assert masks.std() > 1e-3 and (masks - ripples).std() < 1e-6
    assert ripples.mean().abs() < 1e-6
