from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning import Callback, LightningModule, Trainer

from clip_xai.data.record import Record
from clip_xai.models.finite import all_finite
from clip_xai.tasks.captions.module import CaptionerModule
from clip_xai.tasks.captions.unfreezing import Unfreezing
from clip_xai.training.optimisation import Optimisation, learning_rate_factor
from clip_xai.training.stop_at_non_finite import Diverged, StopAtNonFinite
from tests.support.small_captioner import SETTINGS, small_captioner
from tests.training.test_modules import EPOCHS, Steps, fit, keeper


class Break(Callback):
    """Makes one weight NaN, after a step or before it."""

    def __init__(self, step: int, after: bool) -> None:
        self.step, self.after = step, after

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, *args: Any) -> None:
        if not self.after and trainer.global_step + 1 == self.step:
            self._break(pl_module)

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *args: Any, **kwargs: Any) -> None:
        if self.after and trainer.global_step == self.step:
            self._break(pl_module)

    def _break(self, module: Any) -> None:
        with torch.no_grad():
            module.captioner.mapper.latents[0, 0] = float("nan")


class Unlike(StopAtNonFinite):
    """Reads the losses as on a device that works by itself."""

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *args: Any, **kwargs: Any) -> None:
        self.unread.append((*self.started, args[0]["loss"].detach()))
        if trainer.global_step % self.every == 0:
            self._read(trainer)


# Nine records in steps of four are three steps an epoch: steps 4 to 6 are the second epoch's.
def rate(step: int) -> str:
    return f"{3e-3 * learning_rate_factor(step - 1, 1, 3 * EPOCHS):.3g}"


def test_it_stops_at_the_step_and_names_it_with_its_learning_rate(records: list[Record], tmp_path: Path) -> None:
    steps = Steps()
    with pytest.raises(Diverged, match="the training loss is nan") as caught:
        fit(
            records,
            tmp_path,
            [StopAtNonFinite(tmp_path / "a" / "last.ckpt"), keeper(tmp_path / "a"), Break(5, False), steps],
        )
    assert f"at step 5, in epoch 1, learning rate {rate(5)}:" in str(caught.value)
    assert f"the last good checkpoint is {tmp_path / 'a' / 'last.ckpt'};" in str(caught.value)
    assert len(steps.losses) == 4


def test_losses_that_are_read_together_name_the_first_bad_step(records: list[Record], tmp_path: Path) -> None:
    steps = Steps()
    with pytest.raises(Diverged, match="the training loss is nan") as caught:
        fit(records, tmp_path, [Unlike(every=3), Break(2, False), steps])
    assert f"at step 2, in epoch 0, learning rate {rate(2)}:" in str(caught.value)
    assert "no checkpoint was written before" in str(caught.value) and len(steps.losses) == 2


def test_weights_that_break_in_the_last_step_of_an_epoch_are_not_kept(records: list[Record], tmp_path: Path) -> None:
    with pytest.raises(Diverged, match=r"weights such as captioner\.mapper\.latents are not finite at step 3, "):
        fit(records, tmp_path, [StopAtNonFinite(), keeper(tmp_path / "a"), Break(3, True)])
    assert not list((tmp_path / "a").glob("*.ckpt"))


def test_a_learning_rate_of_1e30_is_named(records: list[Record], tmp_path: Path) -> None:
    class Raise(Callback):
        def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
            trainer.lr_scheduler_configs[0].scheduler.base_lrs = [1e30] * 4  # type: ignore[union-attr]

    with pytest.raises(Diverged) as caught:
        fit(records, tmp_path, [StopAtNonFinite(), Raise()])
    assert re.search(r"at step [23], in epoch 0, learning rate (1e\+30|9\.8e\+29):", str(caught.value))


def test_a_validation_batch_without_a_number_is_not_left_out_of_the_mean(records: list[Record], tmp_path: Path) -> None:
    module = CaptionerModule(small_captioner(), SETTINGS, Optimisation(), Unfreezing())
    tokens = module.captioner.encode_captions(["a red spot", "a blue spot"])
    fine = torch.randn(2, 9, module.captioner.backbone.width)
    for read in (fine, fine * float("nan")):
        module.validation_step({"read": read, "tokens": tokens}, 0)
    assert module.val_loss.compute().isnan()


def test_a_validation_loss_that_is_no_number_ends_the_training(records: list[Record], tmp_path: Path) -> None:
    class Spoil(Callback):
        def on_validation_batch_start(self, trainer: Trainer, pl_module: Any, batch: Any, *args: Any) -> None:
            if trainer.current_epoch == 1:
                batch["read"].fill_(float("nan"))

    with pytest.raises(Diverged, match="val/loss is nan at step 6, in epoch 1"):
        fit(records, tmp_path, [StopAtNonFinite(), Spoil(), keeper(tmp_path / "a")])
    assert torch.load(tmp_path / "a" / "last.ckpt", weights_only=True)["epoch"] == 0


def test_a_healthy_training_is_not_touched(records: list[Record], tmp_path: Path) -> None:
    with_it, without = Steps(), Steps()
    fit(records, tmp_path, [StopAtNonFinite(), with_it])
    fit(records, tmp_path, [without])
    assert with_it.losses == without.losses


def test_finite_is_every_value_of_every_kind() -> None:
    whole = [torch.ones(3), torch.tensor([1, 2]), torch.full((2,), 3e38)]
    assert all_finite(whole) and all_finite([])
    for bad in (float("nan"), float("inf"), float("-inf")):
        assert not all_finite([*whole, torch.tensor([1.0, bad])])
