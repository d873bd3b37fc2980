"""Judge captions: every measure for the model and for the captions it has to beat, per source and overall."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from clip_xai.data.vocabulary import MALIGNANT, Vocabulary, load_vocabulary
from clip_xai.metrics.caption_metrics import (
    CLIP_SETTINGS,
    MAX_ORDER,
    CaptionScorer,
    bleu_order,
    bleu_signature,
    rouge_settings,
)
from clip_xai.metrics.intervals import FEWEST, SAMPLES, bounds, paired_interval, resampled_sums
from clip_xai.metrics.measures import ClipFeatures, Judged, Measure, in_english, measures
from clip_xai.metrics.results import MODEL, OVERALL, Comparison, EvaluationResult, Score
from clip_xai.metrics.tokens import AUTO
from clip_xai.metrics.verdicts import verdicts
from clip_xai.text import counted, plural

__all__ = ["ClipFeatures", "Judged", "Measure", "evaluate_captions", "measures"]


def evaluate_captions(
    predictions: Mapping[str, Sequence[str | None]],
    records: Sequence[Judged],
    *,
    clip: ClipFeatures | None = None,
    bert_scorer: CaptionScorer | None = None,
    skipped: Mapping[str, str] | None = None,
    notes: Mapping[str, str] | None = None,
    set_aside: Mapping[str, str] | None = None,
    cautions: Sequence[str] = (),
    tokenizer: str = AUTO,
    samples: int = SAMPLES,
    seed: int = 0,
    vocabulary: Vocabulary | None = None,
) -> EvaluationResult:
    """Score every system's captions, and compare the model with each of the others on the same resamples of groups.

    Args:
        predictions: N captions of each system. The key ``"model"`` is the one under judgement, all others are what it
            is compared with, by their keys in `clip_xai.metrics.results.SYSTEMS`; None where a baseline has no caption
            for a record, which then takes no part in this comparison.
        records: The N records.
        clip: For CLIPScore; None leaves it out.
        bert_scorer: For BERTScore; None leaves it out.
        skipped: Reasons for what is left out: ``"CLIPScore"``, ``"BERTScore"``, or a baseline's label.
        notes: Settings to be shown beside those of the measures.
        set_aside: Files that are not among the records since they cannot be judged, with the reason.
        cautions: Sentences that a reader must see before any number; empty captions make another.
        tokenizer: How BLEU and ROUGE cut captions into tokens; see `clip_xai.metrics.tokens`.
        samples: Resamples behind each interval.
        seed: Seed of the resamples.
        vocabulary: The vocabulary that diagnoses and attributes are read with; that of skin if None.

    Raises:
        ValueError: If ``"model"`` is missing, or a system does not have one caption per record.
    """
    _require_captions(predictions, records)
    known = vocabulary or load_vocabulary()
    systems = (MODEL, *(name for name in predictions if name != MODEL))
    taken = {
        system: measures(
            [caption or "" for caption in predictions[system]], records, clip, bert_scorer, tokenizer, known
        )
        for system in systems
    }
    absent = {
        system: np.asarray([row for row, caption in enumerate(predictions[system]) if caption is None], dtype=np.int64)
        for system in systems
    }
    empty = {
        system: sum(caption is not None and not caption.strip() for caption in predictions[system])
        for system in systems
    }
    sources = np.asarray([record.source for record in records])
    scopes = {OVERALL: np.arange(len(records))}
    scopes |= {str(source): np.flatnonzero(sources == source) for source in np.unique(sources)}
    groups = np.asarray([record.group for record in records])

    scores: list[Score] = []
    comparisons: list[Comparison] = []
    for scope, rows in scopes.items():
        for alike in zip(*taken.values(), strict=True):
            row_scores, row_comparisons = _compared(
                dict(zip(systems, alike, strict=True)), absent, scope, rows, groups, samples, seed
            )
            scores += row_scores
            comparisons += row_comparisons

    metrics = tuple(measure.info for measure in taken[MODEL] if len(measure.rows))
    return EvaluationResult(
        verdicts=verdicts(
            comparisons, metrics, [*_of_empty(empty[MODEL], len(records)), *cautions], group_words=known.groups
        ),
        scores=tuple(scores),
        comparisons=tuple(comparisons),
        metrics=metrics,
        systems=systems,
        scopes=tuple(scopes),
        skipped=_left_out(taken[MODEL], records, scopes, clip, bert_scorer, tokenizer) | dict(skipped or {}),
        settings=_settings(records, clip, bert_scorer, tokenizer, samples, seed, known) | dict(notes or {}),
        set_aside=dict(set_aside or {}),
        group_words=known.groups,
        undecided={m.info.label: m.undecided for m in taken[MODEL] if m.undecided and len(m.rows)},
        empty=empty,
        captions=len(records),
        rows={measure.info.key: _by_row(measure, len(records)) for measure in taken[MODEL] if len(measure.rows)},
    )


def _compared(
    alike: Mapping[str, Measure],
    absent: Mapping[str, NDArray[np.int64]],
    scope: str,
    rows: NDArray[np.int64],
    groups: NDArray,
    samples: int,
    seed: int,
) -> tuple[list[Score], list[Comparison]]:
    """Score one measure of all systems on the rows of one scope; systems with the same rows share their resamples."""
    by_rows: dict[bytes, list[str]] = {}
    for system in alike:
        by_rows.setdefault(absent[system].tobytes(), [MODEL] if system != MODEL else []).append(system)
    scores: list[Score] = []
    comparisons: list[Comparison] = []
    for systems in by_rows.values():
        present = np.setdiff1d(rows, absent[systems[-1]])
        some_scores, some_comparisons = _paired(
            {system: alike[system] for system in systems}, scope, present, groups, samples, seed
        )
        scores += some_scores if not scores else [score for score in some_scores if score.system != MODEL]
        comparisons += some_comparisons
    return scores, comparisons


def _paired(
    alike: Mapping[str, Measure], scope: str, rows: NDArray[np.int64], groups: NDArray, samples: int, seed: int
) -> tuple[list[Score], list[Comparison]]:
    """Score one measure of systems that all have these rows, with shared resamples; the model is the first."""
    measure = alike[MODEL]
    inside = np.isin(measure.rows, rows)
    if not inside.any():
        return [], []
    info = measure.info
    members = groups[measure.rows[inside]].tolist()
    statistics = np.stack([other.statistics[inside] for other in alike.values()])
    values = measure.value(statistics.sum(axis=1))
    draws = measure.value(resampled_sums(statistics, members, samples, seed))
    scores, comparisons = [], []
    for number, system in enumerate(alike):
        found = bounds(values[number], draws[:, number], members, span=info.span, share=info.share)
        scores.append(Score(system, scope, info.key, found.n, found.groups, found.value, found.low, found.high))
        if number > 0:
            gap = paired_interval(values[[0, number]], draws[:, [0, number]], members, span=info.span)
            comparisons.append(Comparison(system, scope, info.key, gap.n, gap.clusters, gap.value, gap.low, gap.high))
    return scores, comparisons


def _by_row(measure: Measure, count: int) -> list[float | None]:
    """Return the value of each row as a corpus of its own; None where the row does not count."""
    values: list[float | None] = [None] * count
    for row, value in zip(measure.rows, measure.value(measure.statistics), strict=True):
        values[int(row)] = float(value)
    return values


def _of_empty(count: int, captions: int) -> list[str]:
    """The sentence that says how many captions are empty, where any is."""
    if not count:
        return []
    of_all = f"{count} of {counted(captions, 'caption')} of the model {plural(count, 'is', 'are')} empty"
    return [f"{of_all}: {plural(count, 'it counts and is', 'they count, and are')} right in nothing."]


def _left_out(
    taken: Sequence[Measure],
    records: Sequence[Judged],
    scopes: Mapping[str, NDArray[np.int64]],
    clip: ClipFeatures | None,
    bert_scorer: CaptionScorer | None,
    tokenizer: str,
) -> dict[str, str]:
    """Return why each measure that is not there, or not as it is called, is not there."""
    left_out = {}
    for scope, rows in scopes.items():
        order = bleu_order([records[row].references for row in rows], tokenizer)
        if order < MAX_ORDER:
            left_out[f"BLEU-{MAX_ORDER} ({scope})"] = (
                f"does not apply: no photograph has references of {MAX_ORDER} or more tokens; BLEU-{order} is shown"
            )
    if clip is None:
        left_out["CLIPScore"] = "no CLIP model was given"
    if bert_scorer is None:
        left_out["BERTScore"] = "no scorer was given"
    if not in_english(records):
        left_out["diagnosis and attributes"] = (
            "do not apply: they are read with English words, and the references are not in the Latin alphabet"
        )
    for measure in taken:
        if not len(measure.rows) and measure.info.judged:
            left_out[measure.info.label] = "no record states the truth"
    return left_out


def _settings(
    records: Sequence[Judged],
    clip: ClipFeatures | None,
    bert_scorer: CaptionScorer | None,
    tokenizer: str,
    samples: int,
    seed: int,
    vocabulary: Vocabulary,
) -> dict[str, str]:
    references = [record.references for record in records]
    settings = {"BLEU": bleu_signature(references, tokenizer), "ROUGE-L": rouge_settings(references, tokenizer)}
    if bert_scorer is not None:
        settings["BERTScore"] = bert_scorer.settings
    if clip is not None:
        settings["CLIPScore"] = f"{clip.name}|{CLIP_SETTINGS}"
    malignant = sorted(name for name in vocabulary.diagnoses if vocabulary.malignancy(name) == MALIGNANT)
    if malignant:
        settings["counted as malignant"] = ", ".join(malignant)
    groups = vocabulary.groups[1]
    settings["intervals"] = (
        f"95 % expanded percentile bootstrap over {groups}, {samples} resamples, seed {seed}; for shares of right and "
        f"wrong Korn and Graubard's; under {FEWEST} effective {groups} for these alone"
    )
    return settings


def _require_captions(predictions: Mapping[str, Sequence[str | None]], records: Sequence[Judged]) -> None:
    if not records:
        raise ValueError("There are no records to judge.")
    if MODEL not in predictions:
        raise ValueError(f"There is no system '{MODEL}' among {', '.join(predictions)}.")
    for system, captions in predictions.items():
        if len(captions) != len(records):
            raise ValueError(f"System '{system}' has {len(captions)} captions for {len(records)} records.")
    if None in predictions[MODEL]:
        raise ValueError("The model needs a caption, if an empty one, for every record.")
