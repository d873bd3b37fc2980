"""What is said about the backbones is what is built."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from clip_xai.models.backbones.backbone_table import markdown
from clip_xai.models.backbones.catalogue import CATALOGUE

ROOT = Path(__file__).resolve().parents[3]


def test_the_table_of_backbones_is_what_the_code_builds() -> None:
    rows = {row.split("`")[1]: row for row in markdown().splitlines()[2:]}
    assert list(rows) == list(CATALOGUE)
    # Counted by hand from the publishers' configurations.
    assert "| 224 | 14 x 14 | 512 | 768 | 149.6 M | 77 tokens |" in rows["dermlip"]
    assert "| 448 | 32 x 32 | 1152 | 1152 | 878.3 M | 64 tokens |" in rows["medsiglip"]
    for name, row in rows.items():
        assert row.endswith(f"| {CATALOGUE[name].licence} |")


@pytest.mark.parametrize("name", CATALOGUE)
def test_the_options_are_the_catalogue(name: str) -> None:
    option = yaml.safe_load((ROOT / "conf" / "backbone" / f"{name}.yaml").read_text())
    entry = CATALOGUE[name]
    library = {} if entry.library is None else {"library": entry.library}
    assert option == {"name": name, "architecture": entry.architecture, "pretrained": entry.pretrained, **library}


def test_every_option_is_in_the_catalogue() -> None:
    assert {path.stem for path in (ROOT / "conf" / "backbone").glob("*.yaml")} == set(CATALOGUE)
