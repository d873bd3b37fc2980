"""BLEU against sacrebleu, ROUGE-L against a slow longest common subsequence, CLIPScore against the formula."""

from __future__ import annotations

import numpy as np
import pytest
import sacrebleu
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from rouge_score.rouge_scorer import RougeScorer
from torchmetrics.functional.text import sacre_bleu_score

from clip_xai.metrics.captions import (
    BertScore,
    ClipScore,
    CorpusBleu,
    RougeL,
    bert_score,
    bleu,
    bleu_from_statistics,
    bleu_signature,
    bleu_statistics,
    clip_score,
    rouge_l,
)

CAPTIONS = [
    "A small red lesion in the upper left, with a sharp border.",
    "this image shows a large brown lesion",
    "psoriasis",
    "on dark skin, a round lesion lies in the centre; it is small.",
]
REFERENCES = [
    [
        "A small red lesion in the upper left with scale.",
        "the upper left shows a small, red lesion with a sharp border",
    ],
    ["this image shows a large dark brown lesion", "a large lesion, brown", "one big brown lesion"],
    ["psoriasis vulgaris on light skin"],
    ["on dark skin a round lesion lies in the centre; it is small."],
]
WORDS = st.lists(
    st.sampled_from(["a", "red", "brown", "lesion", "lies", "in", "the", "centre", "."]), min_size=0, max_size=9
)


def raw_bleu(captions: list[str], references: list[list[str]]) -> float:
    """Corpus BLEU of the raw strings, straight from sacrebleu."""
    most = max(map(len, references))
    streams = [[options[place] if place < len(options) else None for options in references] for place in range(most)]
    return sacrebleu.corpus_bleu(captions, streams).score


def test_bleu_is_sacrebleu_with_several_references() -> None:
    assert bleu(CAPTIONS, REFERENCES) == pytest.approx(raw_bleu(CAPTIONS, REFERENCES), abs=1e-9)
    three = [(options * 3)[:3] for options in REFERENCES]
    assert bleu(CAPTIONS, three) == pytest.approx(float(100 * sacre_bleu_score(CAPTIONS, three)), abs=1e-3)


def test_signature_names_the_references_and_the_tokens() -> None:
    assert bleu_signature([["a", "b", "c"]] * 2).startswith("nrefs:3|case:mixed|eff:no|tok:13a|smooth:exp|version:")
    assert bleu_signature(REFERENCES).startswith("nrefs:var|")


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(WORDS, WORDS, WORDS), min_size=1, max_size=5))
def test_bleu_from_summed_statistics_is_corpus_bleu(corpus: list[tuple[list[str], list[str], list[str]]]) -> None:
    captions = [" ".join(words) for words, _, _ in corpus]
    references = [[" ".join(first) + " lesion", " ".join(second)] for _, first, second in corpus]
    sums = bleu_statistics(captions, references).sum(axis=0)
    assert float(bleu_from_statistics(sums)) == pytest.approx(raw_bleu(captions, references), abs=1e-9)


def test_bleu_from_statistics_takes_many_corpora_at_once() -> None:
    statistics = bleu_statistics(CAPTIONS, REFERENCES)
    together = bleu_from_statistics(np.stack([statistics.sum(axis=0), statistics[:2].sum(axis=0)]))
    apart = [raw_bleu(CAPTIONS, REFERENCES), raw_bleu(CAPTIONS[:2], REFERENCES[:2])]
    assert together == pytest.approx(apart, abs=1e-9)


def test_bleu_metric_reduces_over_processes_to_the_corpus_value() -> None:
    here, there = CorpusBleu(), CorpusBleu()
    here.update(CAPTIONS[:1], REFERENCES[:1])
    there.update(CAPTIONS[1:], REFERENCES[1:])
    # What torchmetrics does on several devices: reduce each state with its function.
    joined = CorpusBleu()
    joined.statistics = here._reductions["statistics"](torch.stack([here.statistics, there.statistics]))
    joined._update_count = 1
    assert joined.compute().item() == pytest.approx(raw_bleu(CAPTIONS, REFERENCES), abs=1e-4)
    assert joined.compute().item() != pytest.approx((here.compute() + there.compute()).item() / 2, abs=1)


def slow_rouge_l(caption: str, reference: str) -> float:
    """F1 of the longest common subsequence, by the definition, without stemming."""
    first, second = caption.split(), reference.split()
    table = [[0] * (len(second) + 1) for _ in range(len(first) + 1)]
    for i, left in enumerate(first):
        for j, right in enumerate(second):
            table[i + 1][j + 1] = table[i][j] + 1 if left == right else max(table[i][j + 1], table[i + 1][j])
    common = table[-1][-1]
    return 2 * common / (len(first) + len(second)) if common else 0.0


def test_rouge_l_takes_the_best_reference() -> None:
    scorer = RougeScorer(["rougeLsum"], use_stemmer=True)
    expected = [
        max(scorer.score(option, caption)["rougeLsum"].fmeasure for option in options)
        for caption, options in zip(CAPTIONS, REFERENCES, strict=True)
    ]
    assert rouge_l(CAPTIONS, REFERENCES) == pytest.approx(expected)
    caption, references = "red skin at the left", ["at the left red skin", "red dots at the far left"]
    slow = max(slow_rouge_l(caption, option) for option in references)
    assert rouge_l([caption], [references]) == pytest.approx([slow])


def test_rouge_metric_is_the_mean_over_captions_not_over_batches() -> None:
    metric = RougeL()
    metric.update(CAPTIONS[:1], REFERENCES[:1])
    metric.update(CAPTIONS[1:], REFERENCES[1:])
    assert metric.compute().item() == pytest.approx(rouge_l(CAPTIONS, REFERENCES).mean(), abs=1e-6)


def test_clip_score_is_a_hundred_times_the_positive_cosine() -> None:
    images = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.6, 0.8]])
    texts = torch.tensor([[0.6, 0.8], [-1.0, 0.0], [0.6, 0.8]])
    assert clip_score(images, texts).tolist() == pytest.approx([60.0, 0.0, 100.0])
    metric = ClipScore()
    metric.update(images[:1], texts[:1])
    metric.update(images[1:], texts[1:])
    assert metric.compute().item() == pytest.approx(160 / 3, abs=1e-4)
    with pytest.raises(ValueError, match="not normalised"):
        clip_score(2 * images, texts)
    with pytest.raises(ValueError, match=r"\[N, D\]"):
        clip_score(images, texts[:2])


class LengthScorer:
    """Stands for any scorer: the share of the longest reference's length."""

    settings = "length"

    def __call__(self, captions: list[str], references: list[list[str]]) -> np.ndarray:
        return np.array([len(c) / max(map(len, r)) for c, r in zip(captions, references, strict=True)])


def test_bert_score_asks_the_scorer_it_is_given() -> None:
    metric = BertScore(LengthScorer())
    metric.update(["ab"], [["abcd"]])
    metric.update(["abc", "a"], [["abc"], ["abcd", "ab"]])
    expected = bert_score(["ab", "abc", "a"], [["abcd"], ["abc"], ["abcd", "ab"]], LengthScorer())
    assert metric.compute().item() == pytest.approx(expected.mean())


@pytest.mark.parametrize("metric", [CorpusBleu, RougeL])
def test_captions_without_references_are_refused(metric: type) -> None:
    with pytest.raises(ValueError, match="at least one reference"):
        metric().update(["a"], [[]])
    with pytest.raises(ValueError, match="2 captions stand against 1"):
        metric().update(["a", "b"], [["a"]])
    with pytest.raises(ValueError, match="no captions"):
        metric().update([], [])


def test_a_string_in_place_of_a_list_of_references_is_refused() -> None:
    with pytest.raises(ValueError, match="a list"):
        bleu(["a"], ["a"])  # type: ignore[list-item]


def test_an_empty_caption_scores_nothing_and_breaks_nothing() -> None:
    assert bleu([""], [["a red lesion"]]) == 0
    assert rouge_l([""], [["a red lesion"]]).tolist() == [0.0]
