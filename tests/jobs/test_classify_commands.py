"""Sweeps and searches of classifiers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from clip_xai.jobs.search import search
from tests.jobs.test_commands import home, newest, works
from tests.support.small_classes import RESNET, SHORT, folder_of_classes, of_data, read, settings

__all__ = ["home"]


@pytest.mark.slow
def test_a_search_looks_for_the_highest_area(tmp_path: Path) -> None:
    root = folder_of_classes(tmp_path / "shapes", train=4, val=3, test=1)
    brief = [*SHORT, *RESNET, *of_data(root), "stage.epochs=1"]
    told = ["hparams_search=optuna_classes", "hparams_search.trials=2", "hparams_search.startup_trials=2"]

    def trial(overrides: Sequence[str]) -> Any:
        return settings("train", tmp_path / "unused", *brief, *overrides)

    found = search(settings("train", tmp_path / "search", *brief, *told), trial)
    values = [read(run / "metrics.json")["val/auroc"] for run in sorted((tmp_path / "search").glob("trial_*"))]
    assert len(values) == 2 and found["best_value"] == pytest.approx(max(values))


@pytest.mark.slow
def test_a_sweep_over_two_learning_rates_is_two_runs(home: Path) -> None:
    root = folder_of_classes(home / "shapes", train=4, val=3, test=1)
    words = (*SHORT, *RESNET, *of_data(root))
    works(home, f"python train.py -m {' '.join(words)} trainer=cpu logger=csv stage.learning_rate=0.001,0.01")
    rates = {read(run / "metrics.json")["val/loss"] for run in newest(home, "train", 3) if "classify" in run.name}
    assert len(rates) == 2
