"""The ranking of explainers on a terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from rich import box
from rich.console import Console
from rich.table import Table

from clip_xai.explanations.causes.measures import AGREEMENT, COMPLETENESS, CONTRASTIVITY, PLACE
from clip_xai.explanations.causes.one_scene import RANDOM
from clip_xai.explanations.causes.ranking import Place
from clip_xai.explanations.causes.tables import ALL, EVERY, PASSING
from clip_xai.tasks.explanations.page import FEW, cell, title
from clip_xai.text import counted

_WIDTHS = {"correctness [95 %]": 17, "random": 6}
SHOWN = {AGREEMENT: "correctness [95 %]", PLACE: "place", COMPLETENESS: "compl.", CONTRASTIVITY: "contr."}


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
            f"{target}: asked of {counted(count['asked'], 'scene')}, right {count['right']}, flips {count['flips']}, "
            f"stays {count['stays']}, all three {count['passes']}; not moved by any part {count['unmoved']}",
            markup=False, soft_wrap=True,
        )  # fmt: skip
    table = Table(title="All scenes and targets", box=box.SIMPLE, pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column("method", no_wrap=True)
    for name in (*SHOWN.values(), "random", "s"):
        # Where the terminal is narrow, names are cut and not numbers.
        table.add_column(name, justify="right", no_wrap=True, min_width=_WIDTHS.get(name, 5))
    criteria = [
        {place.method: place.score for place in rankings.get((criterion, EVERY, ALL), ())} for criterion in SHOWN
    ]
    for place in rankings.get((AGREEMENT, EVERY, ALL), ()):
        method, weights = place.method
        if weights == RANDOM:
            continue
        name = title(method) if place.rank is None else f"{place.rank}. {title(method)}"
        others = [f"{scores[place.method].value:.2f}" if place.method in scores else "–" for scores in criteria]
        twin = criteria[0].get((method, RANDOM)) if place.rank is not None else None
        taken = seconds.get(method) if place.rank is not None else None
        twin_text = "" if twin is None else f"{twin.value:.2f}{' *' if place.leads else '  '}"
        table.add_row(name, cell(place.score), *others[1:], twin_text, "" if taken is None else f"{taken:.2f}")
    console.print(table)
    passing = [place for place in rankings.get((AGREEMENT, EVERY, PASSING), ()) if place.rank == 1]
    for place in passing:
        few = f" ({counted(place.score.groups, 'scene')}: too few to rank)" if place.few else ""
        console.print(f"first on scenes that pass: {place.method[0]} {cell(place.score)}{few}", markup=False)
    if any(place.few for place in rankings.get((AGREEMENT, EVERY, ALL), ()) if place.rank == 1):
        console.print(FEW, markup=False, soft_wrap=True)
    console.print("random: correctness at random weights; * the method is above it, corrected for all", markup=False)
    console.print(f"report: {run_dir / 'index.html'}", markup=False, soft_wrap=True)
