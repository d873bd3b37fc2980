from __future__ import annotations

from pathlib import Path

import pytest
import torch
from lightning import Callback, LightningModule, Trainer
from peft import LoraConfig, inject_adapter_in_model

from clip_xai.config.training_settings import CAPTIONER_PARTS
from clip_xai.data.record import Record
from clip_xai.errors import UserError
from clip_xai.models.captioner import Captioner
from clip_xai.tasks.captions.data import CaptionData
from clip_xai.tasks.captions.module import CaptionerModule
from clip_xai.tasks.captions.unfreezing import PARTS, Unfreezing
from clip_xai.training.features import FeatureCache
from clip_xai.training.optimisation import Optimisation
from tests.support.small_captioner import SETTINGS, small_captioner

# Written out by hand from the plan {1: 1, 2: 3}: what changes in each epoch, and nothing else does.
MOVES = {
    0: ("mapper.",),
    1: ("mapper.", "language_model.transformer.h.2."),
    2: (
        "mapper.",
        "language_model.transformer.h.0.",
        "language_model.transformer.h.1.",
        "language_model.transformer.h.2.",
    ),
}


class Snapshots(Callback):
    def __init__(self) -> None:
        self.states: list[dict[str, bytes]] = []

    def take(self, captioner: Captioner) -> None:
        state = captioner.state_dict()
        self.states.append({key: value.numpy().tobytes() for key, value in state.items()})

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.take(pl_module.captioner)  # type: ignore[arg-type]

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.take(pl_module.captioner)  # type: ignore[arg-type]


def test_what_is_frozen_does_not_change_by_a_byte_and_the_rest_does(records: list[Record], tmp_path: Path) -> None:
    captioner = small_captioner()
    features = FeatureCache(tmp_path / "cache", captioner.backbone).table([r.image for r in records], captioner.reads)
    data = CaptionData(captioner, features, records, records, batch_size=4, max_tokens=30, seed=5)
    unfreezing, snapshots = Unfreezing(["mapper"], {1: 1, 2: 3}), Snapshots()
    # Strong decay: an optimiser that touched what has no gradient would be found out.
    module = CaptionerModule(captioner, SETTINGS, Optimisation(learning_rate=1e-2, weight_decay=0.5), unfreezing)
    Trainer(
        accelerator="cpu", max_epochs=3, logger=False, enable_progress_bar=False, enable_model_summary=False,
        enable_checkpointing=False, num_sanity_val_steps=0, callbacks=[unfreezing, snapshots], log_every_n_steps=1,
    ).fit(module, datamodule=data)  # fmt: skip
    for epoch, prefixes in MOVES.items():
        before, after = snapshots.states[epoch], snapshots.states[epoch + 1]
        changed = {key for key in before if before[key] != after[key]}
        assert changed == {key for key in before if key.startswith(prefixes)}, epoch


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("embeddings", {"wte", "wpe"}),
        ("token_embeddings", {"wte"}),
        ("final_norm", {"ln_f"}),
    ],
)
def test_parts_train_when_they_are_named(name: str, wanted: set[str]) -> None:
    captioner = small_captioner()
    parts = Unfreezing([name], {}).trained(captioner, 0)
    assert {id(part) for part in parts} == {id(getattr(captioner.language_model.transformer, part)) for part in wanted}


def test_adapters_train_alone_and_are_missed_by_name() -> None:
    captioner = small_captioner()
    with pytest.raises(UserError, match="has no adapters"):
        Unfreezing(["lora"], {}).trained(captioner, 0)
    inject_adapter_in_model(LoraConfig(r=2, target_modules=["c_attn"], lora_dropout=0.1), captioner.language_model)
    captioner.requires_grad_(False)
    for part in Unfreezing(["lora"], {}).trained(captioner, 0):
        part.requires_grad_(True)
    found = {name for name, parameter in captioner.named_parameters() if parameter.requires_grad}
    assert found == {name for name, _ in captioner.named_parameters() if "lora_" in name} and len(found) == 6


def test_the_names_of_parts_are_those_of_the_settings() -> None:
    assert PARTS == CAPTIONER_PARTS


def test_frozen_parts_stand_in_evaluation_mode() -> None:
    captioner = small_captioner().train()
    module = CaptionerModule(captioner, SETTINGS, Optimisation(), Unfreezing(["mapper"], {0: 1}))

    class At:
        current_epoch = 0

    module.unfreezing.on_train_epoch_start(At(), module)  # type: ignore[arg-type]
    transformer = captioner.language_model.transformer
    assert [block.training for block in transformer.h] == [False, False, True]
    assert captioner.mapper.training and not captioner.backbone.training
    grads = {name for name, parameter in captioner.named_parameters() if parameter.requires_grad}
    assert not any(name.startswith(("backbone", "language_model.transformer.wte")) for name in grads)


@pytest.mark.parametrize(("epoch", "blocks"), [(0, 0), (1, 0), (2, 1), (3, 1), (4, 6), (9, 6)])
def test_the_plan_holds_from_its_epoch_on(epoch: int, blocks: int) -> None:
    assert Unfreezing(["mapper"], {2: 1, 4: 6}).blocks(epoch) == blocks


def test_gradients_reach_the_mapper_through_the_frozen_language_model() -> None:
    captioner = small_captioner()
    captioner.requires_grad_(False)
    captioner.mapper.requires_grad_(True)
    captioner.loss(torch.randn(2, 9, 32), captioner.encode_captions(["a red spot", "a blue spot"])).backward()
    assert all(parameter.grad is not None for parameter in captioner.mapper.parameters())
    assert all(parameter.grad is None for parameter in captioner.language_model.parameters())
