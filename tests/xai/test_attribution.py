from __future__ import annotations

import json
from dataclasses import FrozenInstanceError
from pathlib import Path

import pytest
import torch

from clip_xai.data.preprocess import Preprocess
from clip_xai.xai.attribution import Attribution


def attribution(**changes: object) -> Attribution:
    parts = {
        "values": torch.randn(2, 3, 4, 4),
        "method": "gradcam",
        "settings": {"layer": -1, "kind": "cosine"},
        "scores": torch.randn(2, 3),
        "labels": ["a", "é", "<b>"],
        "text_dependent": True,
    }
    return Attribution(**{**parts, **changes})


def test_a_saved_attribution_comes_back_whole(tmp_path: Path) -> None:
    places = [Preprocess(image_size=24).geometry(40, 30), Preprocess(image_size=24).geometry(24, 50)]
    image = attribution(geometry=places)
    text = attribution(values=torch.randn(2, 3, 5), kind="text", tokens=[["x", "y"], ["z"], ["ü"] * 5])
    for saved in (image, text):
        saved.save(tmp_path / "a.safetensors")
        loaded = Attribution.load(tmp_path / "a.safetensors")
        assert torch.equal(loaded.values, saved.values) and torch.equal(loaded.scores, saved.scores)
        assert json.loads(json.dumps(saved.metadata())) == loaded.metadata()
        assert loaded.geometry == saved.geometry and loaded.tokens == saved.tokens


def test_a_map_lies_on_the_square_that_the_model_saw() -> None:
    # A photograph of 40 x 20: the model sees columns 10 to 30.
    placed = attribution(geometry=[Preprocess(image_size=24).geometry(40, 20)] * 2).on_photograph(1, 2)
    assert placed.shape == (20, 40)
    assert placed[:, :10].isnan().all() and placed[:, 30:].isnan().all()
    assert placed[:, 10:30].isfinite().all()
    with pytest.raises(ValueError, match="with_geometry"):
        attribution().on_photograph(0, 0)


def test_empty_maps_are_told() -> None:
    values = torch.randn(2, 3, 4, 4)
    values[1, 2] = 0
    assert attribution(values=values).empty.tolist() == [[False] * 3, [False, False, True]]


def test_parts_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="do not fit"):
        attribution(labels=["a"])
    with pytest.raises(ValueError, match="cannot have the shape"):
        attribution(kind="text", tokens=[[]] * 3)
    with pytest.raises(ValueError, match="name their tokens"):
        attribution(values=torch.randn(2, 3, 4), kind="text")
    with pytest.raises(ValueError, match="1 geometries for 2"):
        attribution(geometry=[Preprocess(image_size=24).geometry(40, 30)])
    with pytest.raises(FrozenInstanceError):
        attribution().method = "other"
