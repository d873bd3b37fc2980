"""The job ``train``: one stage of a captioner, from records to an exported model."""

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
from lightning.pytorch.loggers import Logger
from safetensors.torch import load_file
from torch import Tensor

from clip_xai.config.schemas import TrainConfig
from clip_xai.config.training_settings import CONTRASTIVE, StageConfig
from clip_xai.data.record import Record
from clip_xai.data.vocabulary import load_vocabulary
from clip_xai.errors import UserError
from clip_xai.files import write_json
from clip_xai.jobs.train_contrastive import train_contrastive
from clip_xai.models.captioner import Captioner
from clip_xai.models.causal_model import positions
from clip_xai.models.decoding import require_room
from clip_xai.models.retrieval import INDEX, Retrieval
from clip_xai.models.weights import (
    CaptionerSettings,
    build_captioner,
    load_settings,
    load_state,
    read_settings,
    save_captioner,
)
from clip_xai.runs.checkpoints import EXPORT
from clip_xai.runs.instantiate import captioner_settings, decoding, feature_table
from clip_xai.runs.lineage import Learned
from clip_xai.runs.lineage_callback import Remember
from clip_xai.runs.loggers import log_table, open_loggers
from clip_xai.runs.resuming import METRICS, Start, begin, learned_records
from clip_xai.text import counted
from clip_xai.training.data import CaptionData
from clip_xai.training.features import FeatureTable
from clip_xai.training.kept import best_metrics
from clip_xai.training.modules import CaptionerModule, Optimisation, captioner_state, read_checkpoint
from clip_xai.training.prompts import caption_index, retrieved_prompts
from clip_xai.training.trainer import ScoreCaptions, build_trainer, is_first_process, run_epochs, strategy_of
from clip_xai.training.unfreezing import Unfreezing

log = logging.getLogger(__name__)


def train(config: TrainConfig, callbacks: Sequence[Callback] = ()) -> dict[str, Any]:
    """Train one stage.

    Args:
        config: All settings.
        callbacks: Lightning's, besides those that the settings name.

    Writes into ``config.run_dir``: ``checkpoints/`` (``last.ckpt``, ``best.ckpt``), ``export/`` (the best weights, and
    the index where captions are retrieved), ``metrics.json``, ``set_aside.json`` (unreadable photographs),
    ``run.json``, ``asked.json`` and the loggers' files.

    Returns:
        What stands in ``metrics.json``. A finished run of the same command is not trained again; one that was broken
        off goes on from its last checkpoint.

    Raises:
        UserError: Weights, data or the stage before are missing, or the run directory holds something else.
    """
    if config.stage.number == CONTRASTIVE:
        return train_contrastive(config, callbacks)
    started = time.perf_counter()
    torch.set_flush_denormal(True)  # denormal numbers make a small model on a CPU ten times as slow
    lightning.seed_everything(config.seed, verbose=False)
    run_dir = Path(config.run_dir)
    settings = captioner_settings(config.backbone, config.mapper, config.language_model)
    captioner = build_captioner(settings)
    start = begin(config, captioner.backbone, Path(EXPORT) / "config.json")
    if start.stored is not None:
        return start.stored
    config, resumed = start.config, start.resumed
    load_start(captioner, settings, start)
    splits = {"train": start.train, "val": start.val}
    records = [*splits["train"], *splits["val"]]
    table = feature_table(captioner, records, config.data, config.trainer)
    retrieval, prompts = retrieved(captioner, settings, splits, config)
    data = caption_data(captioner, table, splits, config, prompts)
    if data.train_set.cut:
        log.warning(
            "%s longer than data.max_tokens=%d, the end of which is never learned; the longest has %d tokens",
            *(counted(data.train_set.cut, "caption"), config.data.max_tokens, data.train_set.longest),
        )
    learned = [record for record in learned_records(config, start.train) if record.image in table.rows]
    lineage = start.lineage.with_learned(Learned.from_records(learned))
    vocabulary = load_vocabulary(config.data.vocabulary)
    captioner.provenance = lineage.packed() | vocabulary.packed()
    require_positions(captioner, data, config)
    if is_first_process():
        start.card.write(run_dir)
        set_aside(table, run_dir)
        if retrieval is not None:  # before the first step: an unfinished run's checkpoints need it too
            (run_dir / EXPORT).mkdir(exist_ok=True)
            retrieval.index.save(run_dir / EXPORT / INDEX)
    with open_loggers(config.logger, run_dir, "train", asdict(config)) as loggers:
        remember = Remember(start.asked, lineage, vocabulary)
        best, before = fit(captioner, settings, data, config, loggers, resumed, [remember, *callbacks])
        if not is_first_process():
            return best_metrics(best)
        if config.trainer.strategy != "auto":
            captioner = build_captioner(settings)  # the other one's weights belong to the strategy
        content = read_checkpoint(best)
        load_state(captioner, captioner_state(content), best)
        captioner.provenance = lineage.with_updates(content["global_step"]).packed() | vocabulary.packed()
        captioner.cpu().eval()
        save_captioner(captioner, settings, run_dir / EXPORT)
        log_samples(captioner, data, config, loggers)
    metrics = best_metrics(best) | {
        "train_photographs": len(data.sampler),
        "val_photographs": len(data.val_set),
        "set_aside": len(table.unreadable),
        "seconds": round(time.perf_counter() - started, 1),
    }
    if before is not None:
        metrics["val/common_loss before"] = before
    write_json(run_dir / METRICS, metrics)
    start.card.finished(run_dir, metrics.get(config.callbacks.monitor))
    log.info("stage %d done: %s", config.stage.number, run_dir)
    return metrics


def load_start(captioner: Captioner, settings: CaptionerSettings, start: Start) -> None:
    """Give the captioner the weights that this stage starts from, or goes on with."""
    if start.resumed is not None:
        load_state(captioner, captioner_state(read_checkpoint(start.resumed)), start.resumed)
        return
    origin = start.origin
    if origin is None:
        return
    if origin.suffix == ".ckpt":
        checkpoint = read_checkpoint(origin)
        require_same_parts(settings, read_settings(checkpoint["hyper_parameters"]["settings"]), origin)
        load_state(captioner, with_adapters(captioner_state(checkpoint), captioner), origin)
        return
    require_same_parts(settings, load_settings(origin), origin)
    load_state(captioner, with_adapters(load_file(origin / "model.safetensors"), captioner), origin)


def with_adapters(state: dict[str, Tensor], captioner: Captioner) -> dict[str, Tensor]:
    """Return weights of a captioner without adapters under the names that one with adapters has.

    Its adapters stay as they were made: they change nothing until they train. Weights that have adapters stay as they
    are, and so do all where the captioner has none.
    """
    own = captioner.state_dict()
    fresh = {key: value for key, value in own.items() if "lora_" in key}
    if not fresh or any("lora_" in key for key in state):
        return state
    renamed = {}
    for key, value in state.items():
        module, _, leaf = key.rpartition(".")
        wrapped = f"{module}.base_layer.{leaf}"
        renamed[wrapped if wrapped in own else key] = value
    return renamed | fresh


def require_same_parts(settings: CaptionerSettings, written: CaptionerSettings, origin: Path) -> None:
    """Refuse weights of other parts in one line, before tensors of other shapes do it in many."""
    for part in ("backbone", "mapper", "mapper_settings", "language_model", "lora"):
        wanted, found = getattr(settings, part), getattr(written, part)
        if part == "lora" and found is None:  # a stage may add adapters
            continue
        if wanted != found:
            raise UserError(f"{origin} has a different {part} ({found}) than this run ({wanted}); make them the same")


def retrieved(
    captioner: Captioner, settings: CaptionerSettings, splits: dict[str, list[Record]], config: TrainConfig
) -> tuple[Retrieval | None, dict[Path, str] | None]:
    """Return what makes the prompts, and the prompt of each photograph; None of both without retrieved captions."""
    if not settings.retrieved_captions:
        return None, None
    records = [*splits["train"], *splits["val"]]
    pooled = feature_table(captioner, records, config.data, config.trainer, "pooled")
    index = caption_index(splits["train"], pooled)
    retrieval = Retrieval(index, settings.retrieved_captions, settings.retrieval_template)
    return retrieval, retrieved_prompts(retrieval, records, pooled)


def require_positions(captioner: Captioner, data: CaptionData, config: TrainConfig) -> None:
    """Refuse, before the first step, captions for which the language model does not have enough positions.

    Raises:
        UserError: The photograph's slots, the longest prompt and the longest caption do not fit together.
    """
    prompts = [prompt for part in data.sets() for prompt in part.prompts or ()] or None
    room, limit = captioner.room(prompts), positions(captioner.language_model)
    if data.longest > room:
        raise UserError(
            f"{counted(limit - room + 1, 'vector')} before the caption and {counted(data.longest, 'token')} of a "
            f"caption exceed the language model's {limit} positions: lower "
            "language_model.retrieved_captions, mapper.prefix_length or data.max_tokens, or take a language_model "
            "with more, such as gpt2"
        )
    if config.callbacks.sample_captions or config.callbacks.score_captions:
        require_room(room, limit, decoding(config.generation))


def caption_data(
    captioner: Captioner,
    table: FeatureTable,
    splits: dict[str, list[Record]],
    config: TrainConfig,
    prompts: dict[Path, str] | None = None,
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
        accumulate=config.trainer.accumulate_grad_batches,
        bucket=config.trainer.length_bucket,
        supervise_padding=config.stage.supervise_padding,
        draw_references=config.data.draw_references,
        prompts=prompts,
    )


def set_aside(table: FeatureTable, run_dir: Path) -> None:
    """Name the photographs that cannot be read: in the log and in ``set_aside.json``."""
    named = {str(path): reason for path, reason in table.unreadable.items()}
    for reason in named.values():
        log.warning("set aside: %s", reason)
    write_json(run_dir / "set_aside.json", named)


def optimisation(stage: StageConfig, seed: int) -> Optimisation:
    """Return the stage's optimisation settings."""
    return Optimisation(
        learning_rate=stage.learning_rate,
        mapper_factor=stage.mapper_learning_rate_factor,
        weight_decay=stage.weight_decay,
        warmup=stage.warmup,
        warmup_steps=stage.warmup_steps,
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
    extra: Sequence[Callback] = (),
) -> tuple[Path, float | None]:
    """Run the stage's epochs.

    Returns:
        The path of the best checkpoint, of this run's and the resumed one's, and the loss on the sources that the stage
        is not about before it began (None where there are none, or where the run is a resumed one).

    Raises:
        UserError: The strategy cannot do what is asked for, what is monitored is never measured, or the loss or a
            weight is not finite.
    """
    stage = config.stage
    unfreezing = Unfreezing(stage.trains, dict(enumerate(stage.unfreeze)))
    module = CaptionerModule(captioner, settings, optimisation(stage, config.seed), unfreezing)
    callbacks: list[Callback] = [unfreezing, *extra]
    if config.callbacks.score_captions is not None:
        callbacks.append(ScoreCaptions(data, config.callbacks, decoding(config.generation)))
    trainer, keeper = build_trainer(config, loggers, callbacks, strategy_of(config, unfreezing), resumed)
    before = run_epochs(trainer, module, data, config, resumed, judge_first=data.common_set is not None)
    return keeper.best(), before.get("val/common_loss")


@torch.no_grad()
def log_samples(captioner: Captioner, data: CaptionData, config: TrainConfig, loggers: Sequence[Logger]) -> None:
    """Write captions of a few validation photographs beside their references."""
    count, prompts = config.callbacks.sample_captions, data.val_set.prompts
    records = data.val_set.records[:count]
    if not records:
        return
    read = data.val_set.features.stack([record.image for record in records])
    captions = captioner.generate(read, decoding(config.generation), prompts and prompts[:count])
    rows = [
        [record.identifier, caption.text, record.caption] for record, caption in zip(records, captions, strict=True)
    ]
    log_table(loggers, "sample_captions", ["photograph", "caption", "reference"], rows)
