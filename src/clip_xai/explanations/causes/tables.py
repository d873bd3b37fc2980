"""What was measured, as tables: for programs, and for readers of page and terminal."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from clip_xai.explanations.causes.measures import CRITERIA, Measured
from clip_xai.explanations.causes.one_scene import SceneCauses
from clip_xai.explanations.causes.ranking import Place, ranked, rows_of
from clip_xai.explanations.causes.scene_targets import STRUCTURE, TARGETS
from clip_xai.metrics.intervals import Interval

ALL, PASSING = "all", "passing"
EVERY = "any"  # of the targets


def map_table(measured: Measured) -> pd.DataFrame:
    """Return one row for each scene, thing asked and method, with every criterion."""
    rows = []
    for number, (method, weights) in enumerate(measured.methods):
        for column, row in enumerate(measured.rows):
            values = {name: measured.values[name][number, column] for name in CRITERIA}
            rows.append(vars(row) | {"method": method, "weights": weights} | values)
    return pd.DataFrame(rows)


def effect_table(scenes: Sequence[SceneCauses]) -> pd.DataFrame:
    """Return one row for each scene, thing asked and part: what the part does, in four ways."""
    rows: list[dict[str, Any]] = []
    for scene in scenes:
        removed, added = scene.coalitions.removals(scene.values), scene.coalitions.additions(scene.values)
        for thing, name in enumerate(scene.names):
            for part, kind in enumerate(scene.kinds):
                own = scene.parts[part] == scene.labels[thing]
                rows.append(
                    {
                        "scene": scene.seed, "caption": scene.caption, "target": name, "label": scene.labels[thing],
                        "part": scene.parts[part], "kind": kind, "named": name == STRUCTURE and own,
                        "effect": scene.effects[part, thing], "removal": removed[part, thing],
                        "addition": added[part, thing], "effect_anew": scene.effects_anew[part, thing],
                        "exact": scene.coalitions.exact, "passes": scene.verdicts[thing].passes,
                    }
                )  # fmt: skip
    return pd.DataFrame(rows)


def rankings(measured: Measured, seed: int = 0) -> dict[tuple[str, str, str], list[Place]]:
    """Return the methods ranked by (criterion, target, scenes), for all scenes and for those that pass."""
    found = {}
    for target in (None, *TARGETS):
        for passing in (False, True):
            keep = rows_of(measured.rows, target, passing)
            for criterion in CRITERIA:
                places = ranked(measured, criterion, keep, seed=seed)
                if places:
                    found[criterion, target or EVERY, PASSING if passing else ALL] = places
    return found


def rank_table(found: Mapping[tuple[str, str, str], Sequence[Place]]) -> pd.DataFrame:
    """Return the rankings as one table, a row for each place."""
    rows = []
    for (criterion, target, scenes), places in found.items():
        for place in places:
            row: dict[str, Any] = {"criterion": criterion, "target": target, "scenes": scenes}
            row |= {"method": place.method[0], "weights": place.method[1]}
            row |= _bounds("", place.score) | {"n": place.score.n, "groups": place.score.groups}
            row |= {"rank": place.rank, "rank_low": place.ranks and place.ranks[0]}
            row |= {"rank_high": place.ranks and place.ranks[1]}
            row |= _bounds("lead_", place.lead) | {"leads": place.leads if place.decided else None}
            rows.append(row)
    return pd.DataFrame(rows)


def counts(scenes: Sequence[SceneCauses]) -> dict[str, dict[str, int]]:
    """Return, for each target, of how many scenes it is asked, right, flips, stays, passes all three, is unmoved."""
    found: dict[str, Counter[str]] = {}
    for scene in scenes:
        for name in scene.left_out:
            found.setdefault(name, Counter())["not asked"] += 1
        for thing, name in enumerate(scene.names):
            of_target, verdict = found.setdefault(name, Counter()), scene.verdicts[thing]
            of_target["asked"] += 1
            of_target["right"] += verdict.right
            of_target["flips"] += verdict.flips
            of_target["stays"] += verdict.stays
            of_target["passes"] += verdict.passes
            of_target["unmoved"] += bool(scene.unmoved[thing])
            of_target["without parts"] += not scene.parts
    keys = ("asked", "not asked", "right", "flips", "stays", "passes", "unmoved", "without parts")
    return {name: {key: int(found[name][key]) for key in keys} for name in TARGETS if name in found}


def _bounds(prefix: str, found: Interval | None) -> dict[str, float | None]:
    if found is None:
        return {f"{prefix}{key}": None for key in ("value", "low", "high")}
    known = {"value": found.value, "low": found.low, "high": found.high}
    return {f"{prefix}{key}": value if np.isfinite(value) else None for key, value in known.items()}
