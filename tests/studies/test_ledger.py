"""The ledger's study: its captions say what was planted, its measures are those of slow loops."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.metrics import roc_auc_score

from clip_xai.data.synthetic.describe import facets
from clip_xai.data.synthetic.parts import sample_scene
from clip_xai.data.vocabulary import Vocabulary
from clip_xai.errors import UserError
from clip_xai.explanations.causes.scenes import fresh_seeds
from clip_xai.studies.ledger import settings_of, study, tables_of
from clip_xai.studies.ledger_captioners import (
    AGE,
    AGES,
    FIRST,
    LAST,
    SEX,
    Pictures,
    captions_of,
    patient,
    vocabulary_with_patients,
)
from clip_xai.studies.ledger_measures import (
    KINDS,
    RATES,
    area,
    area_at_equal_rates,
    area_of_shuffled,
    calibrated,
    fitted_temperature,
    measured_swaps,
    median_interval,
    shares_of,
    tempered,
)
from clip_xai.xai.slots import stated_in


@pytest.fixture(scope="module")
def vocabulary(tmp_path_factory: pytest.TempPathFactory) -> Vocabulary:
    return vocabulary_with_patients(tmp_path_factory.mktemp("vocabulary"))


@pytest.mark.parametrize("order", [FIRST, LAST])
def test_captions_state_the_scene_and_a_patient_drawn_by_lot(vocabulary: Vocabulary, order: str) -> None:
    drawn: Counter[str] = Counter()
    lot = np.random.default_rng(0)
    for seed in fresh_seeds(40, 9):
        scene = sample_scene(seed)
        truth = {(kind, value) for kind, value in facets(scene).items() if kind != "structures"}
        truth |= {("structures", name) for name in scene.structures}
        said = [stated_in(f"{patient(lot)} {text}", vocabulary) for text in captions_of(scene, order)]
        for one in said:
            drawn_by_lot = {(kind, value) for kind, value in one if kind in (AGE, SEX)}
            assert one - drawn_by_lot == truth and len(drawn_by_lot) == 2
            drawn.update(value for _, value in drawn_by_lot)
        before = [text.lower().index(scene.diagnosis) < text.index(" lesion") for text in captions_of(scene, order)]
        assert set(before) == {order == FIRST}
    assert drawn["male"] + drawn["female"] == 160 and drawn["elderly"] > drawn["infant"]
    assert sum(AGES.values()) == pytest.approx(1)


def words(seed: int, lead: float) -> pd.DataFrame:
    """Four hundred words of eighty scenes; those that are drawn score higher by ``lead`` standard deviations."""
    generator = np.random.default_rng(seed)
    drawn = generator.random(400) < 0.7
    return pd.DataFrame(
        {"scene": np.repeat(np.arange(80), 5), "drawn": drawn, "base": generator.beta(2, 4, 400),
         "score": generator.normal(size=400) + lead * drawn}
    )  # fmt: skip


def test_areas_are_shares_of_pairs_in_the_right_order() -> None:
    table = words(0, 1.0)
    scores, hits = table["score"].to_numpy(), table["drawn"].to_numpy()
    slow = np.mean([[one > two for two in scores[~hits]] for one in scores[hits]])
    found = area(scores, hits, table["scene"].to_numpy(), seed=0)
    assert found.value == pytest.approx(slow) and found.low < slow < found.high and found.groups == 80
    bins = np.digitize(table["base"], RATES[1:-1])
    pairs = [
        one > two
        for one, first in zip(scores[hits], bins[hits], strict=True)
        for two, second in zip(scores[~hits], bins[~hits], strict=True)
        if first == second
    ]
    equal, beside = area_at_equal_rates(table, scores, hits, seed=0)
    assert equal.value == pytest.approx(np.mean(pairs)) and equal.low < equal.value < equal.high
    both = [one for one in set(bins) if len(set(hits[bins == one])) == 2]
    assert beside == np.isin(bins, both).sum()
    nothing = words(1, 0.0)
    chance = area(nothing["score"].to_numpy(), nothing["drawn"].to_numpy(), nothing["scene"].to_numpy(), seed=0)
    assert chance.low < 0.5 < chance.high
    apart = table.assign(base=np.where(hits, 0.05, 0.7))  # no two words of one base rate
    assert np.isnan(area_at_equal_rates(apart, scores, hits, seed=0)[0].value)
    for of_one_kind in (area, area_of_shuffled):
        assert np.isnan(of_one_kind(scores[hits], hits[hits], table["scene"].to_numpy()[hits], seed=0).value)
    assert np.isnan(median_interval(np.empty(0), seed=0).value)
    dealt = area_of_shuffled(np.round(scores, 1), hits, table["scene"].to_numpy(), seed=0)
    lot = np.random.default_rng(5)
    known = [roc_auc_score(hits, lot.permutation(np.round(scores, 1))) for _ in range(300)]
    low, high = np.quantile(known, (0.025, 0.975))
    assert (dealt.value, dealt.low, dealt.high) == pytest.approx((0.5, low, high), abs=0.015)
    middle = median_interval(np.arange(101.0), seed=0)
    assert middle.value == 50 and middle.low < 50 < middle.high


def test_one_temperature_mends_shares_that_are_too_sure(vocabulary: Vocabulary) -> None:
    """Values are right as often as the square roots of their shares say: far less often than the shares."""
    generator = np.random.default_rng(0)
    scenes = tuple(sample_scene(seed) for seed in fresh_seeds(200, 3))
    honest = np.sqrt(0.9) / (np.sqrt(0.9) + np.sqrt(0.1))
    stated = []
    for scene in scenes:
        one: Counter[tuple[str, str]] = Counter()
        for kind in KINDS:
            true = facets(scene)[kind]
            values = vocabulary.diagnoses if kind == "diagnosis" else vocabulary.attributes[kind]
            wrong = [value for value in values if kind != "diagnosis" or not vocabulary.agree(value, true)]
            other = str(generator.choice([value for value in wrong if value != true]))
            right = generator.random() < honest
            one[kind, true if right else other] = 180
            one[kind, other if right else true] = 20
        stated.append(one)
    tested = Pictures(scenes, torch.zeros(len(scenes), 1))
    temperature = fitted_temperature(stated, tested, 200, vocabulary)
    right = np.mean([one[kind, facets(scene)[kind]] == 180 for one, scene in zip(stated, scenes, strict=True)
                     for kind in KINDS])  # fmt: skip
    shares = np.array([180.5, 20.5, 0.5]) / 201.5  # the last is that none is stated, which a temperature raises, too
    grid = np.linspace(1, 4, 3001)
    powers = shares[:, None] ** (1 / grid)
    likely = right * np.log(powers[0] / powers.sum(axis=0)) + (1 - right) * np.log(powers[1] / powers.sum(axis=0))
    assert temperature == pytest.approx(grid[likely.argmax()], abs=0.01)
    before = calibrated(stated, tested, 200, vocabulary, 1.0, seed=0)
    after = calibrated(stated, tested, 200, vocabulary, temperature, seed=0)
    assert np.mean([one.value for one in after.values()]) < np.mean([one.value for one in before.values()]) - 0.05
    found = shares_of(Counter({("colour", "red"): 7, ("colour", "pink"): 1}), 10, "colour", vocabulary)
    assert found == {"red": 7.5 / 11.5, "pink": 1.5 / 11.5, "": 2.5 / 11.5}
    assert tempered({"a": 0.9, "b": 0.1}, 2.0)["a"] == pytest.approx(0.75)


def test_swaps_of_the_credited_word_stand_beside_those_of_others() -> None:
    rows = [(scene, "structures", True, 3.0, 1.0) for scene in range(12)]
    rows += [(scene, "colour", False, float(scene % 2), 0.0) for scene in range(12)]
    table = pd.DataFrame(rows, columns=["scene", "kind", "credited", "change", "lost"])
    found = measured_swaps(table, seed=0)
    assert found["credited"]["change"]["value"] == 3 and found["credited"]["structures"] == 1
    assert found["others"]["change"]["value"] == 0.5 and found["others"]["structures"] == 0
    assert found["credited"]["lost"]["value"] == 1 and found["others"]["lost"]["high"] < 0.5
    nothing = measured_swaps(table[table["credited"]], seed=0)["others"]
    assert nothing["n"] == 0 and np.isnan(nothing["change"]["value"])


def test_settings_that_are_none_are_refused() -> None:
    assert settings_of(["scenes=30", "run_dir=x"]).scenes == 30 and settings_of([]).run_dir.startswith("runs/ledger/")
    for wrong, said in (("scene=3", "choose one of"), ("scenes=few", "whole number"), ("scenes=2", "at least 20")):
        with pytest.raises(UserError, match=said):
            settings_of([wrong])


@pytest.mark.slow
def test_the_study_runs_and_goes_on_where_it_stopped(tmp_path: Path) -> None:
    settings = settings_of(["scenes=20", "training=64", "epochs=4", f"run_dir={tmp_path / 'run'}"])
    found, tables = study(settings)
    assert len(tables) == 3 and set(found) == {FIRST, LAST, "swaps", "calibration"}
    # Without what was measured of one, it is measured anew with the captioner that is there.
    (tmp_path / "run" / "diagnosis_last.json").unlink()
    again, _ = study(settings)
    assert again[LAST]["area"] == found[LAST]["area"] and tables_of(found, settings)[0].head == ("measure", FIRST, LAST)
