"""Planted shortcuts, summarised: which captioners cheat, and from which strength on each method reveals it.

A method reveals the cheat at strength p if its share of heat on the artefact lies above that at p = 0, paired by scene,
for **both** captioners that learned nothing, so that what two of them differ by is not taken for a cheat; corrected for
all methods and strengths of an artefact (Holm). It reveals it *from p on* if it does so at p and at every larger one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from clip_xai.explanations.causes.maps import CONTROL
from clip_xai.metrics.intervals import Interval, bounds, effective_clusters, mean_interval, mean_of_sums, resampled_sums
from clip_xai.metrics.multiplicity import ALPHA, above, holm

KINDS = ("positive", "absolute")


@dataclass(frozen=True)
class Reliance:
    """What an artefact truly does to the diagnosis it stands for, in one captioner.

    Attributes:
        artefact: Its name.
        p: The strength.
        again: Whether this is the second captioner that learned nothing.
        added: Change of the word's log-odds when it is added, in nats.
        moved: The same at another place; None where it has none.
        beyond: ``added`` above that of the captioner that learned nothing, paired by scene.
        flips: How many scenes' word flips, of ``added.n``.
        says: Share of captions, written anew, that state the diagnosis: without the artefact, with it, and with it
            elsewhere; None where there is no other place.
        says_more: The share with it less that without it, paired.
        true_share: The artefact's share of its and the lesion's effect.
        cheats: Whether ``added`` lies above that of both captioners that learned nothing; None for these.
    """

    artefact: str
    p: float
    again: bool
    added: Interval
    moved: Interval | None
    beyond: Interval
    flips: int
    says: tuple[float, float, float | None]
    says_more: Interval
    true_share: float
    cheats: bool | None


@dataclass(frozen=True)
class Revealed:
    """How one method fares on one artefact, by one kind of heat.

    Attributes:
        artefact: Its name.
        method: The method or control.
        kind: ``positive`` or ``absolute``.
        area: The artefact's share of the area, which a map that knows nothing has.
        shares: Mean share of heat on the artefact at each strength.
        rises: At each strength above 0, the share above the mean of both captioners that learned nothing, by scene.
        revealed: At which strengths it reveals the cheat.
        reveals_from: The smallest strength from which on it does; None for none.
        other: The same rises of another part of the scene.
        false_alarm: Whether it tells the two captioners apart that both learned nothing.
        follows: At the largest strength, the share that goes along to another place; None where there is none.
        follows_anyway: The same of the captioner that learned nothing.
        sensitivity: Confounder sensitivity at the largest strength, of scenes that flip; None where none does.
        ncc: Explanation NCC, likewise.
        sensitivity_anyway: Of the same scenes, the confounder sensitivity for the captioner that learned nothing.
        ncc_anyway: The explanation NCC, likewise.
    """

    artefact: str
    method: str
    kind: str
    area: float
    shares: dict[float, float]
    rises: dict[float, Interval]
    revealed: dict[float, bool]
    reveals_from: float | None
    other: dict[float, Interval]
    false_alarm: bool
    follows: Interval | None
    follows_anyway: Interval | None
    sensitivity: float | None
    ncc: float | None
    sensitivity_anyway: float | None
    ncc_anyway: float | None

    @property
    def control(self) -> bool:
        """Whether it is a map that no method made."""
        return self.method.startswith(CONTROL)


def reliances(rows: Sequence[Mapping[str, Any]], seed: int = 0) -> list[Reliance]:
    """Summarise what the artefacts truly do.

    Args:
        rows: Those of scenes; others are left alone.
        seed: Seed of the intervals.
    """
    table = pd.DataFrame([row for row in rows if "added" in row])
    found = []
    for artefact, own in table.groupby("artefact", sort=False) if len(table) else ():
        added = _by_learner(own, "added")
        scenes = added.index.astype(str).tolist()
        for p, again in _learners(added):
            at = own[(own["p"] == p) & (own["again"] == again)].set_index("scene").loc[added.index]
            moved = at["moved"].dropna().astype(float)
            places = moved.index.astype(str).tolist()
            less = {zero: added[p, again] - added[0.0, zero] for zero in (False, True)}
            cheats = None
            if p > 0:
                cheats = max(_p_value(one.to_numpy(), scenes, seed, np.inf) for one in less.values()) <= ALPHA
            anew = at["says_moved"].dropna()
            more = at["says_with"].astype(float) - at["says_without"].astype(float)
            found.append(
                Reliance(
                    str(artefact), p, again, mean_interval(added[p, again], scenes, seed=seed),
                    mean_interval(moved, places, seed=seed) if len(moved) else None,
                    mean_interval(less[False], scenes, seed=seed), int(at["flips"].sum()),
                    (float(at["says_without"].mean()), float(at["says_with"].mean()),
                     float(anew.astype(float).mean()) if len(anew) else None),
                    mean_interval(more, scenes, seed=seed, span=(-1.0, 1.0)),
                    float(at["true_share"].astype(float).mean()), cheats,
                )
            )  # fmt: skip
    return found


def revealed(rows: Sequence[Mapping[str, Any]], kind: str = "positive", seed: int = 0) -> list[Revealed]:
    """Summarise from which strength on each method reveals the cheat: those that do so earliest first, then controls.

    Args:
        rows: Those of methods; others are left alone.
        kind: Which heat counts, ``positive`` or ``absolute``.
        seed: Seed of the intervals.
    """
    table = pd.DataFrame([row for row in rows if "method" in row and "area" in row])
    found: list[Revealed] = []
    for _, own in table.groupby("artefact", sort=False) if len(table) else ():
        by_method = {str(method): one for method, one in own.groupby("method", sort=False)}
        chances, alarms = {}, {}
        for method, one in by_method.items():
            for p, pair in _against_none(one, kind).items():
                scenes = pair.index.astype(str).tolist()
                tests = [_p_value(pair[name].to_numpy(), scenes, seed, -1.0) for name in pair]
                if p == 0:
                    alarms[method] = min(1.0, 2 * min(tests))
                else:
                    chances[method, p] = max(tests)
        truly, alarmed = _corrected(chances), _corrected({(name, 0.0): chance for name, chance in alarms.items()})
        found += [_summary(one, method, kind, truly, alarmed, seed) for method, one in by_method.items()]
    order = {method: number for number, method in enumerate(dict.fromkeys(one.method for one in found))}
    return sorted(
        found,
        key=lambda one: (
            one.artefact, one.control, one.reveals_from is None, one.reveals_from or 0.0,
            -_last(one.rises), order[one.method],
        ),
    )  # fmt: skip


def reveals_from(revealed_at: Mapping[float, bool]) -> float | None:
    """Return the smallest strength from which on the cheat is revealed at every one.

    >>> reveals_from({0.2: True, 0.5: False, 0.8: True, 1.0: True})
    0.8
    """
    found = None
    for p in sorted(revealed_at, reverse=True):
        if not revealed_at[p]:
            break
        found = p
    return found


def refused(rows: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """Return why methods have no map, by method."""
    return {str(row["method"]): str(row["refused"]) for row in rows if row.get("refused")}


def _summary(
    own: pd.DataFrame, method: str, kind: str, truly: Mapping[tuple[str, float], bool],
    alarmed: Mapping[tuple[str, float], bool], seed: int,
) -> Revealed:  # fmt: skip
    strengths = sorted({float(p) for p in own["p"]})
    shares = {p: _mean(own.loc[(own["p"] == p) & ~own["again"], kind]) for p in strengths}
    at = {p: truly.get((method, p), False) for p in strengths if p > 0}
    strongest = own[own["p"] == strengths[-1]].set_index("scene")
    flips = strongest.index[strongest["flips"].astype(bool)]
    zero = own[(own["p"] == 0) & ~own["again"]].set_index("scene")
    published = [_mean(one.loc[flips, name]) for one in (strongest, zero) for name in ("sensitivity", "ncc")]
    return Revealed(
        str(own["artefact"].iloc[0]), method, kind, float(own["area"].mean()),
        {p: share for p, share in shares.items() if share is not None},
        _rises(own, kind, seed), at, reveals_from(at), _rises(own, f"other_{kind}", seed),
        alarmed.get((method, 0.0), False), _interval(strongest["follows"], seed), _interval(zero["follows"], seed),
        *published,
    )  # fmt: skip


def _against_none(own: pd.DataFrame, key: str) -> dict[float, pd.DataFrame]:
    """By strength, the difference from each captioner that learned nothing; for 0 the two's, in both directions."""
    values = _by_learner(own, key)
    if (0.0, False) not in values or (0.0, True) not in values:
        return {}
    one, other = values[0.0, False], values[0.0, True]
    found = {0.0: pd.DataFrame({"above": other - one, "below": one - other}).dropna()}
    for p, again in _learners(values):
        if p > 0 and not again:
            found[p] = pd.DataFrame({"first": values[p, again] - one, "second": values[p, again] - other}).dropna()
    return {p: pair for p, pair in found.items() if len(pair)}


def _rises(own: pd.DataFrame, key: str, seed: int) -> dict[float, Interval]:
    found = {}
    for p, pair in _against_none(own, key).items():
        if p > 0:
            found[p] = mean_interval(pair.mean(axis=1), pair.index.astype(str).tolist(), seed=seed, span=(-1.0, 1.0))
    return found


def _by_learner(own: pd.DataFrame, key: str) -> pd.DataFrame:
    return own.pivot(index="scene", columns=["p", "again"], values=key).astype(float)


def _learners(values: pd.DataFrame) -> list[tuple[float, bool]]:
    """The captioners that columns are of, in the order of the rows."""
    strengths, again = (values.columns.get_level_values(level) for level in (0, 1))
    return [(float(p), bool(second)) for p, second in zip(strengths, again, strict=True)]


def _p_value(differences: NDArray[np.floating], scenes: Sequence[str], seed: int, least: float) -> float:
    """One-sided, of a mean above 0."""
    sums = np.stack([differences, np.ones_like(differences)], axis=-1)
    draws = mean_of_sums(resampled_sums(sums, scenes, seed=seed))
    mean = float(np.mean(differences))
    if np.isinf(least) and np.ptp(draws) <= 1e-9:  # nothing bounds a change of log-odds
        return 0.0 if mean > 0 else 1.0
    found = bounds(mean, draws, scenes)
    return above(found.value, draws, effective_clusters(scenes), least)


def _corrected(chances: Mapping[tuple[str, float], float]) -> dict[tuple[str, float], bool]:
    """Which hold, corrected for all methods; a control, which is not one of them, is held to the strictest bound."""
    methods = [key for key in chances if not key[0].startswith(CONTROL)]
    found = dict(zip(methods, holm([chances[key] for key in methods]), strict=True))
    strictest = ALPHA / max(1, len(methods))
    return found | {key: chances[key] <= strictest for key in chances if key not in found}


def _interval(values: pd.Series, seed: int) -> Interval | None:
    known = values.dropna().astype(float)
    return mean_interval(known, known.index.astype(str).tolist(), seed=seed, span=(-1.0, 1.0)) if len(known) else None


def _mean(values: pd.Series) -> float | None:
    known = values.dropna()
    return float(known.astype(float).mean()) if len(known) else None


def _last(rises: Mapping[float, Interval]) -> float:
    return rises[max(rises)].value if rises else -1.0
