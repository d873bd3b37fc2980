"""What skin tone changed, in words and in maps: paired by scene, with intervals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from clip_xai.explanations.causes.skin_tones import DARKEST, LIGHTEST, REPORTED, STAYING, TYPES
from clip_xai.metrics.intervals import Interval, mean_interval


@dataclass(frozen=True)
class ToneWord:
    """One attribute that captions state.

    Attributes:
        attribute: Such as ``diagnosis``.
        stays: Whether it ought to.
        right: Share of scenes in which it is right on the lightest skin.
        changed: For each darker type the share of scenes in which another value is stated than on the lightest skin.
        loss: What darkest skin changes in the share of right values, paired.
    """

    attribute: str
    stays: bool
    right: Interval
    changed: dict[int, Interval]
    loss: Interval


@dataclass(frozen=True)
class ToneMap:
    """One method's maps on the lightest and the darkest skin.

    Attributes:
        method: Its name.
        auprc: How well its heat ranks the lesion above the rest, on the two.
        auprc_change: Darkest less lightest, paired.
        gain: Symmetric relevance gain in the unit of the score, on the two.
        gain_change: Likewise.
    """

    method: str
    auprc: tuple[float, float]
    auprc_change: Interval
    gain: tuple[float, float]
    gain_change: Interval


def tone_words(rows: Sequence[Mapping[str, Any]], seed: int = 0) -> list[ToneWord]:
    """Summarise what captions state on each skin, attributes that ought to stay first."""
    table = pd.DataFrame([row for row in rows if "attribute" in row])
    found = []
    for attribute in (*STAYING, *REPORTED) if len(table) else ():
        own = table[table["attribute"] == attribute]
        if own.empty:
            continue
        said = own.pivot(index="scene", columns="type", values="said")
        right = own.pivot(index="scene", columns="type", values="right").astype(float)
        scenes = said.index.astype(str).tolist()
        changed = {
            kind: mean_interval(
                (said[kind] != said[LIGHTEST]).astype(float), scenes, seed=seed, span=(0.0, 1.0), share=True
            )
            for kind in TYPES[1:]
        }
        loss = mean_interval(right[DARKEST] - right[LIGHTEST], scenes, seed=seed, span=(-1.0, 1.0))
        on_light = mean_interval(right[LIGHTEST], scenes, seed=seed, span=(0.0, 1.0), share=True)
        found.append(ToneWord(attribute, attribute in STAYING, on_light, changed, loss))
    return found


def tone_maps(rows: Sequence[Mapping[str, Any]], seed: int = 0) -> list[ToneMap]:
    """Summarise the maps, method by method; scenes that have them on both skins alone count."""
    table = pd.DataFrame([row for row in rows if "method" in row])
    found = []
    for method, own in table.groupby("method", sort=False) if len(table) else ():
        pairs = {key: own.pivot(index="scene", columns="type", values=key).dropna() for key in ("auprc", "gain")}
        if any(pair.empty or not {LIGHTEST, DARKEST} <= set(pair.columns) for pair in pairs.values()):
            continue
        means = {key: (float(pair[LIGHTEST].mean()), float(pair[DARKEST].mean())) for key, pair in pairs.items()}
        changes = {
            key: mean_interval(
                pair[DARKEST] - pair[LIGHTEST],
                pair.index.astype(str).tolist(),
                seed=seed,
                span=(-1.0, 1.0) if key == "auprc" else None,
            )
            for key, pair in pairs.items()
        }
        found.append(ToneMap(str(method), means["auprc"], changes["auprc"], means["gain"], changes["gain"]))
    return sorted(found, key=lambda one: -one.auprc[0])
