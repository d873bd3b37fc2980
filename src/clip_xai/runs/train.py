"""The job ``train``: one stage of a captioner, from records to an exported model."""

from __future__ import annotations

import json
import logging
import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import lightning
import torch
from lightning import Callback, Trainer
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint, RichProgressBar
from lightning.pytorch.loggers import Logger
from safetensors.torch import load_file

from clip_xai.data.record import Record
from clip_xai.errors import UserError
from clip_xai.models.captioner import Captioner
from clip_xai.models.weights import CaptionerSettings, build_captioner, load_state, read_settings, save_captioner
from clip_xai.runs.checkpoints import EXPORT, LAST, RunCard, newest_export, newest_last, resolve_checkpoint
from clip_xai.runs.config import StageConfig, TrainConfig
from clip_xai.runs.instantiate import captioner_settings, decoding, feature_table
from clip_xai.runs.loggers import log_table, open_loggers
from clip_xai.runs.records import load_records
from clip_xai.training.data import CaptionData
from clip_xai.training.features import FeatureTable
from clip_xai.training.modules import CaptionerModule, Optimisation, captioner_state, read_checkpoint
from clip_xai.training.unfreezing import Unfreezing

log = logging.getLogger(__name__)


def train(config: TrainConfig) -> dict[str, Any]:
    """Train one stage.

    Writes into ``config.run_dir``: ``checkpoints/`` (``last.ckpt``, ``best.ckpt``), ``export/`` (the best weights),
    ``metrics.json``, ``set_aside.json`` (unreadable photographs), ``run.json`` and the loggers' files.

    Returns:
        What stands in ``metrics.json``.

    Raises:
        UserError: Weights, data or the stage before are missing.
    """
    started = time.perf_counter()
    torch.set_flush_denormal(True)  # denormal numbers make a small model on a CPU ten times as slow
    lightning.seed_everything(config.seed, verbose=False)
    run_dir = Path(config.run_dir)
    card = RunCard.now(config.backbone.name, config.mapper.name, config.language_model.name, config.stage.number)
    settings = captioner_settings(config.backbone, config.mapper, config.language_model)
    captioner = build_captioner(settings)
    resumed = checkpoint_to_resume(config, card)
    load_start(captioner, settings, config, card, resumed)
    splits = {split: load_records(config.data, split) for split in ("train", "val")}
    table = feature_table(captioner, [*splits["train"], *splits["val"]], config.data, config.trainer)
    run_dir.mkdir(parents=True, exist_ok=True)
    card.write(run_dir)
    set_aside(table, run_dir)
    data = caption_data(captioner, table, splits, config)
    with open_loggers(config.logger, run_dir, "train", asdict(config)) as loggers:
        best = best_of(fit(captioner, settings, data, config, loggers, resumed), resumed)
        load_state(captioner, captioner_state(read_checkpoint(best)), best)
        captioner.cpu().eval()
        save_captioner(captioner, settings, run_dir / EXPORT)
        log_samples(captioner, data, config, loggers)
    metrics = best_metrics(best) | {
        "train_photographs": len(data.sampler),
        "val_photographs": len(data.val_set),
        "set_aside": len(table.unreadable),
        "seconds": round(time.perf_counter() - started, 1),
    }
    (run_dir / "metrics.json").write_text(json.dumps(metrics, indent=2) + "\n")
    log.info("stage %d done: %s", config.stage.number, run_dir)
    return metrics


def checkpoint_to_resume(config: TrainConfig, card: RunCard) -> Path | None:
    """Return the checkpoint that ``ckpt_path`` names, or None."""
    if config.ckpt_path is None:
        return None
    path = newest_last(card, Path(config.runs_root)) if config.ckpt_path == "last" else Path(config.ckpt_path)
    if path.is_dir():
        path = path / LAST
    if not path.is_file():
        raise UserError(f"ckpt_path={config.ckpt_path}: there is no such checkpoint")
    return path


def load_start(
    captioner: Captioner, settings: CaptionerSettings, config: TrainConfig, card: RunCard, resumed: Path | None
) -> None:
    """Give the captioner the weights that this stage starts from."""
    if resumed is not None:
        load_state(captioner, captioner_state(read_checkpoint(resumed)), resumed)
        return
    runs_root = Path(config.runs_root)
    if config.init_from is not None and config.init_from.endswith(".ckpt"):
        origin = Path(config.init_from)
        if not origin.is_file():
            raise UserError(f"init_from={origin}: there is no such checkpoint")
        checkpoint = read_checkpoint(origin)
        require_same_parts(settings, read_settings(checkpoint["hyper_parameters"]["settings"]), origin)
        load_state(captioner, captioner_state(checkpoint), origin)
        return
    if config.init_from is not None:
        export = resolve_checkpoint(config.init_from, runs_root)
    elif config.stage.starts_from is not None:
        export = newest_export(card, config.stage.starts_from, runs_root)
    else:
        return
    log.info("starting from %s", export)
    written = json.loads((export / "config.json").read_text())
    require_same_parts(settings, read_settings(written["settings"]), export)
    load_state(captioner, load_file(export / "model.safetensors"), export)


def require_same_parts(settings: CaptionerSettings, written: CaptionerSettings, origin: Path) -> None:
    """Refuse weights of other parts in one line, before tensors of other shapes do it in many."""
    for part in ("backbone", "mapper", "mapper_settings", "language_model", "prompt"):
        wanted, found = getattr(settings, part), getattr(written, part)
        if wanted != found:
            raise UserError(f"{origin} has another {part} ({found}) than this run ({wanted}); make them the same")


def caption_data(
    captioner: Captioner, table: FeatureTable, splits: dict[str, list[Record]], config: TrainConfig
) -> CaptionData:
    """Return the stage's batches."""
    return CaptionData(
        captioner,
        table,
        splits["train"],
        splits["val"],
        batch_size=config.stage.batch_size,
        max_tokens=config.data.max_tokens,
        seed=config.seed,
        sources=config.stage.sources,
        replay=config.stage.replay,
    )


def set_aside(table: FeatureTable, run_dir: Path) -> None:
    """Name the photographs that cannot be read: in the log and in ``set_aside.json``."""
    named = {str(path): reason for path, reason in table.unreadable.items()}
    for reason in named.values():
        log.warning("set aside: %s", reason)
    (run_dir / "set_aside.json").write_text(json.dumps(named, indent=2) + "\n")


def optimisation(stage: StageConfig, seed: int) -> Optimisation:
    """Return the stage's optimisation settings."""
    return Optimisation(
        learning_rate=stage.learning_rate,
        mapper_factor=stage.mapper_learning_rate_factor,
        weight_decay=stage.weight_decay,
        warmup=stage.warmup,
        label_smoothing=stage.label_smoothing,
        seed=seed,
    )


def fit(
    captioner: Captioner,
    settings: CaptionerSettings,
    data: CaptionData,
    config: TrainConfig,
    loggers: Sequence[Logger],
    resumed: Path | None,
) -> Path:
    """Run the stage's epochs and return the path of the checkpoint with the lowest validation loss."""
    stage = config.stage
    unfreezing = Unfreezing(stage.trains, dict(enumerate(stage.unfreeze)))
    module = CaptionerModule(captioner, settings, optimisation(stage, config.seed), unfreezing)
    keeper = ModelCheckpoint(
        dirpath=Path(config.run_dir) / "checkpoints",
        filename="best",
        monitor="val/loss",
        save_last=True,
        enable_version_counter=False,
    )
    callbacks: list[Callback] = [unfreezing, keeper]
    if config.callbacks.progress_bar:
        callbacks.append(RichProgressBar())
    if config.callbacks.patience is not None:
        callbacks.append(EarlyStopping("val/loss", patience=config.callbacks.patience))
    with quiet_lightning():
        trainer = Trainer(
            accelerator=config.trainer.accelerator,
            devices=config.trainer.devices,
            precision=config.trainer.precision,  # type: ignore[arg-type]
            max_epochs=stage.epochs,
            gradient_clip_val=stage.gradient_clip,
            limit_train_batches=config.trainer.limit_train_batches,
            limit_val_batches=config.trainer.limit_val_batches,
            log_every_n_steps=config.trainer.log_every_n_steps,
            num_sanity_val_steps=0,
            enable_progress_bar=config.callbacks.progress_bar,
            enable_model_summary=False,
            logger=list(loggers),
            callbacks=callbacks,
        )
        trainer.fit(module, datamodule=data, ckpt_path=resumed, weights_only=True)
    return Path(keeper.best_model_path)


@contextmanager
def quiet_lightning() -> Iterator[None]:
    """Keep Lightning's hints from the terminal; its errors and its other warnings stay."""
    logger = logging.getLogger("lightning.pytorch")
    level = logger.level
    logger.setLevel(logging.WARNING)
    with warnings.catch_warnings():
        # Features come from memory (workers would only cost), frozen parts stand in evaluation mode on purpose.
        for hint in ("does not have many workers", "in eval mode", "is not empty", "LeafSpec", "dirpath has changed"):
            warnings.filterwarnings("ignore", message=f".*{hint}.*")
        warnings.filterwarnings("ignore", message=".*is smaller than the logging interval.*")
        yield
    logger.setLevel(level)


def best_of(best: Path, resumed: Path | None) -> Path:
    """Return the better of this run's best checkpoint and that of the run it resumed."""
    earlier = None if resumed is None else resumed.with_name(best.name)
    if earlier is None or not earlier.is_file():
        return best
    return min(best, earlier, key=lambda file: best_metrics(file)["val/loss"])


def best_metrics(checkpoint: Path) -> dict[str, Any]:
    """Return epoch and validation loss of the best checkpoint."""
    content = read_checkpoint(checkpoint)
    states = [state for key, state in content["callbacks"].items() if key.startswith("ModelCheckpoint")]
    loss = float(states[0]["best_model_score"])
    perplexity = float(torch.tensor(loss).exp())
    return {"epoch": content["epoch"], "val/loss": loss, "val/perplexity": perplexity}


@torch.no_grad()
def log_samples(captioner: Captioner, data: CaptionData, config: TrainConfig, loggers: Sequence[Logger]) -> None:
    """Write captions of a few validation photographs beside their references."""
    records = data.val_set.records[: config.callbacks.sample_captions]
    if not records:
        return
    read = data.val_set.features.stack([record.image for record in records])
    captions = captioner.generate(read, decoding(config.generation))
    rows = [
        [record.identifier, caption.text, record.caption] for record, caption in zip(records, captions, strict=True)
    ]
    log_table(loggers, "sample_captions", ["photograph", "caption", "reference"], rows)
