"""The contrastive stage: a backbone meets photographs and their captions."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from lightning import Callback
from lightning.pytorch.loggers import Logger
from lightning.pytorch.strategies import DDPStrategy, Strategy
from safetensors.torch import save_file

from clip_xai.config.schemas import TrainConfig
from clip_xai.data.record import Record
from clip_xai.errors import UserError
from clip_xai.files import replacing, write_json
from clip_xai.models.backbones.backbone_builder import build_backbone
from clip_xai.models.backbones.base import VisionBackbone
from clip_xai.models.backbones.blueprint import TOWER
from clip_xai.models.backbones.clip import with_texts
from clip_xai.models.finite import require_finite
from clip_xai.runs.resuming import Start
from clip_xai.tasks.captions.contrastive_module import ContrastiveModule, PairData
from clip_xai.tasks.captions.training import with_captions
from clip_xai.tasks.task import Provenance, Training
from clip_xai.training.checkpoint_files import read_checkpoint
from clip_xai.training.optimisation import Optimisation
from clip_xai.training.tower_plan import TowerPlan

log = logging.getLogger(__name__)
BACKBONE = Path("backbone") / "model.safetensors"


class ContrastiveTraining(Training):
    """The contrastive stage: a backbone on pairs of photographs and captions.

    Its product is ``backbone/model.safetensors``, which ``backbone.pretrained=`` takes, with ``tower.json`` beside it:
    how it is built, its preprocessing and its tokenizer.
    """

    product = BACKBONE
    judge_first = True

    def __init__(self, config: TrainConfig) -> None:
        """Build the backbone.

        Raises:
            UserError: The settings ask for what a contrast cannot do, or weights are missing.
        """
        refuse(config)
        self.config = config
        self.clip = self.backbone = with_texts(build_backbone(**vars(config.backbone)))
        self.plan = TowerPlan(config.stage.trains, dict(enumerate(config.stage.unfreeze)))

    def prepare(self, start: Start) -> None:
        """Set aside what cannot be read, and make the batches."""
        self.config = config = start.config
        stage = config.stage
        train, val = (
            of_sources(config, split, records) for split, records in (("train", start.train), ("val", start.val))
        )
        self.data = data = PairData(
            self.clip, train, val, batch_size=stage.batch_size, seed=config.seed, workers=config.trainer.workers
        )
        self.set_aside = data.unreadable
        self.learned = [record for record in train if str(record.image) not in data.unreadable]
        self.sizes = {"train_photographs": len(data.train_set), "val_photographs": len(data.val_set)}
        optimisation = Optimisation(
            learning_rate=stage.learning_rate,
            weight_decay=stage.weight_decay,
            warmup=stage.warmup,
            warmup_steps=stage.warmup_steps,
            seed=config.seed,
        )
        self.module = ContrastiveModule(self.clip, optimisation, self.plan)

    def callbacks(self) -> list[Callback]:
        """Return what thaws the towers."""
        return [self.plan]

    def strategy(self) -> str | Strategy:
        """Return Lightning's strategy."""
        changes = self.plan.changes
        return DDPStrategy(find_unused_parameters=changes) if self.config.trainer.strategy == "ddp" else "auto"

    def finish(self, best: Path, provenance: Provenance, loggers: Sequence[Logger]) -> dict[str, Any]:
        """Write the backbone of the best checkpoint, and say how to go on with it."""
        content = read_checkpoint(best)
        place = Path(self.config.run_dir) / BACKBONE
        save_backbone(self.backbone, content["state_dict"], place, provenance.after(content["global_step"]))
        log.info("next: python train.py backbone=%s backbone.pretrained=%s stage=1", self.config.backbone.name, place)
        return {}


def of_sources(config: TrainConfig, split: str, records: Sequence[Record]) -> list[Record]:
    """Return those of a split's records that the stage is about.

    Raises:
        UserError: There are none.
    """
    sources = config.stage.sources
    captioned = with_captions(records, split)
    chosen = [record for record in captioned if sources is None or record.source in sources]
    if not chosen:
        wanted = "any source" if sources is None else ", ".join(sources)
        raise UserError(f"split {split} has no photograph of {wanted}; widen data.limit, data.root or stage.sources")
    return chosen


def save_backbone(
    backbone: VisionBackbone, state: dict[str, torch.Tensor], file: Path, provenance: dict[str, str]
) -> None:
    """Write the backbone's weights of a checkpoint as one safetensors file, under the names of its library.

    How it is built is written beside it: a published folder's preprocessing and tokenizer would not be found again.

    Args:
        backbone: Says how it is built.
        state: The checkpoint's weights.
        file: Where they are written.
        provenance: What the file's header says of them.

    Raises:
        UserError: A weight is not finite.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    prefix = "backbone.model."
    # Cloned: tensors that share memory cannot stand in one file twice.
    weights = {key.removeprefix(prefix): value.clone() for key, value in state.items() if key.startswith(prefix)}
    require_finite(weights, "the trained backbone")
    with replacing(file) as unfinished:
        save_file(weights, unfinished, metadata=provenance)
    if backbone.blueprint is not None:
        write_json(file.with_name(TOWER), backbone.blueprint.plain())


def refuse(config: TrainConfig) -> None:
    """Refuse in one line what a contrast cannot do."""
    if config.trainer.accumulate_grad_batches > 1:
        raise UserError(
            "stage=0 contrasts all pairs of a step with each other, which accumulated batches would not be; set"
            " trainer.accumulate_grad_batches=1, or train on more devices"
        )
    if not config.backbone.text:
        raise UserError("stage=0 compares photographs with texts; set backbone.text=true")
    if config.trainer.strategy == "fsdp":
        raise UserError("stage=0 runs on one device or with trainer=ddp, not with trainer=fsdp")
