"""Every measure by its key, as protocols name them."""

from __future__ import annotations

import difflib
from collections.abc import Sequence

from clip_xai.errors import UserError
from clip_xai.explanations.measures.base import Measure
from clip_xai.explanations.measures.cost import Backwards, Completeness, Forwards, Memory, Seconds
from clip_xai.explanations.measures.faithfulness import (
    Deletion,
    FFidelityGain,
    Infidelity,
    Insertion,
    RelevanceGain,
    SensitivityMax,
    SensitivityN,
)
from clip_xai.explanations.measures.regions import OnRegion
from clip_xai.explanations.measures.sanity import (
    EntropyRise,
    RandomisedAtOnce,
    RandomisedUpwards,
    RunToRun,
    SmoothedUpwards,
    TextLikeness,
)
from clip_xai.metrics.regions import REGION_MEASURES
from clip_xai.xai.curve_protocols import REMOVALS


def _all() -> list[Measure]:
    removed: list[Measure] = []
    for name in REMOVALS:
        removed += [RelevanceGain(name), RelevanceGain(name, normalised=True), Insertion(name), Deletion(name)]
        removed += [SensitivityN(name), Infidelity(name)]
    for name in ("rise", "gradeclip"):
        removed += [RelevanceGain(name), Insertion(name), Deletion(name)]
    removed.append(FFidelityGain())
    sanity = [RandomisedAtOnce(), EntropyRise(), RandomisedUpwards(), SmoothedUpwards(), TextLikeness()]
    costs = [RunToRun(), Completeness(), Seconds(), Forwards(), Backwards(), Memory(), SensitivityMax()]
    return [*removed, *sanity, *(OnRegion(name) for name in REGION_MEASURES), *costs]


MEASURES: dict[str, Measure] = {measure.key: measure for measure in _all()}


def measures_named(keys: Sequence[str]) -> list[Measure]:
    """Return measures by their keys, such as ``relevance_gain/token_drop``.

    Raises:
        UserError: There is none of a name; it says which come near.
    """
    for key in keys:
        if key not in MEASURES:
            near = difflib.get_close_matches(key, MEASURES, n=3) or list(MEASURES)[:3]
            raise UserError(f"{key!r} is not a measure of maps: choose one of {', '.join(near)}")
    return [MEASURES[key] for key in keys]
