"""Lightning's Trainer from the settings, and the callbacks that need more than training knows."""

from __future__ import annotations

import logging
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import lightning.pytorch.profilers as profilers
from lightning import Callback, LightningDataModule, LightningModule, Trainer
from lightning.pytorch.callbacks import EarlyStopping, RichProgressBar
from lightning.pytorch.loggers import Logger
from lightning.pytorch.strategies import Strategy
from lightning.pytorch.utilities.exceptions import SIGTERMException
from lightning.pytorch.utilities.rank_zero import rank_zero_only

from clip_xai.config.schemas import TrainConfig
from clip_xai.errors import UserError
from clip_xai.private_api import LIGHTNING_HINTS, TORCH_HINTS
from clip_xai.training.averaging import WeightAverage
from clip_xai.training.checkpoint_files import WholeCheckpoints
from clip_xai.training.kept import BestCheckpoint, last_checkpoint
from clip_xai.training.stop_at_non_finite import StopAtNonFinite

TERMINATED, INTERRUPTED = 128 + 15, 128 + 2  # exit statuses of a process that SIGTERM or Ctrl-C has ended


def build_trainer(
    config: TrainConfig,
    loggers: Sequence[Logger],
    callbacks: Sequence[Callback],
    strategy: str | Strategy,
    resumed: Path | None = None,
    every: int = 1,
) -> tuple[Trainer, BestCheckpoint]:
    """Return the Trainer of a run, and the callback that keeps ``best.ckpt``; another keeps ``last.ckpt``.

    Args:
        config: The settings of ``train``.
        loggers: Where numbers go.
        callbacks: The task's own.
        strategy: The task's.
        resumed: The checkpoint that is resumed; the best one of its run is the one to beat.
        every: Epochs between two measurements of what is monitored.

    Raises:
        UserError: What is monitored would never be measured.
    """
    stage, told, machine = config.stage, config.callbacks, config.trainer
    if every > stage.epochs:
        raise UserError(
            f"callbacks.monitor={told.monitor} is measured in every {every}th epoch and there are {stage.epochs}; lower"
            " callbacks.score_captions"
        )
    directory = Path(config.run_dir) / "checkpoints"
    best, last = BestCheckpoint(directory, told.monitor, told.mode, every), last_checkpoint(directory)
    if resumed is not None:
        best.take_over(resumed, is_first_process())
    # The last is written after the best, whose state it holds.
    finite = StopAtNonFinite(directory / "last.ckpt", resumed, machine.log_every_n_steps)
    used: list[Callback] = [finite, *callbacks, best, last]
    if stage.decay is not None:
        used.append(WeightAverage(stage.decay))
    if told.progress_bar:
        used.append(RichProgressBar())
    if told.patience is not None:
        # In an epoch without a score there is nothing to compare; a measure that is never there ends the first epoch.
        used.append(EarlyStopping(told.monitor, patience=told.patience, mode=told.mode, strict=False))
    steps = machine.limit_train_batches
    with quiet_lightning():
        trainer = Trainer(
            accelerator=machine.accelerator,
            devices=machine.devices,
            num_nodes=machine.num_nodes,
            strategy=strategy,
            plugins=[WholeCheckpoints()],
            precision=machine.precision,  # type: ignore[arg-type]
            inference_mode=False,  # a metric that saw a validation before the fit goes on in it
            max_epochs=stage.epochs,
            accumulate_grad_batches=machine.accumulate_grad_batches,
            gradient_clip_val=stage.gradient_clip,
            limit_train_batches=None if steps is None else steps * machine.accumulate_grad_batches,
            limit_val_batches=machine.limit_val_batches,
            log_every_n_steps=machine.log_every_n_steps,
            use_distributed_sampler=False,  # the batches are cut for the devices already
            num_sanity_val_steps=0,
            enable_progress_bar=told.progress_bar,
            enable_model_summary=False,
            profiler=_profiler(machine.profiler, Path(config.run_dir)),
            logger=list(loggers),
            callbacks=used,
        )
    return trainer, best


def run_epochs(
    trainer: Trainer,
    module: LightningModule,
    data: LightningDataModule,
    config: TrainConfig,
    resumed: Path | None,
    *,
    judge_first: bool,
) -> dict[str, float]:
    """Run a stage's epochs.

    Args:
        trainer: Of :func:`build_trainer`.
        module: What is trained.
        data: Its batches.
        config: The settings of ``train``.
        resumed: The checkpoint that is resumed.
        judge_first: Validate once before the first step; a resumed or distributed run does not.

    Returns:
        What was measured before the first step; empty where nothing was.

    Raises:
        UserError: What is monitored is not measured, or a loss or a weight is not finite.
        SystemExit: The process was told to stop: status 143 after SIGTERM, 130 after Ctrl-C.
    """
    before: dict[str, float] = {}
    try:
        with quiet_lightning():
            if judge_first and resumed is None and trainer.world_size == 1:
                trainer.validate(module, datamodule=data, verbose=False)
                before = {key: float(value) for key, value in trainer.callback_metrics.items()}
                _heed_sigterm(trainer)
            trainer.fit(module, datamodule=data, ckpt_path=resumed, weights_only=True)
            _heed_sigterm(trainer)
    except SystemExit as stop:  # Lightning's own has no word to say, and status 0 after SIGTERM
        terminated = isinstance(stop, SIGTERMException)
        if is_first_process():
            print(_how_to_resume(trainer, config, resumed, "SIGTERM" if terminated else "Ctrl-C"), file=sys.stderr)
        raise SystemExit(TERMINATED if terminated else INTERRUPTED) from None
    return before


def _heed_sigterm(trainer: Trainer) -> None:
    """Lightning looks for the signal between batches: one that came with the very last is still to be heard."""
    if trainer.received_sigterm:
        raise SIGTERMException


def _how_to_resume(trainer: Trainer, config: TrainConfig, resumed: Path | None, signal: str) -> str:
    last = Path(config.run_dir) / "checkpoints" / "last.ckpt"
    kept = last if last.is_file() else resumed
    if kept is None:
        return f"stopped by {signal} in epoch {trainer.current_epoch}, before the first checkpoint: start again"
    return f"stopped by {signal} in epoch {trainer.current_epoch}; to resume, add to the same command: ckpt_path={kept}"


def is_first_process() -> bool:
    """Whether this process is the one that writes files; the others of a distributed run only compute."""
    return not getattr(rank_zero_only, "rank", 0)  # Lightning sets it when it is imported


@contextmanager
def quiet_lightning() -> Iterator[None]:
    """Keep Lightning's hints from the terminal; its errors and its other warnings stay."""
    # The second one tells of each process of a distributed run that it begins.
    loggers = [logging.getLogger(name) for name in ("lightning.pytorch", "lightning.fabric")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.WARNING)
    with warnings.catch_warnings():
        for hint in (*LIGHTNING_HINTS, *TORCH_HINTS):
            warnings.filterwarnings("ignore", message=f".*{hint}.*")
        try:
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)


def _profiler(name: str | None, run_dir: Path) -> profilers.Profiler | None:
    if name is None:
        return None
    kinds = {
        "simple": profilers.SimpleProfiler,
        "advanced": profilers.AdvancedProfiler,
        "pytorch": profilers.PyTorchProfiler,
    }
    return kinds[name](dirpath=run_dir, filename="profile")  # type: ignore[abstract]
