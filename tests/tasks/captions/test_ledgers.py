"""The ledger of an evaluation and of explained photographs, with planted captioners on real files."""

from __future__ import annotations

import json
import logging
import math
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from clip_xai.config.schemas import ExplainConfig
from clip_xai.data.record import Record
from clip_xai.errors import UserError
from clip_xai.explanations.collection import collect
from clip_xai.explanations.explanation_job import ExplanationJob
from clip_xai.explanations.ledger import LedgerSettings
from clip_xai.explanations.ledger_plan import LedgerPlan, ledger_plan
from clip_xai.explanations.lesion_maps import items_to_measure
from clip_xai.explanations.other_patients import read_in_batches
from clip_xai.explanations.photographs import Photograph
from clip_xai.explanations.store import ResultStore
from clip_xai.jobs.explain import explain_photographs
from clip_xai.models.captioner import Captioner
from clip_xai.models.settings import Decoding
from clip_xai.report.explained import TOTAL_EFFECT
from clip_xai.report.ledger import FEWEST, FOLLOWS, SEEN
from clip_xai.tasks.captions.evaluation import evaluate_captioner, write_evaluation
from clip_xai.tasks.captions.ledgers import run_ledger, why_no_ledger
from clip_xai.training.features import FeatureTable
from clip_xai.xai.methods import Occlusion
from clip_xai.xai.targets.question import Question
from tests.explanations.test_ledger import WORDS, by_the_word
from tests.support.planted_captioner import planted_captioner

SETTINGS = LedgerSettings(others=12, samples=40, of_others=20)


@pytest.fixture(scope="module")
def captioner() -> Captioner:
    """Sees whether a photograph is bright, writes the colour by it, and the diagnosis by the colour."""
    return planted_captioner(WORDS, lambda number, before: by_the_word(1.0 if number > 0.5 else 0.0, before))


@pytest.fixture(scope="module")
def data(captioner: Captioner, tmp_path_factory: pytest.TempPathFactory) -> tuple[list[Record], FeatureTable]:
    """Twenty photographs of eighteen patients; what the mapper reads of them says 1 for a quarter."""
    folder = tmp_path_factory.mktemp("photographs")
    records = []
    for row in range(20):
        image = folder / f"{row}.png"
        Image.fromarray(np.full((24, 24, 3), 12 * row, np.uint8)).save(image)
        text = "a red lesion melanoma" if row % 4 == 0 else "a black lesion scar"
        records.append(Record(image, "s", image.name, f"p{min(row, 17)}", None, None, text, (text,)))
    rows = np.zeros((20, 16), np.float32)
    rows[::4] = 1
    return records, FeatureTable({record.image: (rows, row) for row, record in enumerate(records)}, {})


def test_an_evaluation_writes_what_the_words_rest_on(captioner, data, tmp_path, caplog) -> None:
    records, reads = data
    caplog.set_level(logging.INFO)
    settings = {"decoding": Decoding(max_new_tokens=12), "samples": 20, "clip_score": False}
    found = evaluate_captioner(captioner, records, [], reads, reads, **settings)
    found = replace(found, ledger=run_ledger(captioner, found.records, found.written, reads, 8, SETTINGS))
    assert "ledger of 8 captions: 520 captions drawn anew of 18 photographs" in caplog.text  # one of each patient
    metrics = write_evaluation(found, tmp_path / "run")
    assert json.loads((tmp_path / "run" / "metrics.json").read_text()) == metrics
    table = pd.read_parquet(tmp_path / "run" / "captions.parquet")
    known = table[table["ledger_word"].notna()]
    assert len(known) == 8 and list(known["image"]) == [records[row * 20 // 8].name for row in range(8)]
    for row in known.itertuples():
        assert list(row.ledger_word) == row.caption.split()[1::2]
        np.testing.assert_allclose(row.ledger_D + row.ledger_C + row.ledger_R, row.ledger_T, atol=1e-12)
        assert row.ledger_C[0] == 0 and abs(row.ledger_D[1]) < 1e-6
    bright = known[known["caption"].str.contains("melanoma")].iloc[0]
    assert list(bright.ledger_verdict) == [SEEN, FOLLOWS] and bright.ledger_carrier[1] == "red"
    words = pd.read_parquet(tmp_path / "run" / "ledger.parquet")
    assert len(words) == 16 and set(words["others"]) == {12}
    # Five patients have a melanoma and thirteen a scar.
    alike = words[words["place"] == 1].set_index("image")["same_D"]
    melanoma = known.set_index("image")["caption"].str.contains("melanoma")
    assert (alike.isna() == melanoma).all() and metrics["ledger"]["without_same_diagnosis"] == melanoma.sum()
    page = (tmp_path / "run" / "index.html").read_text()
    assert "What the words rest on: this photograph, or the words before" in page
    table = page.split("What the words rest on: this photograph")[1].split("</table>")[0]
    assert re.search(r"100 % \[\d+, 100\]", table) and not re.search(r"−0\.00\b", table)
    assert "follows from “red”" in page and "under 10, the last column is blank" in page


def test_an_evaluation_without_a_ledger_says_why(data) -> None:
    records, _ = data
    assert why_no_ledger(0, records, None) == "ledger=0"
    assert why_no_ledger(32, records[:10], None).startswith("10 patients, and a caption is compared")
    assert why_no_ledger(32, records, None) == ""


def test_an_explained_word_says_what_it_rests_on(data, tmp_path) -> None:
    records, _ = data
    tower = planted_captioner(WORDS, by_the_word)
    pixels = [tower.backbone.preprocess.read(record.image) for record in records]
    numbers = read_in_batches(tower, pixels)[:, 0]
    middle = float(numbers.median())
    captioner = planted_captioner(WORDS, lambda number, before: by_the_word(1.0 if number > middle else 0.0, before))
    bright = int(numbers.argmax())
    plan = LedgerPlan(tuple(record for record in records if record.group != "p17")[:14], SETTINGS)
    question, how = Question(("caption_word",)), Decoding(max_new_tokens=12)
    job = ExplanationJob(captioner.backbone, captioner, [Occlusion(window=1)], question, how, ledger=plan)
    store = ResultStore(tmp_path / "run")
    explain_photographs(job, [Photograph.of(records[bright])], store)
    found = collect(store, captioner.backbone, "")
    [ledger] = [result.ledger for _, result in store.results()]
    assert ledger == job.result(Photograph.of(records[bright])).ledger  # as it was stored, and drawn alike again
    assert [word.text for word in ledger.words] == ["red", "melanoma"] and ledger.others == 12
    assert [word.verdict for word in ledger.words] == [SEEN, FOLLOWS] and ledger.words[1].carrier == "red"
    assert found["ledger"]["photographs"] == 1 and found["ledger"]["kinds"][0]["total"]["n"] == 2
    page = (tmp_path / "run" / "index.html").read_text()
    assert "follows from “red”" in page and "This map explains the last part alone" in page


def test_a_followed_word_has_the_map_of_the_word_it_follows_from(data, tmp_path) -> None:
    records, _ = data
    tower = planted_captioner(WORDS, by_the_word)
    numbers = read_in_batches(tower, [tower.backbone.preprocess.read(record.image) for record in records])[:, 0]
    middle = float(numbers.median())

    def rule(number: float, before: tuple[str, ...]) -> Mapping[str, float]:
        """The colour's chance rises with the image's number, so that covering a place changes it a little."""
        red = 0.2 + 0.75 / (1 + math.exp(-50 * (number - middle)))
        return {"red": red, "black": 1 - red} if before[-1:] == ("a",) else by_the_word(1.0, before)

    captioner = planted_captioner(WORDS, rule)
    plan = LedgerPlan(tuple(records[:14]), SETTINGS)
    photograph = Photograph.of(records[int(numbers.argmax())])
    question, how = Question(("caption_total",)), Decoding(max_new_tokens=12)
    with pytest.raises(UserError, match="leave out ledger=0"):
        ExplanationJob(captioner.backbone, captioner, [Occlusion(window=1)], question, how)
    job = ExplanationJob(captioner.backbone, captioner, [Occlusion(window=1)], question, how, ledger=plan)
    result = job.result(photograph)
    answer = result.answers["caption_total"]
    [attribution] = answer.attributions
    assert [item.label for item in answer.items] == ["colour: red", "diagnosis: melanoma"]
    assert answer.score_name == TOTAL_EFFECT and result.ledger.shares(1) == {0: 1.0}
    colour, diagnosis = attribution.values[0]
    torch.testing.assert_close(diagnosis, colour * result.ledger.words[1].columns.carried.value, atol=1e-5, rtol=1e-4)
    assert colour.abs().sum() == pytest.approx(1, abs=1e-4)
    # Heat is held against the mask for the diagnosis alone, and the page opens on the word that follows from another.
    assert items_to_measure(answer) == [(1, "diagnosis, total effect")]
    store = ResultStore(tmp_path / "run")
    explain_photographs(job, [photograph], store)
    collect(store, captioner.backbone, "")
    assert '"first":1,' in (tmp_path / "run" / "index.html").read_text()


def test_other_patients_are_those_of_the_data_or_the_reader_is_told(captioner, data, tmp_path: Path) -> None:
    records, _ = data
    config = ExplainConfig(run_dir=str(tmp_path))
    plan, why = ledger_plan(config, tmp_path, records, captioner, False)
    assert plan is not None and not why and len({record.group for record in plan.records}) == 17
    assert f"{17 * 16} captions drawn of 17 other photographs" in plan.cost_in_words(1)
    few = ledger_plan(config, tmp_path, records[:FEWEST], captioner, False)
    assert few[0] is None and "data=NAME" in few[1]
    nobody = ledger_plan(config, tmp_path, [], captioner, False)  # a model that does not say what it was trained on
    assert nobody[0] is None and "here are 0" in nobody[1]
    assert ledger_plan(replace(config, ledger=0), tmp_path, records, captioner, False) == (None, "")
    assert ledger_plan(config, tmp_path, records, None, False) == (None, "")
    assert "retrieved captions" in ledger_plan(config, tmp_path, records, captioner, True)[1]
