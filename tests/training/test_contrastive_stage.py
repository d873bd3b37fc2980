from __future__ import annotations

import doctest
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from lightning import Callback, LightningModule, Trainer
from open_clip.loss import ClipLoss

from clip_xai.data.images import read_image
from clip_xai.data.record import Record
from clip_xai.errors import UserError
from clip_xai.models.backbones.clip import CLIPBackbone
from clip_xai.tasks.captions.contrastive_module import ContrastiveModule, PairData, PairSteps
from clip_xai.training import tower_plan
from clip_xai.training.contrastive_losses import multi_positive_loss
from clip_xai.training.optimisation import Optimisation
from clip_xai.training.samplers import EpochSampler
from clip_xai.training.tower_plan import TowerPlan, tower_parts
from tests.support.small_captioner import small_captioner


class Losses(Callback):
    def __init__(self) -> None:
        self.steps: list[float] = []
        self.judged: list[float] = []

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, outputs, *args: object) -> None:  # type: ignore[no-untyped-def, override]
        self.steps.append(outputs["loss"].item())

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.judged.append(float(trainer.callback_metrics["val/loss"]))


def fit(records: list[Record], plan: TowerPlan, epochs: int = 3, batch_size: int = 12) -> tuple[CLIPBackbone, Losses]:
    backbone = small_captioner().backbone
    seen = Losses()
    module = ContrastiveModule(backbone, Optimisation(learning_rate=2e-3, weight_decay=0.1, seed=1), plan)
    Trainer(
        accelerator="cpu", max_epochs=epochs, logger=False, enable_progress_bar=False, enable_model_summary=False,
        enable_checkpointing=False, num_sanity_val_steps=0, log_every_n_steps=1, callbacks=[plan, seen],
    ).fit(module, datamodule=PairData(backbone, records, records, batch_size=batch_size, seed=3))  # fmt: skip
    return backbone, seen


def test_the_first_loss_is_clips_where_every_text_fits_one_photograph(records: list[Record]) -> None:
    four = [replace(r, references=(r.references[0],)) for r in records[:4]]  # one of each colour
    backbone = small_captioner().backbone
    pixels = torch.stack([backbone.preprocess(read_image(record.image)) for record in four])
    images, texts = backbone.encode_image(pixels), backbone.encode_text([record.references[0] for record in four])
    images, texts = (torch.nn.functional.normalize(part, dim=-1) for part in (images, texts))
    wanted = ClipLoss()(images, texts, backbone.logit_scale)
    _, seen = fit(four, TowerPlan(["image"]), epochs=1)
    assert seen.steps[0] == pytest.approx(wanted.item(), rel=1e-4)


def test_a_text_fits_all_photographs_with_its_words_or_of_its_lesion(records: list[Record]) -> None:
    words = [(0, "a red spot", "1"), (1, "a red spot", "2"), (2, "a blue spot", "3"), (3, "a green spot", "3")]
    pairs = [replace(records[row], references=(text,), group=group, source="skincap") for row, text, group in words]
    backbone = small_captioner().backbone
    pixels = torch.stack([backbone.preprocess(read_image(record.image)) for record in pairs])
    images, texts = backbone.encode_image(pixels), backbone.encode_text([record.references[0] for record in pairs])
    images, texts = (torch.nn.functional.normalize(part, dim=-1) for part in (images, texts))
    table = (backbone.logit_scale * images @ texts.T).detach().numpy().astype(float)
    fits = [{0, 1}, {0, 1}, {2, 3}, {2, 3}]
    rows = [
        -np.mean([t[row][c] - np.log(np.exp(t[row]).sum()) for c in fits[row]])
        for t in (table, table.T)
        for row in range(4)
    ]
    _, seen = fit(pairs, TowerPlan(["image"]), epochs=1)
    assert seen.steps[0] == pytest.approx(float(np.mean(rows)), rel=1e-4)


def test_validation_weighs_contrasts_by_their_photographs(records: list[Record]) -> None:
    backbone = small_captioner().backbone
    plan, seen = TowerPlan(["image"]), Losses()
    module = ContrastiveModule(backbone, Optimisation(learning_rate=0.0), plan)
    data = PairData(backbone, records[:7], records[:7], batch_size=4, seed=3)
    Trainer(
        accelerator="cpu", max_epochs=1, logger=False, enable_progress_bar=False, enable_model_summary=False,
        enable_checkpointing=False, num_sanity_val_steps=0, callbacks=[plan, seen],
    ).fit(module, datamodule=data)  # fmt: skip
    losses, sizes = [], []
    with torch.no_grad():
        for batch in data.val_dataloader():
            images, texts = backbone.encode_image(batch["pixels"]), backbone.encode_text(batch["text"])
            images, texts = (torch.nn.functional.normalize(part, dim=-1) for part in (images, texts))
            fits = torch.tensor([[one == other for other in batch["text"]] for one in batch["text"]])
            losses.append(float(multi_positive_loss(backbone.logit_scale * images @ texts.T, fits)))
            sizes.append(len(batch["text"]))
    assert sorted(sizes) == [3, 4] and losses[0] != pytest.approx(losses[1], rel=1e-3)
    assert seen.judged[-1] == pytest.approx(float(np.average(losses, weights=sizes)), rel=1e-5)


def test_training_lowers_the_loss_of_both_towers(records: list[Record]) -> None:
    _, seen = fit(records, TowerPlan(["image", "text", "temperature"]), epochs=20, batch_size=6)
    assert seen.judged[-1] < 0.8 * seen.judged[0]


def test_what_the_plan_freezes_keeps_every_bit_and_the_rest_moves(records: list[Record]) -> None:
    before = {name: p.detach().clone() for name, p in small_captioner().backbone.named_parameters()}
    backbone, _ = fit(records, TowerPlan(["image"], {0: 1}), epochs=1)
    moved = {name for name, p in backbone.named_parameters() if not torch.equal(p, before[name])}
    assert moved == {
        name
        for name in before
        if "visual.transformer.resblocks.1." in name or name.startswith(("model.visual.ln_post", "model.visual.proj"))
    }


def test_every_weight_belongs_to_one_part() -> None:
    backbone = small_captioner().backbone
    parts = tower_parts(backbone)
    names = [name for part in parts.values() for name in part]
    assert sorted(names) == sorted(name for name, _ in backbone.named_parameters())
    assert list(parts["temperature"]) == ["model.logit_scale"]
    image = {id(p) for p in backbone.model.visual.parameters()}  # type: ignore[union-attr]
    assert {id(p) for p in parts["image"].values()} == image


def test_a_tower_without_blocks_says_so() -> None:
    class Lone(torch.nn.Module):
        name = "lone"

        def __init__(self) -> None:
            super().__init__()
            self.visual = torch.nn.Linear(2, 2)

    with pytest.raises(UserError, match="no list of blocks"):
        TowerPlan(["image"], {0: 1}).trained(Lone(), 0)  # type: ignore[arg-type]
    with pytest.raises(UserError, match="has none of text"):
        TowerPlan(["text"]).trained(Lone(), 0)  # type: ignore[arg-type]


def test_devices_share_every_step_alike() -> None:
    sampler = EpochSampler(range(23), [], 0.0, seed=0)
    whole = list(PairSteps(sampler, 8))
    assert sorted(pair.row for step in whole for pair in step) == list(range(23))
    shares = [list(PairSteps(sampler, 8, devices=2, rank=rank)) for rank in range(2)]
    for step, one, other in zip(whole, *shares, strict=True):
        assert len(one) == len(other) and set(one) | set(other) <= set(step) and not set(one) & set(other)
    with pytest.raises(UserError, match="too few for a contrast"):
        PairSteps(sampler, 2, devices=2)


def test_unreadable_photographs_are_named(records: list[Record], tmp_path: Path) -> None:
    records[0].image.write_bytes(b"nothing")
    data = PairData(small_captioner().backbone, records, records, batch_size=4, seed=0)
    assert list(data.unreadable) == [str(records[0].image)] and len(data.train_set) == len(records) - 1


def test_the_example_is_true() -> None:
    assert doctest.testmod(tower_plan).failed == 0
