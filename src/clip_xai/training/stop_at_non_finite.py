"""Stops a training whose loss or weights are no longer numbers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from lightning import Callback, LightningModule, Trainer
from torch import Tensor

from clip_xai.errors import UserError
from clip_xai.models.finite import all_finite


class Diverged(UserError):
    """A loss or a weight became NaN or infinite."""


class StopAtNonFinite(Callback):
    """Ends the training where a loss or a weight is not finite, before an epoch of it is kept.

    The losses stay on the device and are read together every few steps, where the logged loss is read anyway, so that
    no step waits for the device; a single CPU reads each at once. Which step went wrong first is known in both cases.
    Weights are looked at once an epoch, before validation.
    """

    def __init__(self, last: Path | None = None, resumed: Path | None = None, every: int = 10) -> None:
        """Set what the message names, and how often losses are read.

        Args:
            last: Where the last checkpoint of this run is written.
            resumed: The checkpoint that this run goes on from.
            every: Steps between two looks at the losses on a device that works by itself.
        """
        self.last = last
        self.resumed = resumed
        self.every = every
        self.started: tuple[int, float] = (0, 0.0)
        self.unread: list[tuple[int, float, Tensor]] = []  # step, learning rate and loss of batches not yet looked at

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Note the step, counted from 1, and its highest learning rate: after the step it is the next one's."""
        rate = max(group["lr"] for group in trainer.optimizers[0].param_groups)
        self.started = trainer.global_step + 1, rate

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Take note of the loss.

        Raises:
            Diverged: It is not finite.
        """
        self.unread.append((*self.started, outputs["loss"].detach()))
        alone = pl_module.device.type == "cpu" and trainer.world_size == 1
        if alone or trainer.global_step % self.every == 0:
            self._read(trainer)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Look at all that is new.

        Raises:
            Diverged: A loss or a weight is not finite.
        """
        self._read(trainer)
        if not self._agreed(trainer, all_finite(pl_module.parameters())):
            lost = [name for name, weight in pl_module.named_parameters() if not all_finite([weight])]
            raise Diverged(self._message(trainer, f"weights such as {(lost or ['another device'])[0]} are not finite"))

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Look at what was measured; a perplexity may overflow where its loss does not.

        Raises:
            Diverged: A measure is not finite.
        """
        for key, value in trainer.callback_metrics.items():
            if key.startswith("val/") and key != "val/perplexity" and not torch.isfinite(value):
                raise Diverged(self._message(trainer, f"{key} is {float(value)}"))

    def _read(self, trainer: Trainer) -> None:
        if not self.unread:
            return
        losses = torch.stack([loss.float() for _, _, loss in self.unread]).tolist()
        finite = [abs(loss) < float("inf") for loss in losses]  # false of NaN, too
        if not self._agreed(trainer, all(finite)):
            first = finite.index(False) if False in finite else -1
            self.started = self.unread[first][:2]
            named = f"is {losses[first]}" if False in finite else "is not finite on another device"
            raise Diverged(self._message(trainer, f"the training loss {named}"))
        self.unread.clear()

    def _agreed(self, trainer: Trainer, fine: bool) -> bool:
        """All devices stop together: one that went on alone would wait for the others for ever."""
        return trainer.strategy.reduce_boolean_decision(fine, all=True)

    def _message(self, trainer: Trainer, what: str) -> str:
        step, rate = self.started
        if not step:
            return f"{what} before the first step: the weights or the features that the training starts from are broken"
        kept = [path for path in (self.last, self.resumed) if path is not None and path.is_file()]
        good = f"the last good checkpoint is {kept[0]}" if kept else "no checkpoint was written before"
        return (
            f"{what} at step {step}, in epoch {trainer.current_epoch}, learning rate {rate:.3g}: the training is"
            f" stopped and nothing is exported; {good}; start again with a lower stage.learning_rate"
        )
