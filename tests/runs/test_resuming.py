"""A run that goes on: what may be other than it was, and what the log says of it."""

from __future__ import annotations

import csv
import json
import logging
import shutil
from pathlib import Path

import pytest
import torch

from clip_xai.errors import UserError
from clip_xai.jobs.train import train
from tests.support.small_runs import draw, of_data, settings


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return draw(tmp_path_factory.mktemp("data") / "hers")


@pytest.fixture(scope="module")
def runs(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One epoch, broken off before its export."""
    runs = tmp_path_factory.mktemp("runs")
    broken_off(runs / "train" / "one", root, runs)
    return runs


def broken_off(run: Path, root: Path, runs: Path) -> None:
    train(settings("train", runs, run, *of_data(root)))
    shutil.rmtree(run / "export")
    (run / "metrics.json").unlink()


def epochs(file: Path) -> set[str]:
    with file.open() as opened:
        return {row["epoch"] for row in csv.DictReader(opened)}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("stage.learning_rate=0.05", "stage.learning_rate=0.004, and now stage.learning_rate=0.05"),
        ("stage.weight_decay=0.5", "stage.weight_decay=0.01, and now stage.weight_decay=0.5"),
        ("stage.batch_size=4", "stage.batch_size=8, and now stage.batch_size=4"),
        ("seed=3", "seed=42, and now seed=3"),
        ("data.seed=5", "data.seed=0, and now data.seed=5"),
        ("mapper.dropout=0.5", "mapper.dropout="),
    ],
)
def test_a_changed_setting_is_refused_with_both_values(runs, root, tmp_path, change, said) -> None:
    kept = tmp_path / "kept.ckpt"  # wherever the checkpoint lies
    shutil.copy(runs / "train" / "one" / "checkpoints" / "last.ckpt", kept)
    with pytest.raises(UserError, match=said):
        train(settings("train", runs, tmp_path / "run", *of_data(root), change, f"ckpt_path={kept}", "stage.epochs=2"))
    assert not (tmp_path / "run").exists()


def test_other_photographs_or_captions_are_refused(runs, root, tmp_path) -> None:
    other = tmp_path / "moved"
    shutil.copytree(root, other)
    config = settings("train", runs, tmp_path / "run", *of_data(other), "ckpt_path=last", "stage.epochs=2")
    table = other / "mine" / "captions.csv"
    text = table.read_text()
    table.write_text(text.replace("A red scaly plaque.", "A red plaque."))
    with pytest.raises(UserError, match=r"data content=\d+ photographs, digest \w+, and now data content="):
        train(config)
    table.write_text(text)
    train(config)  # elsewhere on the disk they are the same photographs


def test_what_may_change_is_applied_and_named(runs, root, tmp_path, caplog) -> None:
    with caplog.at_level(logging.INFO):
        changes = ("stage.epochs=3", "trainer.log_every_n_steps=1", "ckpt_path=last", "callbacks.patience=9")
        train(settings("train", runs, tmp_path / "run", *of_data(root), *changes))
    [line] = [line for line in caplog.messages if line.startswith("going on from")]
    for said in ("stage.epochs=3 (was 1)", "trainer.log_every_n_steps=1 (was 10)", "callbacks.patience=9 (was null)"):
        assert said in line
    assert epochs(tmp_path / "run" / "csv" / "metrics.csv") == {"1", "2"}


def test_a_changed_patience_holds(runs, root, tmp_path) -> None:
    def patience(run: Path) -> int:
        states = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)["callbacks"]
        return next(state["patience"] for key, state in states.items() if key.startswith("EarlyStopping"))

    first, second = tmp_path / "first", tmp_path / "second"
    train(settings("train", runs, first, *of_data(root), "callbacks.patience=2"))
    resumed = ("callbacks.patience=5", "stage.epochs=2", f"ckpt_path={first}")
    train(settings("train", runs, second, *of_data(root), *resumed))
    assert (patience(first), patience(second)) == (2, 5)


def test_the_same_command_goes_on_in_its_directory_and_keeps_the_epochs_before(runs, root, tmp_path) -> None:
    run = tmp_path / "run"
    broken_off(run, root, runs)
    with pytest.raises(UserError, match="seed=42, and now seed=1"):
        train(settings("train", runs, run, *of_data(root), "seed=1"))
    train(settings("train", runs, run, *of_data(root), "stage.epochs=2"))
    assert epochs(run / "csv" / "metrics.csv") == {"0"} and epochs(run / "csv_2" / "metrics.csv") == {"1"}
    assert json.loads((run / "asked.json").read_text())["settings"]["stage"]["epochs"] == 2
    assert (run / "export" / "model.safetensors").is_file()


def test_a_resumed_run_has_an_epoch_left(runs, root, tmp_path) -> None:
    first = tmp_path / "first"
    train(settings("train", runs, first, *of_data(root), "stage.epochs=2"))
    for epochs_asked in (1, 2):
        asked = (f"ckpt_path={first}", f"stage.epochs={epochs_asked}")
        with pytest.raises(UserError, match=f"has 2 epochs behind it, and stage.epochs={epochs_asked}"):
            train(settings("train", runs, tmp_path / "second", *of_data(root), *asked))
    assert not (tmp_path / "second").exists()
    (first / "metrics.json").unlink()  # killed after its last epoch, before it was through
    assert train(settings("train", runs, first, *of_data(root), "stage.epochs=2"))["val_photographs"]
