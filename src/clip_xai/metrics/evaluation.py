"""Judge captions: every measure for the model and for the captions it has to beat, per source and overall."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from clip_xai.data.vocabulary import ATTRIBUTES
from clip_xai.metrics.attributes import (
    Reading,
    balanced_accuracy,
    balanced_statistics,
    read_attributes,
    read_diagnoses,
    true_diagnosis,
)
from clip_xai.metrics.captions import (
    CLIP_SETTINGS,
    ROUGE_SETTINGS,
    CaptionScorer,
    bert_score,
    bleu_from_statistics,
    bleu_signature,
    bleu_statistics,
    clip_score,
    rouge_l,
)
from clip_xai.metrics.intervals import SAMPLES, bounds, mean_of_sums, resampled_sums
from clip_xai.metrics.results import (
    MODEL,
    OVERALL,
    Comparison,
    EvaluationResult,
    MetricInfo,
    Score,
    verdicts,
)

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
    """

    info: MetricInfo
    rows: NDArray[np.int64]
    statistics: NDArray[np.float64]
    value: Callable[[NDArray], NDArray]


def evaluate_captions(
    predictions: Mapping[str, Sequence[str]],
    records: Sequence[Judged],
    *,
    clip: ClipFeatures | None = None,
    bert_scorer: CaptionScorer | None = None,
    skipped: Mapping[str, str] | None = None,
    notes: Mapping[str, str] | None = None,
    set_aside: Mapping[str, str] | None = None,
    samples: int = SAMPLES,
    seed: int = 0,
) -> EvaluationResult:
    """Score every system's captions, and compare the model with each of the others on the same resamples of groups.

    Args:
        predictions: N captions of each system. The key ``"model"`` is the one under judgement, all others are what it
            is compared with, by their keys in `clip_xai.metrics.results.SYSTEMS`.
        records: The N records.
        clip: For CLIPScore; None leaves it out.
        bert_scorer: For BERTScore; None leaves it out.
        skipped: Reasons for what is left out: ``"CLIPScore"``, ``"BERTScore"``, or a baseline's label.
        notes: Settings to be shown beside those of the measures.
        set_aside: Files that are not among the records since they cannot be judged, with the reason.
        samples: Resamples behind each interval.
        seed: Seed of the resamples.

    Raises:
        ValueError: If ``"model"`` is missing, or a system has not one caption per record.
    """
    _require_captions(predictions, records)
    systems = (MODEL, *(name for name in predictions if name != MODEL))
    taken = {system: measures(list(predictions[system]), records, clip, bert_scorer) for system in systems}
    sources = np.asarray([record.source for record in records])
    scopes = {OVERALL: np.arange(len(records))}
    scopes |= {str(source): np.flatnonzero(sources == source) for source in np.unique(sources)}
    groups = np.asarray([record.group for record in records])

    scores: list[Score] = []
    comparisons: list[Comparison] = []
    for scope, rows in scopes.items():
        for alike in zip(*taken.values(), strict=True):
            row_scores, row_comparisons = _compared(
                dict(zip(systems, alike, strict=True)), scope, rows, groups, samples, seed
            )
            scores += row_scores
            comparisons += row_comparisons

    metrics = tuple(measure.info for measure in taken[MODEL] if len(measure.rows))
    return EvaluationResult(
        verdicts=verdicts(comparisons, metrics),
        scores=tuple(scores),
        comparisons=tuple(comparisons),
        metrics=metrics,
        systems=systems,
        scopes=tuple(scopes),
        skipped=_left_out(taken[MODEL], clip, bert_scorer, skipped or {}),
        settings=_settings(records, clip, bert_scorer, samples, seed) | dict(notes or {}),
        set_aside=dict(set_aside or {}),
        rows={measure.info.key: _by_row(measure, len(records)) for measure in taken[MODEL] if len(measure.rows)},
    )


def measures(
    captions: Sequence[str],
    records: Sequence[Judged],
    clip: ClipFeatures | None = None,
    bert_scorer: CaptionScorer | None = None,
) -> list[Measure]:
    """Take every measure of one system's captions; those whose truth no record tells have no rows."""
    references = [record.references for record in records]
    everyone = np.arange(len(records))
    truths = [true_diagnosis(record.diagnosis, record.references) for record in records]
    exact = read_diagnoses(captions, truths)
    found = [
        Measure(
            MetricInfo("bleu", "BLEU", 1),
            everyone,
            bleu_statistics(captions, references).astype(np.float64),
            bleu_from_statistics,
        ),
        _mean(MetricInfo("rouge_l", "ROUGE-L"), everyone, rouge_l(captions, references)),
    ]
    if bert_scorer is not None:
        found.append(
            _mean(MetricInfo("bert_score", "BERTScore"), everyone, bert_score(captions, references, bert_scorer))
        )
    if clip is not None:
        found.append(_mean(MetricInfo("clip_score", "CLIPScore", 1), everyone, clip.scores(captions)))
    found += _accuracy("diagnosis", exact)
    found.append(
        Measure(
            MetricInfo("diagnosis_balanced", "diagnosis, balanced"),
            exact.rows,
            balanced_statistics(exact),
            balanced_accuracy,
        )
    )
    for level, label in (("family", "diagnosis family"), ("malignancy", "malignancy")):
        reading = read_diagnoses(captions, truths, level)
        found.append(_mean(MetricInfo(f"diagnosis_{level}", label), reading.rows, reading.right))
    for attribute in ATTRIBUTES:
        judged = attribute not in HABITS
        found += _accuracy(attribute, read_attributes(captions, references, attribute), judged)
    return found


def _mean(info: MetricInfo, rows: NDArray[np.int64], values: ArrayLike) -> Measure:
    array = np.asarray(values, dtype=np.float64)
    return Measure(info, rows, np.stack([array, np.ones_like(array)], axis=-1), mean_of_sums)


def _accuracy(name: str, reading: Reading, judged: bool = True) -> list[Measure]:
    """Return how often the caption is right and how often it says nothing on the matter."""
    key = name.replace(" ", "_")
    return [
        _mean(MetricInfo(key, name, judged=judged), reading.rows, reading.right),
        _mean(MetricInfo(f"{key}_not_stated", f"{name} not stated", judged=False), reading.rows, 1 - reading.stated),
    ]


def _compared(
    alike: Mapping[str, Measure], scope: str, rows: NDArray[np.int64], groups: NDArray, samples: int, seed: int
) -> tuple[list[Score], list[Comparison]]:
    """Score one measure of all systems on the rows of one scope, with shared resamples."""
    measure = alike[MODEL]
    inside = np.isin(measure.rows, rows)
    if not inside.any():
        return [], []
    members = groups[measure.rows[inside]].tolist()
    statistics = np.stack([other.statistics[inside] for other in alike.values()])
    values = measure.value(statistics.sum(axis=1))
    draws = measure.value(resampled_sums(statistics, members, samples, seed))
    scores, comparisons = [], []
    for number, system in enumerate(alike):
        found = bounds(values[number], draws[:, number], members)
        score = Score(system, scope, measure.info.key, found.n, found.groups, found.value, found.low, found.high)
        scores.append(score)
        if number > 0:
            gap = bounds(values[0] - values[number], draws[:, 0] - draws[:, number], members)
            comparisons.append(Comparison(system, scope, measure.info.key, gap.n, gap.value, gap.low, gap.high))
    return scores, comparisons


def _by_row(measure: Measure, count: int) -> list[float | None]:
    """Return the value of each row as a corpus of its own; None where the row does not count."""
    values: list[float | None] = [None] * count
    for row, value in zip(measure.rows, measure.value(measure.statistics), strict=True):
        values[int(row)] = float(value)
    return values


def _left_out(
    taken: Sequence[Measure], clip: ClipFeatures | None, bert_scorer: CaptionScorer | None, reasons: Mapping[str, str]
) -> dict[str, str]:
    """Return why each measure or baseline that is not there is not there."""
    left_out = {}
    if clip is None:
        left_out["CLIPScore"] = "no CLIP model was given"
    if bert_scorer is None:
        left_out["BERTScore"] = "no scorer was given"
    for measure in taken:
        if not len(measure.rows) and measure.info.judged:
            left_out[measure.info.label] = "no record tells the truth"
    return left_out | dict(reasons)


def _settings(
    records: Sequence[Judged], clip: ClipFeatures | None, bert_scorer: CaptionScorer | None, samples: int, seed: int
) -> dict[str, str]:
    settings = {"BLEU": bleu_signature([record.references for record in records]), "ROUGE-L": ROUGE_SETTINGS}
    if bert_scorer is not None:
        settings["BERTScore"] = bert_scorer.settings
    if clip is not None:
        settings["CLIPScore"] = f"{clip.name}|{CLIP_SETTINGS}"
    settings["intervals"] = (
        f"95 % percentile bootstrap over groups (patients, lesions), {samples} resamples, seed {seed}"
    )
    return settings


def _require_captions(predictions: Mapping[str, Sequence[str]], records: Sequence[Judged]) -> None:
    if not records:
        raise ValueError("There are no records to judge.")
    if MODEL not in predictions:
        raise ValueError(f"There is no system '{MODEL}' among {', '.join(predictions)}.")
    for system, captions in predictions.items():
        if len(captions) != len(records):
            raise ValueError(f"System '{system}' has {len(captions)} captions for {len(records)} records.")
