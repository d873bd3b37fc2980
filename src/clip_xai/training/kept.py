"""The checkpoints of a run: ``best.ckpt`` and ``last.ckpt``, and what a resumed run takes over."""

from __future__ import annotations

import logging
import math
import shutil
from pathlib import Path
from typing import Any

import torch
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint

from clip_xai.errors import UserError
from clip_xai.files import replacing
from clip_xai.training.checkpoint_files import read_checkpoint

log = logging.getLogger(__name__)
BEST, LAST = "best", "last"


class BestCheckpoint(ModelCheckpoint):
    """Keeps the epoch with the best value of what is monitored, over all runs that a resumed one goes on from."""

    def __init__(self, directory: Path, monitor: str, mode: str, every: int = 1) -> None:
        """Set what is best.

        Args:
            directory: Of the checkpoints.
            monitor: Name of a measure.
            mode: ``min`` or ``max``.
            every: Epochs between two measurements of ``monitor``; the others do not take part.
        """
        super().__init__(directory, BEST, monitor=monitor, mode=mode, enable_version_counter=False)
        self.every = every

    @property
    def state_key(self) -> str:
        """The name in a checkpoint: Lightning's own, as in checkpoints of older runs."""
        return super().state_key.replace(type(self).__qualname__, ModelCheckpoint.__qualname__)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Keep an epoch that is better.

        Raises:
            UserError: A value was due and there is none: nothing measures what is monitored.
        """
        if self.monitor in trainer.callback_metrics:
            super().on_train_epoch_end(trainer, pl_module)
        elif (trainer.current_epoch + 1) % self.every == 0:
            known = ", ".join(sorted(key for key in trainer.callback_metrics if key.startswith("val/")))
            raise UserError(f"callbacks.monitor={self.monitor} is not measured; choose one of {known}")

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Nothing: :meth:`take_over` has brought the checkpoint itself into this run's directory."""

    def take_over(self, resumed: Path, first_process: bool) -> None:
        """Copy the best checkpoint of the run that is resumed here, so that only a better one takes its place.

        Args:
            resumed: The checkpoint that is resumed.
            first_process: Whether this process writes files.
        """
        assert self.monitor is not None and self.dirpath is not None
        earlier = _earlier_best(resumed)
        if earlier is None:
            log.warning("there is no best.ckpt beside %s: only the epochs from here on are compared", resumed)
            return
        score = read_checkpoint(earlier)["measured"].get(self.monitor)
        if score is None or not math.isfinite(score):
            log.warning("%s was not measured by %s: only the epochs from here on are compared", earlier, self.monitor)
            return
        kept = Path(self.dirpath) / f"{BEST}.ckpt"
        if first_process and kept.resolve() != earlier.resolve():
            kept.parent.mkdir(parents=True, exist_ok=True)
            with replacing(kept) as unfinished:
                shutil.copyfile(earlier, unfinished)
        self.best_model_score = self.kth_value = torch.tensor(score)
        self.best_model_path = self.kth_best_model_path = str(kept)
        self.best_k_models = {str(kept): self.best_model_score}

    def best(self) -> Path:
        """Return the path of the best checkpoint.

        Raises:
            UserError: No epoch was trained.
        """
        if not self.best_model_path:
            raise UserError("no epoch was left to train, and no best.ckpt lies beside ckpt_path; raise stage.epochs")
        return Path(self.best_model_path)


def last_checkpoint(directory: Path) -> ModelCheckpoint:
    """Return what keeps every epoch as ``last.ckpt``, in the place of the one before.

    ``save_last`` of the monitored one does not: since Lightning 2.6 it writes only together with a new best.
    """
    return ModelCheckpoint(directory, LAST, enable_version_counter=False)


def best_metrics(checkpoint: Path) -> dict[str, Any]:
    """Return the epoch of a checkpoint, its optimiser's steps, and all that was measured on validation records then.

    A perplexity that overflows is None: JSON has no infinity.
    """
    content = read_checkpoint(checkpoint)
    measured = {key: value if math.isfinite(value) else None for key, value in content["measured"].items()}
    return {"epoch": content["epoch"], "steps": content["global_step"], **measured}


def _earlier_best(resumed: Path) -> Path | None:
    """The best checkpoint of a run: beside the resumed one, or where that says it was written."""
    beside = resumed.with_name(f"{BEST}.ckpt")
    if beside.is_file():
        return beside
    states = read_checkpoint(resumed)["callbacks"].items()
    paths = [Path(state["best_model_path"]) for key, state in states if _is_monitored(key, state)]
    return next((path for path in paths if path.is_file()), None)


def _is_monitored(key: str, state: dict[str, Any]) -> bool:
    """Whether a callback's state is of the checkpoints that are chosen by a measure; others keep the last."""
    return key.startswith(ModelCheckpoint.__qualname__) and state["monitor"] is not None
