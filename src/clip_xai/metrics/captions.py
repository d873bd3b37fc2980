"""How close captions come to their references: BLEU, ROUGE-L, CLIPScore and BERTScore.

Every measure comes as a function and as a `torchmetrics.Metric`. The metric's states are sums of sufficient
statistics, so that reducing them over processes gives the corpus value and not a mean of means.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, cast

import numpy as np
import torch
from numpy.typing import NDArray
from rouge_score.rouge_scorer import RougeScorer
from sacrebleu.metrics import BLEU
from torchmetrics import Metric

MAX_ORDER = 4
ROUGE_SETTINGS = "rougeLsum|F1|stemmer:porter|refs:max"
CLIP_SETTINGS = "100*max(cos,0)|no prompt"


class CaptionScorer(Protocol):
    """Gives each caption one score from its text and the texts of its references (for example BERTScore)."""

    settings: str

    def __call__(self, captions: Sequence[str], references: Sequence[Sequence[str]]) -> NDArray[np.float64]:
        """Return one score per caption, the best over its references."""


def require_pairs(captions: Sequence[str], references: Sequence[Sequence[str]]) -> None:
    """Refuse captions and references that do not belong together.

    Raises:
        ValueError: If there are no captions, the counts differ, or a caption has no reference.
    """
    if not captions:
        raise ValueError("There are no captions to score.")
    if len(captions) != len(references):
        raise ValueError(f"{len(captions)} captions stand against {len(references)} sets of references.")
    bare = [index for index, options in enumerate(references) if not options or isinstance(options, str)]
    if bare:
        raise ValueError(f"Caption {bare[0]} needs a list of at least one reference.")


def reference_streams(references: Sequence[Sequence[str]]) -> list[list[str]]:
    """Turn N lists of references into sacrebleu's streams, one per place, with None where a list is shorter."""
    places = max(len(options) for options in references)
    streams = [[options[place] if place < len(options) else None for options in references] for place in range(places)]
    return cast("list[list[str]]", streams)  # sacrebleu takes None for "no such reference" and does not say so


def bleu(captions: Sequence[str], references: Sequence[Sequence[str]]) -> float:
    """Corpus BLEU-4 in 0 to 100, computed by sacrebleu (13a tokens, mixed case, exponential smoothing).

    Args:
        captions: N captions.
        references: N lists of references; their lengths may differ.

    >>> round(bleu(["a brown round lesion"], [["a brown round lesion", "one brown spot"]]), 1)
    100.0
    """
    require_pairs(captions, references)
    return float(BLEU().corpus_score(list(captions), reference_streams(references)).score)


def bleu_signature(references: Sequence[Sequence[str]]) -> str:
    """Return sacrebleu's signature of `bleu` on such references, for example `nrefs:3|case:mixed|eff:no|tok:13a|...`.

    >>> bleu_signature([["a"], ["b"]]).split("|version")[0]
    'nrefs:1|case:mixed|eff:no|tok:13a|smooth:exp'
    """
    # sacrebleu knows its signature only after it has counted the references of a corpus.
    metric = BLEU()
    metric.corpus_score([options[0] for options in references], reference_streams(references))
    return str(metric.get_signature())


def bleu_statistics(captions: Sequence[str], references: Sequence[Sequence[str]]) -> NDArray[np.int64]:
    """Return what corpus BLEU sums over captions.

    Returns:
        Integers [N, 10]: caption length, closest reference length, matched 1- to 4-grams, 1- to 4-grams in all.
    """
    require_pairs(captions, references)
    metric = BLEU(effective_order=True)  # it changes no count, only silences a warning about single sentences
    rows = []
    for caption, options in zip(captions, references, strict=True):
        score = metric.sentence_score(caption, list(options))
        rows.append([score.sys_len, score.ref_len, *score.counts, *score.totals])
    return np.asarray(rows, dtype=np.int64)


def bleu_from_statistics(statistics: NDArray) -> NDArray[np.float64]:
    """Corpus BLEU from summed `bleu_statistics`; many corpora at once (sacrebleu's `compute_bleu`, vectorised).

    Args:
        statistics: Sums [..., 10].

    Returns:
        BLEU [...] in 0 to 100. A corpus without any match has 0, and one without 4-grams as well.
    """
    sums = np.asarray(statistics, dtype=np.float64)
    length, reference = sums[..., 0], sums[..., 1]
    matched, total = sums[..., 2 : 2 + MAX_ORDER], sums[..., 2 + MAX_ORDER :]
    unmatched = matched == 0
    smooth = 2.0 ** np.cumsum(unmatched, axis=-1)
    with np.errstate(divide="ignore", invalid="ignore"):
        precision = np.where(unmatched, 1 / smooth, matched) / total
        brevity = np.where(length < reference, np.exp(1 - reference / length), 1.0)
        score = 100 * brevity * np.exp(np.log(precision).mean(axis=-1))
    defined = (matched.sum(axis=-1) > 0) & (total > 0).all(axis=-1)
    return np.where(defined, score, 0.0)


def rouge_l(captions: Sequence[str], references: Sequence[Sequence[str]]) -> NDArray[np.float64]:
    """ROUGE-L F1 of each caption in 0 to 1: rouge_score's rougeLsum with its stemmer, the best over the references.

    Returns:
        Scores [N]; the corpus value is their mean.

    >>> rouge_l(["a red spot"], [["a red spot"]])
    array([1.])
    """
    require_pairs(captions, references)
    scorer = RougeScorer(["rougeLsum"], use_stemmer=True)
    best = [
        max(scorer.score(reference, caption)["rougeLsum"].fmeasure for reference in options)
        for caption, options in zip(captions, references, strict=True)
    ]
    return np.asarray(best, dtype=np.float64)


def clip_score(image_features: torch.Tensor, text_features: torch.Tensor) -> torch.Tensor:
    """CLIPScore of each pair, `100 * max(cos(image, text), 0)`.

    The scale is that of the CLIP model that made the features: values of two models cannot be compared.

    Args:
        image_features: Normalised features [N, D].
        text_features: Normalised features [N, D] of the captions, row by row.

    Returns:
        Scores [N] in 0 to 100.

    Raises:
        ValueError: If the shapes differ or a row has not length 1.
    """
    if image_features.shape != text_features.shape or image_features.ndim != 2:
        raise ValueError(
            f"Features must be two equal [N, D], not {[*image_features.shape]} and {[*text_features.shape]}."
        )
    for name, features in (("image", image_features), ("text", text_features)):
        if not torch.allclose(features.float().norm(dim=-1), torch.ones(len(features)).to(features.device), atol=1e-2):
            raise ValueError(f"The {name} features are not normalised; divide each row by its length first.")
    return 100 * (image_features.float() * text_features.float()).sum(dim=-1).clamp(min=0)


def bert_score(captions: Sequence[str], references: Sequence[Sequence[str]], scorer: CaptionScorer) -> NDArray:
    """BERTScore F1 of each caption, the best over its references, by a scorer from `load_bert_scorer`.

    Returns:
        Scores [N]; the corpus value is their mean.
    """
    require_pairs(captions, references)
    return np.asarray(scorer(captions, references), dtype=np.float64)


class CorpusBleu(Metric):
    """`bleu` over all updates."""

    higher_is_better = True
    is_differentiable = False
    full_state_update = False
    statistics: torch.Tensor

    def __init__(self) -> None:
        super().__init__()
        self.add_state("statistics", torch.zeros(2 + 2 * MAX_ORDER, dtype=torch.long), dist_reduce_fx="sum")

    def update(self, captions: Sequence[str], references: Sequence[Sequence[str]]) -> None:
        """Add captions and their references."""
        self.statistics += torch.as_tensor(bleu_statistics(captions, references).sum(axis=0)).to(self.device)

    def compute(self) -> torch.Tensor:
        """Return BLEU in 0 to 100."""
        return torch.tensor(float(bleu_from_statistics(self.statistics.cpu().numpy())))


class _MeanOfRows(Metric):
    """Mean of one score per caption; the sum and the count are the states."""

    higher_is_better = True
    is_differentiable = False
    full_state_update = False
    total: torch.Tensor
    count: torch.Tensor

    def __init__(self) -> None:
        super().__init__()
        self.add_state("total", torch.zeros(()), dist_reduce_fx="sum")
        self.add_state("count", torch.zeros((), dtype=torch.long), dist_reduce_fx="sum")

    def _add(self, scores: torch.Tensor | NDArray) -> None:
        self.total += torch.as_tensor(scores).sum().to(self.total)
        self.count += len(scores)

    def compute(self) -> torch.Tensor:
        """Return the mean over all captions."""
        if self.count == 0:
            raise ValueError(f"{type(self).__name__} has seen no captions.")
        return self.total / self.count


class RougeL(_MeanOfRows):
    """Mean `rouge_l` over all updates."""

    def update(self, captions: Sequence[str], references: Sequence[Sequence[str]]) -> None:
        """Add captions and their references."""
        self._add(rouge_l(captions, references))


class ClipScore(_MeanOfRows):
    """Mean `clip_score` over all updates."""

    def update(self, image_features: torch.Tensor, text_features: torch.Tensor) -> None:
        """Add normalised image features and the normalised features of their captions, both [N, D]."""
        self._add(clip_score(image_features, text_features))


class BertScore(_MeanOfRows):
    """Mean `bert_score` over all updates.

    Args:
        scorer: What `load_bert_scorer` gives.
    """

    def __init__(self, scorer: CaptionScorer) -> None:
        super().__init__()
        self.scorer = scorer

    def update(self, captions: Sequence[str], references: Sequence[Sequence[str]]) -> None:
        """Add captions and their references."""
        self._add(bert_score(captions, references, self.scorer))
