"""Benjamini and Hochberg's q-values against SciPy's."""

from __future__ import annotations

import numpy as np
from scipy.stats import false_discovery_control

from clip_xai.metrics.multiplicity import benjamini_hochberg


def test_q_values_are_those_of_scipy() -> None:
    generator = np.random.default_rng(0)
    for count in (1, 2, 7, 60):
        p_values = generator.random(count).round(2)
        assert np.allclose(benjamini_hochberg(p_values), false_discovery_control(p_values))


def test_what_is_not_known_takes_no_part() -> None:
    found = np.array(benjamini_hochberg([0.01, float("nan"), 0.04]))
    assert np.isnan(found[1]) and np.allclose(found[[0, 2]], false_discovery_control([0.01, 0.04]))
    assert benjamini_hochberg([]) == []
