"""How close captions come to their references: BLEU, ROUGE-L, CLIPScore and BERTScore.

BLEU counts up to four tokens in a row. Where no row has references that all are so long (labels of one or two words),
no caption could match four: BLEU then counts up to the longest that every reference of some row has, and says so.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, cast

import numpy as np
import torch
from numpy.typing import NDArray
from rouge_score.rouge_scorer import RougeScorer
from sacrebleu.metrics import BLEU

from clip_xai.metrics.tokens import AUTO, RougeTokens, bleu_of, count_tokens, tokenizers_of

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


def bleu(captions: Sequence[str], references: Sequence[Sequence[str]], tokenizer: str = AUTO) -> float:
    """Corpus BLEU-4 in 0 to 100 as sacrebleu computes it (mixed case, exponential smoothing).

    Args:
        captions: N captions.
        references: N lists of references; their lengths may differ.
        tokenizer: One of `clip_xai.metrics.tokens.TOKENIZERS`; ``auto`` takes each row's by its references' script.

    >>> round(bleu(["a brown round lesion"], [["a brown round lesion", "one brown spot"]]), 1)
    100.0
    """
    return float(bleu_from_statistics(bleu_statistics(captions, references, tokenizer).sum(axis=0)))


def bleu_signature(references: Sequence[Sequence[str]], tokenizer: str = AUTO) -> str:
    """Return sacrebleu's signature of `bleu` on such references, for example `nrefs:3|case:mixed|eff:no|tok:13a|...`.

    Several tokenizers are joined by a plus; ``order`` stands there where it is not four.

    >>> bleu_signature([["a b c d"], ["b"]]).split("|version")[0]
    'nrefs:1|case:mixed|eff:no|tok:13a|smooth:exp'
    """
    # sacrebleu knows its signature only after it has counted the references of a corpus.
    names = sorted(set(tokenizers_of(references, tokenizer)))
    metric = BLEU(tokenize=names[0])
    metric.corpus_score([options[0] for options in references], reference_streams(references))
    signature = str(metric.get_signature()).replace(f"tok:{names[0]}", f"tok:{'+'.join(names)}")
    order = bleu_order(references, tokenizer)
    return signature if order == MAX_ORDER else f"{signature}|order:{order}"


def bleu_order(references: Sequence[Sequence[str]], tokenizer: str = AUTO) -> int:
    """Return up to how many tokens in a row BLEU counts on such references: four, or what the longest row admits."""
    rows = zip(references, tokenizers_of(references, tokenizer), strict=True)
    return min(MAX_ORDER, max(_shortest(options, name) for options, name in rows))


def bleu_statistics(
    captions: Sequence[str], references: Sequence[Sequence[str]], tokenizer: str = AUTO
) -> NDArray[np.int64]:
    """Return what corpus BLEU sums over captions.

    Returns:
        Integers [N, 14]: caption length, closest reference length, matched 1- to 4-grams, 1- to 4-grams in all, and
        1- to 4-grams of the shortest reference.
    """
    require_pairs(captions, references)
    rows = []
    for caption, options, name in zip(captions, references, tokenizers_of(references, tokenizer), strict=True):
        score = bleu_of(name).sentence_score(caption, list(options))
        length = _shortest(options, name)
        possible = [max(length - order, 0) for order in range(MAX_ORDER)]
        rows.append([score.sys_len, score.ref_len, *score.counts, *score.totals, *possible])
    return np.asarray(rows, dtype=np.int64)


def bleu_from_statistics(statistics: NDArray) -> NDArray[np.float64]:
    """Corpus BLEU from summed `bleu_statistics`; many corpora at once (sacrebleu's `compute_bleu`, vectorised).

    Args:
        statistics: Sums [..., 14].

    Returns:
        BLEU [...] in 0 to 100. A corpus without any match has 0, and one without 4-grams as well, unless no reference
        row admits them.
    """
    sums = np.asarray(statistics, dtype=np.float64)
    length, reference = sums[..., 0], sums[..., 1]
    matched, total, possible = np.split(sums[..., 2:], 3, axis=-1)
    counted = possible > 0
    unmatched = matched == 0
    smooth = 2.0 ** np.cumsum(unmatched, axis=-1)
    with np.errstate(divide="ignore", invalid="ignore"):
        precision = np.where(unmatched, 1 / smooth, matched) / total
        brevity = np.where(length < reference, np.exp(1 - reference / length), 1.0)
        logarithms = np.where(counted, np.log(precision), 0.0).sum(axis=-1)
        score = 100 * brevity * np.exp(logarithms / counted.sum(axis=-1))
    defined = (matched.sum(axis=-1) > 0) & (~counted | (total > 0)).all(axis=-1) & counted.any(axis=-1)
    return np.where(defined, score, 0.0)


def rouge_l(captions: Sequence[str], references: Sequence[Sequence[str]], tokenizer: str = AUTO) -> NDArray[np.float64]:
    """ROUGE-L F1 of each caption in 0 to 1: rouge_score's rougeLsum with its stemmer, the best over the references.

    Args:
        captions: N captions.
        references: N lists of references.
        tokenizer: As for `bleu`; see `clip_xai.metrics.tokens`.

    Returns:
        Scores [N]; the corpus value is their mean.

    >>> rouge_l(["a red spot"], [["a red spot"]])
    array([1.])
    """
    require_pairs(captions, references)
    names = tokenizers_of(references, tokenizer)
    scorers = {name: RougeScorer(["rougeLsum"], tokenizer=RougeTokens(name)) for name in set(names)}
    best = [
        max(scorers[name].score(reference, caption)["rougeLsum"].fmeasure for reference in options)
        for caption, options, name in zip(captions, references, names, strict=True)
    ]
    return np.asarray(best, dtype=np.float64)


def rouge_settings(references: Sequence[Sequence[str]], tokenizer: str = AUTO) -> str:
    """Return how `rouge_l` is set on such references.

    >>> rouge_settings([["a red spot"]])
    'rougeLsum|F1|stemmer:porter|refs:max'
    """
    others = sorted(set(tokenizers_of(references, tokenizer)) - {"13a"})
    return "|".join([ROUGE_SETTINGS, *([f"tok:{'+'.join(others)}"] if others else [])])


def _shortest(options: Sequence[str], tokenizer: str) -> int:
    return min(count_tokens(option, tokenizer) for option in options)


def clip_score(image_features: torch.Tensor, text_features: torch.Tensor) -> torch.Tensor:
    """CLIPScore of each pair, `100 * max(cos(image, text), 0)`.

    The scale is that of the CLIP model that made the features: values of two models cannot be compared.

    Args:
        image_features: Normalised features [N, D].
        text_features: Normalised features [N, D] of the captions, row by row.

    Returns:
        Scores [N] in 0 to 100.

    Raises:
        ValueError: If the shapes differ or a row does not have length 1.
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
