"""BERTScore through bert-score on a small model on disk, against greedy matching written out."""

from __future__ import annotations

from pathlib import Path

import bert_score
import numpy as np
import pandas as pd
import pytest
import torch
from transformers import AutoModel, AutoTokenizer, BertConfig, BertModel, BertTokenizerFast

from clip_xai.metrics.bert_score import ScorerUnavailable, cached_model, known_name, load_bert_scorer

WORDS = ["a", "red", "brown", "lesion", "in", "the", "centre", "upper", "left", "is", "psoriasis", "melanoma"]
CAPTIONS = ["a red lesion in the centre", "melanoma"]
REFERENCES = [["a brown lesion in the upper left", "the red lesion is psoriasis"], ["a brown melanoma"]]


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random BERT of nine small layers, named as one of bert-score's models."""
    path = tmp_path_factory.mktemp("weights") / "bert-base-uncased"
    path.mkdir()
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "num_attention_heads": 2, "intermediate_size": 16, "max_position_embeddings": 64}
    BertModel(BertConfig(vocab_size=5 + len(WORDS), num_hidden_layers=9, **sizes)).save_pretrained(path)
    vocabulary = path / "vocab.txt"
    vocabulary.write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS]))
    BertTokenizerFast(vocab=str(vocabulary)).save_pretrained(path)
    return path


def greedy_f1(directory: Path, caption: str, reference: str) -> float:
    """BERTScore by its definition: each word's best cosine, markers left out of the averages, baseline removed."""
    tokenizer, model = AutoTokenizer.from_pretrained(directory), AutoModel.from_pretrained(directory).eval()
    with torch.no_grad():
        first, second = (
            model(**tokenizer(text, return_tensors="pt")).last_hidden_state[0] for text in (caption, reference)
        )
    first, second = (torch.nn.functional.normalize(states, dim=-1) for states in (first, second))
    cosines = first @ second.T
    precision = cosines.max(dim=1).values[1:-1].mean().item()
    recall = cosines.max(dim=0).values[1:-1].mean().item()
    baseline = pd.read_csv(Path(bert_score.__file__).parent / "rescale_baseline/en/bert-base-uncased.tsv")
    offset = baseline.query("LAYER == 9")["F"].item()
    return (2 * precision * recall / (precision + recall) - offset) / (1 - offset)


def test_scores_are_greedy_matching_with_the_best_reference(directory: Path) -> None:
    scorer = load_bert_scorer(str(directory))
    expected = [
        max(greedy_f1(directory, caption, option) for option in options)
        for caption, options in zip(CAPTIONS, REFERENCES, strict=True)
    ]
    found = scorer(CAPTIONS, REFERENCES)
    assert np.allclose(found, expected, atol=1e-4)
    assert scorer([REFERENCES[0][0]], [REFERENCES[0]]) == pytest.approx([1.0], abs=1e-4)
    assert scorer.settings.startswith("bert-base-uncased_L9_no-idf_version=0.3")
    assert scorer.settings.endswith("-rescaled")


def test_an_empty_caption_is_scored(directory: Path) -> None:
    found = load_bert_scorer(str(directory))(["", *CAPTIONS], [["a lesion"], *REFERENCES])
    assert np.isfinite(found).all() and found[0] < found[1]


def test_a_model_that_is_not_on_disk_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    assert cached_model("roberta-large") is None
    with pytest.raises(ScorerUnavailable, match="'roberta-large' is not on this disk; 'hf download roberta-large'"):
        load_bert_scorer("roberta-large")
    with pytest.raises(ScorerUnavailable, match="bert-score does not know the model 'roberta-huge'"):
        load_bert_scorer("roberta-huge")


def test_directories_stand_for_the_model_they_are_named_after() -> None:
    assert known_name("weights/microsoft/deberta-large-mnli") == "microsoft/deberta-large-mnli"
    assert known_name("roberta-large") == "roberta-large"
    assert known_name("weights/my-roberta-large") is None
