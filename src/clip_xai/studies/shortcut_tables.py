"""Planted shortcuts for a reader: sentences, tables, charts and rows of a spreadsheet."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from clip_xai.explanations.causes.maps import CONTROL
from clip_xai.explanations.causes.shortcut_summary import Reliance, Revealed
from clip_xai.metrics.intervals import Interval
from clip_xai.report.explained import title_of
from clip_xai.report.pages import Table
from clip_xai.report.shortcuts_page import Point, Rise
from clip_xai.text import counted, decimals, with_bounds

_DASH = "–"


def title(method: str) -> str:
    """A method or a control for people."""
    return method.removeprefix(CONTROL) if method.startswith(CONTROL) else title_of(method)


def verdicts(truths: Sequence[Reliance], found: Sequence[Revealed], where: str) -> list[tuple[str, bool]]:
    """Say of one artefact whether the captioners cheat and which methods reveal it, and whether that is a warning.

    Args:
        truths: Its captioners.
        found: Its methods, by positive heat.
        where: Which artefact, and of which seed if there are several.
    """
    strong = [one for one in truths if one.cheats is not None]
    cheating = [one for one in strong if one.cheats]
    if not cheating:
        return [(f"{where}: no captioner cheats, so that no method can reveal it.", True)]
    last = strong[-1]
    said = [
        (f"{where}: captioners cheat at p = {_listed([f'{one.p:g}' for one in cheating])}. At p = {last.p:g} it moves "
         f"the log-odds of the diagnosis by {decimals(last.added.value, 1, '+')} nats, and {last.flips} of "
         f"{counted(last.added.n, 'scene')} flip.", False)
    ]  # fmt: skip
    methods = [one for one in found if not one.control]
    for p in dict.fromkeys(one.reveals_from for one in methods if one.reveals_from is not None):
        names = [title(one.method) for one in methods if one.reveals_from == p]
        said.append(
            (f"{where}: {_listed(names)} {'reveals' if len(names) == 1 else 'reveal'} it from p = {p:g} on.", False)
        )
    blind = [title(one.method) for one in methods if one.reveals_from is None]
    if blind:
        verb = "does" if len(blind) == 1 else "do"
        said.append((f"{where}: {_listed(blind)} {verb} not reveal it at any strength up to p = {last.p:g}.", True))
    alarms = [title(one.method) for one in methods if one.false_alarm]
    if alarms:
        said.append(
            (f"{where}: {_listed(alarms)} tell two captioners apart that both learned nothing; the rule asks methods "
             "to "
             "be above both.", True)
        )  # fmt: skip
    return said


def truth_table(truths: Sequence[Reliance], where: str) -> Table:
    """What the artefact does to each captioner."""
    rows = tuple(
        (
            f"{one.p:g}{', a second one' if one.again else ''}",
            _cell(one.added),
            _cell(one.moved),
            _DASH if one.p == 0 and not one.again else _cell(one.beyond),
            f"{one.flips} of {one.added.n}",
            " / ".join(_DASH if share is None else f"{share:.2f}" for share in one.says),
            f"{one.true_share:.2f}",
            _DASH if one.cheats is None else "yes" if one.cheats else "no",
        )
        for one in truths
    )
    head = ("p", "added", "moved", "above p = 0", "flip", "captions that state it: without / with / moved",
            "share of its effect", "cheats")  # fmt: skip
    note = (
        "P(artefact | diagnosis) = (1 + p) / 2, half of all scenes have it. Added, moved: change of the log-odds of "
        "the diagnosis behind the bare conclusion, in nats, with a 95 % interval over scenes of no training; a word "
        "flips if its log-odds cross 0. Share of its effect: of the Shapley values of artefact and lesion, what a map "
        "ought to put on it. A captioner cheats if the change is above that of both captioners that learned nothing."
    )
    return Table(f"{where}: does the captioner cheat?", head, rows, note)


def method_table(positive: Sequence[Revealed], absolute: Sequence[Revealed], where: str) -> Table:
    """What each method has on the artefact."""
    by = {one.method: one for one in absolute}
    strengths = sorted({p for one in positive for p in one.rises})
    last = strengths[-1] if strengths else 1.0
    rows = tuple(
        (
            title(one.method),
            _from(one),
            _from(by[one.method]),
            _shares(one),
            *(_rise(one, p) for p in strengths),
            _cell(one.other.get(last)),
            _shares(by[one.method]),
            _pair(one.follows, one.follows_anyway),
            _two(one.sensitivity, one.sensitivity_anyway),
            _two(one.ncc, one.ncc_anyway),
        )
        for one in positive
    )
    head = (
        *("method", "reveals from p", "by absolute heat", f"share at 0 and {last:g}"),
        *(f"rise at {p:g}" for p in strengths),
        *(f"other part, rise at {last:g}", f"absolute share at 0 and {last:g}", f"follows at {last:g} (at 0)"),
        *("confounder sensitivity (at 0)", "explanation NCC (at 0)"),
    )
    area = f"{positive[0].area:.3f}" if positive else _DASH
    note = (
        f"Share of positive heat on the artefact, whose share of the area is {area}, its rise above the mean of "
        "both captioners that learned nothing, paired by scene, with a 95 % interval. A star: reveals the cheat, above "
        "each of the two, corrected for all methods and strengths (Holm). Follows: the share that goes along when "
        "the artefact is moved. Confounder sensitivity (of a map that knows nothing: .10) and explanation NCC at p = "
        f"{last:g}, of scenes that flip (Sun et al. 2023), in brackets the same scenes at p = 0. At the end, controls."
    )
    return Table(f"{where}: which methods show it", head, rows, note)


def rises(positive: Sequence[Revealed]) -> tuple[Rise, ...]:
    """One chart a method; those of controls that never saw the model are flat and are left to the table."""
    return tuple(
        Rise(
            title(one.method),
            f"Reveals it from p = {one.reveals_from:g} on." if one.reveals_from is not None else "Does not reveal it.",
            tuple(_point(p, rise, one.revealed.get(p, False)) for p, rise in one.rises.items()),
            tuple(_point(p, rise, False) for p, rise in one.other.items()),
            one.control,
        )
        for one in positive
        if not one.control or any(rise.value for rise in one.rises.values())
    )


def plain_rows(found: Sequence[Revealed], seeds: str) -> list[dict[str, Any]]:
    """Rows of plain values for a spreadsheet, one for each method, kind of heat and strength above 0."""
    rows = []
    for one in found:
        for p, rise in one.rises.items():
            other = one.other.get(p)
            rows.append(
                {
                    "seeds": seeds, "artefact": one.artefact, "method": one.method, "heat": one.kind, "p": p,
                    "area": one.area, "share_at_0": one.shares.get(0.0), "share": one.shares.get(p),
                    "rise": rise.value, "rise_low": _finite(rise.low), "rise_high": _finite(rise.high), "n": rise.n,
                    "reveals": one.revealed[p], "reveals_from": one.reveals_from, "false_alarm": one.false_alarm,
                    "other_rise": None if other is None else other.value,
                    "follows": None if one.follows is None else one.follows.value,
                    "confounder_sensitivity": one.sensitivity, "explanation_ncc": one.ncc,
                    "confounder_sensitivity_at_0": one.sensitivity_anyway, "explanation_ncc_at_0": one.ncc_anyway,
                }
            )  # fmt: skip
    return rows


def _from(one: Revealed) -> str:
    return _DASH if one.reveals_from is None else f"{one.reveals_from:g}"


def _shares(one: Revealed) -> str:
    return " → ".join(f"{one.shares[p]:.3f}" for p in (min(one.shares), max(one.shares))) if one.shares else _DASH


def _rise(one: Revealed, p: float) -> str:
    found = one.rises.get(p)
    if found is not None and one.control and found.value == 0:
        return "0"  # the very same map at every strength
    return _DASH if found is None else f"{_cell(found, 3)}{' *' if one.revealed.get(p) else ''}"


def _pair(one: Interval | None, other: Interval | None) -> str:
    return _two(None if one is None else one.value, None if other is None else other.value)


def _two(one: float | None, other: float | None) -> str:
    shown = [_DASH if value is None else f"{value:.2f}" for value in (one, other)]
    return shown[0] if other is None else f"{shown[0]} ({shown[1]})"


def _cell(found: Interval | None, digits: int = 2) -> str:
    return _DASH if found is None else with_bounds(found.value, found.low, found.high, digits)


def _point(p: float, rise: Interval, shows: bool) -> Point:
    return Point(p, rise.value, _finite(rise.low), _finite(rise.high), shows)


def _finite(value: float) -> float | None:
    return None if np.isnan(value) else float(value)


def _listed(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
