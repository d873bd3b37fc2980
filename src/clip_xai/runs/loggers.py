"""Where a run's numbers and tables go: Weights & Biases, a CSV file, or both."""

from __future__ import annotations

import csv
import os
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import CSVLogger, Logger, WandbLogger

from clip_xai.config.schemas import LoggerConfig
from clip_xai.files import replacing, write_json
from clip_xai.private_api import CSV_FOLDER_HINT, without_anonymous
from clip_xai.runs.directories import free_directory
from clip_xai.text import spreadsheet_cell
from clip_xai.training.trainer import is_first_process


class GivenUp(Exception):
    """A run was ended early on purpose: neither finished nor failed."""


@contextmanager
def open_loggers(
    config: LoggerConfig, run_dir: Path, job: str, settings: Mapping[str, Any] | None = None
) -> Iterator[list[Logger]]:
    """Open the loggers of a run and close them whatever happens, so that each run of a sweep is a run of its own.

    W&B writes into the run directory and is offline unless the environment variable ``WANDB_MODE`` says otherwise; no
    account is asked for. How the run ended is told to the loggers and stands in ``state.json``: ``running`` (or killed
    without a chance to say so), ``finished``, ``failed``, ``stopped`` or ``given up``.

    Args:
        config: Which loggers.
        run_dir: The run directory.
        job: ``train``, ``evaluate`` or ``explain``.
        settings: The run's configuration as plain containers.
    """
    run_dir.mkdir(parents=True, exist_ok=True)
    _write_state(run_dir, "running")
    loggers: list[Logger] = []
    try:
        if config.wandb:
            loggers.append(_wandb(config, run_dir, job))
        if config.csv:
            loggers.append(CSVLogger(save_dir=run_dir, name="", version=_csv_folder(run_dir, job)))
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=CSV_FOLDER_HINT)
            for logger in loggers:
                logger.log_hyperparams(dict(settings or {}))
        yield loggers
    except BaseException as error:
        state, status = _ended_by(error)
        _close(config, loggers, "failed", status)
        _write_state(run_dir, state, " ".join(f"{type(error).__name__}: {error}".split()))
        raise
    _close(config, loggers, "success", 0)
    _write_state(run_dir, "finished")


def _ended_by(error: BaseException) -> tuple[str, int]:
    """Return what an exception means for a run, and the exit status that W&B is told."""
    if isinstance(error, GivenUp):
        return "given up", 0
    if isinstance(error, SystemExit):
        return "stopped", error.code if isinstance(error.code, int) else 1
    return ("stopped", 130) if isinstance(error, KeyboardInterrupt) else ("failed", 1)


def _close(config: LoggerConfig, loggers: Sequence[Logger], status: str, exit_code: int) -> None:
    for logger in loggers:
        logger.finalize(status)
    if config.wandb:
        import wandb

        wandb.finish(exit_code=exit_code)


def _write_state(run_dir: Path, state: str, reason: str | None = None) -> None:
    if is_first_process():
        write_json(run_dir / "state.json", {"state": state, "reason": reason})


def _csv_folder(run_dir: Path, job: str) -> str:
    """Where the CSV logger writes: a training run that goes on leaves the epochs of the call before as they are."""
    if job != "train" or not (run_dir / "csv").exists():
        return "csv"
    return free_directory(run_dir / "csv").name


def _wandb(config: LoggerConfig, run_dir: Path, job: str) -> WandbLogger:
    import wandb

    logger = WandbLogger(
        name=run_dir.name,
        save_dir=run_dir,
        project=config.project,
        group=config.group,
        job_type=job,
        tags=list(config.tags),
        mode=os.environ.get("WANDB_MODE", "offline"),
        settings=wandb.Settings(silent=True),
    )
    return without_anonymous(logger)


def log_metrics(loggers: Sequence[Logger], metrics: Mapping[str, float]) -> None:
    """Send numbers to all loggers."""
    for logger in loggers:
        logger.log_metrics(dict(metrics))
        logger.save()


def log_table(loggers: Sequence[Logger], name: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    """Send a table to all loggers: a W&B table, or ``<name>.csv`` beside the CSV logger's numbers.

    Args:
        loggers: The loggers.
        name: Name of the table.
        columns: Names of its columns.
        rows: Its rows: text and numbers, for W&B also ``wandb.Image`` (left out of the CSV file).
    """
    for logger in loggers:
        if isinstance(logger, WandbLogger):
            logger.log_table(name, columns=list(columns), data=[list(row) for row in rows])
        elif isinstance(logger, CSVLogger):
            directory = Path(logger.log_dir)
            directory.mkdir(parents=True, exist_ok=True)
            place = directory / f"{name.replace('/', '_')}.csv"
            with replacing(place) as unfinished, unfinished.open("w", newline="", encoding="utf-8") as file:
                writer = csv.writer(file)
                writer.writerow(columns)
                writer.writerows([_cell(value) for value in row] for row in rows)


def _cell(value: Any) -> str | int | float:
    """Return what a CSV file can hold of a value; a caption that begins like a formula is not computed."""
    if isinstance(value, str):
        return spreadsheet_cell(value)
    return value if isinstance(value, (int, float)) else ""
