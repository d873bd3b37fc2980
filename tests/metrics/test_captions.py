"""BLEU against sacrebleu, ROUGE-L against a slow longest common subsequence, CLIPScore against the formula."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import sacrebleu
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from rouge_score.rouge_scorer import RougeScorer
from torchmetrics.functional.text import sacre_bleu_score

from clip_xai.errors import UserError
from clip_xai.metrics.caption_metrics import (
    bert_score,
    bleu,
    bleu_from_statistics,
    bleu_order,
    bleu_signature,
    bleu_statistics,
    clip_score,
    rouge_l,
    rouge_settings,
)
from clip_xai.metrics.tokens import tokenizers_of

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
    longer = " a lesion lies here"  # four tokens at least: shorter references have their own test
    references = [[" ".join(first) + longer, " ".join(second) + longer] for _, first, second in corpus]
    sums = bleu_statistics(captions, references).sum(axis=0)
    assert float(bleu_from_statistics(sums)) == pytest.approx(raw_bleu(captions, references), abs=1e-9)


def test_bleu_from_statistics_takes_many_corpora_at_once() -> None:
    statistics = bleu_statistics(CAPTIONS, REFERENCES)
    together = bleu_from_statistics(np.stack([statistics.sum(axis=0), statistics[:2].sum(axis=0)]))
    apart = [raw_bleu(CAPTIONS, REFERENCES), raw_bleu(CAPTIONS[:2], REFERENCES[:2])]
    assert together == pytest.approx(apart, abs=1e-9)


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


def test_clip_score_is_a_hundred_times_the_positive_cosine() -> None:
    images = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.6, 0.8]])
    texts = torch.tensor([[0.6, 0.8], [-1.0, 0.0], [0.6, 0.8]])
    assert clip_score(images, texts).tolist() == pytest.approx([60.0, 0.0, 100.0])
    with pytest.raises(ValueError, match="not normalised"):
        clip_score(2 * images, texts)
    with pytest.raises(ValueError, match=r"\[N, D\]"):
        clip_score(images, texts[:2])


SAME = {
    "English": "a red scaly plaque on the left arm",
    "Chinese": "左臂有一块红色鳞屑性斑块",
    "Japanese": "左腕に赤い鱗屑を伴う局面があります",
    "Thai": "ผื่นแดงมีขุยที่แขนซ้าย",
    "Russian": "красная шелушащаяся бляшка на левой руке",
    "Arabic": "لويحة حمراء متقشرة على الذراع الأيسر",
    "German": "größere rötliche Plaque am Übergang zum Arm",
    "one word": "melanoma",
    "two words": "red plaque",
    "one character": "痣",
}


@pytest.mark.parametrize("language", sorted(SAME))
def test_a_caption_that_is_its_reference_has_the_full_score(language: str) -> None:
    same = SAME[language]
    assert bleu([same] * 3, [(same,)] * 3) == pytest.approx(100)
    assert rouge_l([same] * 3, [(same,)] * 3).tolist() == [1, 1, 1]
    assert bleu([same], [(same,)]) == pytest.approx(100) and rouge_l([same], [(same,)]).tolist() == [1]
    assert bleu(["xyz"] * 3, [(same,)] * 3) == 0


def test_each_script_has_the_tokenizer_that_sacrebleu_has_for_it() -> None:
    texts = ["red plaque of BCC", "红色斑块BCC", "красная бляшка", "ผื่นแดง", "赤い局面"]
    assert tokenizers_of([(text,) for text in texts]) == ["13a", "zh", "13a", "char", "char"]
    assert tokenizers_of([("red",), ("红色",)], "char") == ["char", "char"]
    with pytest.raises(UserError, match="tokenizer=latin is not known; choose auto or one of 13a"):
        tokenizers_of([("red",)], "latin")
    with pytest.raises(UserError, match=r"pip install 'sacrebleu\[ja\]'"):
        tokenizers_of([("red",)], "ja-mecab")


def test_chinese_bleu_and_rouge_are_those_of_their_characters() -> None:
    captions, references = ["左臂有红色斑块。", "背部见褐色丘疹"], [["左臂有一块红色斑块。"], ["背部可见褐色小丘疹"]]
    streams = [[options[0] for options in references]]
    assert bleu(captions, references) == pytest.approx(sacrebleu.corpus_bleu(captions, streams, tokenize="zh").score)
    spaced = [
        slow_rouge_l(" ".join(c.strip("。")), " ".join(r[0].strip("。")))
        for c, r in zip(captions, references, strict=True)
    ]
    assert rouge_l(captions, references) == pytest.approx(spaced)
    assert "tok:zh" in bleu_signature(references) and rouge_settings(references).endswith("tok:zh")
    mixed = [*references, ["a red plaque on the arm"]]
    assert "tok:13a+zh" in bleu_signature(mixed)


def test_russian_rouge_is_that_of_its_words() -> None:
    caption, reference = "красная бляшка на руке", "красная шелушащаяся бляшка на левой руке"
    assert rouge_l([caption], [[reference]]) == pytest.approx([slow_rouge_l(caption, reference)])


def test_references_without_four_tokens_lower_the_order_for_all_captions() -> None:
    references = [["red plaque"], ["brown nevus"], ["melanoma"]]
    captions = ["red plaque", "red nevus", "melanoma of the arm"]
    # By hand: 4 of 7 words; 1 of 5 pairs; the captions are longer than their references.
    assert bleu(captions, references) == pytest.approx(100 * np.sqrt(4 / 8 * 1 / 5))
    assert bleu_order(references) == 2 and bleu_signature(references).endswith("|order:2")
    longer = [*references, ["one two three four"]]
    assert bleu_order(longer) == 4 and "order" not in bleu_signature(longer)
    assert bleu([*captions, ""], longer) == pytest.approx(raw_bleu([*captions, ""], longer))


class LengthScorer:
    """Stands for any scorer: the share of the longest reference's length."""

    settings = "length"

    def __call__(self, captions: list[str], references: list[list[str]]) -> np.ndarray:
        return np.array([len(c) / max(map(len, r)) for c, r in zip(captions, references, strict=True)])


def test_bert_score_asks_the_scorer_it_is_given() -> None:
    found = bert_score(["ab", "abc", "a"], [["abcd"], ["abc"], ["abcd", "ab"]], LengthScorer())
    assert found.tolist() == [0.5, 1, 0.25]


@pytest.mark.parametrize("measure", [bleu, rouge_l])
def test_captions_without_references_are_refused(measure: Callable) -> None:
    with pytest.raises(ValueError, match="at least one reference"):
        measure(["a"], [[]])
    with pytest.raises(ValueError, match="2 captions stand against 1"):
        measure(["a", "b"], [["a"]])
    with pytest.raises(ValueError, match="no captions"):
        measure([], [])


def test_a_string_in_place_of_a_list_of_references_is_refused() -> None:
    with pytest.raises(ValueError, match="a list"):
        bleu(["a"], ["a"])  # type: ignore[list-item]


def test_an_empty_caption_scores_nothing_and_breaks_nothing() -> None:
    assert bleu([""], [["a red lesion"]]) == 0
    assert rouge_l([""], [["a red lesion"]]).tolist() == [0.0]
