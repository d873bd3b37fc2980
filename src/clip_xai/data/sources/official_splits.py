"""Validation patients out of a publisher's training list, where it publishes none: the same ones on every machine."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

#: Share of the training patients that validate.
SHARE = 1 / 8


def held_for_validation(source: str, patients: Iterable[str]) -> set[str]:
    """Choose which patients of a training list validate.

    A patient's choice depends on its name alone, not on which others are there or on a seed. Of two or more patients at
    least one validates and at least one trains.

    Args:
        source: Name of the data set.
        patients: Patients of the training list.
    """
    draws = sorted((hashlib.sha256(f"{source} val:{patient}".encode()).hexdigest(), patient) for patient in patients)
    if len(draws) < 2:
        return set()
    below = sum(int(draw, 16) / 16**64 < SHARE for draw, _ in draws)
    return {patient for _, patient in draws[: min(max(below, 1), len(draws) - 1)]}
