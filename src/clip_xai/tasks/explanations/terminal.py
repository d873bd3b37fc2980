"""The ranking of explainers on a terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from rich import box
from rich.console import Console
from rich.table import Table

from clip_xai.explanations.causes.measures import AGREEMENT, COMPLETENESS, CONTRASTIVITY
from clip_xai.explanations.causes.one_scene import RANDOM
from clip_xai.explanations.causes.ranking import Place
from clip_xai.explanations.causes.tables import ALL, EVERY, PASSING
from clip_xai.tasks.explanations.page import cell

SHOWN = {AGREEMENT: "correctness", COMPLETENESS: "completeness", CONTRASTIVITY: "contrastivity"}


def show(
    rankings: Mapping[tuple[str, str, str], Sequence[Place]],
    counts: Mapping[str, Mapping[str, int]],
    seconds: Mapping[str, float | None],
    run_dir: Path,
) -> None:
    """Print how many scenes are clean cases, the methods by correctness with two more criteria, and where the rest is.

    Args:
        rankings: By criterion, target and scenes.
        counts: By target.
        seconds: By method.
        run_dir: Where the page is.
    """
    console = Console()
    for target, count in counts.items():
        console.print(
            f"{target}: asked of {count['asked']} scenes, right {count['right']}, flips {count['flips']}, stays "
            f"{count['stays']}, all three {count['passes']}; not moved by any part {count['unmoved']}",
            markup=False, soft_wrap=True,
        )  # fmt: skip
    table = Table(title="All scenes and targets, 95 % intervals", box=box.SIMPLE, pad_edge=False, padding=(0, 1, 0, 0))
    for number, name in enumerate(("method", *SHOWN.values(), "above random weights", "s")):
        table.add_column(name, justify="left" if number == 0 else "right", overflow="fold")
    others = {
        criterion: {place.method: place for place in rankings.get((criterion, EVERY, ALL), ())} for criterion in SHOWN
    }
    for place in rankings.get((AGREEMENT, EVERY, ALL), ()):
        if place.method[1] == RANDOM:
            continue
        name = place.method[0] if place.rank is None else f"{place.rank}. {place.method[0]}"
        cells = [cell(other[place.method].score) if place.method in other else "–" for other in others.values()]
        lead = "–" if place.lead is None else f"{cell(place.lead)}{' *' if place.leads else ''}"
        taken = seconds.get(place.method[0])
        table.add_row(name, *cells, lead, "" if place.rank is None or taken is None else f"{taken:.2f}")
    console.print(table)
    passing = [place for place in rankings.get((AGREEMENT, EVERY, PASSING), ()) if place.rank == 1]
    for place in passing:
        console.print(f"first on scenes that pass: {place.method[0]} {cell(place.score)}", markup=False)
    console.print(f"* above its twin at random weights, corrected for all methods; report: {run_dir / 'index.html'}",
                  markup=False, soft_wrap=True)  # fmt: skip
