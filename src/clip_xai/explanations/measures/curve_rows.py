"""Insertion and deletion curves of measured maps: as rows of a table, and their means over pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from clip_xai.explanations.causes.weights import RANDOM, TRAINED
from clip_xai.explanations.measures.base import PhotographMaps
from clip_xai.report.curves import Line
from clip_xai.xai.curve_protocols import REMOVALS
from clip_xai.xai.insertion_deletion import Curves

INSERTION, DELETION = "insertion", "deletion"
MOST = 8  # methods in a picture: as many as there are colours


def curve_rows(asked: PhotographMaps, about: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the curves that measures of one score have read, a row for each map, removal and share of the picture.

    ``value`` is the score less that of the whole picture, in nats: what is asked about pictures compares by that alone.

    Args:
        asked: The maps; their streams hold the curves.
        about: What else stands in each row.
    """
    rows = []
    for removal in REMOVALS:
        curves: Curves | None = asked.streams.get(("curves", removal, asked.row))
        if curves is None:
            continue
        whole = curves.deletion[0, 0, asked.row]
        for kind, drawn in ((INSERTION, curves.insertion), (DELETION, curves.deletion)):
            for key, heights in zip(asked.maps, (drawn[:, :, asked.row] - whole).double().tolist(), strict=True):
                name, weights = key.split("\t")
                if weights != RANDOM:
                    rows += [
                        {**about, "removal": removal, "curve": kind, "method": name, "weights": weights,
                         "share": share, "value": value}
                        for share, value in zip(curves.shares.tolist(), heights, strict=True)
                    ]  # fmt: skip
    return rows


def mean_curves(
    rows: Sequence[Mapping[str, Any]], order: Sequence[str], titles: Mapping[str, str], controls: Sequence[str] = ()
) -> dict[str, tuple[np.ndarray, list[Line], list[Line], int]]:
    """Return the mean curves by removal: shares of the picture, lines of insertion and of deletion, and of how many.

    Args:
        rows: As :func:`curve_rows` gives them, of all pictures.
        order: The methods; the first ``MOST`` that have curves are drawn.
        titles: Of methods and controls, for people.
        controls: Maps that never saw the model, which are drawn grey.
    """
    if not rows:
        return {}
    table, found = pd.DataFrame(list(rows)), {}
    for removal, own in table.groupby("removal", sort=False):
        panels: dict[str, list[Line]] = {}
        shares = np.sort(own["share"].unique())
        means = own.groupby(["curve", "weights", "method", "share"])["value"].mean()
        known = {(str(weights), str(name)) for _, weights, name, _ in means.index.tolist()}
        drawn = [name for name in order if (TRAINED, name) in known][:MOST]
        for kind in (INSERTION, DELETION):
            lines = [Line(titles.get(name, name), means[kind, TRAINED, name].reindex(shares).to_numpy())
                     for name in drawn]  # fmt: skip
            lines += [
                Line(titles.get(name, name), means[kind, weights, name].reindex(shares).to_numpy(), control=True)
                for weights, name in sorted(known) if name in controls
            ]  # fmt: skip
            panels[kind] = lines
        things = own[["group", "target", "label"]].drop_duplicates()
        found[str(removal)] = (shares, panels[INSERTION], panels[DELETION], len(things))
    return found
