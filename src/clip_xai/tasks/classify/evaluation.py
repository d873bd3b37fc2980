"""Classify photographs, and judge that beside what it has to beat."""

from __future__ import annotations

from clip_xai.config.schemas import EvaluateConfig
from clip_xai.runs.judged import Judged
from clip_xai.tasks.task import Judgement


def evaluate(config: EvaluateConfig, on: Judged) -> Judgement:
    raise NotImplementedError
