"""A running average of the weights that train."""

from __future__ import annotations

from typing import Any

import torch
from lightning import Callback, LightningModule, Trainer
from torch import Tensor, nn

RAW = "raw_weights"


class WeightAverage(Callback):
    """Keeps an exponential moving average of the weights.

    After step t: ``mean += (1 - d_t) (weight - mean)`` with ``d_t = min(decay, (1 + t) / (10 + t))``. Validation and
    checkpoints see the mean; training goes on from the raw weights, which a checkpoint keeps beside it.

    Lightning's own callback copies the whole module, the frozen tower included, and averages frozen weights with
    themselves, which moves their last bits; here only what can ever train is copied.
    """

    def __init__(self, decay: float = 0.999) -> None:
        """Set the decay.

        Args:
            decay: Share of the old mean that a step keeps in the long run, between 0 and 1.
        """
        self.decay = decay
        self.updates = 0
        self.mean: dict[str, Tensor] = {}

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start from the weights at hand, unless a checkpoint has brought a mean."""
        weights = _trainable(pl_module)
        self.mean = {name: self.mean.get(name, p.detach()).to(p.device, copy=True) for name, p in weights.items()}

    @torch.no_grad()
    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *args: Any, **kwargs: Any) -> None:
        """Follow a step of the optimiser; a batch that only accumulates gradients is none."""
        if trainer.global_step == self.updates:
            return
        self.updates = trainer.global_step
        kept = min(self.decay, (1 + self.updates) / (10 + self.updates))
        weights = dict(pl_module.named_parameters())
        for name, mean in self.mean.items():
            mean.lerp_(weights[name], 1 - kept)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Judge the mean."""
        self._swap(pl_module)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Train on from the raw weights."""
        self._swap(pl_module)

    def state_dict(self) -> dict[str, Any]:
        """Return the number of updates; the mean itself stands in the checkpoint as the model's weights."""
        return {"updates": self.updates}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take up the number of updates."""
        self.updates = state_dict["updates"]

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Put the mean where a checkpoint has the model's weights, and the raw ones beside."""
        weights = checkpoint["state_dict"]
        checkpoint[RAW] = {name: weights[name] for name in self.mean}
        checkpoint["state_dict"] = {**weights, **{name: mean.detach().clone() for name, mean in self.mean.items()}}

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Take up mean and raw weights; of a run without averaging, the mean starts from its weights."""
        raw = checkpoint.get(RAW)
        if raw is None:
            return
        self.mean = {name: checkpoint["state_dict"][name] for name in raw}
        with torch.no_grad():
            for name, weight in pl_module.named_parameters():
                if name in raw:
                    weight.copy_(raw[name])

    @torch.no_grad()
    def _swap(self, pl_module: LightningModule) -> None:
        weights = dict(pl_module.named_parameters())
        for name, mean in self.mean.items():
            held = weights[name].detach().clone()
            weights[name].copy_(mean)
            mean.copy_(held)


def _trainable(module: nn.Module) -> dict[str, nn.Parameter]:
    return {name: parameter for name, parameter in module.named_parameters() if parameter.requires_grad}
