"""What every benchmark does alike: two sides timed alternately in one run, peak memory, Markdown tables.

A ratio of two sides is worth something only if both met the same machine: the sides take turns, in an order that is
reversed each round, and the ratio is the median over the rounds. No benchmark compares seconds of two runs.
"""

from __future__ import annotations

import ctypes
import gc
import platform
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow
import torch

MIB = 2**20


@dataclass(frozen=True)
class Timing:
    """How long one side took.

    Attributes:
        seconds: One entry a round.
        items: What one round did, in samples, captions, images ...
    """

    seconds: tuple[float, ...]
    items: int

    @property
    def median(self) -> float:
        """Median seconds of a round."""
        return statistics.median(self.seconds)

    @property
    def per_second(self) -> float:
        """Items a second, at the median."""
        return self.items / self.median


def alternately(sides: Mapping[str, Callable[[], int]], rounds: int = 5, warmup: int = 1) -> dict[str, Timing]:
    """Time several sides by turns.

    Args:
        sides: Name -> what to time; it returns how many items it did, and the same number each time.
        rounds: Timed rounds; every side runs once in each, in an order that is reversed from round to round.
        warmup: Rounds before that, which do not count (first allocations, compiled kernels, caches).

    Raises:
        ValueError: A side did different amounts of work in two rounds.
    """
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    items: dict[str, int] = {}
    names = list(sides)
    for number in range(warmup + rounds):
        for name in names if number % 2 == 0 else reversed(names):
            took, done = timed(sides[name])
            if items.setdefault(name, done) != done:
                raise ValueError(f"{name} did {done} items in a round after {items[name]} in an earlier one")
            if number >= warmup:
                seconds[name].append(took)
    return {name: Timing(tuple(seconds[name]), items[name]) for name in names}


def timed(work: Callable[[], int]) -> tuple[float, int]:
    """Return the seconds that a call took, queued work on a GPU included, and what it returned."""
    gc.collect()
    _synchronise()
    start = time.perf_counter()
    done = work()
    _synchronise()
    return time.perf_counter() - start, done


def speedup(fast: Timing, slow: Timing) -> float:
    """Return how many times the items a second of ``slow`` are those of ``fast``: the median over the rounds."""
    ratios = [
        (fast.items / quick) / (slow.items / long) for quick, long in zip(fast.seconds, slow.seconds, strict=True)
    ]
    return statistics.median(ratios)


def peak_mib(work: Callable[[], object]) -> float | None:
    """Return how far memory rose above its level at the start while a call ran, in MiB; None where nobody can tell.

    On a GPU it is what PyTorch allocated. On Linux it is the process's resident set: its high-water mark is reset
    first, and what the C library keeps of freed memory is handed back.
    """
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        work()
        _synchronise()
        return (torch.cuda.max_memory_allocated() - before) / MIB
    memory = kept_mib(work)
    return None if memory is None else memory[0]


def kept_mib(work: Callable[[], object]) -> tuple[float, float] | None:
    """Return how far the resident set rose while a call ran, and by how much it is larger afterwards, in MiB.

    The high-water mark is reset first; what the C library and Arrow keep of freed memory is handed back before each
    look. None where nobody can tell.
    """
    reset = Path("/proc/self/clear_refs")
    if not reset.exists():
        return None
    _hand_back()
    reset.write_text("5")
    before = _status_kib("VmRSS")
    work()
    peak = _status_kib("VmHWM")
    _hand_back()
    return (peak - before) / 1024, (_status_kib("VmRSS") - before) / 1024


def markdown(title: str, headers: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Return a Markdown table under its title; floats get three significant digits, None a dash.

    >>> print(markdown("Speed", ["side", "items/s"], [["cached", 1234.5], ["live", None]]))
    ### Speed
    <BLANKLINE>
    | side   | items/s |
    |--------|---------|
    | cached | 1,234   |
    | live   | –       |
    <BLANKLINE>
    """
    cells = [[str(header) for header in headers], *([_cell(value) for value in row] for row in rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(headers))]
    lines = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |" for row in cells
    ]
    lines.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
    return "\n".join([f"### {title}", "", *lines, ""])


def machine() -> str:
    """Return one line about the machine that a table was measured on."""
    if torch.cuda.is_available():
        where = torch.cuda.get_device_name()
    else:
        where = f"{_processor()}, {torch.get_num_threads()} thread{'s' if torch.get_num_threads() > 1 else ''}"
    return f"{where}; PyTorch {torch.__version__}, Python {platform.python_version()}"


def _cell(value: object) -> str:
    if value is None:
        return "–"
    if not isinstance(value, float):
        return str(value)
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}" if abs(value) < 10 else f"{value:.1f}"


def _synchronise() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def _hand_back() -> None:
    gc.collect()
    pyarrow.default_memory_pool().release_unused()
    ctypes.CDLL(None).malloc_trim(0)


def _status_kib(field: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1])
    raise KeyError(field)


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
