"""What trains, and from which epoch on."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from lightning import Callback, LightningModule, Trainer
from torch import nn

from clip_xai.models.captioner import Captioner


class Unfreezing(Callback):
    """Keeps frozen what is frozen and thaws the language model's last blocks by epoch.

    What is frozen gets no gradient, so the optimiser leaves it untouched to the last bit, and stands in evaluation mode
    (no dropout). The final LayerNorm goes with the last block.
    """

    def __init__(self, trains: Iterable[str] = ("mapper",), schedule: Mapping[int, int] | None = None) -> None:
        """Set the plan.

        Args:
            trains: What trains from the first step: ``mapper``, ``embeddings``.
            schedule: Epoch -> number of last blocks that train from then on.
        """
        self.trains = frozenset(trains)
        self.schedule = dict(schedule or {})

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Apply the plan for this epoch."""
        captioner = pl_module.captioner
        assert isinstance(captioner, Captioner)
        captioner.requires_grad_(False).eval()
        for part in self.trained(captioner, trainer.current_epoch):
            part.requires_grad_(True).train()

    def trained(self, captioner: Captioner, epoch: int) -> list[nn.Module]:
        """Return the parts that train in an epoch."""
        transformer = captioner.language_model.transformer
        parts: list[nn.Module] = []
        if "mapper" in self.trains:
            parts.append(captioner.mapper)
        if "embeddings" in self.trains:
            parts += [transformer.wte, transformer.wpe]
        blocks = self.blocks(epoch)
        if blocks:
            parts += [*list(transformer.h)[-blocks:], transformer.ln_f]
        return parts

    def blocks(self, epoch: int) -> int:
        """Return how many last blocks train in an epoch."""
        reached = [start for start in self.schedule if start <= epoch]
        return self.schedule[max(reached)] if reached else 0

    def ever_trained(self, captioner: Captioner) -> list[nn.Module]:
        """Return the parts that train in any epoch of the plan, once each: what the optimiser must know of.

        It does not depend on how many epochs a run has, so that a resumed run may have more than the first.
        """
        parts = {id(part): part for epoch in (0, *self.schedule) for part in self.trained(captioner, epoch)}
        return list(parts.values())
