"""Which model is started from and judged, and on what: real runs of a second on a data set of one's own."""

from __future__ import annotations

import html
import json
import logging
import re
import shutil
from pathlib import Path

import pytest
import torch

from clip_xai.data.manifest import load_manifest
from clip_xai.errors import UserError
from clip_xai.jobs.evaluate import evaluate
from clip_xai.jobs.explain import explain
from clip_xai.jobs.export import main as export
from clip_xai.jobs.train import train
from clip_xai.runs.checkpoints import EXPORT, RunCard, resolve_checkpoint
from clip_xai.runs.lineage import lineage_in
from clip_xai.studies.localise import localise
from tests.support.small_runs import draw, of_data, settings

FOLDS = {"split": "kfold", "folds": 3}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return draw(tmp_path_factory.mktemp("data") / "hers")


@pytest.fixture(scope="module")
def runs(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Stage 1 of fold 0, and after it of fold 1."""
    runs = tmp_path_factory.mktemp("runs")
    for fold in (0, 1):
        train(settings("train", runs, runs / "train" / f"fold{fold}", *of_data(root, **FOLDS, fold=fold)))
    return runs


def records(root: Path, split: str, **more: object) -> set[str]:
    manifest = load_manifest(Path(f"{root}_manifest") / "manifest.parquet")
    return {record.group for record in manifest if record.split == split}


def test_stage_2_starts_from_the_fold_that_never_saw_its_test_photographs(runs, root, caplog, tmp_path):
    config = settings("train", runs, tmp_path / "two", "stage=2", *of_data(root, **FOLDS, fold=0))
    with caplog.at_level(logging.INFO):
        train(config)
    assert json.loads((tmp_path / "two" / "run.json").read_text())["parent"] == str(runs / "train" / "fold0" / EXPORT)
    assert "does not start from" in caplog.text and "fold1" in caplog.text
    [line] = [line for line in caplog.messages if line.startswith("starting from")]
    assert "fold0" in line and "kfold fold 0 of 3" in line and "data mine" in line
    # Sources default to what the data has.
    assert "stage 2 prefers skincap, of which the data has no photograph: it trains on all of mine" in caplog.messages
    # By hand: what was trained on is what the manifest of fold 0 calls train, in both stages, and nothing else.
    held = records(root, "val") | records(root, "test")
    known = lineage_in(tmp_path / "two" / EXPORT / "model.safetensors")
    manifest = load_manifest(Path(f"{root}_manifest") / "manifest.parquet")
    assert known.overlap([record for record in manifest if record.group in held], manifest) == 0
    assert known.overlap([record for record in manifest if record.split == "train"], manifest) == 8
    assert len(known.steps) == 2


def test_one_named_outright_is_refused_unless_overlap_is_allowed(runs, root, tmp_path):
    start = f"init_from={runs / 'train' / 'fold1'}"
    asked = ("stage=2", start, *of_data(root, **FOLDS, fold=0))
    with pytest.raises(UserError, match=r"was trained on 8 of 16 photographs of this run's val and test splits"):
        train(settings("train", runs, tmp_path / "no", *asked))
    assert not (tmp_path / "no" / "run.json").exists()
    train(settings("train", runs, tmp_path / "yes", "allow_overlap=true", *asked))


def test_an_ancestor_counts_too(runs, root, tmp_path):
    """Stage 0 of fold 1, and stage 1 of fold 0 on its tower."""
    other = of_data(root, **FOLDS, fold=1)
    train(settings("train", runs, tmp_path / "zero", "stage=0", *other))
    folder = tmp_path / "zero" / "backbone"
    for tower in (folder, folder / "model.safetensors"):
        with pytest.raises(UserError, match=r"backbone\.pretrained=.* was trained on 8 of 16"):
            asked = (f"backbone.pretrained={tower}", *of_data(root, **FOLDS, fold=0))
            train(settings("train", runs, tmp_path / "one", *asked))
    train(settings("train", runs, tmp_path / "one", f"backbone.pretrained={folder}", *other))
    assert len(lineage_in(tmp_path / "one" / EXPORT / "model.safetensors").steps) == 2


def test_another_seed_of_training_and_a_photograph_more_are_no_other_fold(runs, root, tmp_path):
    more = tmp_path / "more"
    shutil.copytree(root, more)
    shutil.copy(more / "mine" / "p00.jpg", more / "mine" / "extra.jpg")
    with (more / "mine" / "captions.csv").open("a") as file:
        file.write("extra.jpg,A brown macule.,pat0,nevus\n")
    chosen = of_data(more, **FOLDS, fold=1)
    train(settings("train", runs, tmp_path / "two", "stage=2", "seed=7", *chosen))
    assert json.loads((tmp_path / "two" / "run.json").read_text())["parent"].endswith("fold1/export")


def test_evaluation_takes_the_data_of_the_run(runs, root, tmp_path, caplog):
    metrics = evaluate(settings("evaluate", runs, tmp_path / "judged", "bootstrap=20"))
    assert metrics["settings"]["data"] == "mine, split test"
    run = json.loads((runs / "train" / "fold1" / "run.json").read_text())
    assert run["data"]["root"] == str(root) and metrics["settings"]["captioner"].endswith("fold1/export")
    assert not any(key.startswith("note") for key in metrics["settings"])
    asked = json.loads((tmp_path / "judged" / "asked.json").read_text())
    assert asked["noted"]["model.captioner"].endswith("fold1/export")
    assert asked["model"]["captioner"][:12] == metrics["settings"]["captioner's fingerprint"]


def test_other_data_are_named_on_the_page_and_must_not_have_been_trained_on(runs, root, tmp_path):
    other = draw(tmp_path / "other", count=24, seed=2, name="theirs")
    evaluate(settings("evaluate", runs, tmp_path / "judged", "bootstrap=20", *of_data(other, "theirs")))
    page = (tmp_path / "judged" / "index.html").read_text()
    [(short, rest)] = re.findall(r'<details class="subtitle"><summary>([^<]*)</summary>([^<]*)</details>', page)
    assert html.unescape(short) == "Other data than those of the model's run"
    assert f"root {other} (there {root})" in rest
    named = f"ckpt={runs / 'train' / 'fold1'}"
    with pytest.raises(UserError, match=r"split=test: it, .* was trained on 8 of 8 photographs.*allow_overlap=true"):
        evaluate(settings("evaluate", runs, tmp_path / "no", named, "data.fold=0"))
    evaluate(settings("evaluate", runs, tmp_path / "yes", named, "data.fold=0", "allow_overlap=true", "bootstrap=20"))
    assert "was trained on 8 of 8 photographs" in (tmp_path / "yes" / "index.html").read_text()
    # The newest of all would be fold 1's; the one that may be judged on fold 0 is taken.
    metrics = evaluate(settings("evaluate", runs, tmp_path / "fold0", "data.fold=0", "bootstrap=20"))
    assert metrics["settings"]["captioner"].endswith("fold0/export")


def test_other_data_do_not_take_the_place_of_the_runs_manifest(runs, root, tmp_path):
    other = draw(tmp_path / "other", count=24, seed=2, name="theirs")
    of_run = json.loads((runs / "train" / "fold1" / "run.json").read_text())["data"]
    held = (Path(of_run["output_dir"]) / "manifest.parquet").read_bytes()
    with pytest.raises(UserError, match=r"data\.root=.*name another folder for theirs, such as data\.output_dir="):
        evaluate(settings("evaluate", runs, tmp_path / "no", f"data.root={other}", "data.name=theirs"))
    assert (Path(of_run["output_dir"]) / "manifest.parquet").read_bytes() == held


def test_debug_runs_find_debug_runs_only(runs, root, tmp_path):
    own = tmp_path / "runs"
    chosen = ("debug=fast", *of_data(root))
    train(settings("train", own, own / "train" / "quick", *chosen))
    with pytest.raises(UserError, match=r"are debug runs only.*ckpt=.*quick"):
        resolve_checkpoint("latest", own)
    with pytest.raises(UserError, match=r"stage=2 starts from a finished stage 1 .* there is none"):
        train(settings("train", own, tmp_path / "two", "stage=2", *of_data(root)))
    with pytest.raises(UserError, match=r"stage=2 starts from a finished stage 1 .* stage=1 debug=fast"):
        train(settings("train", runs, tmp_path / "two", "stage=2", *chosen))
    train(settings("train", own, tmp_path / "three", "stage=2", *chosen))


def test_a_checkpoint_is_judged_localised_and_explained_as_the_help_says(runs, root, tmp_path):
    named = f"ckpt={runs / 'train' / 'fold1' / 'checkpoints' / 'best.ckpt'}"
    metrics = evaluate(settings("evaluate", runs, tmp_path / "judged", named, "bootstrap=20"))
    whole = evaluate(settings("evaluate", runs, tmp_path / "whole", "bootstrap=20"))
    assert metrics["settings"]["data"] == "mine, split test" == whole["settings"]["data"]
    fingerprint = "captioner's fingerprint"
    assert metrics["settings"][fingerprint] == whole["settings"][fingerprint]
    _, table = localise(settings("explain", runs, tmp_path / "maps", named, "xai=gradcam", "samples=1"))
    assert metrics["settings"][fingerprint] in table.note and "best.ckpt" in table.note
    for other in ("backbone=tiny", "image=a.jpg", "text=melanoma"):
        with pytest.raises(UserError, match=r"is a setting of explain\.py"):
            localise(settings("explain", runs, tmp_path / "other", named, other))
    explain(settings("explain", runs, tmp_path / "explained", named, "xai=gradcam", "samples=1"))
    with pytest.raises(UserError, match="there is no such checkpoint"):
        evaluate(settings("evaluate", runs, tmp_path / "no", f"ckpt={tmp_path / 'nothing.ckpt'}"))


def test_an_export_says_what_it_was_trained_on_and_asks_for_data(runs, tmp_path):
    target = tmp_path / "handed on"
    run = runs / "train" / "fold0"
    assert export([str(run), "--to", str(target), "--runs-root", str(runs)]) == 0
    assert lineage_in(target / "model.safetensors") == lineage_in(run / EXPORT / "model.safetensors")
    with pytest.raises(UserError, match="does not say on which data it was trained"):
        evaluate(settings("evaluate", runs, tmp_path / "judged", f"ckpt={target}"))


def test_of_a_search_the_best_finished_trial_is_found(runs, tmp_path):
    root = tmp_path / "runs"
    for number, score in enumerate([0.5, 0.1, None, 0.3]):
        trial = root / "train" / "a search" / f"trial_{number:03d}"
        shutil.copytree(runs / "train" / "fold0", trial)
        card = RunCard.read(trial)
        RunCard(**{**vars(card), "score": score, "started": f"2030-01-01T0{number}:00:00.000000+00:00"}).write(trial)
    best = root / "train" / "a search" / "trial_001" / EXPORT
    assert resolve_checkpoint("latest", root) == best
    assert resolve_checkpoint(str(root / "train" / "a search"), root) == best


def test_weights_carry_their_lineage_whatever_becomes_of_the_run(runs):
    lineage = lineage_in(runs / "train" / "fold0" / EXPORT / "model.safetensors")
    checkpoint = torch.load(runs / "train" / "fold0" / "checkpoints" / "best.ckpt", weights_only=True)
    assert json.loads(checkpoint["lineage"])["steps"] == list(lineage.steps)
