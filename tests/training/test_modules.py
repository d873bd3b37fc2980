from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import nn

from clip_xai.data.record import Record
from clip_xai.errors import UserError
from clip_xai.models.captioner import Captioner
from clip_xai.tasks.captions.data import CaptionData
from clip_xai.tasks.captions.module import CaptionerModule, captioner_state
from clip_xai.tasks.captions.unfreezing import Unfreezing
from clip_xai.training.averaging import WeightAverage
from clip_xai.training.checkpoint_files import read_checkpoint
from clip_xai.training.features import FeatureCache
from clip_xai.training.optimisation import Optimisation, is_decayed, learning_rate_factor
from tests.support.captions import log_prob
from tests.support.small_captioner import SETTINGS, small_captioner

EPOCHS = 4


class StopAfter(Callback):
    """Breaks off as a user or a time limit would: between two epochs."""

    def __init__(self, epoch: int) -> None:
        self.epoch = epoch

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        trainer.should_stop = trainer.current_epoch >= self.epoch


class Steps(Callback):
    def __init__(self) -> None:
        self.losses: list[float] = []
        self.rates: list[float] = []

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, outputs, batch, batch_idx) -> None:  # type: ignore[no-untyped-def, override]
        self.losses.append(outputs["loss"].item())
        self.rates.append(trainer.optimizers[0].param_groups[0]["lr"])


class Measures(Callback):
    """All that validation measured, epoch by epoch."""

    def __init__(self) -> None:
        self.measured: list[dict[str, float]] = []

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        metrics = trainer.callback_metrics
        self.measured.append({key: float(value) for key, value in metrics.items() if key.startswith("val/")})


def fit(
    records: list[Record],
    directory: Path,
    callbacks: list[Callback],
    ckpt_path: Path | None = None,
    label_smoothing: float = 0.1,
    seed: int = 0,
    embedded: bool = False,
    accumulate: int = 1,
    dropout: bool = True,
    precision: Any = "32-true",
    warmup_steps: int = 0,
) -> tuple[Captioner, Trainer]:
    captioner = small_captioner(seed=seed)
    if embedded:
        captioner.backbone.source = "embedded:small"
    if not dropout:
        for part in captioner.modules():
            if isinstance(part, nn.Dropout):
                part.p = 0.0
    features = FeatureCache(directory / "cache", captioner.backbone).table([r.image for r in records], captioner.reads)
    data = CaptionData(
        captioner, features, records, records[:6], batch_size=4, max_tokens=30, seed=5, sources=["skincap"], replay=0.5,
        accumulate=accumulate,
    )  # fmt: skip
    unfreezing = Unfreezing(["mapper", "embeddings"], {1: 1, 3: 2})
    optimisation = Optimisation(learning_rate=3e-3, label_smoothing=label_smoothing, seed=9, warmup_steps=warmup_steps)
    module = CaptionerModule(captioner, SETTINGS, optimisation, unfreezing)
    trainer = Trainer(
        accelerator="cpu", max_epochs=EPOCHS, default_root_dir=directory, logger=False, enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0, gradient_clip_val=1.0, log_every_n_steps=1, accumulate_grad_batches=accumulate,
        precision=precision,
        callbacks=[unfreezing, *callbacks],
    )  # fmt: skip
    trainer.fit(module, datamodule=data, ckpt_path=ckpt_path, weights_only=True)
    return captioner, trainer


def keeper(directory: Path) -> ModelCheckpoint:
    return ModelCheckpoint(directory, filename="best", monitor="val/loss", save_last=True, enable_version_counter=False)


def test_interrupted_and_resumed_equals_uninterrupted(records: list[Record], tmp_path: Path) -> None:
    whole = Steps()
    uninterrupted, _ = fit(records, tmp_path, [whole, keeper(tmp_path / "a")])
    first, second = Steps(), Steps()
    fit(records, tmp_path, [first, keeper(tmp_path / "b"), StopAfter(1)])
    torch.rand(7)  # whatever else the process did with the generator
    resumed, trainer = fit(records, tmp_path, [second, keeper(tmp_path / "c")], tmp_path / "b" / "last.ckpt", seed=0)
    assert trainer.current_epoch == EPOCHS
    assert first.losses + second.losses == whole.losses
    assert first.rates + second.rates == whole.rates
    wanted = uninterrupted.state_dict()
    assert all(torch.equal(value, wanted[key]) for key, value in resumed.state_dict().items())


@pytest.mark.parametrize(("average", "accumulate"), [(False, 1), (True, 1), (True, 2)])
def test_everything_that_a_resumed_run_measures_is_what_the_uninterrupted_one_measured(
    records: list[Record], tmp_path: Path, average: bool, accumulate: int
) -> None:
    def callbacks() -> list[Callback]:
        return [WeightAverage(0.9)] if average else []

    whole, resumed = Measures(), Measures()
    # With several batches a step the first one after a resume is no step: the average must know how many it has seen.
    cut = {"accumulate": accumulate}
    fit(records, tmp_path, [whole, keeper(tmp_path / "a"), *callbacks()], **cut)
    fit(records, tmp_path, [keeper(tmp_path / "b"), StopAfter(1), *callbacks()], **cut)
    fit(records, tmp_path, [resumed, keeper(tmp_path / "c"), *callbacks()], tmp_path / "b" / "last.ckpt", **cut)
    assert resumed.measured == whole.measured[2:]
    one, other = (read_checkpoint(tmp_path / name / "last.ckpt") for name in "ac")
    for kept in ("state_dict", "raw_weights") if average else ("state_dict",):
        assert one[kept].keys() == other[kept].keys()
        assert all(torch.equal(value, other[kept][key]) for key, value in one[kept].items())
    first, second = (checkpoint["optimizer_states"][0]["state"] for checkpoint in (one, other))
    assert all(torch.equal(first[key]["exp_avg_sq"], second[key]["exp_avg_sq"]) for key in first)


def test_accumulated_batches_train_as_the_whole_step_does(records: list[Record], tmp_path: Path) -> None:
    whole, _ = fit(records, tmp_path, [], dropout=False)
    cut, _ = fit(records, tmp_path, [], dropout=False, accumulate=2)
    for key, value in whole.state_dict().items():
        torch.testing.assert_close(cut.state_dict()[key], value, atol=2e-5, rtol=1e-4, msg=key)


def test_the_mean_over_a_step_s_parts_is_the_step_s_loss_per_token(records: list[Record], tmp_path: Path) -> None:
    """Adam does not see how large a gradient is, but clipping does."""
    texts = ["a red spot", "a spot of blue, a spot of red, a green spot, a spot of black, a red spot"]
    uneven = [replace(r, references=(texts[i % 2],)) for i, r in enumerate(records)]
    captioner = small_captioner()
    table = FeatureCache(tmp_path / "cache", captioner.backbone).table([r.image for r in uneven], captioner.reads)
    data = CaptionData(captioner, table, uneven, uneven, batch_size=6, max_tokens=60, seed=5, accumulate=3, bucket=None)
    module = CaptionerModule(captioner, SETTINGS, Optimisation(), Unfreezing())
    batches = list(data.train_dataloader())
    assert len(batches) == 6
    for step in (batches[:3], batches[3:]):
        mean = sum(module.training_step(batch, 0) for batch in step) / 3
        log_probs, count = 0.0, 0
        for row in (int(row) for batch in step for row in batch["row"]):
            tokens = captioner.encode_captions(uneven[row].references)
            log_probs += log_prob(captioner, table[uneven[row].image].unsqueeze(0), tokens).item()
            count += tokens.numel()
        assert mean.item() == pytest.approx(-log_probs / count, rel=1e-5)


def test_warm_up_counts_steps_of_the_optimiser_however_they_are_cut(records: list[Record], tmp_path: Path) -> None:
    whole, cut = Steps(), Steps()
    fit(records, tmp_path, [whole], warmup_steps=5)
    fit(records, tmp_path, [cut], warmup_steps=5, accumulate=2)
    # Three steps an epoch: the rate that is set after a step is the next one's.
    wanted = [3e-3 * learning_rate_factor(step, 5, 3 * EPOCHS) for step in range(1, 3 * EPOCHS + 1)]
    assert whole.rates == pytest.approx(wanted) and cut.rates[1::2] == pytest.approx(wanted)
    assert wanted[:5] == pytest.approx([3e-3 * share for share in (0.4, 0.6, 0.8, 1.0, 1.0)])


def test_bfloat16_trains_close_to_float32(records: list[Record], tmp_path: Path) -> None:
    single, half = Measures(), Measures()
    fit(records, tmp_path, [single], dropout=False)
    captioner, _ = fit(records, tmp_path, [half], dropout=False, precision="bf16-mixed")
    losses = [[measured["val/loss"] for measured in run.measured] for run in (single, half)]
    assert losses[1] == pytest.approx(losses[0], rel=0.03) and losses[1] != losses[0]
    assert {parameter.dtype for parameter in captioner.parameters()} == {torch.float32}


def test_what_a_stage_forgets_is_measured_on_the_other_sources(records: list[Record], tmp_path: Path) -> None:
    captioner = small_captioner()
    table = FeatureCache(tmp_path / "cache", captioner.backbone).table([r.image for r in records], captioner.reads)
    data = CaptionData(captioner, table, records, records, batch_size=5, max_tokens=30, seed=5, sources=["skincap"])
    module = CaptionerModule(captioner, SETTINGS, Optimisation(), Unfreezing())
    trainer = Trainer(accelerator="cpu", logger=False, enable_progress_bar=False, enable_checkpointing=False)
    trainer.validate(module, datamodule=data, verbose=False)
    for key, source in (("val/loss", "skincap"), ("val/common_loss", "ham10000")):
        log_probs, count = 0.0, 0
        for record in (record for record in records if record.source == source):
            tokens = captioner.encode_captions([record.references[0]])
            log_probs += log_prob(captioner, table[record.image].unsqueeze(0), tokens).item()
            count += tokens.numel()
        assert trainer.callback_metrics[key].item() == pytest.approx(-log_probs / count, rel=1e-5)


def test_checkpoints_are_plain_and_hold_the_tower_only_where_it_is_random(
    records: list[Record], tmp_path: Path
) -> None:
    fit(records, tmp_path, [keeper(tmp_path / "random"), StopAfter(0)])
    fit(records, tmp_path, [keeper(tmp_path / "embedded"), StopAfter(0)], embedded=True)
    for name, expected in (("random", True), ("embedded", False)):
        checkpoint = read_checkpoint(tmp_path / name / "last.ckpt")
        assert type(checkpoint["hyper_parameters"]["settings"]) is dict
        assert any(key.startswith("backbone.") for key in captioner_state(checkpoint)) is expected
        assert checkpoint["backbone_fingerprint"] == small_captioner().backbone.fingerprint


def test_a_checkpoint_of_another_tower_is_refused(records: list[Record], tmp_path: Path) -> None:
    fit(records, tmp_path, [keeper(tmp_path / "a"), StopAfter(0)], embedded=True)
    with pytest.raises(Exception, match="another tiny tower"):
        fit(records, tmp_path, [], tmp_path / "a" / "last.ckpt", seed=1, embedded=True)
    checkpoint = read_checkpoint(tmp_path / "a" / "last.ckpt")
    checkpoint["state_dict"].pop("captioner.mapper.latents")
    torch.save(checkpoint, tmp_path / "lacking.ckpt")
    with pytest.raises(UserError, match=r"missing or unknown captioner\.mapper\.latents"):
        fit(records, tmp_path, [], tmp_path / "lacking.ckpt", embedded=True)


def test_validation_loss_is_per_token_and_never_smoothed(records: list[Record], tmp_path: Path) -> None:
    captioner, trainer = fit(records, tmp_path, [], label_smoothing=0.5)
    judged = [record for record in records if record.source == "skincap"][:6]
    table = FeatureCache(tmp_path / "cache", captioner.backbone).table([r.image for r in judged], captioner.reads)
    captioner.eval()
    log_probs, count = 0.0, 0
    for record in judged:  # one by one: no padding at all
        tokens = captioner.encode_captions([record.caption])
        log_probs += log_prob(captioner, table[record.image].unsqueeze(0), tokens).item()
        count += tokens.numel()
    assert trainer.callback_metrics["val/loss"].item() == pytest.approx(-log_probs / count, rel=1e-5)
    assert trainer.callback_metrics["val/perplexity"].item() == pytest.approx(
        2.718281828 ** (-log_probs / count), rel=1e-4
    )


def test_validation_weighs_batches_by_their_tokens(records: list[Record], tmp_path: Path) -> None:
    texts = ["a red spot", *["a spot of blue, a spot of red, a green spot, a spot of black, a red spot"] * 4]
    uneven = [
        replace(record, references=(text,), source=source)
        for source in ("skincap", "ham10000")
        for record, text in zip(records, texts, strict=False)
    ]
    captioner = small_captioner()
    table = FeatureCache(tmp_path / "cache", captioner.backbone).table([r.image for r in uneven], captioner.reads)
    data = CaptionData(captioner, table, uneven, uneven, batch_size=2, max_tokens=60, seed=5, sources=["skincap"])
    sizes = [[int((batch["tokens"] >= 0).sum()) for batch in loader] for loader in data.val_dataloader()]
    assert all(len(set(tokens)) > 1 for tokens in sizes)  # batches differ in tokens, so that weighing them matters
    module = CaptionerModule(captioner, SETTINGS, Optimisation(), Unfreezing())
    trainer = Trainer(accelerator="cpu", logger=False, enable_progress_bar=False, enable_checkpointing=False)
    trainer.validate(module, datamodule=data, verbose=False)
    for key, source in (("val/loss", "skincap"), ("val/common_loss", "ham10000")):
        log_probs, count = 0.0, 0
        for record in (record for record in uneven if record.source == source):
            tokens = captioner.encode_captions([record.references[0]])
            log_probs += log_prob(captioner, table[record.image].unsqueeze(0), tokens).item()
            count += tokens.numel()
        assert trainer.callback_metrics[key].item() == pytest.approx(-log_probs / count, rel=1e-5)


def test_training_lowers_the_loss(records: list[Record], tmp_path: Path) -> None:
    steps = Steps()
    fit(records, tmp_path, [steps], label_smoothing=0.0)
    assert sum(steps.losses[-3:]) < 0.9 * sum(steps.losses[:3])


def test_weight_decay_spares_biases_norms_and_tables() -> None:
    captioner = small_captioner()
    module = CaptionerModule(captioner, SETTINGS, Optimisation(weight_decay=0.3, mapper_factor=0.1), Unfreezing())
    groups = module.parameter_groups([captioner.mapper, captioner.language_model])
    names = {id(parameter): name for name, parameter in captioner.named_parameters()}
    decayed = {names[id(p)] for group in groups if group["weight_decay"] for p in group["params"]}
    spared = {names[id(p)] for group in groups if not group["weight_decay"] for p in group["params"]}
    assert all(name.endswith("weight") for name in decayed) and "mapper.project.weight" in decayed
    assert {
        "mapper.latents",
        "language_model.transformer.wte.weight",
        "language_model.transformer.ln_f.weight",
    } < spared
    assert not decayed & spared
    assert decayed | spared == {name for name in names.values() if not name.startswith("backbone.")}
    assert {group["lr"] for group in groups if "mapper" in names[id(group["params"][0])]} == {1e-4}
    assert not is_decayed("x.bias", torch.zeros(3))


def test_learning_rate_rises_then_follows_half_a_cosine() -> None:
    factors = [learning_rate_factor(step, 4, 20) for step in range(21)]
    assert factors[:4] == [0.25, 0.5, 0.75, 1.0]
    assert factors[4] == 1.0 and factors[12] == pytest.approx(0.5) and factors[20] == pytest.approx(0.0)
    assert sorted(factors[4:], reverse=True) == factors[4:]
