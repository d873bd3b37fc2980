"""What stage 2 forgets of the common set, and what replay and adapters change about it.

``python -m clip_xai.studies.forgetting [setting=value ...]`` trains stage 1 once and stage 2 in several ways from it,
and prints the loss per token on validation records of the stage's own source and of all others.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from rich import box
from rich.console import Console
from rich.table import Table

from clip_xai.config.cli import compose_job, report_errors
from clip_xai.jobs.train import train
from clip_xai.text import decimals

WAYS = {
    "no replay": ("stage.replay=0",),
    "a quarter replayed": ("stage.replay=0.25",),
    "all replayed": ("stage.replay=1",),
    "adapters, no replay": ("experiment=adapters", "stage.replay=0"),
}


@dataclass(frozen=True)
class Way:
    """One way through stage 2.

    Attributes:
        name: What is different about it.
        epoch: The epoch with the lowest loss on the stage's own source.
        own: That loss, in nats per token.
        before: Loss on the other sources before the stage.
        after: The same in that epoch.
    """

    name: str
    epoch: int
    own: float
    before: float
    after: float


def measure_forgetting(settings: Sequence[str], run_dir: Path) -> list[Way]:
    """Train stage 1, then stage 2 in every way.

    Args:
        settings: As typed for ``train``.
        run_dir: Where the runs are written.
    """
    quiet = ["logger=csv", "callbacks.progress_bar=false", "callbacks.sample_captions=0", *settings]
    train(compose_job("train", [*quiet, "stage=1"], run_dir / "stage 1"))
    ways = []
    for name, changes in WAYS.items():
        start = f"init_from={run_dir / 'stage 1'}"
        folder = run_dir / name.replace(", ", " ")  # a comma would be a list of values
        metrics = train(compose_job("train", [*quiet, "stage=2", *changes, start], folder))
        before, after = metrics["val/common_loss before"], metrics["val/common_loss"]
        ways.append(Way(name, metrics["epoch"], metrics["val/loss"], before, after))
    return ways


def main(arguments: list[str]) -> None:
    """Print the table."""
    with report_errors("train"):
        run_dir = Path("runs") / "forgetting" / datetime.now().strftime("%Y-%m-%d_%H-%M-%S")
        ways = measure_forgetting(arguments, run_dir)
    title = "Loss in nats per token on validation records, at the best epoch for SkinCAP"
    table = Table(title=title, box=box.SIMPLE, pad_edge=False)
    for column in ("stage 2", "epoch", "SkinCAP", "others before", "others after", "forgotten"):
        table.add_column(column, justify="left" if column == "stage 2" else "right", no_wrap=True)
    for way in ways:
        numbers = (way.own, way.before, way.after)
        forgotten = decimals(way.after - way.before, 3, "+")
        table.add_row(way.name, str(way.epoch + 1), *(f"{number:.3f}" for number in numbers), forgotten)
    Console().print(table)


if __name__ == "__main__":
    main(sys.argv[1:])
