"""The job ``evaluate``: judge a trained model, by its task, beside what it has to beat."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

from clip_xai.config.schemas import EvaluateConfig
from clip_xai.runs.judged import judged
from clip_xai.runs.loggers import log_metrics, log_table, open_loggers
from clip_xai.tasks.task import refuse_settings_unused_at, task_at, tasks


def evaluate(config: EvaluateConfig) -> dict[str, Any]:
    """Evaluate a trained model; its task writes tables, ``metrics.json`` and the page ``index.html``.

    Returns:
        What ``metrics.json`` holds.

    Raises:
        UserError: There is no model, or no photograph that it may be judged on.
    """
    if config.trained_for is not None:
        tasks.named(config.trained_for, "task")
    on = judged(config, refuse_settings_unused_at)
    judgement = task_at(on.place).evaluate(config, on)
    with open_loggers(config.logger, Path(config.run_dir), "evaluate", asdict(config)) as loggers:
        log_metrics(loggers, judgement.summary)
        for name, (columns, rows) in judgement.tables.items():
            log_table(loggers, name, columns, rows)
    return judgement.metrics
