"""Classes: a head on a vision tower, trained on labels, judged beside its baselines, explained by its logits."""

from __future__ import annotations

from pathlib import Path

from clip_xai.config.schemas import EvaluateConfig, TrainConfig
from clip_xai.config.training_settings import ClassifyConfig
from clip_xai.runs.judged import Judged
from clip_xai.tasks.classify.opened import opened
from clip_xai.tasks.classify.training import ClassifierTraining
from clip_xai.tasks.task import Judgement, Opened, Task, Training, tasks


@tasks.register("classify", title="Classes")
class Classify(Task):
    """Which classes a photograph shows: one of several, or several at once."""

    settings = ClassifyConfig
    classifies = True
    unused = (
        *("mapper", "language_model", "generation", "bert_score", "clip_score", "tokenizer", "ledger"),
        *("callbacks.sample_captions", "callbacks.scored_photographs", "trainer.length_bucket"),
        *("data.max_tokens", "data.draw_references"),
    )

    def training(self, config: TrainConfig) -> Training:
        """Build the tower and its head."""
        return ClassifierTraining(config)

    def evaluate(self, config: EvaluateConfig, on: Judged) -> Judgement:
        """Classify photographs and judge that beside the baselines."""
        from clip_xai.tasks.classify.evaluation import evaluate  # whose tables and pages training does not need

        return evaluate(config, on)

    def opened(self, place: Path, vocabulary: str | None = None) -> Opened:
        """Return a trained classifier."""
        return opened(place)
