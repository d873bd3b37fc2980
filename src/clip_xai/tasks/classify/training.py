"""Training a classifier: its classes, its batches, and the exported model."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning import Callback
from lightning.pytorch.loggers import Logger
from lightning.pytorch.strategies import DDPStrategy, Strategy
from numpy.typing import NDArray
from safetensors.torch import load_file
from torch import Tensor

from clip_xai.config.schemas import TrainConfig
from clip_xai.config.training_settings import ClassifyConfig
from clip_xai.data.record import Record
from clip_xai.errors import UserError
from clip_xai.models.backbones.backbone_builder import build_backbone
from clip_xai.models.backbones.base import VisionBackbone
from clip_xai.models.backbones.source import BackboneSource
from clip_xai.models.classifier_weights import (
    HEAD,
    ClassifierSettings,
    load_classifier_state,
    put_head_on,
    read_classifier_settings,
    save_classifier,
)
from clip_xai.models.heads import reads_of
from clip_xai.models.reading import read_json
from clip_xai.runs.checkpoints import EXPORT
from clip_xai.runs.instantiate import feature_table
from clip_xai.runs.resuming import Start, learned_records
from clip_xai.tasks.classify.data import Images, LabelData, LabelDataset, Pixels
from clip_xai.tasks.classify.labels import question_of, say_left_out
from clip_xai.tasks.classify.measures import defined_for_some
from clip_xai.tasks.classify.module import ClassifierModule, classifier_state_of, farthest
from clip_xai.tasks.classify.plan import ClassifierPlan, tower_of
from clip_xai.tasks.task import Provenance, Training
from clip_xai.training.checkpoint_files import read_checkpoint
from clip_xai.training.optimisation import Optimisation
from clip_xai.training.tower_plan import block_list

log = logging.getLogger(__name__)
MOST_WEIGHT = 100.0  # of a class that is very rare


class ClassifierTraining(Training):
    """A head on a vision tower, which is frozen or trains with it."""

    product = Path(EXPORT) / "config.json"

    def __init__(self, config: TrainConfig) -> None:
        """Build the tower.

        Raises:
            UserError: The settings do not go together, or weights are nowhere to be had.
        """
        self.told = _told(config)
        stage = config.stage
        _refuse_stage(config, self.told)
        self.plan = ClassifierPlan(stage.trains, dict(enumerate(stage.unfreeze)))
        _refuse(config, self.told, self.plan)
        self.config = config
        self.tower = self.backbone = _tower(config)
        if (self.told.layer_decay < 1 or stage.unfreeze) and not has_blocks(self.tower):
            what = "task.layer_decay" if self.told.layer_decay < 1 else "stage.unfreeze"
            raise UserError(f"{what}: the tower of backbone {self.tower.name} has no list of blocks; leave it out")

    def prepare(self, start: Start) -> None:
        """Find the classes, read photographs or their features, and make the batches."""
        self.config = config = start.config
        records = learned_records(config, start.train)
        question = question_of(self.told, records)
        sources = config.stage.sources
        held = [record for record in start.val if sources is None or record.source in sources]
        train, val = question.answered(records), question.answered(held)
        say_left_out(question, "train", records, train)
        say_left_out(question, config.trainer.validate_on, held, val)
        log.info(
            "%s: %s", "several classes at once" if question.multilabel else "one class", ", ".join(question.classes)
        )
        if config.stage.label_smoothing and question.multilabel:
            raise UserError("stage.label_smoothing is of one class a photograph, and these show several: set it to 0")
        self.settings = ClassifierSettings(
            BackboneSource(**{**vars(config.backbone), "text": False}),
            question.classes,
            question.multilabel,
            self.told.head,
            question.of,
            question.uncertain,
        )
        torch.manual_seed(config.seed)  # the head does not depend on what was drawn before it
        self.classifier = put_head_on(self.tower, self.settings)
        self._load_start(start)
        images, unreadable = self._images(train + val)
        self.set_aside = {str(path): reason for path, reason in unreadable.items()}
        train = self.learned = [record for record in train if record.image not in unreadable]
        val = [record for record in val if record.image not in unreadable]
        for split, found in (("training", train), ("validation", val)):
            if not found:
                raise UserError(f"there is no {split} photograph with a label; widen data.limit, or check the labels")
        self.sizes = {"train_photographs": len(train), "val_photographs": len(val)}
        truth, judged = question.truth(train), question.truth(val)
        if config.callbacks.monitor == "val/auroc" and not defined_for_some(judged):
            raise UserError(
                "callbacks.monitor=val/auroc: no class is present in some validation photographs and absent in others; "
                "set callbacks.monitor=val/loss callbacks.mode=min, or widen data.limit"
            )
        stage, machine = config.stage, config.trainer
        self.data = LabelData(
            LabelDataset(train, truth, images),
            LabelDataset(val, judged, images),
            batch_size=stage.batch_size,
            multilabel=question.multilabel,
            seed=config.seed,
            accumulate=machine.accumulate_grad_batches,
            workers=machine.workers,
        )
        optimisation = Optimisation(
            learning_rate=stage.learning_rate,
            weight_decay=stage.weight_decay,
            warmup=stage.warmup,
            warmup_steps=stage.warmup_steps,
            label_smoothing=stage.label_smoothing,
            seed=config.seed,
        )
        side = self.tower.preprocess.image_size
        if self.told.shift and not farthest(self.told.shift, side):
            raise UserError(
                f"task.shift={self.told.shift:g} moves a picture of {side} pixels by less than one: set it to "
                f"{math.ceil(1000 / side) / 1000:g} or more, or leave it out"
            )
        self.module = ClassifierModule(
            self.classifier,
            self.settings,
            optimisation,
            self.plan,
            head_factor=self.told.head_learning_rate_factor,
            layer_decay=self.told.layer_decay,
            weights=class_weights(truth, question.multilabel) if self.told.balanced else None,
            tower=self.tower.fingerprint,
            flip=self.told.flip,
            shift=self.told.shift,
        )

    def callbacks(self) -> list[Callback]:
        """Return what freezes and thaws."""
        return [self.plan]

    def strategy(self) -> str | Strategy:
        """Return Lightning's strategy."""
        if self.config.trainer.strategy == "ddp":
            # A network's own classifier, and what stands between it and the patches, gets no gradient.
            return DDPStrategy(find_unused_parameters=self.plan.trains_tower)
        return "auto"

    def finish(self, best: Path, provenance: Provenance, loggers: Sequence[Logger]) -> dict[str, Any]:
        """Export the classifier of the best checkpoint."""
        content = read_checkpoint(best)
        classifier = put_head_on(self.tower.cpu(), self.settings)
        load_classifier_state(classifier, classifier_state_of(content), best)
        place = Path(self.config.run_dir) / EXPORT
        save_classifier(
            classifier.eval(),
            self.settings,
            place,
            not self.module.tower_has_a_place,
            provenance.after(content["global_step"]),
        )
        log.info("next: python evaluate.py ckpt=%s, python explain.py ckpt=%s xai=gradcam", place.parent, place.parent)
        return {"classes": list(self.settings.classes)}

    def _images(self, records: Sequence[Record]) -> tuple[Images, dict[Path, str]]:
        """Return the inputs: pixels where the tower trains, else its frozen features."""
        if self.plan.trains_tower:
            pixels = Pixels(self.tower.preprocess, [record.image for record in records])
            return pixels, pixels.unreadable
        told = self.config
        table = feature_table(self.tower, reads_of(self.told.head), records, told.data, told.trainer)
        return table, table.unreadable

    def _load_start(self, start: Start) -> None:
        """Load the weights that the run starts from, or goes on with: a frozen tower's features are of these."""
        place = start.origin if start.resumed is None else start.resumed
        if place is None:
            return
        if place.suffix == ".ckpt":
            content = read_checkpoint(place)
            written = read_classifier_settings(content["hyper_parameters"]["settings"])
            state = classifier_state_of(content)
        else:
            written = read_classifier_settings(read_json(place / "config.json")["settings"])
            state = load_file(place / "model.safetensors")
        for part, what in _SAME.items():
            wanted, found = getattr(self.settings, part), getattr(written, part)
            if wanted != found:
                said = f"{what} {_shown(found)}, and this run {_shown(wanted)}"
                raise UserError(f"{place} has {said}; make them the same")
        load_classifier_state(self.classifier, state, place)
        if any(not key.startswith(HEAD) for key in state):
            self.tower.source = self.classifier.source = None  # these weights lie nowhere else
            self.tower.__dict__.pop("fingerprint", None)


_SAME = {"backbone": "the backbone", "classes": "the classes", "multilabel": "task.multilabel", "head": "the head"}


def _shown(value: Any) -> str:
    if isinstance(value, BackboneSource):
        told = {key: one for key, one in vars(value).items() if one is not None and one != {} and key != "text"}
        return " ".join(f"{key}={one}" for key, one in told.items())
    return ", ".join(value) if isinstance(value, tuple) else str(value).lower()


def has_blocks(tower: VisionBackbone) -> bool:
    """Tell whether a tower is a list of blocks, of which the last can train and each can have a rate of its own."""
    if tower.image_tower.family == "convolutional":
        return False
    return block_list(tower_of(tower))[1] > 1


def class_weights(truth: NDArray[np.float32], multilabel: bool) -> Tensor:
    """Return the weight of each class ``[C]`` that makes up for how often it occurs.

    Of several classes at once ``absent / present``, by which a present label counts; of one class ``n / (C n_c)``.
    A class that is very rare has ``MOST_WEIGHT`` at most.
    """
    present = np.nansum(truth, axis=0)
    stated = (~np.isnan(truth)).sum(axis=0)
    weights = (stated - present) / present if multilabel else len(truth) / (truth.shape[1] * present)
    return torch.tensor(np.minimum(weights, MOST_WEIGHT), dtype=torch.float32)


def _told(config: TrainConfig) -> ClassifyConfig:
    if not isinstance(config.task, ClassifyConfig):
        raise UserError("task=classify needs its own settings: choose it on the command line as task=classify")
    return config.task


def _tower(config: TrainConfig) -> VisionBackbone:
    """The tower alone: a text tower or the classes of a network's own head are not needed."""
    return build_backbone(**{**asdict(config.backbone), "text": False})


def _refuse_stage(config: TrainConfig, told: ClassifyConfig) -> None:
    if config.stage.task != told.name:
        raise UserError(
            f"stage={config.stage.name} is a stage of task={config.stage.task}: leave out stage=, or choose "
            "stage=supervised"
        )


def _refuse(config: TrainConfig, told: ClassifyConfig, plan: ClassifierPlan) -> None:
    """Refuse in one line what does not go together."""
    stage = config.stage
    for part in ("mapper", "language_model"):
        if getattr(config, part) is not None:
            raise UserError(f"{part}= is a part of captioners, and task=classify has none: leave it out")
    if config.trainer.strategy == "fsdp":
        raise UserError("task=classify runs on one device or with trainer=ddp, not with trainer=fsdp")
    for setting, value, default in (
        ("stage.replay", stage.replay, 0),
        ("stage.supervise_padding", stage.supervise_padding, False),
        ("stage.mapper_learning_rate_factor", stage.mapper_learning_rate_factor, 1),
        ("callbacks.score_captions", config.callbacks.score_captions, None),
    ):
        if value != default:
            raise UserError(f"{setting} is of captioners, and task=classify has none: leave it out")
    if not plan.trains_tower:
        if stage.unfreeze:
            raise UserError("stage.unfreeze is of a tower that trains: set stage.trains=[head,image], or leave it out")
        for name in ("flip", "shift"):
            if getattr(told, name):
                raise UserError(
                    f"task.{name} changes the picture, and the tower is frozen, its features computed once: set "
                    "stage.trains=[head,image], or leave it out"
                )
        if told.layer_decay < 1:
            raise UserError(
                "task.layer_decay is of a tower that trains: set stage.trains=[head,image], or leave it out"
            )
    if stage.label_smoothing and told.multilabel:
        raise UserError("stage.label_smoothing is of one class a photograph: set it to 0")
