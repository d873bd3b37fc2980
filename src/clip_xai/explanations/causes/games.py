"""Which sets of parts are drawn, and each part's Shapley value from the scores of these drawings.

Parts are redundant: a diagnosis that rests on two structures may stay when either is missing. The Shapley value shares
the score among them: the mean, over all orders in which the parts can be added, of what a part adds to those before it
(Shapley 1953).
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from math import factorial

import numpy as np
from numpy.typing import NDArray

#: So many parts are drawn in all subsets, at most 128; as many permutations of more parts visit no more sets than that.
MOST_EXACT = 7
ORDERS = 32


@dataclass(frozen=True)
class Coalitions:
    """Sets of n parts that are drawn.

    Attributes:
        present: Which parts each of C drawings has, bool ``[C, n]``, no two alike. Among them are no part, all parts,
            each part alone and all without each.
        orders: Orders of the parts whose beginnings are all among them, ``[P, n]``; none where every subset is drawn.
    """

    present: NDArray[np.bool_]
    orders: NDArray[np.int64]

    @classmethod
    def of(cls, parts: int, seed: int = 0) -> Coalitions:
        """Choose the sets: all up to seven parts, else the beginnings of 32 orders, half of them drawn at random.

        The other half are these orders backwards, which lowers the variance of what is estimated.

        Args:
            parts: n, 0 or more.
            seed: Seed of the orders.

        Example:
            >>> len(Coalitions.of(3).present), Coalitions.of(3).exact, Coalitions.of(9).exact
            (8, True, False)
        """
        if parts <= MOST_EXACT:
            every = np.array(list(product((False, True), repeat=parts)), dtype=bool).reshape(2**parts, parts)
            return cls(every, np.empty((0, parts), dtype=np.int64))
        generator = np.random.default_rng(seed)
        forward = np.stack([generator.permutation(parts) for _ in range(ORDERS // 2)])
        orders = np.concatenate([forward, forward[:, ::-1]])
        alone = np.eye(parts, dtype=bool)
        beginnings = [_beginnings(order) for order in orders]
        return cls(np.unique(np.concatenate([alone, ~alone, *beginnings]), axis=0), orders)

    @property
    def exact(self) -> bool:
        """Whether every subset is drawn, so that Shapley values are exact."""
        return not len(self.orders)

    @property
    def parts(self) -> int:
        """How many parts there are, n."""
        return int(self.present.shape[1])

    def rows(self, present: NDArray[np.bool_]) -> NDArray[np.int64]:
        """Return which drawing has exactly these parts, for sets ``[K, n]``.

        Raises:
            KeyError: One of them is not drawn.
        """
        known = {row.tobytes(): number for number, row in enumerate(self.present)}
        return np.array([known[row.tobytes()] for row in np.ascontiguousarray(present)], dtype=np.int64)

    def shapley(self, values: NDArray[np.floating]) -> NDArray[np.float64]:
        """Return the Shapley value of each part in T games, ``[n, T]``; exact if all subsets are drawn.

        Args:
            values: Score of each drawing, ``[C, T]``.

        Example:
            >>> both = Coalitions.of(2)
            >>> both.shapley(both.present.all(axis=1, keepdims=True).astype(float)).ravel().tolist()
            [0.5, 0.5]
        """
        values = np.asarray(values, dtype=np.float64)
        found = np.zeros((self.parts, values.shape[1]))
        if not self.exact:
            for order in self.orders:
                along = values[self.rows(_beginnings(order))]
                found[order] += np.diff(along, axis=0) / len(self.orders)
            return found
        sizes = self.present.sum(axis=1)
        for part in range(self.parts):
            absent = np.flatnonzero(~self.present[:, part])
            with_it = self.present[absent].copy()
            with_it[:, part] = True
            weights = [factorial(size) * factorial(self.parts - size - 1) for size in sizes[absent]]
            gains = values[self.rows(with_it)] - values[absent]
            found[part] = np.asarray(weights, dtype=np.float64) @ gains / factorial(self.parts)
        return found

    def removals(self, values: NDArray[np.floating]) -> NDArray[np.float64]:
        """Return what the whole loses without each part, ``[n, T]``."""
        alone = np.eye(self.parts, dtype=bool)
        return np.asarray(values)[self.rows(np.ones((1, self.parts), bool))] - np.asarray(values)[self.rows(~alone)]

    def additions(self, values: NDArray[np.floating]) -> NDArray[np.float64]:
        """Return what each part alone adds to none, ``[n, T]``."""
        alone = np.eye(self.parts, dtype=bool)
        return np.asarray(values)[self.rows(alone)] - np.asarray(values)[self.rows(np.zeros((1, self.parts), bool))]


def _beginnings(order: NDArray[np.int64]) -> NDArray[np.bool_]:
    """No part, the first, the first two ... all: bool ``[n + 1, n]``."""
    place = np.argsort(order)
    return place[None, :] < np.arange(len(order) + 1)[:, None]
