"""Insertion and deletion curves of one target on one photograph, as finished numbers."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

HEAT, REVERSED, RANDOM = "heat", "reversed", "random"


@dataclass(frozen=True)
class CurveRow:
    """Which map a pair of curves is of.

    Attributes:
        method: Name of the method; empty for random maps.
        item: Which item of the answer is scored.
        order: ``heat``, hottest places first; ``reversed``, coldest first; ``random``, of a random smooth map.
    """

    method: str
    item: int
    order: str


@dataclass(frozen=True)
class MeasuredCurves:
    """The curves of all methods about one target on one photograph.

    Attributes:
        protocol: Its name.
        words: Whose settings those are, for a reader.
        score_name: What the heights are.
        rows: R of them.
        shares: Share of the picture that is inserted or deleted, ``[K]``.
        insertion: ``[R, K]``.
        deletion: ``[R, K]``.
        areas: Areas under insertion and deletion, ``[R, 2]``.
        note: What a reader must know of the score; empty for most.
    """

    protocol: str
    words: str
    score_name: str
    rows: tuple[CurveRow, ...]
    shares: NDArray[np.floating]
    insertion: NDArray[np.floating]
    deletion: NDArray[np.floating]
    areas: NDArray[np.floating]
    note: str = ""

    def chosen(self, item: int, order: str, method: str | None = None) -> list[int]:
        """Return which of the rows are about an item, in one order, of one method or of any."""
        return [
            number
            for number, row in enumerate(self.rows)
            if (row.item, row.order) == (item, order) and method in (None, row.method)
        ]
