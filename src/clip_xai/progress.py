"""Progress bars that stay quiet where nobody watches."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Sized
from typing import TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

Item = TypeVar("Item")


def track(items: Iterable[Item], description: str, total: int | None = None) -> Iterator[Item]:
    """Yield the items while a progress bar with the time left shows on standard error.

    Args:
        items: What to go through.
        description: What is being done, as a user would say it.
        total: Number of items, for iterables without a length.

    Yields:
        The items, unchanged. Where standard error is not a terminal, one line at the end tells how many there were.
    """
    count = len(items) if total is None and isinstance(items, Sized) else total
    console = Console(stderr=True)
    if not sys.stderr.isatty():
        done = 0
        for item in items:
            yield item
            done += 1
        console.print(f"{description}: {done} done", highlight=False)
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console) as progress:
        task = progress.add_task(description, total=count)
        for item in items:
            yield item
            progress.advance(task)
