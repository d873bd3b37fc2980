"""From what was measured to the page: verdicts, charts, effect matrices, the best and the worst cases as pictures."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch
from PIL import Image
from torch import Tensor

from clip_xai.data.synthetic.parts import sample_scene
from clip_xai.data.synthetic.scene import render
from clip_xai.explanations.causes.maps import CONTROL
from clip_xai.explanations.causes.measures import (
    AGREEMENT,
    ANEW,
    COMPLETENESS,
    CONTRASTIVITY,
    PLACE,
    POSITIVE,
    PROTOCOLS,
    SPEARMAN,
    Measured,
)
from clip_xai.explanations.causes.one_scene import RANDOM, TRAINED, SceneCauses
from clip_xai.explanations.causes.ranking import Place
from clip_xai.explanations.causes.scene_targets import STRUCTURE, TARGETS
from clip_xai.explanations.causes.tables import ALL, EVERY, PASSING
from clip_xai.metrics.intervals import FEWEST, Interval
from clip_xai.report.causes_page import Case, Dot, Forest, Matrix, Priced, Share
from clip_xai.report.explained import title_of
from clip_xai.report.figures import data_uri, overlay, scale_of
from clip_xai.report.pages import Table
from clip_xai.text import counted, decimals, with_bounds

Rankings = Mapping[tuple[str, str, str], Sequence[Place]]
#: Map of a method for one thing asked about a scene, ``[h, w]``; None where it has none.
Explain = Callable[[int, str, int], Tensor | None]
FOREST = {
    AGREEMENT: ("Correctness", "Does the map order the parts as their true effects do, for and against? Pairs of parts "
                "count with the distance of their effects; a map that knows nothing has .5 (dashed)."),
    PLACE: ("Place", "The same of sizes alone: is the heat where what matters is, whichever way it speaks? A map "
            "without negative values cannot say more. Large parts matter more, so that a flat map is above .5 here; "
            "what counts is the lead over random weights and controls."),
    COMPLETENESS: ("Completeness", "Are the parts that decide called important, and only they? A map that calls every "
                   "part important, or none, has about .5."),
    CONTRASTIVITY: ("Contrastivity", "Of two words, does each map lean to the part that speaks for its own word? A map "
                    "that is the same for both has .5 (dashed)."),
    ANEW: ("Correctness when the caption is written anew", "The same agreement with effects on how often captions that "
           "are written anew state the word; most of a diagnosis' effect runs through earlier words."),
}  # fmt: skip
CASES = 3
FEW = (
    f"Fewer than {FEWEST} scenes cannot tell an order of methods from luck: such ranks have no range, and no method is "
    "said to be above its twin at random weights."
)
SMALLEST_MATRIX = 3  # scenes behind a row


def title(method: str) -> str:
    """A method or a control for people."""
    return method.removeprefix(CONTROL) if method.startswith(CONTROL) else title_of(method)


def cell(found: Interval | None) -> str:
    """``.82 [.70, .90]``; a dash for what was not measured."""
    return "–" if found is None else with_bounds(found.value, found.low, found.high)


def verdicts(rankings: Rankings) -> list[tuple[str, bool]]:
    """Say which methods can be believed, by correctness, for each target and for all."""
    said, few = [], False
    for target in (EVERY, *TARGETS):
        places = [place for place in rankings.get((AGREEMENT, target, ALL), ()) if place.rank is not None]
        if not places:
            continue
        of = "all targets" if target == EVERY else f"the {target}"
        best = min(places, key=lambda place: place.rank or 0)
        name, value = title(best.method[0]), cell(best.score)
        if best.few:
            few = True
            scenes = counted(best.score.groups, "scene")
            said.append((f"{of.capitalize()}: {name} comes first on {scenes}, {value}: too few to rank.", True))
            continue
        low, high = best.ranks or (1, 1)
        spread = "alone" if low == high == 1 else f"rank {low} to {high} in 95 % of resamples"
        text = f"{of.capitalize()}: {name} agrees best with the true effects, {value} ({spread})."
        leading = [title(place.method[0]) for place in places if place.leads]
        if not any(place.decided for place in places):
            said.append((text, False))
        elif leading:
            said.append((f"{text} Above their twins at random weights: {', '.join(leading)}.", not best.leads))
        else:
            said.append((f"{text} No method is above its twin at random weights.", True))
    return [(FEW, True), *said] if few else said


def count_table(counts: Mapping[str, Mapping[str, int]]) -> Table:
    """How many scenes are clean cases."""
    heads = ("asked", "right", "flips", "stays", "passes", "unmoved", "not asked")
    rows = tuple((target, *(str(count[key]) for key in heads)) for target, count in counts.items())
    note = (
        "Right: the scene shows what is stated. Flips: it is no longer stated when the structures that it ought to "
        "rest on are gone. Stays: it is stated all the same when everything but the lesion is drawn anew. Passes: all "
        "three. Unmoved: it stays likelier than its rivals when every part is gone, so that its map ought to be blank."
    )
    return Table("Fresh scenes", ("asked about", *heads), rows, note)


def forests(rankings: Rankings) -> list[Forest]:
    """One chart for each criterion, over all scenes and targets."""
    found = []
    for criterion, (name, note) in FOREST.items():
        places = rankings.get((criterion, EVERY, ALL), ())
        twins = {place.method[0]: place.score.value for place in places if place.method[1] == RANDOM}
        dots = tuple(_dot(place, twins) for place in places if place.method[1] != RANDOM)
        if dots:
            found.append(Forest(name, note, dots, None if criterion in (COMPLETENESS, PLACE) else 0.5))
    return found


def _dot(place: Place, twins: Mapping[str, float]) -> Dot:
    method, score = place.method[0], place.score
    low, high = (None, None) if np.isnan(score.low) else (score.low, score.high)
    control = place.method[1] != TRAINED
    twin = None if control else twins.get(method)
    return Dot(title(method), score.value, low, high, cell(score), twin, place.rank_text, place.leads, control)


def priced(rankings: Rankings, seconds: Mapping[str, float | None]) -> list[Priced]:
    """What each method costs, and its correctness."""
    found = []
    for place in rankings.get((AGREEMENT, EVERY, ALL), ()):
        taken = seconds.get(place.method[0])
        if place.rank is not None and taken is not None:
            name = title(place.method[0])
            found.append(Priced(name, taken, place.score.value, f"{name}: {taken:.2f} s, {place.score.value:.2f}"))
    return found


def details(rankings: Rankings) -> list[Table]:
    """The criteria of every target, for all scenes and for those that pass."""
    found = []
    columns = (AGREEMENT, PLACE, COMPLETENESS, CONTRASTIVITY, ANEW, SPEARMAN, POSITIVE, *PROTOCOLS)
    for target in (EVERY, *TARGETS):
        for scenes in (ALL, PASSING):
            by = {name: {place.method: place for place in rankings.get((name, target, scenes), ())} for name in columns}
            order = rankings.get((AGREEMENT, target, scenes), ())
            if not order:
                continue
            rows = []
            for place in order:
                weights = " (random weights)" if place.method[1] == RANDOM else ""
                scores = [cell(by[name][place.method].score) if place.method in by[name] else "–" for name in columns]
                rows.append(
                    (title(place.method[0]) + weights, place.rank_text, *scores, cell(place.lead), str(place.score.n))
                )
            of = "all targets" if target == EVERY else target
            which = "all scenes" if scenes == ALL else "scenes that pass"
            head = ("method", "rank", *columns, "agreement above random weights", "n")
            found.append(Table(f"{of.capitalize()}, {which}", head, tuple(rows)))
    return found


def matrices(effects: pd.DataFrame) -> list[Matrix]:
    """Mean effects of every part on each target; a named structure's effect on its own word stands apart."""
    if effects.empty:
        return []
    table = effects.copy()
    table["asked"] = table["target"]
    table.loc[table["named"], "asked"] = "its own word"
    table.loc[(table["target"] == STRUCTURE) & ~table["named"], "asked"] = "another structure's word"
    table["what"] = table["part"].str.replace(r" \d+$", "", regex=True)
    columns = [one for one in ("its own word", "another structure's word", *TARGETS) if one in set(table["asked"])]
    found = []
    for key, name in (("effect", "the fixed caption"), ("effect_anew", "captions written anew")):
        known = table[table[key].notna()]
        if known.empty:
            continue
        means = known.groupby(["kind", "what", "asked"])[key].agg(["mean", "count"]).reset_index()
        most = means[means["count"] >= SMALLEST_MATRIX].groupby("asked")["mean"].apply(lambda one: one.abs().max())
        shown = [one for one in columns if one in most.index]
        rows = []
        for (_, what), part in means.groupby(["kind", "what"], sort=False):
            by = {one.asked: one for one in part.itertuples()}
            cells = [_cell(by.get(one), most) for one in shown]
            if any(one is not None for one in cells):
                rows.append((str(what), tuple(cells)))
        note = (
            f"Mean Shapley value over drawn scenes in nats, in brackets the number of parts behind it; those of fewer "
            f"than {SMALLEST_MATRIX} are not shown. Green speaks for what is asked, red against it."
        )
        found.append(Matrix(f"Effects of parts on {name}", tuple(shown), tuple(rows), note))
    return found


def _cell(row: Any, most: pd.Series) -> tuple[str, float, int] | None:
    if row is None or row.count < SMALLEST_MATRIX:
        return None
    mean = float(row.mean)
    return decimals(mean, 2 if abs(mean) >= 0.1 else 3, "+"), mean / max(float(most[row.asked]), 1e-12), row.count


def cases(
    scenes: Sequence[SceneCauses], measured: Measured, rankings: Rankings, explain: Explain
) -> list[tuple[str, list[Case]]]:
    """Return the scenes on which the best method agrees most and least with the effects.

    Args:
        scenes: What was measured.
        measured: The same by rows.
        rankings: They say which method is the best.
        explain: Makes the maps again.
    """
    places = [place for place in rankings.get((AGREEMENT, EVERY, ALL), ()) if place.rank == 1]
    if not places:
        return []
    method = places[0].method[0]
    values = measured.values[AGREEMENT][measured.methods.index((method, TRAINED))]
    order = [int(row) for row in np.argsort(-values, kind="stable") if not np.isnan(values[row])]
    where = [(scene, thing) for scene in range(len(scenes)) for thing in range(len(scenes[scene].names))]
    best, worst = order[:CASES], [row for row in order[::-1][:CASES] if row not in order[:CASES]]
    found = []
    for heading, rows in (("most", best), ("least", worst)):
        shown = [_case(scenes[where[row][0]], where[row], method, float(values[row]), explain) for row in rows]
        found.append((f"Where {title(method)} agrees {heading}", [one for one in shown if one is not None]))
    return found


def _case(scene: SceneCauses, where: tuple[int, int], method: str, value: float, explain: Explain) -> Case | None:
    number, thing = where
    heat = explain(number, method, thing)
    if heat is None:
        return None
    picture = Image.fromarray(render(sample_scene(scene.seed)).image)
    placed = heat.numpy()
    effects, mass = scene.effects[:, thing], scene.masses[method, TRAINED][thing, :, 0]
    most, total = max(float(np.abs(effects).max()), 1e-12), max(float(np.abs(mass).sum()), 1e-12)
    widest = max(float(np.abs(mass).max()), 1e-12)
    shares = tuple(
        Share(
            scene.parts[part],
            round(100 * effects[part] / most, 1),
            decimals(effects[part], sign="+"),
            round(100 * mass[part] / widest, 1),
            f"{decimals(100 * mass[part] / total, 0, '+')}%",
        )
        for part in np.argsort(-effects)
    )
    said = f"Agreement {value:.2f}. " + (f"Caption: {scene.caption}" if scene.caption else "")
    shown = overlay(picture, placed, scale_of(placed))
    return Case(f"{scene.names[thing]}: {scene.labels[thing]}", said, data_uri(picture), data_uri(shown), shares)


def on_picture(heat: Tensor, preprocess: Any, width: int, height: int) -> Tensor:
    """Lay a map over the whole picture, ``[height, width]``; NaN where the tower does not look."""
    return preprocess.geometry(width, height).place(heat.double()).to(torch.float64)
