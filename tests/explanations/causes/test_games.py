"""Shapley values against brute force over all orders of the parts."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest

from clip_xai.explanations.causes.games import MOST_EXACT, Coalitions


def score(present: np.ndarray) -> float:
    """A game with a sum, a pair that counts together, two of which one is enough, and a part that speaks against."""
    a, b, c, d, *rest = (bool(one) for one in present)
    return 2.0 * a + 1.5 * (a and b) + 3.0 * (c or d) - 0.5 * sum(rest) + 0.25 * (b and not d)


def scores(coalitions: Coalitions) -> np.ndarray:
    return np.array([[score(row), float(row.all())] for row in coalitions.present])


def brute_force(parts: int) -> np.ndarray:
    found = np.zeros(parts)
    orders = list(permutations(range(parts)))
    for order in orders:
        present = np.zeros(parts, bool)
        for part in order:
            before = score(present)
            present[part] = True
            found[part] += score(present) - before
    return found / len(orders)


@pytest.mark.parametrize("parts", [4, 5, 7])
def test_values_are_the_mean_over_all_orders(parts: int) -> None:
    coalitions = Coalitions.of(parts)
    assert coalitions.exact and len(coalitions.present) == 2**parts
    found = coalitions.shapley(scores(coalitions))
    np.testing.assert_allclose(found[:, 0], brute_force(parts), atol=1e-12)
    np.testing.assert_allclose(found[:, 1], 1 / parts)


def test_many_parts_are_drawn_along_orders_and_their_values_add_up() -> None:
    coalitions = Coalitions.of(MOST_EXACT + 1, seed=3)
    assert not coalitions.exact and len(coalitions.present) < 2 ** (MOST_EXACT + 1)
    found = coalitions.shapley(scores(coalitions))[:, 0]
    whole = score(np.ones(MOST_EXACT + 1, bool)) - score(np.zeros(MOST_EXACT + 1, bool))
    assert found.sum() == pytest.approx(whole)
    np.testing.assert_allclose(found, brute_force(MOST_EXACT + 1), atol=0.35)
    np.testing.assert_allclose(found[[4, 5, 6, 7]], -0.5)  # what is additive has no spread
    np.testing.assert_array_equal(Coalitions.of(MOST_EXACT + 1, seed=3).orders, coalitions.orders)


@pytest.mark.parametrize("parts", [0, 1, 2, 4, 9])
def test_removals_and_additions_are_single_differences(parts: int) -> None:
    coalitions = Coalitions.of(parts)
    values = coalitions.present.sum(axis=1, keepdims=True).astype(float) ** 2
    assert coalitions.shapley(values).shape == (parts, 1)
    np.testing.assert_allclose(coalitions.removals(values), parts**2 - (parts - 1) ** 2)
    np.testing.assert_allclose(coalitions.additions(values), 1.0)
    rows = coalitions.rows(coalitions.present)
    np.testing.assert_array_equal(rows, np.arange(len(coalitions.present)))
