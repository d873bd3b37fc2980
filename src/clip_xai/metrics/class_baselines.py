"""Answers to compare a classifier with: those of someone who knows the training set and never sees an image."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from clip_xai.metrics.class_measures import Answers, Matrix
from clip_xai.metrics.results import MAJORITY, PRIOR, SYSTEMS
from clip_xai.metrics.verdicts import listed


def training_frequencies(
    train: ArrayLike | None,
    train_sources: Sequence[str] | None,
    origin: Sequence[str],
    classes: Sequence[str],
    multiple: bool,
) -> tuple[dict[str, Answers], dict[str, str]]:
    """Return what someone answers who knows the training set and looks at no image.

    Args:
        train: Truth of the training photographs, [m, C].
        train_sources: Source of each.
        origin: Source of each photograph that is judged.
        classes: Names of the labels.
        multiple: Whether a photograph can have several labels at once.

    Returns:
        The answers by system, and the reasons for what is not as it should be, by name.
    """
    states = np.empty((0, len(classes))) if train is None else np.asarray(train, dtype=np.float64)
    if not len(states) or np.isnan(states).all():
        return {}, {SYSTEMS[name]: "there is no training photograph with a known label" for name in (MAJORITY, PRIOR)}
    prior = np.empty((len(origin), len(classes)))
    whole, unknown = _frequency(states, multiple)
    # A source's own frequencies are the harder opponent: who knows the hospital knows its patients.
    for source in sorted(set(origin)):
        of_source = np.asarray(train_sources, dtype=str) == source if train_sources is not None else np.zeros(0, bool)
        own, missing = _frequency(states[of_source], multiple) if of_source.any() else (whole, unknown)
        prior[np.asarray(origin) == source] = np.where(missing, whole, own)
    majority = (prior > 0.5).astype(np.float64) if multiple else np.eye(len(classes))[prior.argmax(axis=1)]
    names = [name for name, missing in zip(classes, unknown, strict=True) if missing]
    reasons = {}
    if names:
        reasons[f"{SYSTEMS[PRIOR]} of {listed(names)}"] = "no training photograph states it; .5 stands in its place"
    answers = {MAJORITY: Answers.of_probabilities(majority), PRIOR: Answers.of_probabilities(prior)}
    return answers, reasons


def _frequency(states: Matrix, multiple: bool) -> tuple[Matrix, NDArray[np.bool_]]:
    """Frequency of each label among the rows that state it, and which labels none does."""
    if not multiple:
        states = np.where((states == 1).any(axis=1)[:, None], (states == 1).astype(np.float64), np.nan)
    count = (~np.isnan(states)).sum(axis=0)
    shares = np.divide(np.nansum(states, axis=0), count, out=np.full(states.shape[1], 0.5), where=count > 0)
    return shares, count == 0
