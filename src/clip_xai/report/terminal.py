"""The numbers of an evaluation on a terminal."""

from __future__ import annotations

from pathlib import Path

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from clip_xai.metrics.results import ACROSS, MODEL, OVERALL, Scored


def show(result: Scored, run_dir: Path) -> None:
    """Print the verdicts, the overall values of what is judged, and where the rest is.

    The model alone is printed with its intervals, and the baselines that a verdict speaks of: a terminal of 80 columns
    holds no more, `evaluation.md` has all.
    """
    console = Console()
    for verdict in result.verdicts:
        console.print(verdict.text, style="bold red" if verdict.warning else "bold green", markup=False)
    table = Table(title="Overall, the model with 95 % intervals", box=box.SIMPLE, pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column("measure", no_wrap=True)
    table.add_column("n", justify="right", no_wrap=True)
    systems = [system for system in result.systems if system != ACROSS]
    for system in systems:
        table.add_column(system, justify="right", no_wrap=True)
    for metric in result.metrics:
        score = result.score(metric.key)
        if score is not None and metric.judged:
            cells = [escape(result.cell(metric, MODEL, OVERALL))]
            others = [result.score(metric.key, system) for system in systems[1:]]
            cells += ["–" if other is None else f"{other.value:.{metric.digits}f}" for other in others]
            table.add_row(metric.label, str(score.n), *cells)
    console.print(table)
    for name, reason in result.skipped.items():
        console.print(f"not measured: {name}: {reason}", markup=False, soft_wrap=True)
    for name, words in result.left_out().items():
        console.print(f"{name}: {words}", markup=False, soft_wrap=True)
    for name, reason in result.set_aside.items():
        console.print(f"set aside: {name}: {reason}", markup=False, soft_wrap=True)
    console.print(f"report: {run_dir / 'index.html'}", markup=False, soft_wrap=True)
