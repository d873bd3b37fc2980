"""One stage of a captioner: what it starts from, its batches, its callbacks, and the exported model."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from lightning import Callback
from lightning.pytorch.loggers import Logger
from lightning.pytorch.strategies import Strategy
from safetensors.torch import load_file
from torch import Tensor

from clip_xai.config.schemas import TrainConfig
from clip_xai.data.record import Record
from clip_xai.data.vocabulary import load_vocabulary
from clip_xai.errors import UserError
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
from clip_xai.runs.instantiate import decoding
from clip_xai.runs.lineage import Learned
from clip_xai.runs.loggers import log_table
from clip_xai.runs.resuming import Start, learned_records
from clip_xai.tasks.captions.callbacks import SCORES, ScoreCaptions, strategy_of
from clip_xai.tasks.captions.data import CaptionData
from clip_xai.tasks.captions.module import CaptionerModule, captioner_state
from clip_xai.tasks.captions.opened import captioner_features, captioner_settings
from clip_xai.tasks.captions.prompts import caption_index, retrieved_prompts
from clip_xai.tasks.captions.unfreezing import Unfreezing
from clip_xai.tasks.task import Provenance, Training
from clip_xai.text import counted
from clip_xai.training.checkpoint_files import read_checkpoint
from clip_xai.training.features import FeatureTable
from clip_xai.training.optimisation import Optimisation

log = logging.getLogger(__name__)


class CaptionTraining(Training):
    """One stage of a captioner: adaptation or language.

    Attributes:
        captioner: What is trained.
    """

    product = Path(EXPORT) / "config.json"

    def __init__(self, config: TrainConfig) -> None:
        """Build the captioner.

        Raises:
            UserError: The settings do not go together, or weights are nowhere to be had.
        """
        if config.mapper is None or config.language_model is None:
            raise UserError("task=captions needs a mapper and a language model: choose mapper= and language_model=")
        self.config = config
        self.settings = captioner_settings(config.backbone, config.mapper, config.language_model)
        self.captioner = build_captioner(self.settings)
        self.backbone = self.captioner.backbone
        self.unfreezing = Unfreezing(config.stage.trains, dict(enumerate(config.stage.unfreeze)))

    def prepare(self, start: Start) -> None:
        """Load weights, read features and encode captions."""
        self.config = config = start.config
        captioner, settings = self.captioner, self.settings
        load_start(captioner, settings, start)
        splits = {"train": with_captions(start.train, "training"), "val": with_captions(start.val, "validation")}
        table = captioner_features(captioner, [*splits["train"], *splits["val"]], config.data, config.trainer)
        self.retrieval, prompts = retrieved(captioner, settings, splits, config)
        data = caption_data(captioner, table, splits, config, prompts)
        if data.train_set.cut:
            log.warning(
                "%s longer than data.max_tokens=%d, the end of which is never learned; the longest has %d tokens",
                *(counted(data.train_set.cut, "caption"), config.data.max_tokens, data.train_set.longest),
            )
        self.learned = [record for record in learned_records(config, splits["train"]) if record.image in table.rows]
        self.set_aside = {str(path): reason for path, reason in table.unreadable.items()}
        self.sizes = {"train_photographs": len(data.sampler), "val_photographs": len(data.val_set)}
        self.judge_first = data.common_set is not None
        vocabulary = load_vocabulary(config.data.vocabulary)
        learned = start.lineage.with_learned(Learned.from_records(self.learned))
        captioner.provenance = learned.packed() | vocabulary.packed()
        require_positions(captioner, data, config)
        self.batches = self.data = data
        self.module = CaptionerModule(captioner, settings, optimisation(config), self.unfreezing)

    def write_first(self, run_dir: Path) -> None:
        """Write the index of retrieved captions: an unfinished run's checkpoints need it too."""
        if self.retrieval is not None:
            (run_dir / EXPORT).mkdir(exist_ok=True)
            self.retrieval.index.save(run_dir / EXPORT / INDEX)

    @property
    def measured_every(self) -> int:
        """Epochs between two measurements of what is monitored: captions are scored now and then only."""
        told = self.config.callbacks
        return (told.score_captions or 1) if told.monitor in SCORES else 1

    def callbacks(self) -> list[Callback]:
        """Return what thaws the captioner's parts, and what scores captions where that is asked."""
        told = self.config.callbacks
        scoring = (
            [] if told.score_captions is None else [ScoreCaptions(self.batches, told, decoding(self.config.generation))]
        )
        return [self.unfreezing, *scoring]

    def strategy(self) -> str | Strategy:
        """Return Lightning's strategy."""
        return strategy_of(self.config, self.unfreezing)

    def finish(self, best: Path, provenance: Provenance, loggers: Sequence[Logger]) -> dict[str, Any]:
        """Export the captioner of the best checkpoint, and write some captions beside their references."""
        captioner = self.captioner
        if self.config.trainer.strategy != "auto":
            captioner = build_captioner(self.settings)  # the other one's weights belong to the strategy
        content = read_checkpoint(best)
        load_state(captioner, captioner_state(content), best)
        captioner.provenance = provenance.after(content["global_step"])
        captioner.cpu().eval()
        save_captioner(captioner, self.settings, Path(self.config.run_dir) / EXPORT)
        log_samples(captioner, self.batches, self.config, loggers)
        return {}


def with_captions(records: Sequence[Record], split: str) -> list[Record]:
    """Return the records that have a caption; those with labels alone are counted in the log.

    Raises:
        UserError: None has one.
    """
    found = [record for record in records if record.references]
    if not found:
        raise UserError(
            f"no {split} photograph has a caption, only labels: choose task=classify, or data with captions"
        )
    if len(found) < len(records):
        log.warning("%s: %s left out, which have no caption", split, counted(len(records) - len(found), "photograph"))
    return found


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
    pooled = captioner_features(captioner, records, config.data, config.trainer, "pooled")
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


def optimisation(config: TrainConfig) -> Optimisation:
    """Return the stage's optimisation settings."""
    stage = config.stage
    return Optimisation(
        learning_rate=stage.learning_rate,
        mapper_factor=stage.mapper_learning_rate_factor,
        weight_decay=stage.weight_decay,
        warmup=stage.warmup,
        warmup_steps=stage.warmup_steps,
        label_smoothing=stage.label_smoothing,
        seed=config.seed,
    )


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
