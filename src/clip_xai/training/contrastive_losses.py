"""Contrastive losses where a text may fit several photographs, and CLIP's bound of the temperature."""

from __future__ import annotations

import math

import torch
from torch import Tensor

MAX_LOGIT_SCALE = math.log(100.0)


def multi_positive_loss(similarities: Tensor, positives: Tensor) -> Tensor:
    """Return the symmetric contrastive loss where a text may fit many images and an image many texts.

    Rows and columns each take the mean over their positives of ``-log softmax``, as in supervised contrastive
    learning (arXiv 2004.11362); with one positive on the diagonal it is CLIP's loss. Texts that fit no image of the
    batch, and images that fit no text, are left out.

    Args:
        similarities: Scaled cosines of images and texts ``[B, T]``.
        positives: Which text is true of which image, bool ``[B, T]``.
    """
    weights = positives.float()
    losses = []
    for axis in (1, 0):
        log_probabilities = similarities.log_softmax(axis)
        counts = weights.sum(axis)
        per_row = -(log_probabilities * weights).sum(axis) / counts.clamp(min=1)
        losses.append(per_row[counts > 0].mean())
    return (losses[0] + losses[1]) / 2


def paraphrase_loss(similarities: Tensor, same: Tensor) -> Tensor:
    """Return the contrastive loss among texts: wordings of one fact attract, other facts of the kind repel.

    Args:
        similarities: Scaled cosines of texts of one kind ``[T, T]``.
        same: Which texts state the same fact, bool ``[T, T]``.

    Returns:
        The mean over texts with a paraphrase of the mean ``-log softmax`` over its paraphrases, itself left out;
        0 where no text has one.
    """
    itself = torch.eye(len(same), dtype=torch.bool)
    weights = (same & ~itself).float()
    log_probabilities = similarities.masked_fill(itself, float("-inf")).log_softmax(1).masked_fill(itself, 0.0)
    counts = weights.sum(1)
    return -((log_probabilities * weights).sum(1) / counts.clamp(min=1)).sum() / (counts > 0).sum().clamp(min=1)
