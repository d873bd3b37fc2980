"""Lightning's Trainer from the settings, and the callbacks that need more than training knows."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import lightning.pytorch.profilers as profilers
import torch
from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint, RichProgressBar
from lightning.pytorch.loggers import Logger
from lightning.pytorch.strategies import DDPStrategy, ModelParallelStrategy, Strategy
from lightning.pytorch.utilities.rank_zero import rank_zero_only

from clip_xai.errors import UserError
from clip_xai.metrics.captions import bleu, rouge_l
from clip_xai.models.captioner import Decoding
from clip_xai.runs.config import TrainConfig
from clip_xai.runs.training_settings import CallbacksConfig
from clip_xai.training.averaging import WeightAverage
from clip_xai.training.checkpoint_files import WholeCheckpoints
from clip_xai.training.data import CaptionData
from clip_xai.training.unfreezing import Unfreezing


def build_trainer(
    config: TrainConfig, loggers: Sequence[Logger], callbacks: Sequence[Callback], strategy: str | Strategy
) -> tuple[Trainer, ModelCheckpoint]:
    """Return the Trainer of a stage, and the callback that keeps ``best.ckpt`` and ``last.ckpt``.

    Args:
        config: The settings of ``train``.
        loggers: Where numbers go.
        callbacks: The stage's own.
        strategy: See :func:`strategy_of`.
    """
    stage, told, machine = config.stage, config.callbacks, config.trainer
    keeper = ModelCheckpoint(
        dirpath=Path(config.run_dir) / "checkpoints",
        filename="best",
        monitor=told.monitor,
        mode=told.mode,
        save_last=True,
        enable_version_counter=False,
    )
    used: list[Callback] = [*callbacks, keeper]
    if stage.decay is not None:
        used.append(WeightAverage(stage.decay))
    if told.progress_bar:
        used.append(RichProgressBar())
    if told.patience is not None:
        used.append(EarlyStopping(told.monitor, patience=told.patience, mode=told.mode))
    steps = machine.limit_train_batches
    trainer = Trainer(
        accelerator=machine.accelerator,
        devices=machine.devices,
        num_nodes=machine.num_nodes,
        strategy=strategy,
        plugins=[WholeCheckpoints()],
        precision=machine.precision,  # type: ignore[arg-type]
        inference_mode=False,  # a metric that saw a validation before the fit goes on in it
        max_epochs=stage.epochs,
        accumulate_grad_batches=machine.accumulate_grad_batches,
        gradient_clip_val=stage.gradient_clip,
        limit_train_batches=None if steps is None else steps * machine.accumulate_grad_batches,
        limit_val_batches=machine.limit_val_batches,
        log_every_n_steps=machine.log_every_n_steps,
        use_distributed_sampler=False,  # the batches are cut for the devices already
        num_sanity_val_steps=0,
        enable_progress_bar=told.progress_bar,
        enable_model_summary=False,
        profiler=_profiler(machine.profiler, Path(config.run_dir)),
        logger=list(loggers),
        callbacks=used,
    )
    return trainer, keeper


def strategy_of(config: TrainConfig, unfreezing: Unfreezing) -> str | Strategy:
    """Return Lightning's strategy.

    Raises:
        UserError: It cannot do what else is asked for.
    """
    machine = config.trainer
    if machine.strategy == "ddp":
        # Parts that thaw later have no gradient yet, and nobody must wait for it.
        return DDPStrategy(find_unused_parameters=unfreezing.changes)
    if machine.strategy == "fsdp":
        if config.stage.decay is not None:
            raise UserError("stage.decay averages whole weights, and trainer=fsdp shards them; set stage.decay=null")
        if config.callbacks.score_captions is not None:
            raise UserError("sharded weights write no captions; set callbacks.score_captions=null or trainer=ddp")
        return ModelParallelStrategy(
            data_parallel_size=machine.world_size, tensor_parallel_size=1, save_distributed_checkpoint=False
        )
    return "auto"


class ScoreCaptions(Callback):
    """Writes captions of a few validation photographs now and then and logs ``val/bleu`` and ``val/rouge_l``.

    The photographs stand at even steps through the validation records and are the same each time.
    """

    def __init__(self, data: CaptionData, told: CallbacksConfig, decoding: Decoding) -> None:
        """Choose the photographs.

        Args:
            data: Its validation set is drawn from.
            told: How often and how many.
            decoding: How captions are decoded.
        """
        self.every = told.score_captions or 1
        self.decoding = decoding
        self.features = data.val_set.features
        records, count = data.val_set.records, min(told.scored_photographs, len(data.val_set))
        rows = [index * len(records) // count for index in range(count)]
        self.records = [records[row] for row in rows]
        prompts = data.val_set.prompts
        self.prompts = None if prompts is None else [prompts[row] for row in rows]

    @torch.no_grad()
    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write and score, in the epochs that are due."""
        if (trainer.current_epoch + 1) % self.every and not trainer.validating:
            due = trainer.callback_metrics
            for key in ("val/bleu", "val/rouge_l"):  # a checkpoint's metric must be there in every epoch
                if key in due:
                    pl_module.log(key, due[key], sync_dist=False)
            return
        read = self.features.stack([record.image for record in self.records]).to(pl_module.device)
        captioner: Any = pl_module.captioner
        captions = [caption.text for caption in captioner.generate(read, self.decoding, self.prompts)]
        references = [record.references for record in self.records]
        pl_module.log("val/bleu", float(bleu(captions, references)), sync_dist=False)
        pl_module.log("val/rouge_l", float(rouge_l(captions, references).mean()), sync_dist=False)


def is_first_process() -> bool:
    """Whether this process is the one that writes files; the others of a distributed run only compute."""
    return not getattr(rank_zero_only, "rank", 0)  # Lightning sets it when it is imported


@contextmanager
def quiet_lightning() -> Iterator[None]:
    """Keep Lightning's hints from the terminal; its errors and its other warnings stay."""
    logger = logging.getLogger("lightning.pytorch")
    level = logger.level
    logger.setLevel(logging.WARNING)
    hints = (
        "does not have many workers",  # features come from memory, workers would only cost
        "in eval mode",  # frozen parts stand in evaluation mode on purpose
        "is not empty",
        "LeafSpec",
        "dirpath has changed",
        "is smaller than the logging interval",
    )
    with warnings.catch_warnings():
        for hint in hints:
            warnings.filterwarnings("ignore", message=f".*{hint}.*")
        yield
    logger.setLevel(level)


def _profiler(name: str | None, run_dir: Path) -> profilers.Profiler | None:
    if name is None:
        return None
    kinds = {
        "simple": profilers.SimpleProfiler,
        "advanced": profilers.AdvancedProfiler,
        "pytorch": profilers.PyTorchProfiler,
    }
    return kinds[name](dirpath=run_dir, filename="profile")  # type: ignore[abstract]
