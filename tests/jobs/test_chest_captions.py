"""The captioner learns sentences of chest radiographs by one YAML, and is judged by the findings that they state."""

from __future__ import annotations

import csv
from pathlib import Path

import pandas as pd
import pytest

from clip_xai.data.lexicon import read_attribute, read_findings
from clip_xai.data.manifest import load_manifest
from clip_xai.data.synthetic.chest.nih import ChestSettings, write_chest
from clip_xai.data.synthetic.chest.parts import read_parts
from clip_xai.data.vocabulary import load_vocabulary
from clip_xai.jobs.evaluate import evaluate
from clip_xai.jobs.train import train
from clip_xai.metrics.attributes import f1_of_counts, stated_findings
from tests.support.small_runs import settings

CHEST = load_vocabulary("chest")
PATIENTS, SIZE = 24, 32


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("chest") / "films"
    write_chest(root, ChestSettings(patients=PATIENTS, size=SIZE, workers=1))
    return root


def table(root: Path) -> dict[str, dict[str, str]]:
    with (root / "Data_Entry_2017.csv").open(newline="") as file:
        return {row["Image Index"]: row for row in csv.DictReader(file)}


def captioned(root: Path) -> dict[str, list[str]]:
    rows = pd.read_parquet(root / "descriptions.parquet")
    return {image: list(captions) for image, captions in zip(rows["image"], rows["captions"], strict=True)}


def test_captions_state_the_labels_of_the_table_and_nothing_else(root: Path) -> None:
    entries, said = table(root), captioned(root)
    assert set(entries) == set(said) and {len(texts) for texts in said.values()} == {3}
    for name, texts in said.items():
        labels = {label.lower() for label in entries[name]["Finding Labels"].split("|")} - {"no finding"}
        for text in texts:
            assert read_findings(text, CHEST) == dict.fromkeys(
                sorted(labels, key=list(CHEST.diagnoses).index), "present"
            )


def test_side_zone_and_size_are_those_that_were_drawn(root: Path) -> None:
    said, drawn = captioned(root), [part for part in read_parts(root) if part.kind == "finding"]
    films = pd.Series([part.image for part in drawn]).value_counts()
    alone = [part for part in drawn if films[part.image] == 1 and part.part != "Cardiomegaly"]
    assert len(alone) > 5
    for part in alone:
        zone = part.zone if part.part in ("Infiltration", "Mass", "Nodule") else None
        for text in said[part.image.removeprefix("images/")]:
            assert read_attribute(text, "side", CHEST) == part.side
            assert read_attribute(text, "size", CHEST) == part.size
            assert read_attribute(text, "zone", CHEST) == zone


def test_it_is_trained_and_judged_by_one_yaml(root: Path, tmp_path: Path) -> None:
    of_films = (f"data.synthetic.patients={PATIENTS}", f"data.synthetic.size={SIZE}")
    places = (f"data.root={root}", f"data.output_dir={tmp_path}/manifest", f"data.cache_dir={tmp_path}/features")
    asked = ("experiment=chest_captions", "stage=1", *of_films, *places)
    train(settings("train", tmp_path, tmp_path / "train" / "run", *asked))
    records = load_manifest(tmp_path / "manifest" / "manifest.parquet")
    entries, tested = table(root), (root / "test_list.txt").read_text().split()
    assert {record.name: record.split == "test" for record in records} == {name: name in tested for name in entries}
    assert all(record.references and record.labels for record in records)
    assert all(record.group == f"nih-patient:{entries[record.name]['Patient ID']}" for record in records)
    brief = (f"ckpt={tmp_path}/train/run", "bootstrap=20", "clip_score=null")
    judged = evaluate(settings("evaluate", tmp_path, tmp_path / "judged", *brief))
    rows = pd.read_parquet(tmp_path / "judged" / "captions.parquet")
    right, wrong, missed = 0, 0, 0
    for caption, references in zip(rows["caption"], rows["references"], strict=True):
        read, true = (set(read_findings(text, CHEST)) for text in (caption, references[0]))
        right, wrong, missed = right + len(read & true), wrong + len(read - true), missed + len(true - read)
    [score] = [one for one in judged["scores"] if (one["system"], one["metric"]) == ("model", "findings")][:1]
    assert score["value"] == pytest.approx(2 * right / (2 * right + wrong + missed), abs=1e-9)


def test_findings_are_counted_over_all_that_a_text_states() -> None:
    captions = ["A small left effusion and a nodule.", "A normal chest X-ray.", "No effusion. Cardiomegaly."]
    references = [["Effusion and a mass."], ["Clear lungs."], ["An enlarged heart."]]
    rows, counts, left = stated_findings([*captions, "x"], [*references, ["A mass.", "A nodule."]], CHEST)
    assert rows.tolist() == [0, 1, 2] and left == 1
    assert counts.tolist() == [[1, 1, 1], [0, 0, 0], [1, 0, 0]]
    assert f1_of_counts(counts.sum(axis=0)) == pytest.approx(2 * 2 / (2 * 2 + 1 + 1))
