"""Captions to compare a model with: one that never saw the image, the nearest training caption, and shuffled images."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from sacrebleu.metrics import BLEU

from clip_xai.data.lexicon import read_diagnosis
from clip_xai.data.vocabulary import Vocabulary
from clip_xai.errors import UserError
from clip_xai.metrics.attributes import true_diagnosis
from clip_xai.metrics.caption_metrics import bleu_order, reference_streams
from clip_xai.metrics.tokens import AUTO, tokenizers_of
from clip_xai.text import counted

CANDIDATES = 64
SAMPLE = 128
_ROWS = 1024


class Captioned(Protocol):
    """What the baselines need of a record."""

    source: str
    group: str
    caption: str
    references: tuple[str, ...]
    diagnosis: str | None
    sha256: str | None


def majority_caption(
    records: Sequence[Captioned], seed: int = 0, tokenizer: str = AUTO, vocabulary: Vocabulary | None = None
) -> str:
    """Return the best single answer of someone who knows the training captions and never looks at an image.

    The rule: among the training captions that state the most frequent diagnosis (all captions where none is known),
    the one that scores the highest corpus BLEU when it is given as the answer to every record of a sample of the
    training set. At most 64 different captions, drawn with a seed, stand for election before a sample of 128 records;
    a tie goes to the first in alphabetical order.

    Args:
        records: Training records.
        seed: Seed of the candidates and of the sample.
        tokenizer: As for `bleu`.
        vocabulary: The vocabulary that diagnoses are read with; that of skin if None.
    """
    if not records:
        raise ValueError("A majority caption needs training records.")
    generator = np.random.default_rng(seed)
    true = [true_diagnosis(record.diagnosis, record.references, vocabulary) for record in records]
    diagnoses = Counter(name for name in true if name)
    majority = min(diagnoses, key=lambda name: (-diagnoses[name], name)) if diagnoses else None
    captions = sorted({record.caption for record in records})
    fitting = [caption for caption in captions if read_diagnosis(caption, vocabulary) == majority] or captions
    candidates = [fitting[index] for index in _drawn(generator, len(fitting), CANDIDATES)]
    sample = [records[index].references for index in _drawn(generator, len(records), SAMPLE)]
    if len(candidates) == 1:
        return candidates[0]
    # The references are counted once for all candidates, which takes one tokenizer for all.
    [(name, _)] = Counter(tokenizers_of(sample, tokenizer)).most_common(1)
    order = max(1, bleu_order(sample, name))
    metric = BLEU(references=reference_streams(sample), tokenize=name, max_ngram_order=order)
    scores = [metric.corpus_score([candidate] * len(sample), None).score for candidate in candidates]
    return candidates[int(np.argmax(scores))]


def majority_captions(
    records: Sequence[Captioned],
    train: Sequence[Captioned],
    seed: int = 0,
    tokenizer: str = AUTO,
    vocabulary: Vocabulary | None = None,
) -> dict[str, str]:
    """Return the majority caption of each source among the records.

    Each source answers with its own, since the sources are written in styles of their own and a caption that fits none
    of them would be too easy to beat. A source without training records answers with that of all training records.

    Returns:
        Caption by source.
    """
    captions = {}
    for source in sorted({record.source for record in records}):
        same = [record for record in train if record.source == source]
        captions[source] = majority_caption(same or train, seed, tokenizer, vocabulary)
    return captions


def nearest_training_rows(
    features: torch.Tensor,
    train_features: torch.Tensor,
    records: Sequence[Captioned],
    train: Sequence[Captioned],
) -> NDArray[np.int64]:
    """Find the training photograph most like each photograph by the cosine of their CLIP features.

    Training rows of the same group (patient, lesion) or with the same file content are passed over: their caption would
    be a copy of the answer.

    Args:
        features: Image features [N, D].
        train_features: Image features [M, D] of the training records, by the same model.
        records: The N records.
        train: The M training records.

    Returns:
        Row of the training records for each record, [N].

    Raises:
        UserError: If for some record every training row is passed over.
    """
    if len(features) != len(records) or len(train_features) != len(train):
        raise ValueError("There must be one row of features per record.")
    if not train:
        raise UserError("The nearest training caption needs training records; the manifest has none in split 'train'.")
    towards = torch.nn.functional.normalize(train_features.float(), dim=-1)
    from_here = torch.nn.functional.normalize(features.float(), dim=-1)
    groups = np.asarray([record.group for record in train])
    contents = np.asarray([record.sha256 or "" for record in train])
    nearest = np.empty(len(records), dtype=np.int64)
    for start in range(0, len(records), _ROWS):
        part = records[start : start + _ROWS]
        cosines = from_here[start : start + _ROWS] @ towards.T
        same = np.stack([(groups == r.group) | ((contents == r.sha256) & (contents != "")) for r in part])
        if same.all(axis=1).any():
            name = part[int(same.all(axis=1).argmax())].group
            raise UserError(f"Group '{name}' has no training photograph of another group to compare with.")
        cosines[torch.from_numpy(same).to(cosines.device)] = -torch.inf
        nearest[start : start + len(part)] = cosines.argmax(dim=1).cpu().numpy()
    return nearest


def shuffled_rows(groups: Sequence[str], seed: int = 0) -> NDArray[np.int64]:
    """Permute rows so that each gets one of another group.

    As a caption depends on its image alone, permuting the captions is the same as permuting the images.

    Args:
        groups: Group of each of the N rows.
        seed: Seed of the permutation.

    Returns:
        Row whose image each row gets, [N]; every row is given exactly once.

    Raises:
        UserError: If one group has more than half of the rows, so that no such permutation exists.
    """
    names, member, sizes = np.unique(np.asarray(groups, dtype=str), return_inverse=True, return_counts=True)
    largest = int(sizes.max())
    if 2 * largest > len(member):
        raise UserError(
            f"Images cannot be shuffled across groups: group '{names[sizes.argmax()]}' has {largest} of "
            f"{counted(len(member), 'photograph')}; evaluate more groups."
        )
    generator = np.random.default_rng(seed)
    # Rows in random order, but each group in one run: a turn by at least the longest run leaves no row in its group.
    order = np.lexsort((generator.random(len(member)), generator.permutation(len(names))[member]))
    turn = int(generator.integers(largest, len(member) - largest + 1))
    rows = np.empty(len(member), dtype=np.int64)
    rows[order] = np.roll(order, -turn)
    return rows


def shuffled_within_sources(
    groups: Sequence[str], sources: Sequence[str], seed: int = 0
) -> tuple[NDArray[np.int64], dict[str, str]]:
    """Permute rows as `shuffled_rows` does, but each among those of its own source.

    A caption of another source is known by its style, so that beating it says nothing about looking at lesions.

    Args:
        groups: Group of each of the N rows.
        sources: Source of each row.
        seed: Seed of the permutations.

    Returns:
        Row whose image each row gets, [N], -1 for all rows of a source that cannot be shuffled; and the reason for
        each such source.
    """
    rows = np.full(len(groups), -1, dtype=np.int64)
    reasons: dict[str, str] = {}
    for source in sorted(set(sources)):
        mine = np.flatnonzero(np.asarray(sources, dtype=str) == source)
        try:
            rows[mine] = mine[shuffled_rows([groups[int(row)] for row in mine], seed)]
        except UserError as error:
            reasons[source] = str(error)
    return rows, reasons


def _drawn(generator: np.random.Generator, count: int, at_most: int) -> list[int]:
    """Return sorted numbers below `count`: all of them, or `at_most` drawn without replacement."""
    if count <= at_most:
        return list(range(count))
    return sorted(int(index) for index in generator.choice(count, at_most, replace=False))
