from __future__ import annotations

import csv
import os
from pathlib import Path

import pytest
import wandb
from lightning.pytorch.loggers import CSVLogger, WandbLogger

from clip_xai.runs.config import LoggerConfig
from clip_xai.runs.loggers import log_metrics, log_table, open_loggers


def test_csv_holds_numbers_and_tables(tmp_path: Path) -> None:
    with open_loggers(LoggerConfig(wandb=False, csv=True), tmp_path, "train", {"seed": 1}) as loggers:
        assert [type(logger) for logger in loggers] == [CSVLogger]
        log_metrics(loggers, {"val/loss": 0.5})
        log_table(loggers, "sample captions", ["photograph", "caption"], [["a.jpg", 'one, "two"'], ["b.jpg", "three"]])
    assert "0.5" in (tmp_path / "csv" / "metrics.csv").read_text()
    rows = list(csv.reader((tmp_path / "csv" / "sample captions.csv").open()))
    assert rows[1:] == [["a.jpg", 'one, "two"'], ["b.jpg", "three"]]


def test_wandb_is_offline_and_closed_even_when_the_run_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WANDB_MODE", raising=False)
    for attempt in ("first", "second"):
        with (
            pytest.raises(RuntimeError, match="broken"),
            open_loggers(LoggerConfig(wandb=True, csv=True), tmp_path / attempt, "train", {"seed": 1}) as loggers,
        ):
            assert [type(logger) for logger in loggers] == [WandbLogger, CSVLogger]
            log_table(loggers, "sample_captions", ["photograph", "caption"], [["a.jpg", "one"]])
            raise RuntimeError("broken")
        assert wandb.run is None
        runs = list((tmp_path / attempt / "wandb").glob("offline-run-*"))
        assert len(runs) == 1
        assert list(runs[0].glob("*.wandb"))


def test_wandb_mode_is_the_users(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "disabled")
    with open_loggers(LoggerConfig(wandb=True), tmp_path, "train") as loggers:
        log_metrics(loggers, {"x": 1.0})
    assert not list((tmp_path / "wandb").glob("offline-run-*")) if os.path.isdir(tmp_path / "wandb") else True
