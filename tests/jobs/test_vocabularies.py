"""A captioner of chest radiographs from its table to its explanations: all of it reads with the vocabulary of chest."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from PIL import Image

from clip_xai.data.manifest_builder import build_manifest
from clip_xai.data.settings import BuildSettings
from clip_xai.data.synthetic.dermacap import write_dermacap
from clip_xai.errors import UserError
from clip_xai.explanations.store import ResultStore
from clip_xai.jobs.evaluate import evaluate
from clip_xai.jobs.explain import explain
from clip_xai.jobs.export import main as export
from clip_xai.jobs.train import train
from clip_xai.runs.checkpoints import EXPORT
from clip_xai.runs.judged import vocabulary_of
from clip_xai.tasks.captions.opened import open_captioner
from tests.support.small_runs import of_data, settings

SAID = [
    ("A small left pleural effusion, no pneumothorax.", "Effusion"),
    ("Cardiomegaly.", "Cardiomegaly"),
    ("Large right pneumothorax, no effusion.", "Pneumothorax"),
]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("data") / "chests" / "mine"
    place.mkdir(parents=True)
    rng, rows = np.random.default_rng(0), ["image,caption,group,diagnosis"]
    for number in range(24):
        caption, label = SAID[number % 3]
        Image.fromarray(rng.integers(0, 255, (64, 64), dtype=np.uint8)).save(place / f"x{number}.png")
        rows.append(f'x{number}.png,"{caption}",p{number},{label}')
    (place / "captions.csv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    return place.parent


@pytest.fixture(scope="module")
def run(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("runs") / "train" / "chest"
    train(settings("train", run.parents[1], run, *of_data(root, vocabulary="chest")))
    return run


@pytest.fixture(scope="module")
def tower(root: Path, run: Path) -> Path:
    """The folder of a CLIP of the contrastive stage."""
    place = run.parents[1] / "zero"
    train(settings("train", run.parents[1], place, "stage=0", *of_data(root, vocabulary="chest")))
    return place / "backbone"


def test_what_a_run_writes_names_its_vocabulary(root: Path, run: Path, tmp_path: Path) -> None:
    noted = pq.read_schema(Path(f"{root}_manifest") / "manifest.parquet").metadata
    assert json.loads(noted[b"clip_xai.vocabulary"])["name"] == "chest"
    assert json.loads((run / "run.json").read_text())["data"]["vocabulary"] == "chest"
    assert open_captioner(run / "checkpoints" / "last.ckpt")[0].vocabulary.name == "chest"
    assert open_captioner(run / EXPORT)[0].vocabulary.name == "chest"
    assert export([str(run), "--to", str(tmp_path / "handed_on")]) == 0
    assert open_captioner(tmp_path / "handed_on")[0].vocabulary.name == "chest"
    card = (tmp_path / "handed_on" / "README.md").read_text()
    assert "a chest X-ray" in card and "radiology" in card and "kin" not in card.split("## Data")[0].replace("king", "")


def test_captions_are_read_with_it(root: Path, run: Path, tmp_path: Path) -> None:
    evaluate(settings("evaluate", run.parents[1], tmp_path / "eval", f"ckpt={run}", "bootstrap=20", "clip_score=null"))
    rows = pd.read_parquet(tmp_path / "eval" / "captions.parquet")
    true = {"A small left": "effusion", "Cardiomegaly": "cardiomegaly", "Large right": "pneumothorax"}
    for references, diagnosis in zip(rows["references"], rows["diagnosis_true"], strict=True):
        assert diagnosis == next(name for start, name in true.items() if references[0].startswith(start))
    keys = set(rows.columns)
    assert {"side", "size", "diagnosis"} <= keys and not {"skin_tone", "colour", "diagnosis_malignancy"} & keys


def test_questions_are_made_of_it(root: Path, run: Path, tmp_path: Path) -> None:
    photograph = f"image={root / 'mine' / 'x0.png'}"
    explain(settings("explain", run.parents[1], tmp_path / "a", f"ckpt={run}", "target=class", photograph))
    alone = ("backbone=tiny", "data.vocabulary=chest", "target=class", photograph)
    explain(settings("explain", run.parents[1], tmp_path / "b", *alone))
    for place in ("a", "b"):
        [(_, result)] = ResultStore(tmp_path / place).results()
        labels = [item.label for item in result.answers["class"].items]
        assert len(labels) == 14 and labels[0] == "atelectasis" and labels[-1] == "hernia"


def test_data_of_other_words_are_refused(root: Path, run: Path, tmp_path: Path) -> None:
    asked = (f"ckpt={run}", "bootstrap=20", "split=all", "allow_overlap=true")
    with pytest.raises(UserError, match=r"data.vocabulary=skin, and .* with chest: set data.vocabulary=chest"):
        evaluate(settings("evaluate", run.parents[1], tmp_path / "no", *asked, *of_data(root)))
    with pytest.raises(UserError, match=r"data.vocabulary=skim: .* did you mean skin\?"):
        settings("train", run.parents[1], tmp_path / "no", "data.vocabulary=skim")


def test_a_stage_starts_from_a_model_of_its_own_words(root: Path, run: Path, tower: Path, tmp_path: Path) -> None:
    """Stage 2 after stage 1, and stage 1 on the tower of stage 0, named as a file or by its folder."""
    asked = of_data(root, vocabulary="chest")
    assert vocabulary_of(tower / "model.safetensors").name == "chest"  # type: ignore[union-attr]
    other = [*asked, "data.vocabulary=skin", f"data.output_dir={tmp_path / 'none'}"]
    with_chest = r"data\.vocabulary=skin, and .* was trained with chest: set data\.vocabulary=chest"
    for start in (
        ["stage=2"],
        ["stage=2", f"init_from={run}"],
        ["stage=2", f"init_from={run / 'checkpoints' / 'last.ckpt'}"],
        ["stage=2", "init_from=latest"],
        [f"backbone.pretrained={tower / 'model.safetensors'}"],
        [f"backbone.pretrained={tower}"],
    ):
        with pytest.raises(UserError, match=with_chest) as raised:
            train(settings("train", run.parents[1], tmp_path / "no", *start, *other))
        assert "\n" not in str(raised.value) and not (tmp_path / "no").exists()
    train(settings("train", run.parents[1], tmp_path / "one", f"backbone.pretrained={tower}", *asked))


def test_a_stage_leaves_out_newer_models_of_other_words(root: Path, run: Path, tmp_path: Path) -> None:
    mine = tmp_path / "mine.yaml"
    mine.write_text('templates: ["{}"]\ndiagnoses: [effusion, cardiomegaly, pneumothorax]\n', encoding="utf-8")
    shutil.copytree(run, tmp_path / "train" / "chest")
    asked = of_data(root, vocabulary=mine)
    train(settings("train", tmp_path, tmp_path / "train" / "newer", *asked, f"data.output_dir={tmp_path / 'm'}"))
    train(settings("train", tmp_path, tmp_path / "two", "stage=2", *of_data(root, vocabulary="chest")))
    parent = json.loads((tmp_path / "two" / "run.json").read_text())["parent"]
    assert parent == str(tmp_path / "train" / "chest" / EXPORT)


def test_a_tower_by_itself_is_asked_in_its_own_words(root: Path, run: Path, tower: Path, tmp_path: Path) -> None:
    asked = ("backbone=tiny", f"backbone.pretrained={tower}", "target=class", f"image={root / 'mine' / 'x0.png'}")
    with pytest.raises(UserError, match=r"data\.vocabulary=skin, and .* was trained with chest"):
        explain(settings("explain", run.parents[1], tmp_path / "no", *asked))
    explain(settings("explain", run.parents[1], tmp_path / "yes", *asked, "data.vocabulary=chest"))
    [(_, result)] = ResultStore(tmp_path / "yes").results()
    assert [item.label for item in result.answers["class"].items][-1] == "hernia"


def test_a_file_that_changes_makes_another_manifest(root: Path, tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    wanted = BuildSettings(vocabulary=str(file), near_bits=None)
    file.write_text('templates: ["{}"]\ndiagnoses: [effusion, cardiomegaly, pneumothorax]\n', encoding="utf-8")
    first = pd.read_parquet(build_manifest(root, tmp_path / "out", wanted))
    assert set(first["diagnosis"]) == {"effusion", "cardiomegaly", "pneumothorax"}
    file.write_text('templates: ["{}"]\ndiagnoses: {fluid: {synonyms: [effusion]}}\n', encoding="utf-8")
    second = pd.read_parquet(build_manifest(root, tmp_path / "out", wanted))
    assert set(second["diagnosis"].dropna()) == {"fluid"} and len(second) == len(first)


def test_publishers_of_another_field_are_refused(tmp_path: Path) -> None:
    root = tmp_path / "six"
    write_dermacap(root, seed=0, scale=0.005, height=64, width=64)
    with pytest.raises(UserError, match=r"data.vocabulary=chest does not have the diagnosis '[a-z ]+' of ham10000"):
        build_manifest(root, tmp_path / "out", BuildSettings(vocabulary="chest", near_bits=None))
