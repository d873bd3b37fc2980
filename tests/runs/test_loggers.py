from __future__ import annotations

import csv
import json
import struct
import time
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path

import pytest
import wandb
from lightning.pytorch.loggers import CSVLogger, WandbLogger
from wandb.proto import wandb_internal_pb2

from clip_xai.config.schemas import LoggerConfig
from clip_xai.errors import UserError
from clip_xai.runs.loggers import GivenUp, log_metrics, log_table, open_loggers


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


def exit_code(run_dir: Path) -> int:
    """What the file of an offline run says about how the process ended; W&B's own process writes it a moment later."""
    [file] = run_dir.glob("wandb/offline-run-*/*.wandb")
    for _ in range(200):
        codes = [record.exit.exit_code for record in written(file) if record.WhichOneof("record_type") == "exit"]
        if codes:
            break
        time.sleep(0.05)
    [code] = codes
    return int(code)


def written(file: Path) -> Iterator[wandb_internal_pb2.Record]:
    """Records of a log of LevelDB: blocks of 32 KiB of pieces with checksum, length and kind, of which 1 and 4 end."""
    data, at, message = file.read_bytes(), 7, b""
    while at + 7 <= len(data):
        left = 32768 - at % 32768
        if left < 7:
            at += left
            continue
        _, length, kind = struct.unpack_from("<IHB", data, at)
        message += data[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4) and at <= len(data):
            yield wandb_internal_pb2.Record.FromString(message)
            message = b""


@pytest.mark.parametrize(
    ("error", "state", "code"),
    [
        (None, "finished", 0),
        (UserError("the training loss is nan"), "failed", 1),
        (SystemExit(143), "stopped", 143),
        (KeyboardInterrupt(), "stopped", 130),
        (GivenUp("given up in epoch 3"), "given up", 0),
    ],
)
def test_how_a_run_ended_is_recorded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException | None, state: str, code: int
) -> None:
    monkeypatch.delenv("WANDB_MODE", raising=False)
    told: list[str] = []
    monkeypatch.setattr(CSVLogger, "finalize", lambda self, status: told.append(status))
    with (
        pytest.raises(type(error)) if error is not None else nullcontext(),
        open_loggers(LoggerConfig(wandb=True, csv=True), tmp_path, "train"),
    ):
        assert json.loads((tmp_path / "state.json").read_text())["state"] == "running"
        if error is not None:
            raise error
    said = json.loads((tmp_path / "state.json").read_text())
    assert said["state"] == state and str(error or "") in (said["reason"] or "")
    assert exit_code(tmp_path) == code
    assert told == ["success" if error is None else "failed"]


def test_wandb_mode_is_the_users(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "disabled")
    with open_loggers(LoggerConfig(wandb=True), tmp_path, "train") as loggers:
        log_metrics(loggers, {"x": 1.0})
    assert not list(tmp_path.rglob("offline-run-*"))
    monkeypatch.setenv("WANDB_MODE", "offline")
    with open_loggers(LoggerConfig(wandb=True), tmp_path, "train") as loggers:
        log_metrics(loggers, {"x": 1.0})
    assert list(tmp_path.rglob("offline-run-*"))


@pytest.mark.filterwarnings("error")
def test_going_on_does_not_say_that_files_are_deleted(tmp_path: Path) -> None:
    for value in (1.0, 2.0):
        with open_loggers(LoggerConfig(wandb=False, csv=True), tmp_path, "explain") as loggers:
            log_metrics(loggers, {"measure": value})
            log_table(loggers, "table", ["a"], [[value]])
    with (tmp_path / "csv" / "metrics.csv").open() as file:
        assert [row["measure"] for row in csv.DictReader(file)] == ["2.0"]
