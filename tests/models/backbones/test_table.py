"""What is said about the backbones is what is built."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from clip_xai.models.backbones.backbone_table import markdown
from clip_xai.models.backbones.catalogue import CATALOGUE

ROOT = Path(__file__).resolve().parents[3]


def test_the_readmes_table_of_backbones_is_what_the_code_builds() -> None:
    readme = (ROOT / "README.md").read_text()
    inside = readme.split("<!-- backbones -->")[1].split("<!-- /backbones -->")[0]
    assert inside.strip() == markdown(), "run python -m clip_xai.models.backbones and put its table into README.md"


@pytest.mark.parametrize("name", CATALOGUE)
def test_the_options_are_the_catalogue(name: str) -> None:
    option = yaml.safe_load((ROOT / "conf" / "backbone" / f"{name}.yaml").read_text())
    entry = CATALOGUE[name]
    library = {} if entry.library is None else {"library": entry.library}
    assert option == {"name": name, "architecture": entry.architecture, "pretrained": entry.pretrained, **library}


def test_every_option_is_in_the_catalogue() -> None:
    assert {path.stem for path in (ROOT / "conf" / "backbone").glob("*.yaml")} == set(CATALOGUE)
