"""Captions: a mapper and a language model on a frozen tower, trained in stages, judged beside its baselines."""

from __future__ import annotations

from pathlib import Path

from clip_xai.config.schemas import EvaluateConfig, TrainConfig
from clip_xai.config.training_settings import CONTRASTIVE
from clip_xai.runs.judged import Judged
from clip_xai.tasks.captions.contrastive import ContrastiveTraining
from clip_xai.tasks.captions.opened import opened
from clip_xai.tasks.captions.training import CaptionTraining
from clip_xai.tasks.task import Judgement, Opened, Task, Training, tasks


@tasks.register("captions", title="Captions")
class Captions(Task):
    """A sentence of each photograph; the stages are ``contrastive``, ``adaptation`` and ``language``."""

    captions = True
    unused = ("shortcuts", "attributes")

    def training(self, config: TrainConfig) -> Training:
        """Build the backbone of the contrastive stage, or the captioner of the others."""
        return ContrastiveTraining(config) if config.stage.number == CONTRASTIVE else CaptionTraining(config)

    def evaluate(self, config: EvaluateConfig, on: Judged) -> Judgement:
        """Write captions and judge them beside their baselines."""
        from clip_xai.tasks.captions.evaluation import evaluate  # whose tables and pages training does not need

        return evaluate(config, on)

    def opened(self, place: Path, vocabulary: str | None = None) -> Opened:
        """Return a trained captioner."""
        return opened(place, vocabulary)
