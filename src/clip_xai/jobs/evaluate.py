"""The job ``evaluate``: judge a trained model, by its task, beside what it has to beat."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from clip_xai.config.chosen import refuse_unused
from clip_xai.config.schemas import EvaluateConfig
from clip_xai.errors import UserError
from clip_xai.runs.judged import Judged, judged
from clip_xai.runs.loggers import log_metrics, log_table, open_loggers
from clip_xai.tasks.task import Task, refuse_settings_unused_at, refuse_settings_unused_by, task_at, tasks

OF_EXPLANATIONS = ("protocol", "xai")
UNUSED_BY_A_BACKBONE = ("ckpt", "data", "generation")  # it comes from no run, and writes no captions


def evaluate(config: EvaluateConfig) -> dict[str, Any]:
    """Evaluate a trained model, or a CLIP by itself; its task writes tables, ``metrics.json``, ``index.html``.

    Returns:
        What ``metrics.json`` holds.

    Raises:
        UserError: There is no model, or no photograph that it may be judged on.
    """
    if config.backbone is not None:
        judgement = _task_for_a_backbone(config).evaluate_backbone(config)
    else:
        task, on = judging(config)
        judgement = task.evaluate(config, on)
    with open_loggers(config.logger, Path(config.run_dir), "evaluate", asdict(config)) as loggers:
        log_metrics(loggers, judgement.summary)
        for name, (columns, rows) in judgement.tables.items():
            log_table(loggers, name, columns, rows)
    return judgement.metrics


def _task_for_a_backbone(config: EvaluateConfig) -> Task:
    if config.trained_for is None:
        raise UserError(
            "backbone=NAME by itself was trained for no task: add task=explanations to judge its explainers, or leave "
            "it out and choose a trained model with ckpt="
        )
    task = tasks.named(config.trained_for, "task")()
    refuse_settings_unused_by(task.name)
    refuse_unused("backbone=NAME by itself", UNUSED_BY_A_BACKBONE)
    return task


def judging(config: EvaluateConfig) -> tuple[Task, Judged]:
    """Return the task that judges, and the model and photographs that it judges.

    It is the one that the model was trained for, or one that is asked for and judges models of any task.

    Raises:
        UserError: There is no model, no such task, or a setting was typed that the task does not read.
    """
    asked = None if config.trained_for is None else tasks.named(config.trained_for, "task")
    if asked is not None and asked.of_any_model:
        refuse_settings_unused_by(asked.name)
        return asked(), judged(replace(config, trained_for=None))
    on = judged(config, refuse_settings_unused_at)
    task = task_at(on.place)
    refuse_unused(f"task={task.name}", OF_EXPLANATIONS)
    return task, on
