from __future__ import annotations

from pathlib import Path

import pytest
import torch
from lightning import Callback, LightningModule, Trainer

from clip_xai.data.record import Record
from clip_xai.tasks.captions.module import captioner_state
from clip_xai.training.averaging import WeightAverage
from clip_xai.training.checkpoint_files import read_checkpoint
from tests.training.test_modules import Measures, StopAfter, fit, keeper


class Weights(Callback):
    """The weights after every step, as they train, and as validation sees them."""

    def __init__(self) -> None:
        self.steps: list[dict[str, torch.Tensor]] = []
        self.judged: list[dict[str, torch.Tensor]] = []

    def copy(self, module: LightningModule) -> dict[str, torch.Tensor]:
        return {name: value.detach().clone() for name, value in module.captioner.named_parameters()}  # type: ignore[union-attr]

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.steps.append(self.copy(pl_module))

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *args: object, **kw: object) -> None:
        self.steps.append(self.copy(pl_module))

    def on_validation_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.judged.append(self.copy(pl_module))


def test_judged_and_kept_is_the_average_by_hand_and_frozen_weights_keep_their_bits(
    records: list[Record], tmp_path: Path
) -> None:
    seen = Weights()
    fit(records, tmp_path, [WeightAverage(0.7), seen, keeper(tmp_path / "a")])
    mean = {name: value.double() for name, value in seen.steps[0].items()}
    for step, weights in enumerate(seen.steps[1:], start=1):
        kept = min(0.7, (1 + step) / (10 + step))
        mean = {name: kept * mean[name] + (1 - kept) * value.double() for name, value in weights.items()}
    for name, value in seen.judged[-1].items():
        torch.testing.assert_close(value.double(), mean[name], atol=1e-5, rtol=1e-4, msg=name)
    frozen = [name for name in mean if name.startswith(("backbone.", "language_model.transformer.h.0."))]
    assert frozen and all(torch.equal(seen.judged[-1][name], seen.steps[0][name]) for name in frozen)
    kept_weights = captioner_state(read_checkpoint(tmp_path / "a" / "last.ckpt"))
    assert torch.equal(kept_weights["mapper.latents"], seen.judged[-1]["mapper.latents"])
    assert not torch.equal(kept_weights["mapper.latents"], seen.steps[-1]["mapper.latents"])


def test_training_itself_does_not_notice(records: list[Record], tmp_path: Path) -> None:
    with_average, without = Weights(), Weights()
    fit(records, tmp_path, [WeightAverage(0.7), with_average])
    fit(records, tmp_path, [without])
    for one, other in zip(with_average.steps, without.steps, strict=True):
        assert all(torch.equal(value, other[name]) for name, value in one.items())


def test_a_run_without_an_average_goes_on_with_one(records: list[Record], tmp_path: Path) -> None:
    fit(records, tmp_path, [keeper(tmp_path / "a"), StopAfter(1)])
    measures = Measures()
    fit(records, tmp_path, [WeightAverage(0.5), measures], tmp_path / "a" / "last.ckpt")
    assert len(measures.measured) == 2
    assert measures.measured[-1]["val/loss"] == pytest.approx(measures.measured[0]["val/loss"], rel=0.5)
