"""How steady the ranking of a run is, which measure foretells it, and mean curves: tables and pictures of its page."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd

from clip_xai.explanations.carry_over import Predictor, of_criteria, of_measures, predictors
from clip_xai.explanations.carry_over_tables import LABEL_FREE, RANKED, predictor_table, steadiness_table
from clip_xai.explanations.causes.maps import CONSTANT, CONTROL, EFFECTS
from clip_xai.explanations.causes.measures import AGREEMENT
from clip_xai.explanations.causes.tables import ALL, EVERY
from clip_xai.explanations.measures.curve_rows import MOST, mean_curves
from clip_xai.report.curves import picture, svg_uri
from clip_xai.report.pages import Table
from clip_xai.tasks.explanations.page import Rankings, title
from clip_xai.text import counted


def foretold(maps: pd.DataFrame, measured: pd.DataFrame, seed: int) -> list[Predictor]:
    """Return how each measure of the maps foretells the methods' correctness; none where nothing was measured."""
    truth = of_criteria(maps).get((AGREEMENT, EVERY)) if len(maps) else None
    measures = {} if measured.empty else of_measures(measured, RANKED)
    of_any = {key: one for (key, target), one in measures.items() if target == EVERY}
    return [] if truth is None or not of_any else predictors(of_any, truth, LABEL_FREE, seed)


def tables(maps: pd.DataFrame, found: Sequence[Predictor], seed: int) -> list[Table]:
    """Return the tables of the page."""
    steady = steadiness_table(of_criteria(maps), seed) if len(maps) else None
    return [table for table in (steady, predictor_table(found)) if table is not None]


def curve_pictures(rows: Sequence[dict[str, Any]], rankings: Rankings) -> list[tuple[str, str]]:
    """Return a picture of the mean curves for each way of taking places away, the most correct methods in it."""
    places = [place for place in rankings.get((AGREEMENT, EVERY, ALL), ()) if place.rank is not None]
    order = [place.method[0] for place in sorted(places, key=lambda place: place.rank or 0)]
    shown = (EFFECTS, CONSTANT)
    titles = {name: title(name) for name in order} | {name: f"control: {name.removeprefix(CONTROL)}" for name in shown}
    found = []
    for removal, (shares, insertion, deletion, count) in mean_curves(rows, order, titles, shown).items():
        least = f", the {MOST} most correct methods" if len(order) > MOST else ""
        said = f"Places are replaced by {removal.replace('_', ' ')}: {counted(count, 'map')} of each method{least}"
        found.append((said, svg_uri(picture(shares, insertion, deletion, "score less the whole, nats"))))
    return found
