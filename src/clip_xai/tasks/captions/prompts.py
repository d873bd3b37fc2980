"""Prompts of records: captions of the training photographs that are most like each."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from clip_xai.data.record import Record
from clip_xai.errors import UserError
from clip_xai.models.retrieval import CaptionIndex, Retrieval
from clip_xai.training.features import FeatureTable


def caption_index(train: Sequence[Record], pooled: FeatureTable) -> CaptionIndex:
    """Return the first captions of training records under their photographs' embeddings.

    Args:
        train: Training records; those whose photograph cannot be read are left out.
        pooled: Their pooled image embeddings.

    Raises:
        UserError: Not one photograph can be read.
    """
    known = [record for record in train if record.image in pooled.rows]
    if not known:
        raise UserError("no training photograph can be read: there are no captions to retrieve")
    embeddings = pooled.stack([record.image for record in known])
    return CaptionIndex(embeddings, [record.references[0] for record in known], [record.group for record in known])


def retrieved_prompts(retrieval: Retrieval, records: Sequence[Record], pooled: FeatureTable) -> dict[Path, str]:
    """Return the prompt of each photograph that can be read; none holds a caption of the photograph's own group.

    Args:
        retrieval: Makes the prompts.
        records: Whose photographs.
        pooled: Their pooled image embeddings.

    Raises:
        UserError: Too few captions of other groups are known.
    """
    known = [record for record in records if record.image in pooled.rows]
    if not known:
        return {}
    images = [record.image for record in known]
    prompts = retrieval.prompts(pooled.stack(images), [record.group for record in known])
    return dict(zip(images, prompts, strict=True))
