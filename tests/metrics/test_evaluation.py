"""A planted captioner of known accuracy, judged beside planted baselines."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from clip_xai.data.vocabulary import load_vocabulary
from clip_xai.metrics.baselines import majority_captions, shuffled_rows
from clip_xai.metrics.caption_metrics import bleu, bleu_signature, rouge_l
from clip_xai.metrics.evaluation import ClipFeatures, evaluate_captions
from clip_xai.metrics.intervals import mean_interval
from clip_xai.metrics.results import (
    ACROSS,
    BLIND,
    MODEL,
    NEAREST,
    OVERALL,
    SHUFFLED,
    Comparison,
    MetricInfo,
)
from clip_xai.metrics.verdicts import verdicts
from tests.metrics.planted import Planted, planted_records

RECORDS = planted_records(80, seed=1, source="a") + planted_records(40, seed=2, source="b")
TRAIN = planted_records(60, seed=5, source="a") + planted_records(30, seed=6, source="b")
PERFECT = [record.caption for record in RECORDS]
BLIND_CAPTIONS = [majority_captions(RECORDS, TRAIN)[record.source] for record in RECORDS]
SHUFFLED_CAPTIONS = [PERFECT[row] for row in shuffled_rows([record.group for record in RECORDS])]


def test_shuffling_destroys_a_perfect_captioner() -> None:
    result = evaluate_captions({MODEL: PERFECT, SHUFFLED: SHUFFLED_CAPTIONS}, RECORDS, samples=200)
    for metric in ("diagnosis", "colour", "position"):
        perfect, shuffled = result.score(metric), result.score(metric, SHUFFLED)
        assert perfect is not None and shuffled is not None
        # All of 60 patients right: Clopper and Pearson's lower bound, and not 1.
        assert (perfect.value, perfect.low, perfect.high) == pytest.approx((1, 0.025 ** (1 / 60), 1))
        assert shuffled.value < 0.55 and shuffled.high < perfect.low
    assert result.score("bleu").value == pytest.approx(100)
    assert result.score("bleu", SHUFFLED).value < 80


def test_numbers_are_those_of_the_functions_for_every_scope() -> None:
    predictions = {MODEL: SHUFFLED_CAPTIONS, BLIND: BLIND_CAPTIONS}
    result = evaluate_captions(predictions, RECORDS, samples=100, seed=3)
    assert result.scopes == (OVERALL, "a", "b")
    for scope in result.scopes:
        rows = [i for i, record in enumerate(RECORDS) if scope in (OVERALL, record.source)]
        references = [RECORDS[i].references for i in rows]
        for system, captions in predictions.items():
            chosen = [captions[i] for i in rows]
            found = result.score("bleu", system, scope)
            assert found.n == len(rows)
            assert found.value == pytest.approx(bleu(chosen, references))
            expected = mean_interval(rouge_l(chosen, references), [RECORDS[i].group for i in rows], 100, 3)
            rouge = result.score("rouge_l", system, scope)
            assert (rouge.value, rouge.low, rouge.high, rouge.groups) == pytest.approx(
                (expected.value, expected.low, expected.high, expected.groups)
            )
    assert result.settings["BLEU"] == bleu_signature([record.references for record in RECORDS])


def test_a_model_that_sees_is_said_to_beat_the_blind_caption() -> None:
    result = evaluate_captions({MODEL: PERFECT, BLIND: BLIND_CAPTIONS}, RECORDS, samples=300)
    assert [verdict.warning for verdict in result.verdicts] == [False]
    assert result.verdicts[0].text == (
        "The model beats a caption that never saw the image on every measure (overall, n = 120)."
    )


def test_a_model_that_is_blind_is_told_so_first() -> None:
    result = evaluate_captions(
        {MODEL: BLIND_CAPTIONS, BLIND: BLIND_CAPTIONS, NEAREST: SHUFFLED_CAPTIONS}, RECORDS, samples=200
    )
    first = result.verdicts[0]
    assert first.warning
    assert first.text == "The model does not beat a caption that never saw the image on any measure (overall, n = 120)."
    assert [v.warning for v in result.verdicts] == sorted((v.warning for v in result.verdicts), reverse=True)
    assert result.to_markdown().splitlines()[2] == f"- **{first.text}**"


def test_verdicts_name_the_measures_and_the_source() -> None:
    metrics = [MetricInfo("bleu", "BLEU"), MetricInfo("colour", "colour"), MetricInfo("size", "size", judged=False)]
    comparisons = [
        Comparison(BLIND, OVERALL, "bleu", 50, 30, 3.0, 1.0, 5.0),
        Comparison(BLIND, OVERALL, "colour", 48, 10, 0.1, -0.1, 0.3),
        Comparison(BLIND, OVERALL, "size", 48, 30, -0.5, -0.6, -0.4),
        Comparison(BLIND, "ddi", "bleu", 12, 9.5, 9.0, 8.0, 10.0),
        Comparison(BLIND, "ddi", "colour", 12, 9.5, 9.0, 8.0, 10.0),
        Comparison(SHUFFLED, OVERALL, "bleu", 50, 30, 3.0, 1.0, 5.0),
        Comparison(SHUFFLED, "ddi", "bleu", 12, 9.5, 0.0, 0.0, 0.0),
        Comparison(ACROSS, OVERALL, "bleu", 50, 30, 3.0, 1.0, 5.0),
    ]
    skin = load_vocabulary("skin").groups
    assert [verdict.text for verdict in verdicts(comparisons, metrics, group_words=skin)] == [
        "The model does not beat a caption that never saw the image on colour (overall, n = 50); it does on BLEU.",
        "The model beats its own captions of other images of the same source on every measure (overall, n = 50).",
        "No verdict against a caption that never saw the image (ddi, n = 12): the photographs come from too few "
        "patients or lesions (effective number 9.5; 10 are needed).",
    ]


def test_what_is_not_measured_is_named_and_never_zero() -> None:
    result = evaluate_captions(
        {MODEL: PERFECT}, RECORDS, skipped={"BERTScore": "its model is not on this disk"}, samples=50
    )
    assert result.skipped["BERTScore"] == "its model is not on this disk"
    assert result.skipped["CLIPScore"] == "no CLIP model was given"
    assert result.skipped["border"] == "no record states the truth"
    keys = {metric.key for metric in result.metrics}
    assert not keys & {"bert_score", "clip_score", "border", "border_answered"}
    assert result.score("border") is None
    assert "BERTScore: its model is not on this disk" in result.to_markdown()


def test_rows_whose_reference_is_silent_do_not_count() -> None:
    silent = Planted("a", "silent", "a lesion", ("a lesion",), None)
    result = evaluate_captions({MODEL: [*PERFECT, "a red lesion"]}, [*RECORDS, silent], samples=50)
    assert result.score("colour").n == 120
    assert result.score("bleu").n == 121
    assert result.rows["colour"][-1] is None and result.rows["colour"][0] == 1.0
    assert result.score("colour_answered").value == 1
    assert result.undecided["colour"] == result.undecided["diagnosis"] == 1
    assert "colour: 1 of 121 photographs left out" in result.to_markdown()
    mute = evaluate_captions({MODEL: ["a lesion"] * 120}, RECORDS, samples=50)
    assert (mute.score("colour").value, mute.score("colour_answered").value) == (0, 0)
    keys = [metric.key for metric in mute.metrics]
    for key in ("diagnosis", "diagnosis_family", "diagnosis_malignancy", "colour", "position"):
        assert f"{key}_answered" in keys  # beside every accuracy stands how many answered


def test_a_wrong_answer_is_an_answer() -> None:
    wrong = {"melanoma": "psoriasis", "psoriasis": "melanoma"}
    captions = [record.caption for record in RECORDS]
    told = [f"this is {wrong.get(record.diagnosis, 'a lesion')}" for record in RECORDS]
    share = np.mean([record.diagnosis in wrong for record in RECORDS])
    for said, right, answered in ((captions, 1.0, 1.0), (told, 0.0, share)):
        result = evaluate_captions({MODEL: said}, RECORDS, samples=50)
        assert result.score("diagnosis").value == right
        assert result.score("diagnosis_answered").value == pytest.approx(answered)


def test_empty_captions_are_counted_and_said_first() -> None:
    result = evaluate_captions(
        {MODEL: [*PERFECT[:-2], "", " \n"], BLIND: BLIND_CAPTIONS}, RECORDS, cautions=["Six steps."], samples=50
    )
    assert [verdict.text for verdict in result.verdicts[:2]] == [
        "2 of 120 captions of the model are empty: they count, and are right in nothing.",
        "Six steps.",
    ]
    assert result.verdicts[0].warning and result.verdicts[1].warning
    assert result.empty == {MODEL: 2, BLIND: 0} and result.summary()["empty_captions"] == 2
    assert result.to_dict()["empty_captions"][MODEL] == 2
    none = evaluate_captions({MODEL: PERFECT}, RECORDS, samples=50)
    assert none.summary()["empty_captions"] == 0 and not any("empty" in verdict.text for verdict in none.verdicts)


def test_few_patients_get_numbers_and_no_verdict() -> None:
    """Nine patients right in all, a baseline wrong in all: still no verdict, but the exact bounds of the share."""
    few = RECORDS[:18]
    result = evaluate_captions({MODEL: PERFECT[:18], BLIND: ["a lesion"] * 18}, few, samples=200)
    reason = "the photographs come from too few patients or lesions (effective number 9; 10 are needed)."
    assert [verdict.text for verdict in result.verdicts] == [
        f"No verdict against a caption that never saw the image ({scope}, n = 18): {reason}" for scope in (OVERALL, "a")
    ]
    score = result.score("diagnosis", BLIND)
    assert (score.value, score.low, score.high) == pytest.approx((0, 0, 1 - 0.025 ** (1 / 9)))
    assert np.isnan(result.score("rouge_l", BLIND).low) and result.score("rouge_l", BLIND).n == 18


def test_a_baseline_without_a_caption_for_some_rows_is_compared_on_the_others() -> None:
    """Source b could not be shuffled: its rows take no part in this baseline, neither its score nor the difference."""
    shuffled = [*SHUFFLED_CAPTIONS[:80], *[None] * 40]
    result = evaluate_captions({MODEL: PERFECT, BLIND: BLIND_CAPTIONS, SHUFFLED: shuffled}, RECORDS, samples=100)
    alone = evaluate_captions({MODEL: PERFECT[:80], SHUFFLED: shuffled[:80]}, RECORDS[:80], samples=100)
    for metric in ("bleu", "rouge_l", "diagnosis"):
        assert result.score(metric, SHUFFLED) == alone.score(metric, SHUFFLED)
        assert result.score(metric).n == result.score(metric, BLIND).n == 120
        assert result.score(metric, SHUFFLED, "b") is None
    theirs = {c.metric: c for c in alone.comparisons if c.scope == OVERALL}
    ours = {c.metric: c for c in result.comparisons if c.scope == OVERALL and c.baseline == SHUFFLED}
    assert ours == theirs
    assert [score.system for score in result.scores if score.scope == OVERALL and score.metric == "bleu"] == [
        MODEL, BLIND, SHUFFLED,
    ]  # fmt: skip


def test_differences_are_of_paired_draws() -> None:
    """Both systems err on the same patients: the interval of the difference is far narrower than either score's."""
    generator = np.random.default_rng(0)
    records = planted_records(120, seed=9)
    hard = np.repeat(generator.random(60) < 0.5, 2)
    model = ["a lesion" if h else r.caption for h, r in zip(hard, records, strict=True)]
    other = ["a lesion" if h or i % 7 == 0 else r.caption for i, (h, r) in enumerate(zip(hard, records, strict=True))]
    result = evaluate_captions({MODEL: model, BLIND: other}, records, samples=2000)
    [gap] = [c for c in result.comparisons if c.scope == OVERALL and c.metric == "diagnosis"]
    score = result.score("diagnosis")
    missed = np.array([m != o for m, o in zip(model, other, strict=True)]).reshape(60, 2).mean(axis=1)
    closed_form = 2 * 2.0 * missed.std(ddof=1) / np.sqrt(60)
    assert gap.difference == pytest.approx(missed.mean())
    assert gap.high - gap.low == pytest.approx(closed_form, rel=0.15)
    assert gap.high - gap.low < 0.5 * (score.high - score.low)


def test_what_is_read_with_english_words_does_not_apply_to_other_scripts() -> None:
    texts = ["红色斑块", "褐色丘疹"] * 10
    records = [Planted("s", str(i), text, (text,), "psoriasis") for i, text in enumerate(texts)]
    result = evaluate_captions({MODEL: texts}, records, samples=50)
    assert result.summary()["bleu"] == pytest.approx(100) and result.summary()["rouge_l"] == 1
    assert "diagnosis" not in result.summary() and "English words" in result.skipped["diagnosis and attributes"]


def test_labels_of_one_word_are_judged_by_single_words_and_it_is_said() -> None:
    records = [Planted("s", str(i), name, (name,), name) for i, name in enumerate(["melanoma", "psoriasis"] * 10)]
    result = evaluate_captions({MODEL: [record.caption for record in records]}, records, samples=50)
    assert result.summary()["bleu"] == pytest.approx(100)
    assert result.skipped["BLEU-4 (overall)"].endswith("BLEU-1 is shown")


def test_clip_score_follows_the_features() -> None:
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(120, 16, generator=generator)
    by_caption: dict[str, torch.Tensor] = {}
    for caption, image in zip(PERFECT, images, strict=True):
        by_caption[caption] = by_caption.get(caption, torch.zeros(16)) + 5 * image
    clip = ClipFeatures("planted", images, lambda texts: torch.stack([by_caption[text] for text in texts]))
    result = evaluate_captions({MODEL: PERFECT, SHUFFLED: SHUFFLED_CAPTIONS}, RECORDS, clip=clip, samples=100)
    cosines = [torch.cosine_similarity(image, by_caption[t], dim=0) for t, image in zip(PERFECT, images, strict=True)]
    expected = np.mean([max(100 * float(cosine), 0) for cosine in cosines])
    assert result.score("clip_score").value == pytest.approx(expected, abs=1e-3)
    assert result.score("clip_score", SHUFFLED).high < result.score("clip_score").low
    assert result.settings["CLIPScore"].startswith("planted|")


def test_each_scope_and_measure_is_clustered_by_its_own_patients() -> None:
    """Sources photograph a patient once or five times; rows that a measure leaves out are not patients of its."""
    silent = [Planted("a", f"silent {i}", "a lesion", ("a lesion",), None) for i in range(12)]
    records = [*silent, *planted_records(30, source="a", per_group=1), *planted_records(60, source="b", per_group=5)]
    captions = [record.caption if i % 3 else "a lesion" for i, record in enumerate(records)]
    result = evaluate_captions({MODEL: captions, BLIND: ["a lesion"] * len(records)}, records, samples=300)
    for scope, sources, patients in (("a", "a", 30), ("b", "b", 12), (OVERALL, "ab", 42)):
        score = result.score("diagnosis", scope=scope)
        assert score.groups == patients
        assert result.score("rouge_l", scope=scope).groups == patients + 12 * ("a" in sources)
        rows = [i for i, record in enumerate(records) if record.source in sources and record.diagnosis]
        right = [float(captions[i] != "a lesion") for i in rows]
        expected = mean_interval(right, [records[i].group for i in rows], 300, span=(0, 1), share=True)
        assert (score.low, score.high) == pytest.approx((expected.low, expected.high))
        [gap] = [c for c in result.comparisons if c.scope == scope and c.metric == "diagnosis"]
        assert gap.clusters == pytest.approx(expected.clusters)


def test_intervals_are_clustered() -> None:
    # Half of the groups are wholly right, half wholly wrong: 20 groups of 4 rows are 20 draws, not 80.
    records = planted_records(80, seed=1, per_group=4)
    captions = [r.caption if (i // 4) % 2 else "a lesion" for i, r in enumerate(records)]
    score = evaluate_captions({MODEL: captions}, records, samples=4000).score("diagnosis")
    assert score.high - score.low == pytest.approx(2 * 2.09 * np.sqrt(0.25 / 19), rel=0.1)


def test_json_and_tables_hold_the_same_numbers() -> None:
    single = planted_records(2, per_group=2)
    result = evaluate_captions({MODEL: [r.caption for r in single]}, single, samples=20)
    read = json.loads(json.dumps(result.to_dict(), allow_nan=False))
    assert read["summary"]["diagnosis"] == 1.0
    assert read["scores"][0]["low"] is None  # one patient: no interval, and no NaN in JSON
    assert len(read["scores"]) == len(result.scores)


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(ValueError, match="no system 'model'"):
        evaluate_captions({BLIND: PERFECT}, RECORDS)
    with pytest.raises(ValueError, match="'nearest' has 1 captions for 120"):
        evaluate_captions({MODEL: PERFECT, NEAREST: ["a"]}, RECORDS)
    with pytest.raises(ValueError, match="no records"):
        evaluate_captions({MODEL: []}, [])
