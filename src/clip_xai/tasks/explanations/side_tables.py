"""Tables of the page beside the rankings: words that compete, and mechanisms that are known."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from clip_xai.data.synthetic.profiles import TONE
from clip_xai.explanations.causes.choosing import RESTS, Chosen
from clip_xai.explanations.causes.mechanisms import MECHANISMS, Given
from clip_xai.explanations.causes.one_scene import RANDOM
from clip_xai.explanations.causes.skin_tones import DARKEST, LIGHTEST, TYPES
from clip_xai.explanations.causes.tone_summary import ToneMap, ToneWord
from clip_xai.metrics.intervals import Interval
from clip_xai.report.pages import Table
from clip_xai.tasks.explanations.page import cell, title
from clip_xai.text import counted, decimals

_ROMAN = dict(zip(TYPES, ("I", "II", "III", "IV", "V", "VI"), strict=True))
_KINDS = {
    ("several lesions", "contrast"): "Several lesions: does the map of a diagnosis choose its own lesion?",
    ("several lesions", "colour word"): "Several lesions: does the map of a colour in a text choose its own lesion?",
    ("mosaic", "contrast"): "Mosaics: does the map of a diagnosis choose its own cell?",
}


def choice_rows(found: Sequence[Chosen]) -> pd.DataFrame:
    """Return what was chosen as rows of plain values."""
    rows = []
    for one in found:
        row: dict[str, Any] = {"kind": one.kind, "words": one.words, "method": one.method[0], "weights": one.method[1]}
        row |= {"chance": one.own_chance, "signed_chance": one.signed_chance}
        for name, interval in (("own", one.own), ("signed", one.signed), ("lead", one.lead)):
            row |= {name: _value(interval, "value"), f"{name}_low": _value(interval, "low")}
            row |= {f"{name}_high": _value(interval, "high")}
        rows.append(row | {"n": one.own.n, "words_in_all": one.words_in_all})
    return pd.DataFrame(rows)


def choice_tables(found: Sequence[Chosen]) -> list[Table]:
    """One table for each kind of picture and words."""
    tables = []
    for key, name in _KINDS.items():
        places = [one for one in found if (one.kind, one.words) == key]
        if not places:
            continue
        rows = tuple(
            (
                title(one.method[0]) + (" (random weights)" if one.method[1] == RANDOM else ""),
                cell(one.own),
                f"{one.own_chance:.2f}",
                cell(one.lead),
                cell(one.signed),
                f"{one.signed_chance:.2f}",
            )
            for one in places
        )
        note = (
            f"Of {counted(places[0].words_in_all, 'word')}, {places[0].own.n} count, which truly rest on their own "
            f"place: leaving it out costs at least {RESTS:g} nats, and more than leaving out any other. Own: share of "
            "the positive heat on all places that lies on the own one. Signed: positive heat there and negative heat "
            "on the others, of all heat. Chance is what a map that knows nothing has: the place's share of the area, "
            "and for the signed score of a method with negative values one half. Intervals over pictures."
        )
        tables.append(
            Table(name, ("method", "own", "chance", "own above random weights", "signed", "chance"), rows, note)
        )
    return tables


def tone_tables(words: Sequence[ToneWord], maps: Sequence[ToneMap], left_out: int) -> list[Table]:
    """What skin tone changes, in words and in maps."""
    tables = []
    if words:
        head = ("stated", f"right on {_ROMAN[LIGHTEST]}", *(f"changed on {_ROMAN[kind]}" for kind in TYPES[1:]),
                f"right on {_ROMAN[DARKEST]} less {_ROMAN[LIGHTEST]}")  # fmt: skip
        rows = tuple(
            (one.attribute + ("" if one.stays else " (need not stay)"), cell(one.right),
             *(f"{one.changed[kind].value:.2f}" if kind != DARKEST else cell(one.changed[kind]) for kind in TYPES[1:]),
             cell(one.loss))
            for one in words
        )  # fmt: skip
        scenes, lost = counted(words[0].right.n, "scene"), counted(left_out, "scene")
        note = (
            f"The very same {scenes} drawn for Fitzpatrick types I to VI, all else fixed, so that {TONE} alone made "
            "every change. Share of scenes whose caption states another value than on type I, with a 95 % interval for "
            f"type VI. Left out: {lost} whose lesion does not stand out on every type."
        )
        tables.append(Table(f"{TONE.capitalize()} as an intervention: what captions say", head, rows, note))
    if maps:
        head = ("method", "AUPRC on I", "on VI", "change", "gain on I", "on VI", "change")
        rows = tuple(
            (title(one.method), f"{one.auprc[0]:.2f}", f"{one.auprc[1]:.2f}", cell(one.auprc_change),
             decimals(one.gain[0]), decimals(one.gain[1]), cell(one.gain_change))
            for one in maps
        )  # fmt: skip
        note = (
            f"The same {counted(maps[0].auprc_change.n, 'scene')}, paired. AUPRC: how well the heat ranks the lesion "
            "above the rest. Gain: symmetric relevance gain of the explained score in nats; what the map's own "
            "evidence is."
        )
        tables.append(
            Table(f"{TONE.capitalize()} as an intervention: heat maps of the whole caption", head, rows, note)
        )
    return tables


def mechanism_rows(found: Sequence[Given]) -> list[dict[str, Any]]:
    """Return what methods gave on known mechanisms as rows of plain values."""
    rows = []
    for one in found:
        row = {"method": one.method, "mechanism": one.mechanism, "true": one.true, "derived": one.derived}
        shares, truth = (None if pair is None else list(pair) for pair in (one.shares, one.truth))
        rows.append(row | {"shares": shares, "truth": truth})
    return rows


def mechanism_table(found: Sequence[Given]) -> list[Table]:
    """Which methods give the truth where it is known in closed form."""
    if not found:
        return []
    methods = list(dict.fromkeys(one.method for one in found))
    by = {(one.method, one.mechanism): one for one in found}
    rows = [("the truth", *(_shares(_truth(by, name)) for name in MECHANISMS), "")]
    for method in methods:
        given = [by[method, name] for name in MECHANISMS if (method, name) in by]
        known = [one.derived for one in given if one.derived is not None]
        derived = "not derived" if not known else "yes" if all(known) else "no"
        cells = [f"{_shares(one.shares)}{' ✓' if one.true else ''}" for one in given]
        rows.append((title(method), *cells, derived))
    note = (
        "Share of the map's positive heat on part 1 / part 2 of a picture, for a transformer in which nothing crosses "
        "cells. Linear: part 1 alone counts. And: both are needed. Or: either is enough, so that neither moves the "
        "score of the whole picture alone, and the gradient is 0. Constant: nothing counts. The truth is the Shapley "
        "value. A ✓ marks shares that are the truth; the last column says whether the method gives what was derived "
        "for it beforehand."
    )
    return [Table("Mechanisms that are known", ("method", *MECHANISMS, "as derived"), tuple(rows), note)]


def _truth(by: dict[tuple[str, str], Given], mechanism: str) -> tuple[float, float] | None:
    return next((one.truth for (_, name), one in by.items() if name == mechanism), None)


def _shares(shares: tuple[float, float] | None) -> str:
    return "blank" if shares is None else f"{shares[0]:.2f} / {shares[1]:.2f}"


def _value(interval: Interval | None, key: str) -> float | None:
    value = None if interval is None else getattr(interval, key)
    return None if value is None or np.isnan(value) else float(value)


def plain(value: Any) -> Any:
    """Return a value as JSON can hold it: lists and texts as keys, None for what is not a number."""
    if isinstance(value, dict):
        return {str(key): plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [plain(one) for one in value]
    return None if isinstance(value, float) and np.isnan(value) else value
