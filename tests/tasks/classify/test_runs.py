"""Classifiers trained, resumed, judged and explained by the jobs, on small pictures and small networks."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
import torchvision.models as tv
from lightning import Callback, LightningModule, Trainer
from PIL import Image, ImageOps
from safetensors.torch import load_file
from sklearn.metrics import roc_auc_score
from torch import Tensor

import clip_xai
from clip_xai.errors import UserError
from clip_xai.jobs.explain import explain
from clip_xai.models.backbones.backbone_builder import build_backbone
from clip_xai.models.classifier_weights import HEAD, load_classifier
from clip_xai.runs.checkpoints import task_of
from clip_xai.tasks.classify.opened import open_classifier
from clip_xai.training.checkpoint_files import read_checkpoint
from tests.support.small_classes import (
    CLASSES,
    RESNET,
    VIT,
    folder_of_classes,
    judged,
    read,
    settings,
    table_of_labels,
    trained,
)

FINE = "stage.trains=[head,image]"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return folder_of_classes(tmp_path_factory.mktemp("data") / "shapes")


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return table_of_labels(tmp_path_factory.mktemp("data") / "labelled")


class StopAfterOne(Callback):
    """Breaks off as a time limit would: between two epochs."""

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        trainer.should_stop = True


class Watch(Callback):
    """What the tower is before and after, whether it trains, and the losses."""

    def __init__(self) -> None:
        self.states: list[dict[str, Tensor]] = []
        self.training: dict[str, bool] = {}
        self.losses: list[float] = []

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._keep(pl_module)

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, outputs: Any, *rest: Any) -> None:
        backbone: Any = pl_module.backbone
        self.training = {name: module.training for name, module in backbone.model.named_modules()}
        self.losses.append(outputs["loss"].item())

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._keep(pl_module)

    def _keep(self, pl_module: LightningModule) -> None:
        backbone: Any = pl_module.backbone
        self.states.append({key: value.clone() for key, value in backbone.state_dict().items()})


def changed(watch: Watch) -> set[str]:
    before, after = watch.states
    return {key for key, value in after.items() if not torch.equal(value, before[key])}


@pytest.mark.parametrize("tower", [RESNET, VIT])
def test_a_frozen_tower_stays_what_it_is_to_the_last_bit(folder: Path, tmp_path: Path, tower: Any) -> None:
    watch = Watch()
    trained(folder, tmp_path / "run", tower=tower, callbacks=[watch])
    assert changed(watch) == {f"{HEAD}weight", f"{HEAD}bias"}
    assert not any(watch.training.values())


def test_features_are_read_from_the_cache_and_the_photographs_no_more(folder: Path, tmp_path: Path) -> None:
    first = trained(folder, tmp_path / "first")
    cache = sorted(Path(f"{folder}_features").rglob("*.bin"))
    times = [file.stat().st_mtime_ns for file in cache]
    second = trained(folder, tmp_path / "second")
    assert sorted(Path(f"{folder}_features").rglob("*.bin")) == cache
    assert [file.stat().st_mtime_ns for file in cache] == times
    one, other = (load_file(run / "export" / "model.safetensors") for run in (first, second))
    assert all(torch.equal(value, other[key]) for key, value in one.items())


def test_a_tower_that_trains_is_in_training_mode_and_its_export_gives_the_same_logits(
    folder: Path, tmp_path: Path
) -> None:
    watch = Watch()
    run = trained(folder, tmp_path / "run", FINE, "stage.epochs=1", "task.flip=true", "task.shift=0.1",
                  callbacks=[watch])  # fmt: skip
    assert all(watch.training.values())
    assert {"model.conv1.0.weight", "model.bn1.running_mean", f"{HEAD}bias"} <= changed(watch)
    assert read(run / "export" / "config.json")["holds_backbone"]
    exported, _, _ = load_classifier(run / "export")
    kept, _ = open_classifier(run / "checkpoints" / "best.ckpt")
    pixels = torch.randn(2, 3, 64, 64)
    assert torch.equal(exported.logits(pixels), kept.logits(pixels))
    for key, value in watch.states[1].items():
        assert torch.equal(exported.state_dict()[key], value), key


def test_the_last_blocks_train_as_the_plan_has_it(folder: Path, tmp_path: Path) -> None:
    watch = Watch()
    trained(folder, tmp_path / "run", FINE, "stage.unfreeze=[1]", "task.layer_decay=0.7", tower=VIT, callbacks=[watch])
    moved = {key.split(".")[2] for key in changed(watch) if ".blocks." in key}
    assert moved == {"2"} and watch.training["blocks.2"] and not watch.training["blocks.1"]


@pytest.mark.parametrize("more", [[], [FINE, "task.flip=true", "task.shift=0.1", "trainer.accumulate_grad_batches=2"]])
def test_interrupted_and_resumed_equals_uninterrupted(folder: Path, tmp_path: Path, more: list[str]) -> None:
    whole, first, second = Watch(), Watch(), Watch()
    trained(folder, tmp_path / "whole", *more, tower=RESNET, callbacks=[whole])
    trained(folder, tmp_path / "cut", *more, tower=RESNET, callbacks=[first, StopAfterOne()])
    torch.rand(7)
    last = tmp_path / "cut" / "checkpoints" / "last.ckpt"
    trained(folder, tmp_path / "resumed", *more, f"ckpt_path={last}", tower=RESNET, callbacks=[second])
    assert first.losses + second.losses == whole.losses and second.losses
    assert all(torch.equal(value, second.states[1][key]) for key, value in whole.states[1].items())
    one, other = (read_checkpoint(tmp_path / run / "checkpoints" / "last.ckpt") for run in ("whole", "resumed"))
    assert one["measured"] == other["measured"]


def test_a_head_on_a_tower_that_another_run_has_trained_reads_that_tower(folder: Path, tmp_path: Path) -> None:
    """Its features are those of the trained tower, and the tower goes with the export."""
    fine = trained(folder, tmp_path / "fine", FINE, "stage.learning_rate=0.01")
    watch = Watch()
    head = trained(folder, tmp_path / "head", f"init_from={fine}", callbacks=[watch])
    before, _, _ = load_classifier(fine / "export")
    after, _, _ = load_classifier(head / "export")
    tower = {key: value for key, value in before.state_dict().items() if not key.startswith(HEAD)}
    assert all(torch.equal(value, after.state_dict()[key]) for key, value in tower.items())
    assert changed(watch) == {f"{HEAD}weight", f"{HEAD}bias"}
    judged(head, tmp_path / "judged", "split=val")
    assert read(head / "metrics.json")["val/auroc"] == pytest.approx(auroc(tmp_path / "judged"), abs=1e-6)


def auroc(place: Path) -> float:
    """Of the predictions that an evaluation has written."""
    rows = pd.read_parquet(place / "predictions.parquet")
    found = []
    for name in CLASSES:
        known = rows[f"true {name}"].notna()
        found.append(roc_auc_score(rows[f"true {name}"][known], rows[f"probability of {name}"][known]))
    return float(np.mean(found))


def test_several_labels_are_trained_and_judged_with_those_that_are_missing_masked(table: Path, tmp_path: Path) -> None:
    run = trained(table, tmp_path / "run", "task.balanced=true", "task.head=attention_pool", "stage.decay=0.5",
                  tower=VIT)  # fmt: skip
    place = judged(run, tmp_path / "judged", "split=test")
    rows = pd.read_parquet(place / "predictions.parquet")
    classifier, told = open_classifier(run / "export")
    assert told.multilabel and classifier.reads == "patches" and rows[[f"true {n}" for n in CLASSES]].isna().any().any()
    network: Any = classifier.model
    for _, row in rows.iterrows():
        pixels = classifier.preprocess.read(table / "mine" / row["name"]).unsqueeze(0)
        with torch.no_grad():
            wanted = classifier.head(network.forward_features(pixels)[:, 1:]).sigmoid()[0]
        found = [row[f"probability of {name}"] for name in told.classes]
        np.testing.assert_allclose(found, wanted.numpy(), rtol=1e-4)
    metrics = read(place / "metrics.json")
    [score] = [one for one in metrics["scores"] if (one["metric"], one["system"]) == ("auroc", "model")]
    assert score["value"] == pytest.approx(auroc(place), abs=1e-6)


def test_the_image_tower_of_a_clip_takes_a_head(folder: Path, tmp_path: Path) -> None:
    watch = Watch()
    run = trained(folder, tmp_path / "run", "stage.epochs=1", tower=["backbone=tiny"], callbacks=[watch])
    assert changed(watch) == {f"{HEAD}weight", f"{HEAD}bias"}
    assert not read(run / "export" / "config.json")["holds_backbone"]
    assert set(load_file(run / "export" / "model.safetensors")) == {f"{HEAD}weight", f"{HEAD}bias"}
    classifier, _ = open_classifier(run / "export")
    pixels = classifier.preprocess.read(folder / "test" / "disc" / "test_disc_00.png").unsqueeze(0)
    tower = build_backbone("tiny", "tiny", pretrained="embedded:tiny")
    with torch.no_grad():
        torch.testing.assert_close(classifier.logits(pixels), classifier.head(tower.encode_image(pixels)))


@pytest.mark.slow
def test_a_network_of_torchvision_is_trained_judged_and_explained(folder: Path, tmp_path: Path) -> None:
    """Fine-tuned: what is written is what torchvision's own network gives with the weights that were exported."""
    tower = ("backbone=torchvision", "backbone.architecture=mobilenet_v3_small", "backbone.image_size=64")
    run = trained(folder, tmp_path / "run", FINE, "stage.epochs=1", tower=tower)
    state, network = load_file(run / "export" / "model.safetensors"), tv.mobilenet_v3_small(num_classes=len(CLASSES))
    kept = {key.removeprefix("model."): value for key, value in state.items() if key.startswith("model.")}
    kept = {key: value for key, value in kept.items() if not key.startswith("classifier.3.")}
    kept |= {f"classifier.3.{part}": state[f"{HEAD}{part}"] for part in ("weight", "bias")}
    network.load_state_dict(kept)
    place = judged(run, tmp_path / "judged", "split=test")
    rows, preprocess = pd.read_parquet(place / "predictions.parquet"), load_classifier(run / "export")[0].preprocess
    for _, row in rows.iterrows():
        pixels = preprocess.read(folder / row["name"]).unsqueeze(0)
        with torch.no_grad():
            wanted = network.eval()(pixels).softmax(dim=1)[0]
        np.testing.assert_allclose([row[f"probability of {name}"] for name in CLASSES], wanted.numpy(), rtol=1e-4)
    asked = [f"ckpt={run}", f"image={folder / 'test' / 'disc' / 'test_disc_00.png'}", "xai=[gradcam,saliency]"]
    assert explain(settings("explain", tmp_path / "explained", *asked, "target.classes=[disc]"))["explained"] == 1
    [result] = clip_xai.read_run(tmp_path / "explained").results
    [answer] = result.answers.values()
    found = {one.method: one.values for one in answer.attributions}
    assert set(found) == {"gradcam", "saliency"} and all(values.isfinite().all() for values in found.values())


def test_a_pool_over_patches_is_explained(folder: Path, tmp_path: Path) -> None:
    run = trained(folder, tmp_path / "run", "task.head=attention_pool", tower=VIT)
    asked = [f"ckpt={run}", f"image={folder / 'test' / 'disc' / 'test_disc_00.png'}", "xai=[gradcam,occlusion]"]
    assert explain(settings("explain", tmp_path / "explained", *asked, "target.classes=[disc]"))["explained"] == 1


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["stage=language"], "stage=language is a stage of task=captions"),
        (["mapper=resampler"], "mapper= is a part of captioners"),
        (["task.flip=true"], "task.flip changes the picture, and the tower is frozen"),
        ([FINE, "task.shift=0.01"], "task.shift=0.01 moves a picture of 64 pixels by less than one: set it to 0.016"),
        (["task.layer_decay=0.5"], "task.layer_decay is of a tower that trains"),
        (["stage.unfreeze=[1]"], "stage.unfreeze is of a tower that trains"),
        ([FINE, "task.layer_decay=0.5"], "task.layer_decay: the tower of backbone timm has no list of blocks"),
        (["stage.trains=[image]"], "stage.trains must hold head"),
        (["stage.trains=[head,mapper]"], "stage.trains: mapper is not one of head, image"),
        (["stage.replay=0.5"], "stage.replay is of captioners"),
        (["task.labels=[disc,circle]"], "task.labels: the data has no 'circle'; it has disc, square, stripe"),
        (["task.labels=[disc]"], "one class alone, 'disc', is nothing to tell apart"),
        (["task.of=diagnosis"], "task.of=diagnosis: no training photograph states any"),
        (["trainer=fsdp"], "not with trainer=fsdp"),
        (["data.limit=1"], "is nothing to tell apart|no class is present in some validation photographs"),
        (["task.multilabel=true", "stage.label_smoothing=0.1"], "stage.label_smoothing is of one class a photograph"),
    ],
)
def test_what_does_not_go_together_is_one_line(folder: Path, tmp_path: Path, more: list[str], said: str) -> None:
    with pytest.raises(UserError, match=said) as refused:
        trained(folder, tmp_path / "run", *more)
    assert "\n" not in str(refused.value)


def test_a_photograph_of_several_classes_is_refused_where_each_has_one(table: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"task\.multilabel=false: \d+ training photographs show several"):
        trained(table, tmp_path / "run", "task.multilabel=false")
    with pytest.raises(UserError, match=r"stage\.label_smoothing is of one class a photograph"):
        trained(table, tmp_path / "run", "stage.label_smoothing=0.1")


def test_a_model_of_other_classes_or_another_tower_is_no_start(folder: Path, tmp_path: Path) -> None:
    run = trained(folder, tmp_path / "run", "stage.epochs=1")
    with pytest.raises(UserError, match="has the classes disc, square, stripe, and this run disc, stripe; make them"):
        trained(folder, tmp_path / "other", f"init_from={run}", "task.labels=[disc,stripe]")
    with pytest.raises(UserError, match="has the backbone name=timm architecture=test_resnet"):
        trained(folder, tmp_path / "tower", f"init_from={run}", tower=VIT)
    content = read_checkpoint(run / "checkpoints" / "last.ckpt")
    content["state_dict"].pop(f"backbone.{HEAD}bias")
    (tmp_path / "broken").mkdir()
    torch.save(content, tmp_path / "broken" / "lacking.ckpt")
    with pytest.raises(UserError, match="does not fit this classifier"):
        trained(folder, tmp_path / "again", f"ckpt_path={tmp_path / 'broken' / 'lacking.ckpt'}")


def test_a_checkpoint_away_from_its_run_is_still_of_its_task(folder: Path, tmp_path: Path) -> None:
    run = trained(folder, tmp_path / "run", "stage.epochs=1")
    alone = tmp_path / "elsewhere" / "mine.ckpt"
    alone.parent.mkdir()
    shutil.copy(run / "checkpoints" / "best.ckpt", alone)
    shutil.copytree(run / "export", tmp_path / "exported")
    assert [task_of(place) for place in (alone, tmp_path / "exported")] == ["classify", "classify"]
    (tmp_path / "exported" / "config.json").write_text("{")
    with pytest.raises(UserError, match="is not JSON"):
        task_of(tmp_path / "exported")


def test_a_stage_is_validated_on_the_sources_that_it_trains_on(tmp_path: Path) -> None:
    [drawn] = {path.parent for path in table_of_labels(tmp_path / "drawn").rglob("labels.csv")}
    for name in ("one", "two"):
        shutil.copytree(drawn, tmp_path / "data" / name)
    for picture in (tmp_path / "data" / "two").rglob("*.png"):  # other pictures, not copies
        ImageOps.invert(Image.open(picture).convert("RGB")).save(picture)
    both = read(trained(tmp_path / "data", tmp_path / "both", "stage.epochs=1") / "metrics.json")
    one = read(trained(tmp_path / "data", tmp_path / "one", "stage.epochs=1", "stage.sources=[one]") / "metrics.json")
    assert 0 < one["val_photographs"] < both["val_photographs"]
