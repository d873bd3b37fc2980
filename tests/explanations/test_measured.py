"""Measured localisation is found again by the tower that it was measured on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from clip_xai.explanations.measured import localisation_of
from clip_xai.models.backbones.backbone_builder import build_backbone
from clip_xai.runs.directories import claim


def row(method: str, weights: str, value: float, what: str = "similarity") -> dict[str, Any]:
    auprc = {"value": value, "low": value - 0.1, "high": value + 0.1, "n": 24}
    return {"method": method, "weights": weights, "what": what, "auprc": auprc}


def test_it_is_the_newest_of_the_same_tower(tmp_path: Path) -> None:
    mine, other = build_backbone("tiny", "tiny", "embedded:tiny"), build_backbone("tiny", "tiny", None)
    for name, tower, value in (("a", mine, 0.6), ("b", other, 0.9)):
        folder = tmp_path / "demo" / name / "localisation"
        claim(folder, "localise", {"model": {"tower": tower.fingerprint[:16]}, "settings": {"split": "test"}})
        rows = [row("rise", "trained", value), row("rise", "random", 0.1), row("rise", "trained", 0.2, "contrast")]
        (folder / "localisation.json").write_text(json.dumps([*rows, row("control: random", "trained", 0.1)]))
    found = localisation_of(mine, tmp_path)
    assert found is not None
    assert list(found.methods) == ["rise"]
    assert found.methods["rise"].trained.value == 0.6
    assert found.methods["rise"].random is not None and found.methods["rise"].random.value == 0.1
    assert found.where == "24 photographs, split test, similarity to the text of the true diagnosis"
    (tmp_path / "demo" / "a" / "localisation" / "localisation.json").write_text("")  # damaged: passed over, named
    assert localisation_of(mine, tmp_path) is None
