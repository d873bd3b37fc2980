"""The W&B sweep file draws settings that exist, and watches a number that is logged."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from clip_xai.config.cli import compose_job
from clip_xai.config.schemas import CallbacksConfig

SWEEP = yaml.safe_load((Path(__file__).resolve().parents[2] / "sweep.yaml").read_text())


def values(spec: dict[str, Any]) -> list[Any]:
    return spec["values"] if "values" in spec else [spec["min"], spec["max"]]


@pytest.mark.parametrize("name", SWEEP["parameters"])
def test_every_drawn_value_is_a_setting(name: str) -> None:
    fixed = [part for part in SWEEP["command"] if "=" in part and part.split("=")[0].islower()]
    for value in values(SWEEP["parameters"][name]):
        config: Any = compose_job("train", [*fixed, f"{name}={value}"], Path("x"))
        assert config.logger.wandb and config.stage.number == 1
        for part in name.split("."):
            config = getattr(config, part)
        assert (config.name if hasattr(config, "name") else config) == value


def test_it_watches_what_chooses_the_checkpoint() -> None:
    assert SWEEP["metric"]["name"] == CallbacksConfig().monitor
    assert SWEEP["command"][-1] == "${args_no_hyphens}" and SWEEP["program"] in ("train.py",)
