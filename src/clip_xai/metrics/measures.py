"""The measures of captions as sums over rows: what is counted, where, and what can be the result."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from clip_xai.data.vocabulary import Vocabulary, load_vocabulary
from clip_xai.metrics.attributes import (
    Reading,
    balanced_accuracy,
    balanced_statistics,
    f1_of_counts,
    read_attributes,
    read_diagnoses,
    stated_findings,
    true_diagnosis,
)
from clip_xai.metrics.caption_metrics import (
    CaptionScorer,
    bert_score,
    bleu_from_statistics,
    bleu_statistics,
    clip_score,
    rouge_l,
)
from clip_xai.metrics.intervals import mean_of_sums
from clip_xai.metrics.results import MetricInfo
from clip_xai.metrics.tokens import AUTO, is_latin

# A source photographs in one way: who knows the source knows the view, and no model can beat that by looking.
HABITS = ("view",)


class Judged(Protocol):
    """What is needed of a record to judge its caption."""

    source: str
    group: str
    references: tuple[str, ...]
    diagnosis: str | None


@dataclass(frozen=True)
class ClipFeatures:
    """A CLIP model's view of the images, and how it reads texts.

    Attributes:
        name: Which model it is; values of two models cannot be compared.
        images: Image features [N, D], row by row as the records.
        encode_text: Turns T texts into features [T, D].
    """

    name: str
    images: torch.Tensor
    encode_text: Callable[[Sequence[str]], torch.Tensor]

    def scores(self, captions: Sequence[str]) -> NDArray[np.float64]:
        """Return the CLIPScore of each caption with its image, [N]."""
        texts = torch.nn.functional.normalize(self.encode_text(captions).float(), dim=-1)
        images = torch.nn.functional.normalize(self.images.float(), dim=-1).to(texts)
        return clip_score(images, texts).double().cpu().numpy()


@dataclass(frozen=True)
class Measure:
    """One measure of one system's captions as sums over rows.

    Attributes:
        info: Which measure.
        rows: Numbers of the rows that count, ascending, [n].
        statistics: What is summed over them, [n, K].
        value: Turns sums [..., K] into values [...].
        undecided: Rows that do not count because their truth is not known.
    """

    info: MetricInfo
    rows: NDArray[np.int64]
    statistics: NDArray[np.float64]
    value: Callable[[NDArray], NDArray]
    undecided: int = 0


def measures(
    captions: Sequence[str],
    records: Sequence[Judged],
    clip: ClipFeatures | None = None,
    bert_scorer: CaptionScorer | None = None,
    tokenizer: str = AUTO,
    vocabulary: Vocabulary | None = None,
) -> list[Measure]:
    """Take every measure of one system's captions; those whose truth no record tells have no rows.

    What is read from words has no rows either where the references are not written in the Latin alphabet, for the
    lexicon is English.
    """
    references = [record.references for record in records]
    everyone = np.arange(len(records))
    found = [
        Measure(
            MetricInfo("bleu", "BLEU", 1, span=(0.0, 100.0)),
            everyone,
            bleu_statistics(captions, references, tokenizer).astype(np.float64),
            bleu_from_statistics,
        ),
        _mean(MetricInfo("rouge_l", "ROUGE-L"), everyone, rouge_l(captions, references, tokenizer)),
    ]
    if bert_scorer is not None:
        info = MetricInfo("bert_score", "BERTScore", span=None)
        found.append(_mean(info, everyone, bert_score(captions, references, bert_scorer)))
    if clip is not None:
        info = MetricInfo("clip_score", "CLIPScore", 1, span=(0.0, 100.0))
        found.append(_mean(info, everyone, clip.scores(captions)))
    return found + (_read_from_words(captions, records, vocabulary or load_vocabulary()) if in_english(records) else [])


def _read_from_words(captions: Sequence[str], records: Sequence[Judged], vocabulary: Vocabulary) -> list[Measure]:
    """Diagnosis and attributes: how often a caption is right, and how often it answers at all."""
    references = [record.references for record in records]
    truths = [true_diagnosis(record.diagnosis, record.references, vocabulary) for record in records]
    exact = read_diagnoses(captions, truths, vocabulary=vocabulary)
    right, answered = _accuracy("diagnosis", exact)
    balanced = Measure(
        MetricInfo("diagnosis_balanced", "balanced accuracy of the diagnosis"),
        exact.rows,
        balanced_statistics(exact),
        balanced_accuracy,
        exact.undecided,
    )
    found = [right, balanced, answered]
    levels = [("family", "diagnosis family"), *([("malignancy", "malignancy")] if vocabulary.malignancies else [])]
    for level, label in levels:
        found += _accuracy(f"diagnosis_{level}", read_diagnoses(captions, truths, level, vocabulary), label)
    if vocabulary.several:
        found += _findings(captions, references, vocabulary)
    for attribute in vocabulary.attributes:
        reading = read_attributes(captions, references, attribute, vocabulary)
        found += _accuracy(attribute.replace(" ", "_"), reading, attribute, attribute not in HABITS)
    return found


def _findings(captions: Sequence[str], references: Sequence[Sequence[str]], vocabulary: Vocabulary) -> list[Measure]:
    """F1 over all findings that captions or references state, and how often a caption states exactly the true ones."""
    rows, counts, undecided = stated_findings(captions, references, vocabulary)
    right = (counts[:, 1:] == 0).all(axis=1)
    return [
        Measure(MetricInfo("findings", "F1 of the findings"), rows, counts, f1_of_counts, undecided),
        _mean(MetricInfo("findings_all", "exact match of the findings", share=True), rows, right, undecided),
    ]


def _mean(info: MetricInfo, rows: NDArray[np.int64], values: ArrayLike, undecided: int = 0) -> Measure:
    array = np.asarray(values, dtype=np.float64)
    return Measure(info, rows, np.stack([array, np.ones_like(array)], axis=-1), mean_of_sums, undecided)


def _accuracy(key: str, reading: Reading, label: str | None = None, judged: bool = True) -> list[Measure]:
    """Return how often the caption is right, and how often it says one thing on the matter at all."""
    label = label or key
    right = MetricInfo(key, label, judged=judged, share=True)
    answered = MetricInfo(f"{key}_answered", f"{label} answered", judged=False, share=True)
    return [
        _mean(right, reading.rows, reading.right, reading.undecided),
        _mean(answered, reading.rows, reading.answered),
    ]


def in_english(records: Sequence[Judged]) -> bool:
    """Whether the English lexicon can be held against the references."""
    return is_latin(text for record in records for text in record.references)
