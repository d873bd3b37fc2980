"""Stage 0 of the job ``train``: a backbone meets photographs and their captions."""

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
from lightning.pytorch.strategies import DDPStrategy, Strategy
from safetensors.torch import save_file

from clip_xai.config.schemas import TrainConfig
from clip_xai.data.record import Record
from clip_xai.data.vocabulary import load_vocabulary
from clip_xai.errors import UserError
from clip_xai.files import replacing, write_json
from clip_xai.models.backbones.backbone_builder import build_backbone
from clip_xai.models.backbones.base import VisionBackbone
from clip_xai.models.backbones.blueprint import TOWER
from clip_xai.models.backbones.clip import with_texts
from clip_xai.models.finite import require_finite
from clip_xai.runs.lineage import Learned
from clip_xai.runs.lineage_callback import Remember
from clip_xai.runs.loggers import open_loggers
from clip_xai.runs.resuming import METRICS, begin
from clip_xai.training.contrastive_stage import ContrastiveModule, PairData, TowerPlan
from clip_xai.training.kept import best_metrics
from clip_xai.training.modules import Optimisation, read_checkpoint
from clip_xai.training.trainer import build_trainer, is_first_process, run_epochs

log = logging.getLogger(__name__)
BACKBONE = Path("backbone") / "model.safetensors"


def train_contrastive(config: TrainConfig, callbacks: Sequence[Callback] = ()) -> dict[str, Any]:
    """Train a backbone on image-caption pairs.

    Writes into ``config.run_dir`` ``backbone/model.safetensors``, which ``backbone.pretrained=`` takes, with
    ``tower.json`` beside it: how it is built, its preprocessing and its tokenizer. Besides them ``checkpoints/``,
    ``metrics.json``, ``set_aside.json`` and ``run.json``.

    Returns:
        What stands in ``metrics.json``.

    Raises:
        UserError: The settings ask for what a contrast cannot do, or weights or data are missing.
    """
    started = time.perf_counter()
    refuse(config)
    torch.set_flush_denormal(True)
    lightning.seed_everything(config.seed, verbose=False)
    run_dir = Path(config.run_dir)
    backbone = with_texts(build_backbone(**vars(config.backbone)))
    start = begin(config, backbone, BACKBONE)
    if start.stored is not None:
        return start.stored
    config, resumed = start.config, start.resumed
    stage = config.stage
    train, val = (of_sources(config, split, records) for split, records in (("train", start.train), ("val", start.val)))
    data = PairData(backbone, train, val, batch_size=stage.batch_size, seed=config.seed, workers=config.trainer.workers)
    learned = [record for record in train if str(record.image) not in data.unreadable]
    lineage = start.lineage.with_learned(Learned.from_records(learned))
    if is_first_process():
        start.card.write(run_dir)
        write_json(run_dir / "set_aside.json", data.unreadable)
    plan = TowerPlan(stage.trains, dict(enumerate(stage.unfreeze)))
    optimisation = Optimisation(
        learning_rate=stage.learning_rate,
        weight_decay=stage.weight_decay,
        warmup=stage.warmup,
        warmup_steps=stage.warmup_steps,
        seed=config.seed,
    )
    module = ContrastiveModule(backbone, optimisation, plan)
    with open_loggers(config.logger, run_dir, "train", asdict(config)) as loggers:
        used = [plan, Remember(start.asked, lineage, load_vocabulary(config.data.vocabulary)), *callbacks]
        trainer, keeper = build_trainer(config, loggers, used, strategy_of(config, plan), resumed)
        before = run_epochs(trainer, module, data, config, resumed, judge_first=True)
        best = keeper.best()
        if is_first_process():
            content = read_checkpoint(best)
            provenance = lineage.with_updates(content["global_step"]).packed()
            save_backbone(backbone, content["state_dict"], run_dir / BACKBONE, provenance)
    metrics = {
        **best_metrics(best),
        **{f"{key} before": value for key, value in before.items()},
        "train_photographs": len(data.train_set),
        "val_photographs": len(data.val_set),
        "set_aside": len(data.unreadable),
        "seconds": round(time.perf_counter() - started, 1),
    }
    if is_first_process():
        write_json(run_dir / METRICS, metrics)
        start.card.finished(run_dir, metrics.get(config.callbacks.monitor))
        name = config.backbone.name
        log.info(
            "stage 0 done; next: python train.py backbone=%s backbone.pretrained=%s stage=1", name, run_dir / BACKBONE
        )
    return metrics


def of_sources(config: TrainConfig, split: str, records: Sequence[Record]) -> list[Record]:
    """Return those of a split's records that the stage is about.

    Raises:
        UserError: There are none.
    """
    sources = config.stage.sources
    chosen = [record for record in records if sources is None or record.source in sources]
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


def strategy_of(config: TrainConfig, plan: TowerPlan) -> str | Strategy:
    """Return Lightning's strategy."""
    return DDPStrategy(find_unused_parameters=plan.changes) if config.trainer.strategy == "ddp" else "auto"
