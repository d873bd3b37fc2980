"""Maps held against effects that are known: the protocols of FunnyBirds for words (Hesse et al., ICCV 2023).

A part's importance is the signed mass of the map inside its visible mask. Parts are called important whose share of the
positive importances reaches a threshold; for each method it is the one of ``THRESHOLDS`` that does best by it, as
published. Log-odds of words fall bit by bit and seldom cross 0, so a drawing holds a word if it has at least half of
what all parts together bring to its log-odds; words to which they bring less than a tenth of a nat are left out.

- agreement: do importances and effects order parts alike? Each pair of parts counts with the distance of its effects,
  so that a dozen parts of hardly any effect do not outweigh the two that decide; 0 to 1, a map that knows nothing has
  .5. Spearman's rho, (rho + 1) / 2, stands beside it (scenes of three parts or more).
- place: the same of absolute importances and absolute effects: where is what matters, whichever way it speaks? A map
  without negative values cannot say the way, and is judged fairly here alone. Large parts matter more, so that even a
  flat map is above .5: only the lead over random weights and over the controls counts.
- preserved: the important parts alone hold the word. deleted: all others together do not.
- sufficient: share of a smallest set of parts that holds the word which is called important, best over sets.
- undistracted: one minus the share of parts that hardly speak for the word (up to 5 % of what all that do say) which
  are called important.
- completeness: ((sufficient + preserved + deleted) / 3 + undistracted) / 2.
- contrastivity: of two words of a scene, the map of each must prefer the part that speaks more for it than for the
  other.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

from clip_xai.explanations.causes.games import Coalitions
from clip_xai.explanations.causes.one_scene import SceneCauses
from clip_xai.explanations.causes.scene_targets import STRUCTURE

THRESHOLDS = tuple(round(0.02 * step, 2) for step in range(1, 26))
FEWEST_PARTS = 3
IRRELEVANT = 0.05
LEAST_BROUGHT = 0.1  # nats
PROTOCOLS = ("sufficient", "preserved", "deleted", "undistracted")
AGREEMENT, PLACE, SPEARMAN = "agreement", "place", "agreement, unweighted"
POSITIVE, ANEW = "agreement of the positive part", "agreement, written anew"
COMPLETENESS, CONTRASTIVITY = "completeness", "contrastivity"
CRITERIA = (AGREEMENT, PLACE, COMPLETENESS, CONTRASTIVITY, ANEW, SPEARMAN, POSITIVE, *PROTOCOLS)
Values = NDArray[np.float64]
Method = tuple[str, str]


@dataclass(frozen=True)
class Row:
    """One thing asked about one scene.

    Attributes:
        scene: Its seed.
        target: ``diagnosis``, ``structure`` or ``contrast``.
        label: What is asked.
        parts: How many the scene has.
        passes: Whether it is right, flips and stays.
        moved: Whether the parts together speak for it by a tenth of a nat or more.
    """

    scene: int
    target: str
    label: str
    parts: int
    passes: bool
    moved: bool


@dataclass(frozen=True)
class Measured:
    """Every method on every row.

    Attributes:
        methods: M pairs of a name and the weights that its maps were made with.
        rows: R things asked.
        values: Criterion -> values ``[M, R]``; NaN where it is not defined.
        thresholds: The share from which on each method's parts are called important.
    """

    methods: tuple[Method, ...]
    rows: tuple[Row, ...]
    values: dict[str, Values]
    thresholds: dict[Method, float]


def measure(scenes: Sequence[SceneCauses]) -> Measured:
    """Hold every map of some scenes against the effects."""
    methods = tuple(dict.fromkeys(method for scene in scenes for method in scene.masses))
    rows = [
        Row(scene.seed, scene.names[thing], scene.labels[thing], len(scene.parts), scene.verdicts[thing].passes,
            bool(scene.whole[thing] - scene.bare[thing] >= LEAST_BROUGHT))
        for scene in scenes for thing in range(len(scene.names))
    ]  # fmt: skip
    values = {name: np.full((len(methods), len(rows)), np.nan) for name in CRITERIA}
    at_thresholds = np.full((len(PROTOCOLS), len(methods), len(rows), len(THRESHOLDS)), np.nan)
    first = 0
    for scene in scenes:
        things = range(len(scene.names))
        for number, method in enumerate(methods):
            if method not in scene.masses:
                continue
            own = scene.masses[method]
            for thing in things:
                row = first + thing
                signed, positive = own[thing].T
                if np.isnan(signed).any() or not len(signed):
                    continue
                values[AGREEMENT][number, row] = agreement(signed, scene.effects[:, thing])
                values[PLACE][number, row] = agreement(np.abs(signed), np.abs(scene.effects[:, thing]))
                values[SPEARMAN][number, row] = unweighted(signed, scene.effects[:, thing])
                values[POSITIVE][number, row] = agreement(positive, scene.effects[:, thing])
                values[ANEW][number, row] = agreement(signed, scene.effects_anew[:, thing])
                if rows[row].moved and scene.coalitions.exact:
                    holds = scene.values[:, thing] >= (scene.whole[thing] + scene.bare[thing]) / 2
                    at_thresholds[:, number, row] = protocols(signed, scene.effects[:, thing], scene.coalitions, holds)
            if STRUCTURE in scene.names:
                word = scene.names.index(STRUCTURE)
                pairs = [contrastivity(own[[word, other], :, 0], scene.effects[:, [word, other]].T)
                         for other in things if other != word]  # fmt: skip
                known = [pair for pair in pairs if not np.isnan(pair)]
                values[CONTRASTIVITY][number, first + word] = np.mean(known) if known else np.nan
        first += len(things)
    sufficient, preserved, deleted, undistracted = at_thresholds
    complete = ((sufficient + preserved + deleted) / 3 + undistracted) / 2
    best = [_best(of_method) for of_method in complete]
    for number, step in enumerate(best):
        values[COMPLETENESS][number] = complete[number, :, step]
        for name, protocol in zip(PROTOCOLS, at_thresholds, strict=True):
            values[name][number] = protocol[number, :, step]
    thresholds = {method: THRESHOLDS[step] for method, step in zip(methods, best, strict=True)}
    return Measured(methods, tuple(rows), values, thresholds)


def _best(of_method: Values) -> int:
    """Return which threshold is best on average over rows ``[R, K]``."""
    known = ~np.isnan(of_method[:, 0])
    return int(of_method[known].mean(axis=0).argmax()) if known.any() else 0


def agreement(importances: Values, effects: Values) -> float:
    """Return how far importances order parts as effects do, each pair weighed by the distance of its effects.

    ``1/2 + sum over pairs |e_i - e_j| sign((m_i - m_j)(e_i - e_j)) / (2 sum over pairs |e_i - e_j|)``: 1 for the same
    order, 0 for the reverse; NaN where all parts have the same effect.

    >>> agreement(np.array([1.0, 0.5]), np.array([2.0, -1.0]))
    1.0
    """
    apart = effects[:, None] - effects[None, :]
    total = float(np.abs(apart).sum())
    if len(effects) < 2 or np.isnan(effects).any() or total == 0:
        return float("nan")
    return float((apart * np.sign(importances[:, None] - importances[None, :])).sum() / total + 1) / 2


def unweighted(importances: Values, effects: Values) -> float:
    """Return (rho + 1) / 2 with Spearman's rho, ties sharing their mean rank; NaN under three parts or without effect.

    >>> unweighted(np.array([1.0, 2.0, 3.0]), np.array([0.1, 0.2, 0.9]))
    1.0
    """
    if len(effects) < FEWEST_PARTS or np.isnan(effects).any() or np.ptp(effects) == 0:
        return float("nan")
    first, second = rankdata(importances), rankdata(effects)
    first, second = first - first.mean(), second - second.mean()
    spread = float(np.sqrt((first**2).sum() * (second**2).sum()))
    return 0.5 if spread == 0 else float((first @ second / spread + 1) / 2)


def shares(importances: Values) -> Values:
    """Return each part's importance over the sum of the positive ones; 0 where none is."""
    total = float(importances.clip(min=0).sum())
    return importances / total if total > 0 else np.zeros_like(importances)


def protocols(importances: Values, effects: Values, coalitions: Coalitions, holds: NDArray[np.bool_]) -> Values:
    """Return the four protocols of ``PROTOCOLS`` at every threshold: ``[4, K]``.

    Args:
        importances: Of the n parts.
        effects: Of the parts.
        coalitions: Drawings of all their subsets.
        holds: Whether each drawing holds the word.
    """
    important = shares(importances)[None, :] >= np.array(THRESHOLDS)[:, None]
    preserved = holds[coalitions.rows(important)]
    deleted = ~holds[coalitions.rows(~important)]
    smallest = sufficient_sets(coalitions.present, holds)
    named = (important.astype(float) @ smallest.T.astype(float)) / smallest.sum(axis=1)
    irrelevant = shares(effects) <= IRRELEVANT
    distracted = (important & irrelevant).sum(axis=1) / max(1, int(irrelevant.sum()))
    return np.stack([named.max(axis=1), preserved, deleted, 1 - distracted]).astype(float)


def sufficient_sets(present: NDArray[np.bool_], holds: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return the sets of parts that suffice and of which no smaller part does, ``[K, n]``."""
    enough = present[holds]
    within = (enough[:, None, :] <= enough[None, :, :]).all(axis=2)  # is the first inside of the second?
    return enough[within.sum(axis=0) == 1]


def contrastivity(importances: Values, effects: Values) -> float:
    """Tell whether the maps of two words prefer what speaks for each of them: 1, 0, or a half where they are alike.

    Between the part i that speaks more for the first word than for the second, and j that does so least, the first map
    must lean to i more than the second does.

    Args:
        importances: Of n parts for both words, ``[2, n]``.
        effects: Likewise.

    Returns:
        NaN where the words have the same effects or a map is missing.
    """
    if effects.shape[1] < 2 or np.isnan(importances).any():
        return float("nan")
    first, second = (one / max(float(np.abs(one).sum()), 1e-300) for one in effects)
    apart = first - second
    i, j = int(apart.argmax()), int(apart.argmin())
    if apart[i] - apart[j] <= 1e-12:
        return float("nan")
    one, two = (own / max(float(np.abs(own).sum()), 1e-300) for own in importances)
    lean = (one[i] - one[j]) - (two[i] - two[j])
    return 0.5 if abs(lean) < 1e-12 else float(lean > 0)
