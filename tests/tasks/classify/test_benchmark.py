from __future__ import annotations

import numpy as np
import pytest

from benchmarks.classification import fine_tuning, median_interval


def test_both_loops_train_all_photographs() -> None:
    table = fine_tuning("test_resnet", rounds=2, count=16, batch_size=8)
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in table.splitlines() if line.startswith("| ")]
    assert [row[0] for row in rows[1:]] == ["bare PyTorch loop", "Lightning, validation included"]
    assert all(float(row[1].replace(",", "")) > 0 for row in rows[1:])


def test_the_interval_is_that_of_the_median() -> None:
    middle, low, high = median_interval(np.array([1.0, 1.1, 1.2, 1.1, 1.1, 9.0, 1.0, 1.1, 1.2]))
    assert middle == pytest.approx(1.1) and 1.0 <= low <= middle <= high <= 1.2
