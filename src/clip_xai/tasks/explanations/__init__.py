"""Explanations: explainers of any model, judged by causes that are known because scenes can be drawn again."""

from __future__ import annotations

from pathlib import Path

from clip_xai.config.schemas import EvaluateConfig, TrainConfig
from clip_xai.errors import UserError
from clip_xai.runs.judged import Judged
from clip_xai.tasks.task import Judgement, Opened, Task, Training, tasks


@tasks.register("explanations", title="Explanations")
class Explanations(Task):
    """Which explainer can be believed, of a model that was trained for another task."""

    of_any_model = True
    unused = (
        *("bert_score", "clip_score", "tokenizer", "shortcuts", "attributes", "ledger"),
        *("split", "allow_overlap", "generation.batch_size", "trainer.feature_batch_size"),
    )

    def training(self, config: TrainConfig) -> Training:
        """Refuse to train: nothing is learned."""
        raise UserError(
            "task=explanations trains nothing: python evaluate.py task=explanations ckpt=... judges a model"
        )

    def evaluate(self, config: EvaluateConfig, on: Judged) -> Judgement:
        """Draw fresh scenes again and again, and hold the maps of every explainer against what that does."""
        from clip_xai.tasks.explanations.evaluation import evaluate  # whose tables and pages training does not need

        return evaluate(config, on)

    def evaluate_backbone(self, config: EvaluateConfig) -> Judgement:
        """Do so with a CLIP by itself, which is asked for the image-text contrast alone."""
        from clip_xai.tasks.explanations.evaluation import evaluate

        return evaluate(config, None)

    def opened(self, place: Path, vocabulary: str | None = None) -> Opened:
        """Refuse: no model is trained for it."""
        raise UserError("no model is trained for task=explanations: leave out task=")
