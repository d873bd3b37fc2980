"""Lightning's strategy for a captioner, and the callback that scores captions while it trains."""

from __future__ import annotations

from typing import Any

import torch
from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.strategies import DDPStrategy, ModelParallelStrategy, Strategy
from lightning.pytorch.trainer.states import TrainerFn

from clip_xai.config.schemas import TrainConfig
from clip_xai.config.training_settings import CallbacksConfig
from clip_xai.errors import UserError
from clip_xai.metrics.caption_metrics import bleu, rouge_l
from clip_xai.models.settings import Decoding
from clip_xai.tasks.captions.data import CaptionData
from clip_xai.tasks.captions.unfreezing import Unfreezing

SCORES = ("val/bleu", "val/rouge_l")


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
            raise UserError("sharded weights cannot write captions; set callbacks.score_captions=null or trainer=ddp")
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
        if (trainer.current_epoch + 1) % self.every and trainer.state.fn == TrainerFn.FITTING:
            for key in SCORES:  # an earlier epoch's score is none of this one
                trainer.callback_metrics.pop(key, None)
            return
        read = self.features.stack([record.image for record in self.records]).to(pl_module.device)
        captioner: Any = pl_module.captioner
        captions = [caption.text for caption in captioner.generate(read, self.decoding, self.prompts)]
        references = [record.references for record in self.records]
        pl_module.log("val/bleu", float(bleu(captions, references)), sync_dist=False)
        pl_module.log("val/rouge_l", float(rouge_l(captions, references).mean()), sync_dist=False)
