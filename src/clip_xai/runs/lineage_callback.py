"""What a checkpoint holds beside its weights: what was asked, the lineage and the vocabulary."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import EarlyStopping

from clip_xai.data.vocabulary import Vocabulary
from clip_xai.runs.lineage import Lineage

ASKED_KEY = "asked"  # of checkpoints


class Remember(Callback):
    """Writes into every checkpoint what was asked, what the weights have learned from and in which vocabulary."""

    def __init__(self, asked: Mapping[str, Any], lineage: Lineage, vocabulary: Vocabulary) -> None:
        self.kept = {ASKED_KEY: json.dumps(asked, default=str), **lineage.packed(), **vocabulary.packed()}

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Let a changed ``callbacks.patience`` hold: Lightning would take the one that the checkpoint has."""
        for callback in trainer.callbacks:  # type: ignore[attr-defined]
            state = checkpoint.get("callbacks", {}).get(callback.state_key)
            if isinstance(callback, EarlyStopping) and state is not None:
                state["patience"] = callback.patience

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Add all, as text: a checkpoint holds plain containers only."""
        checkpoint.update(self.kept)
