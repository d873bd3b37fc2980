"""What trains, and from which epoch on."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from lightning import Callback, LightningModule, Trainer
from torch import nn

from clip_xai.errors import UserError
from clip_xai.models.captioner import Captioner
from clip_xai.models.causal_model import beside_blocks, blocks_of

PARTS = ("mapper", "embeddings", "token_embeddings", "lora", "final_norm")
_ADAPTERS = ("lora_A", "lora_B", "lora_dropout")  # as peft calls the modules it adds


class Unfreezing(Callback):
    """Keeps frozen what is frozen and thaws the language model's last blocks by epoch.

    What is frozen gets no gradient, so the optimiser leaves it untouched to the last bit, and stands in evaluation mode
    (no dropout).
    """

    def __init__(self, trains: Iterable[str] = ("mapper",), schedule: Mapping[int, int] | None = None) -> None:
        """Set the plan.

        Args:
            trains: What trains from the first step: ``mapper``; ``embeddings`` (tokens and positions) or
                ``token_embeddings`` alone, which are GPT-2's output layer too; ``lora`` (the adapters of all blocks);
                ``final_norm``.
            schedule: Epoch -> number of last blocks that train from then on, with the adapters in them.
        """
        self.trains = frozenset(trains)
        self.schedule = dict(schedule or {})

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Freeze for good what never trains, before a strategy wraps the module: nobody exchanges its gradients."""
        captioner = pl_module.captioner
        assert isinstance(captioner, Captioner)
        captioner.requires_grad_(False)
        for part in self.ever_trained(captioner):
            part.requires_grad_(True)

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Apply the plan for this epoch."""
        captioner = pl_module.captioner
        assert isinstance(captioner, Captioner)
        captioner.requires_grad_(False).eval()
        for part in self.trained(captioner, trainer.current_epoch):
            part.requires_grad_(True).train()

    def trained(self, captioner: Captioner, epoch: int) -> list[nn.Module]:
        """Return the parts that train in an epoch.

        Raises:
            UserError: The plan trains adapters and the language model has none.
        """
        embeddings, norms = beside_blocks(captioner.language_model)
        parts: list[nn.Module] = []
        if "mapper" in self.trains:
            parts.append(captioner.mapper)
        if self.trains & {"embeddings", "token_embeddings"}:
            parts.append(embeddings[0])
        if "embeddings" in self.trains:
            parts += embeddings[1:]
        if "lora" in self.trains:
            parts += adapters(captioner.language_model)
        if "final_norm" in self.trains:
            parts += norms
        last = self.blocks(epoch)
        return parts + (list(blocks_of(captioner.language_model)[1])[-last:] if last else [])

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

    @property
    def changes(self) -> bool:
        """Whether other parts train in one epoch than in another."""
        return len({self.blocks(epoch) for epoch in (0, *self.schedule)}) > 1


def adapters(language_model: nn.Module) -> list[nn.Module]:
    """Return the LoRA modules of a language model.

    Raises:
        UserError: It has none.
    """
    found = [module for name, module in language_model.named_modules() if name.rpartition(".")[2] in _ADAPTERS]
    if not found:
        raise UserError(
            "stage.trains names lora and the language model has no adapters; give it some, or take lora out"
        )
    return found
