"""The job ``train``: one training run of a task, from records to an exported model."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import lightning
import torch
from lightning import Callback

from clip_xai.config.schemas import TrainConfig
from clip_xai.data.vocabulary import load_vocabulary
from clip_xai.files import write_json
from clip_xai.runs.lineage import Learned
from clip_xai.runs.lineage_callback import Remember
from clip_xai.runs.loggers import open_loggers
from clip_xai.runs.resuming import METRICS, begin
from clip_xai.tasks.task import Provenance, tasks
from clip_xai.training.kept import best_metrics
from clip_xai.training.trainer import build_trainer, is_first_process, run_epochs

log = logging.getLogger(__name__)


def train(config: TrainConfig, callbacks: Sequence[Callback] = ()) -> dict[str, Any]:
    """Train a model for the task that ``config.task`` names; of captions, one stage.

    Args:
        config: All settings.
        callbacks: Lightning's, besides those that the settings and the task name.

    Writes into ``config.run_dir``: ``checkpoints/`` (``last.ckpt``, ``best.ckpt``), the best weights (``export/``, or
    ``backbone/`` of the contrastive stage), ``metrics.json``, ``set_aside.json`` (unreadable photographs),
    ``run.json``, ``asked.json`` and the loggers' files.

    Returns:
        What stands in ``metrics.json``. A finished run of the same command is not trained again; one that was broken
        off goes on from its last checkpoint.

    Raises:
        UserError: Weights, data or the stage before are missing, or the run directory holds something else.
    """
    started = time.perf_counter()
    torch.set_flush_denormal(True)  # denormal numbers make a small model on a CPU ten times as slow
    lightning.seed_everything(config.seed, verbose=False)
    run_dir = Path(config.run_dir)
    training = tasks.named(config.task.name, "task")().training(config)
    start = begin(config, training.backbone, training.product)
    if start.stored is not None:
        return start.stored
    config, resumed = start.config, start.resumed
    training.prepare(start)
    lineage = start.lineage.with_learned(Learned.from_records(training.learned))
    provenance = Provenance(lineage, load_vocabulary(config.data.vocabulary))
    if is_first_process():
        start.card.write(run_dir)
        write_set_aside(training.set_aside, run_dir)
        training.write_first(run_dir)
    with open_loggers(config.logger, run_dir, "train", asdict(config)) as loggers:
        used = [*training.callbacks(), Remember(start.asked, lineage, provenance.vocabulary), *callbacks]
        trainer, keeper = build_trainer(config, loggers, used, training.strategy(), resumed, training.measured_every)
        module, data, first = training.module, training.data, training.judge_first
        before = run_epochs(trainer, module, data, config, resumed, judge_first=first)
        best = keeper.best()
        metrics = best_metrics(best)
        if not is_first_process():
            return metrics
        metrics |= training.finish(best, provenance, loggers)
    metrics |= {f"{key} before": value for key, value in before.items()}
    metrics |= training.sizes | {"set_aside": len(training.set_aside)}
    metrics |= {"seconds": round(time.perf_counter() - started, 1)}
    write_json(run_dir / METRICS, metrics)
    start.card.finished(run_dir, metrics.get(config.callbacks.monitor))
    log.info("%s done: %s", config.stage.name, run_dir)
    return metrics


def write_set_aside(reasons: dict[str, str], run_dir: Path) -> None:
    """Name the photographs that cannot be read: in the log and in ``set_aside.json``."""
    for reason in reasons.values():
        log.warning("set aside: %s", reason)
    write_json(run_dir / "set_aside.json", reasons)
