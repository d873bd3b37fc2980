"""Baselines with planted answers, and a brute-force search for the majority caption."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from clip_xai.data.lexicon import read_diagnosis
from clip_xai.errors import UserError
from clip_xai.metrics.baselines import (
    majority_caption,
    majority_captions,
    nearest_training_rows,
    shuffled_rows,
    shuffled_within_sources,
)
from clip_xai.metrics.caption_metrics import bleu
from tests.metrics.planted import Planted, planted_records


def test_majority_caption_is_the_best_constant_answer_with_the_majority_diagnosis() -> None:
    train = planted_records(40, seed=3)
    train += [r for r in planted_records(60, seed=4) if r.diagnosis == "psoriasis"]
    candidates = sorted({record.caption for record in train if record.diagnosis == "psoriasis"})
    references = [record.references for record in train]
    scores = [bleu([candidate] * len(train), references) for candidate in candidates]
    assert majority_caption(train) == candidates[int(np.argmax(scores))]


def test_majority_caption_says_the_majority_diagnosis_even_where_others_are_more_alike() -> None:
    alike = [Planted("s", f"a{i}", t, (t,), "eczema") for i, t in enumerate(["this is eczema, seen here often"] * 4)]
    texts = ["psoriasis", "red skin and psoriasis", "one sees psoriasis", "scaly psoriasis", "is it psoriasis?"]
    rare = [Planted("s", f"b{i}", t, (t,), "psoriasis") for i, t in enumerate(texts)]
    assert read_diagnosis(majority_caption(alike + rare)) == "psoriasis"


def test_majority_caption_without_any_diagnosis_is_the_best_constant_answer() -> None:
    texts = ["a red spot on the arm", "a red spot on the leg", "a red spot on the leg", "hair"]
    train = [Planted("s", str(i), text, (text,), None) for i, text in enumerate(texts)]
    assert majority_caption(train) == "a red spot on the leg"


def test_each_source_answers_in_its_own_style() -> None:
    train = [Planted("a", f"a{i}", "Diagnosis: melanoma.", ("Diagnosis: melanoma.",), "melanoma") for i in range(5)]
    train += [Planted("b", f"b{i}", "looks like a mole", ("looks like a mole",), "melanocytic nevus") for i in range(3)]
    records = [Planted(source, "x", "", ("",), None) for source in ("b", "a", "c")]
    found = majority_captions(records, train)
    assert (found["a"], found["b"]) == ("Diagnosis: melanoma.", "looks like a mole")
    assert found["c"] == "Diagnosis: melanoma."  # a source never trained on gets what all training records say


def test_nearest_row_passes_over_the_same_group_and_the_same_file() -> None:
    train = planted_records(4, per_group=1)
    train_features = torch.tensor([[1.0, 0.0], [0.99, 0.1], [0.9, 0.4], [0.0, 1.0]])
    query = torch.tensor([[3.0, 0.0]])
    plain = Planted("q", "elsewhere", "", ("",), None, "other")
    same_group = Planted("q", train[0].group, "", ("",), None, "other")
    same_both = Planted("q", train[0].group, "", ("",), None, train[1].sha256)
    for record, expected in ((plain, 0), (same_group, 1), (same_both, 2)):
        assert nearest_training_rows(query, train_features, [record], train).tolist() == [expected]
    with pytest.raises(UserError, match=r"no training photograph of another group"):
        nearest_training_rows(query, train_features[:1], [same_group], train[:1])
    with pytest.raises(UserError, match="needs training records"):
        nearest_training_rows(query, train_features[:0], [plain], [])


def test_files_without_a_digest_are_no_duplicates_of_each_other() -> None:
    train = [Planted("t", f"t{i}", "", ("",), None, None) for i in range(2)]
    record = Planted("q", "q", "", ("",), None, None)
    assert nearest_training_rows(torch.eye(2)[:1], torch.eye(2), [record], train).tolist() == [0]


def test_nearest_rows_agree_with_a_plain_loop() -> None:
    generator = torch.Generator().manual_seed(0)
    features, train_features = torch.randn(30, 8, generator=generator), torch.randn(50, 8, generator=generator)
    records, train = planted_records(30, seed=1), planted_records(50, seed=1)  # groups and digests are shared
    found = nearest_training_rows(features, train_features, records, train)
    for row, record in enumerate(records):
        allowed = [t for t in range(50) if train[t].group != record.group and train[t].sha256 != record.sha256]
        cosine = {t: torch.cosine_similarity(features[row], train_features[t], dim=0).item() for t in allowed}
        assert found[row] == max(cosine, key=cosine.__getitem__)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.integers(0, 6), min_size=2, max_size=40), st.integers(0, 3))
def test_shuffling_leaves_no_row_in_its_group(numbers: list[int], seed: int) -> None:
    groups = [f"g{number}" for number in numbers]
    largest = max(groups.count(group) for group in groups)
    if 2 * largest > len(groups):
        with pytest.raises(UserError, match="cannot be shuffled"):
            shuffled_rows(groups, seed)
        return
    rows = shuffled_rows(groups, seed)
    assert sorted(rows.tolist()) == list(range(len(groups)))
    assert all(groups[row] != group for row, group in zip(rows, groups, strict=True))
    assert rows.tolist() == shuffled_rows(groups, seed).tolist()


def test_shuffling_within_sources_stays_within_them() -> None:
    sources = ["a"] * 8 + ["b"] * 6 + ["c"] * 2
    groups = [f"{source}{number // 2}" for number, source in enumerate(sources)]
    rows, reasons = shuffled_within_sources(groups, sources, seed=4)
    assert rows[14:].tolist() == [-1, -1] and list(reasons) == ["c"]  # one patient: nothing to shuffle with
    assert "2 of 2 photographs" in reasons["c"]
    assert sorted(rows[:8]) == list(range(8)) and sorted(rows[8:14]) == list(range(8, 14))
    assert all(groups[row] != group for row, group in zip(rows[:14], groups[:14], strict=True))


def test_a_captioner_that_knows_the_source_alone_does_not_beat_its_shuffled_captions() -> None:
    """It gives every photograph of a source the same caption: across sources it 'wins', within them it ties."""
    records = planted_records(40, seed=1, source="a") + [
        replace(r, references=("Diagnosis: unknown.",), caption="Diagnosis: unknown.")
        for r in planted_records(40, seed=2, source="b")
    ]
    captions = [records[0].caption if r.source == "a" else "Diagnosis: unknown." for r in records]
    groups, sources = [r.group for r in records], [r.source for r in records]
    references = [r.references for r in records]
    within, _ = shuffled_within_sources(groups, sources)
    across = shuffled_rows(groups)
    score = bleu(captions, references)
    assert bleu([captions[row] for row in within], references) == pytest.approx(score)
    assert bleu([captions[row] for row in across], references) < score - 10


def test_every_other_group_may_come() -> None:
    groups = ["a", "a", "b", "b", "c", "c"]
    partners = {groups[shuffled_rows(groups, seed)[0]] for seed in range(30)}
    assert partners == {"b", "c"}
