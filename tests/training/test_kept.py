"""What a run keeps, takes over from the run that it resumes, and says when it is stopped; real stages of a second."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.trainer.states import TrainerFn
from safetensors.torch import load_file

from clip_xai.config.schemas import (
    BackboneConfig,
    DataConfig,
    GenerationConfig,
    LanguageModelConfig,
    LoggerConfig,
    MapperConfig,
    TrainConfig,
)
from clip_xai.config.training_settings import CallbacksConfig, StageConfig, TrainerConfig
from clip_xai.data.record import Record
from clip_xai.errors import UserError
from clip_xai.jobs.train import train
from clip_xai.runs import resuming
from clip_xai.tasks.captions import callbacks as scoring
from clip_xai.tasks.captions import contrastive
from clip_xai.tasks.captions.opened import captioner_features, captioner_settings
from clip_xai.tasks.captions.training import caption_data
from clip_xai.training import trainer as running
from clip_xai.training.checkpoint_files import read_checkpoint
from clip_xai.training.kept import best_metrics
from tests.support.fitting import fit
from tests.support.small_captioner import records, small_captioner

__all__ = ["records"]
RESUME = "to resume, add to the same command: ckpt_path="


class Plan(Callback):
    """Sets what each epoch of a run measures, so that it is known which is the best, and ends it after some epochs."""

    def __init__(self, values: Mapping[int, float], epochs: int = 99) -> None:
        self.values, self.epochs = values, epochs
        self.seen: list[dict[str, float]] = []

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.state.fn == TrainerFn.FITTING and trainer.current_epoch in self.values:
            pl_module.log("val/planned", self.values[trainer.current_epoch])

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.seen.append({key: float(value) for key, value in trainer.callback_metrics.items()})

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        trainer.should_stop = trainer.current_epoch + 1 >= self.epochs


def config_of(directory: Path, number: int = 1, **callbacks: Any) -> TrainConfig:
    told = {"progress_bar": False, "sample_captions": 0, "monitor": "val/planned", **callbacks}
    trains = ["mapper"] if number else ["image"]
    config = TrainConfig(
        stage=StageConfig(number=number, name="test", trains=trains, epochs=4, batch_size=4, sources=["skincap"]),
        data=DataConfig(name="few", root=str(directory), output_dir=str(directory), cache_dir=str(directory / "cache")),
        trainer=TrainerConfig(accelerator="cpu"),
        callbacks=CallbacksConfig(**told),
        generation=GenerationConfig(max_new_tokens=4, whole_sentences=False),
        logger=LoggerConfig(wandb=False),
        runs_root=str(directory),
        run_dir=str(directory / "run"),
    )
    config.backbone.name, config.backbone.architecture = "small", "tiny"
    config.mapper, config.language_model = MapperConfig(name="resampler"), LanguageModelConfig(name="small")
    return config


def run(
    given: Sequence[Record], config: TrainConfig, name: str, *callbacks: Callback, resumed: Path | None = None
) -> Path:
    """Train a captioner; return its best checkpoint."""
    captioner = small_captioner()
    config.run_dir = str(Path(config.runs_root) / name)
    settings = captioner_settings(config.backbone, config.mapper, config.language_model)
    table = captioner_features(captioner, list(given), config.data, config.trainer)
    data = caption_data(captioner, table, {"train": list(given), "val": list(given)}, config)
    return fit(captioner, settings, data, config, [], resumed, callbacks)[0]


def epoch_of(path: Path) -> int:
    return int(read_checkpoint(path)["epoch"])


def test_the_last_is_the_last_and_the_best_is_the_best(records: list[Record], tmp_path: Path) -> None:
    best = run(records, config_of(tmp_path), "a", Plan({0: 1.0, 1: 0.5, 2: 2.0, 3: 3.0}))
    assert best == tmp_path / "a" / "checkpoints" / "best.ckpt"
    assert (epoch_of(best), epoch_of(best.with_name("last.ckpt"))) == (1, 3)
    assert best_metrics(best)["val/planned"] == 0.5
    assert {path.name for path in best.parent.iterdir()} == {"best.ckpt", "last.ckpt"}


def test_a_resumed_run_repeats_nothing_and_beats_the_best_before_it(records: list[Record], tmp_path: Path) -> None:
    values = {0: 0.5, 1: 1.0, 2: 0.7, 3: 0.8}
    first = run(records, config_of(tmp_path), "a", Plan(values, 2))
    bytes_before = first.read_bytes()
    again = Plan(values, 3)
    second = run(records, config_of(tmp_path), "b", again, resumed=first.with_name("last.ckpt"))
    assert len(again.seen) == 1  # epoch 2
    assert second.parent == tmp_path / "b" / "checkpoints" and epoch_of(second) == 0
    third = run(records, config_of(tmp_path), "c", Plan(values), resumed=second.with_name("last.ckpt"))
    assert epoch_of(third) == 0  # of the run before the one before
    better = run(records, config_of(tmp_path), "d", Plan({3: 0.4}), resumed=second.with_name("last.ckpt"))
    assert epoch_of(better) == 3
    done = run(records, config_of(tmp_path), "e", Plan({}), resumed=third.with_name("last.ckpt"))
    assert epoch_of(done) == 0  # nothing was left to train
    assert first.read_bytes() == bytes_before


def test_checkpoints_of_older_runs_resume(
    records: list[Record], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def of_old(directory: Path, monitor: str, mode: str, every: int) -> ModelCheckpoint:
        return ModelCheckpoint(
            directory, "best", monitor=monitor, mode=mode, save_last=True, enable_version_counter=False
        )

    values = {0: 0.9, 1: 0.5, 2: 0.7, 3: 0.8}
    with monkeypatch.context() as patch:
        patch.setattr(running, "BestCheckpoint", of_old)
        patch.setattr(running, "last_checkpoint", lambda directory: Callback())
        with pytest.raises(AttributeError, match="best"):  # the old one has no such method; its files are written
            run(records, config_of(tmp_path), "old", Plan(values, 2))
    last = tmp_path / "old" / "checkpoints" / "last.ckpt"
    assert epoch_of(run(records, config_of(tmp_path), "new", Plan(values), resumed=last)) == 1
    last = last.rename(tmp_path / "kept.ckpt")  # the best is no longer beside it, but where it was written
    assert epoch_of(run(records, config_of(tmp_path), "moved", Plan(values), resumed=last)) == 1


def test_another_monitor_is_compared_by_its_own_values(records: list[Record], tmp_path: Path) -> None:
    first = run(records, config_of(tmp_path), "a", Plan({0: 5.0, 1: 6.0}, 2))
    other = config_of(tmp_path, monitor="val/loss")
    second = run(records, other, "b", Plan({}, 3), resumed=first.with_name("last.ckpt"))
    losses = {epoch_of(path): best_metrics(path)["val/loss"] for path in (first, second.with_name("last.ckpt"))}
    assert epoch_of(second) == min(losses, key=lambda epoch: losses[epoch])


def test_scores_are_taken_every_other_epoch_and_those_between_bear_none(
    records: list[Record], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scores = iter([7.0, 9.0])
    monkeypatch.setattr(scoring, "bleu", lambda captions, references: next(scores))
    config = config_of(tmp_path, monitor="val/bleu", mode="max", score_captions=2, scored_photographs=2, patience=2)
    config.stage.sources = None  # no validation before the first epoch
    plan = Plan({})
    best = run(records, config, "a", plan)
    assert [seen.get("val/bleu") for seen in plan.seen] == [None, 7.0, None, 9.0]
    assert epoch_of(best) == 3 and best_metrics(best)["val/bleu"] == 9.0
    config.callbacks.score_captions = 5
    with pytest.raises(UserError, match=r"val/bleu is measured in every 5th epoch and there are 4"):
        run(records, config, "b")


def test_what_is_never_measured_ends_the_first_epoch(records: list[Record], tmp_path: Path) -> None:
    plan = Plan({})
    with pytest.raises(UserError, match=r"val/planned is not measured; choose one of val/common_loss, val/loss"):
        run(records, config_of(tmp_path, patience=2), "a", plan)
    assert len(plan.seen) == 2  # before the first epoch, and after it


class Kill(Callback):
    """Sends this process a signal, as a scheduler or a person does."""

    def __init__(self, number: signal.Signals, epoch: int, hook: str = "train") -> None:
        self.number, self.epoch, self.hook = number, epoch, hook

    def on_train_batch_start(self, trainer: Trainer, *args: Any) -> None:
        if self.hook == "train" and trainer.current_epoch == self.epoch:
            os.kill(os.getpid(), self.number)

    def on_validation_end(self, trainer: Trainer, *args: Any) -> None:
        if self.hook == "before" and trainer.state.fn == TrainerFn.VALIDATING:
            os.kill(os.getpid(), self.number)

    def on_train_end(self, trainer: Trainer, *args: Any) -> None:
        if self.hook == "end":
            os.kill(os.getpid(), self.number)


@pytest.mark.parametrize(
    ("number", "status", "epoch", "hook", "said"),
    [
        (signal.SIGTERM, 143, 1, "train", "stopped by SIGTERM in epoch 1; " + RESUME),
        (signal.SIGTERM, 143, 0, "train", "stopped by SIGTERM in epoch 0, before the first checkpoint: start again"),
        (signal.SIGTERM, 143, 0, "before", "stopped by SIGTERM in epoch 0, before the first checkpoint: start again"),
        (signal.SIGTERM, 143, 0, "end", RESUME),
        (signal.SIGINT, 130, 1, "train", "stopped by Ctrl-C in epoch 1; " + RESUME),
    ],
)  # fmt: skip
def test_a_signal_ends_it_with_its_status_and_says_how_to_resume(
    records: list[Record], tmp_path: Path, capsys: pytest.CaptureFixture[str],
    number: signal.Signals, status: int, epoch: int, hook: str, said: str,
) -> None:  # fmt: skip
    handlers = {kind: signal.getsignal(kind) for kind in (signal.SIGTERM, signal.SIGINT)}
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job ignores it
    try:
        with pytest.raises(SystemExit) as stop:
            run(records, config_of(tmp_path, monitor="val/loss"), "a", Kill(number, epoch, hook))
    finally:
        for kind, handler in handlers.items():
            signal.signal(kind, handler)
    assert stop.value.code == status
    [line] = [line for line in capsys.readouterr().err.splitlines() if "stopped by" in line]
    assert said in line
    if "ckpt_path" in said:
        assert Path(line.rpartition("ckpt_path=")[2]) == tmp_path / "a" / "checkpoints" / "last.ckpt"
        assert (tmp_path / "a" / "checkpoints" / "last.ckpt").is_file()


@pytest.fixture
def stage_0(records: list[Record], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> TrainConfig:
    """The settings of a stage 0 on the small tower and the twelve photographs."""
    monkeypatch.setattr(resuming, "prepare_manifest", lambda data: tmp_path)
    monkeypatch.setattr(resuming, "load_manifest", lambda place: records)
    monkeypatch.setattr(resuming, "of_split", lambda *args: records)
    monkeypatch.setattr(contrastive, "build_backbone", lambda **told: small_captioner().backbone)
    config = config_of(tmp_path, number=0)
    config.backbone = BackboneConfig(name="small", architecture="tiny")
    return config


def contrasted(config: TrainConfig, name: str, *callbacks: Callback) -> tuple[Path, dict[str, Any]]:
    config.run_dir = str(Path(config.runs_root) / name)
    return Path(config.run_dir), train(config, callbacks)


def test_a_resumed_stage_0_exports_the_best_of_both(stage_0: TrainConfig) -> None:
    values = {0: 1.0, 1: 0.5, 2: 0.7, 3: 0.8}
    first, measured = contrasted(stage_0, "a", Plan(values, 2))
    assert measured["epoch"] == 1
    stage_0.ckpt_path = str(first / "checkpoints" / "last.ckpt")
    second, measured = contrasted(stage_0, "b", Plan(values))
    assert measured["epoch"] == 1 and json.loads((second / "metrics.json").read_text())["val/planned"] == 0.5
    assert epoch_of(second / "checkpoints" / "last.ckpt") == 3
    weights, wanted = (load_file(path / "backbone" / "model.safetensors") for path in (second, first))
    assert all(torch.equal(weights[name], value) for name, value in wanted.items())


def test_validation_of_stage_0_is_of_its_sources_and_does_not_move_without_learning(stage_0: TrainConfig) -> None:
    stage_0.stage.learning_rate, stage_0.callbacks.monitor = 0.0, "val/loss"
    plan = Plan({})
    _, measured = contrasted(stage_0, "a", plan)
    assert measured["val_photographs"] == measured["train_photographs"] == 6
    assert len(plan.seen) == 5 and len({seen["val/loss"] for seen in plan.seen}) == 1
    stage_0.stage.sources = ["ddi"]
    with pytest.raises(UserError, match="no training photograph of ddi"):
        contrasted(stage_0, "b")


def test_a_stage_0_that_diverges_leaves_no_backbone(stage_0: TrainConfig) -> None:
    stage_0.stage.learning_rate, stage_0.callbacks.monitor = 1e30, "val/loss"
    with pytest.raises(UserError, match=r"learning rate 1e\+30: the training is stopped and nothing is exported"):
        contrasted(stage_0, "a")
    assert not (Path(stage_0.run_dir) / "backbone").exists()
    assert json.loads((Path(stage_0.run_dir) / "state.json").read_text())["state"] == "failed"


def test_the_loss_of_a_captioner_does_not_move_without_learning(records: list[Record], tmp_path: Path) -> None:
    config = config_of(tmp_path, monitor="val/loss")
    config.stage.learning_rate = 0.0
    plan = Plan({})
    run(records, config, "a", plan)
    assert len(plan.seen) == 5 and len({(seen["val/loss"], seen["val/common_loss"]) for seen in plan.seen}) == 1
