"""What is measured of a classifier while it trains."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torchmetrics import Metric

from clip_xai.metrics.ranking import Members, ranking

Matrix = NDArray[np.float64]


class MeanAuroc(Metric):
    """Mean area under the ROC curve over the classes that are present in some photographs and absent in others.

    Ranks are of ``softmax z`` where a photograph has one class, and of the logits themselves where it can have several:
    batches are never put on scales of their own.
    """

    full_state_update = False
    logits: list[Tensor]
    truth: list[Tensor]

    def __init__(self, multilabel: bool, **settings: Any) -> None:
        """Set what is ranked.

        Args:
            multilabel: Whether a photograph can show several classes at once.
            settings: Those of torchmetrics.
        """
        super().__init__(**settings)
        self.multilabel = multilabel
        self.add_state("logits", default=[], dist_reduce_fx="cat")
        self.add_state("truth", default=[], dist_reduce_fx="cat")

    def update(self, logits: Tensor, truth: Tensor) -> None:
        """Add a batch: logits and truth ``[B, C]``, NaN where a label does not count."""
        self.logits.append(logits.detach().double())
        self.truth.append(truth)

    def compute(self) -> Tensor:
        """Return the mean; NaN where no class is both present and absent."""
        logits, truth = (torch.cat(part) if isinstance(part, list) else part for part in (self.logits, self.truth))
        scores = logits if self.multilabel else logits.softmax(dim=1)
        found = aurocs(scores.cpu().numpy(), truth.cpu().double().numpy())
        return torch.tensor(np.nan if np.isnan(found).all() else np.nanmean(found), dtype=torch.float32)


def aurocs(scores: Matrix, truth: Matrix) -> Matrix:
    """Return each class's area under the ROC curve ``[C]``; NaN unless it is present and absent, and its scores finite.

    Args:
        scores: ``[n, C]``.
        truth: 1 present, 0 absent, NaN not counted, ``[n, C]``.
    """
    found = np.full(truth.shape[1], np.nan)
    for column in range(truth.shape[1]):
        counts = ~np.isnan(truth[:, column])
        present, ranked = truth[counts, column] == 1, scores[counts, column]
        if present.any() and not present.all() and np.isfinite(ranked).all():
            alone = Members(np.zeros(len(ranked), dtype=np.int64), 1)
            found[column] = ranking(ranked, present, alone).whole()[0]
    return found


def defined_for_some(truth: NDArray[np.float32]) -> bool:
    """Tell whether a class is present in some of the photographs and absent in others."""
    return bool(((truth == 1).any(axis=0) & (truth == 0).any(axis=0)).any())
