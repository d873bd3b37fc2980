"""Did a change make anything slower? Rows of the benchmarks, before and after: ``benchmarks.before_after COMMIT``.

    python -m benchmarks.before_after HEAD~20
    python -m benchmarks.before_after HEAD~20 --rounds 10 --only captioning "explainers --texts 2 --only Grad"

The commit is checked out into a temporary directory. A process that stays alive runs each benchmark there, and another
one here; where a benchmark would time its sides, the two take turns instead, each timing this package's own side once a
round, in an order that is reversed from round to round. The ratio of time after / before is the geometric mean over the
rounds, with the 95 % interval of Student's t on the logarithms. Above 1 the change is slower. The sides' results are
compared as ever, once, at the end of the row.
"""

from __future__ import annotations

import argparse
import importlib
import io
import json
import math
import os
import shlex
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

ROOT = Path(__file__).resolve().parents[1]
# Sides of a row that are this package's, by the beginning of their name; the others are what it is compared with.
OURS = ("batch", "cached", "here", "ours", "this package")
BENCHMARKS = (
    "captioning --images 16 --loop-images 2",
    "training --parts cache loss --photographs 8 --samples 128 --language-models tiny",
    "explainers --texts 2 --dimensions 1",
    "perturbation --masks 30",  # KernelSHAP of nine players needs 36 coalitions, six more than masks
)


def interval(after: Sequence[float], before: Sequence[float]) -> tuple[float, float, float]:
    """Return the ratio after / before of paired seconds and its 95 % interval.

    Geometric mean of the ratios; Student's t on their logarithms, with one degree of freedom less than rounds.

    Raises:
        ValueError: There are fewer than two rounds, or not as many of both.
    """
    from scipy.stats import t

    logarithms = [math.log(new / old) for new, old in zip(after, before, strict=True)]
    count = len(logarithms)
    if count < 2:
        raise ValueError(f"{count} rounds have no interval; take at least 2")
    mean = sum(logarithms) / count
    spread = math.sqrt(sum((one - mean) ** 2 for one in logarithms) / (count - 1) / count)
    half = float(t.ppf(0.975, count - 1)) * spread
    return math.exp(mean), math.exp(mean - half), math.exp(mean + half)


class Checkout:
    """A process that runs one benchmark in a checkout and times one side whenever it is told to."""

    def __init__(self, root: Path, benchmark: str, log: IO[bytes]) -> None:
        path = os.pathsep.join((str(root), str(root / "src")))
        command = [sys.executable, str(Path(__file__).resolve()), "--serve", benchmark]
        self.process = subprocess.Popen(
            command, cwd=root, env=os.environ | {"PYTHONPATH": path, "PYTHONSAFEPATH": "1"}, text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log,
        )  # fmt: skip

    def hear(self) -> Any:
        """Return what the process says next: a row's name and sides, seconds, or None at its end."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        return json.loads(line) if line else None

    def tell(self, what: str) -> None:
        """Name the side to be timed, or nothing to go on to the next row."""
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(what) + "\n")
        self.process.stdin.flush()

    def seconds(self, side: str) -> float:
        """Time one side once."""
        self.tell(side)
        found = self.hear()
        if found is None:
            raise RuntimeError(f"the benchmark ended while {side!r} was timed")
        return float(found)


def serve(benchmark: str) -> None:
    """Run a benchmark of this directory, handing each side over to be timed; what it prints goes to standard error."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    common: Any = importlib.import_module("benchmarks.common")
    real = common.alternately

    def handed_over(sides: Mapping[str, Callable[[], int]], *args: Any, **kwargs: Any) -> Any:
        row = _name_of_row(sys._getframe(1).f_locals)
        mine = [name for name in sides if name.startswith(OURS)]
        for name in mine:
            sides[name]()
        _say(answers, [str(row), mine])
        for line in sys.stdin:
            side = json.loads(line)
            if not side:
                break
            _say(answers, common.timed(sides[side])[0])
        return real(sides, rounds=1, warmup=0)

    common.alternately = handed_over
    name, *arguments = shlex.split(benchmark)
    sys.argv = [name, *arguments]
    importlib.import_module(f"benchmarks.{name}").main()


def rows(before: Path, after: Path, benchmark: str, rounds: int, log: IO[bytes]) -> Iterator[tuple[str, list[float]]]:
    """Yield each row's name with its ratio and interval.

    Args:
        before: A checkout.
        after: The other one.
        benchmark: Name and arguments, those that both know.
        rounds: Turns a row.
        log: Takes what the benchmarks print.

    Raises:
        RuntimeError: The two do not have the same rows, or one of them ended early.
    """
    sides = {"before": Checkout(before, benchmark, log), "after": Checkout(after, benchmark, log)}
    try:
        while True:
            heard = {name: side.hear() for name, side in sides.items()}
            if heard["before"] != heard["after"]:
                raise RuntimeError(f"{benchmark}: the rows differ: {heard['before']} before, {heard['after']} after")
            if heard["after"] is None:
                break
            row, mine = heard["after"]
            for one in mine:
                taken: dict[str, list[float]] = {name: [] for name in sides}
                for number in range(rounds):
                    for name in sides if number % 2 == 0 else reversed(sides):
                        taken[name].append(sides[name].seconds(one))
                yield f"{benchmark.split()[0]}: {row} {one}", list(interval(taken["after"], taken["before"]))
            for side in sides.values():
                side.tell("")
        failed = {name: side.process.wait() for name, side in sides.items() if side.process.wait()}
        if failed:
            raise RuntimeError(f"{benchmark}: failed {' and '.join(failed)} the change; read the log")
    finally:
        for side in sides.values():
            side.process.kill()


def check_out(commit: str, folder: Path) -> Path:
    """Unpack a commit of this repository and return where it lies."""
    packed = subprocess.run(["git", "-C", str(ROOT), "archive", commit], check=True, capture_output=True).stdout
    with tarfile.open(fileobj=io.BytesIO(packed)) as archive:
        archive.extractall(folder, filter="data")
    return folder


def main(arguments: Sequence[str] | None = None) -> str:
    """Measure, print the table and return it."""
    from benchmarks.common import machine, markdown

    parser = argparse.ArgumentParser(prog="python -m benchmarks.before_after", description=str(__doc__).split("\n")[0])
    parser.add_argument("commit", help="what is compared with the files here")
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--only", nargs="+", default=list(BENCHMARKS), help="benchmarks with their arguments")
    parser.add_argument("--log", type=Path, default=Path("before_after.log"), help="what the benchmarks print")
    given = parser.parse_args(arguments)
    found: list[list[object]] = []
    with tempfile.TemporaryDirectory() as folder, given.log.open("ab") as log:
        before = check_out(given.commit, Path(folder))
        for benchmark in given.only:
            for name, (ratio, low, high) in rows(before, ROOT, benchmark, given.rounds, log):
                verdict = "slower" if low > 1.05 else ""
                found.append([name, f"{ratio:.3f}", f"[{low:.3f}, {high:.3f}]", verdict])
                print(*found[-1], flush=True)
    title = f"Time after / before, {given.rounds} alternating rounds; slower: the interval lies wholly above 1.05"
    table = markdown(title, ["row", "ratio", "95 % interval", ""], found) + f"\n{machine()}"
    print(table)
    return table


def _name_of_row(variables: Mapping[str, Any]) -> str:
    """What a row is called: ``alternately`` is not told, but the loop around it knows."""
    if "pair" in variables:
        return str(variables["pair"].name)
    return f"{variables['count']} beams" if "beams" in variables else str(variables.get("name", ""))


def _say(answers: IO[str], what: object) -> None:
    answers.write(json.dumps(what) + "\n")
    answers.flush()


if __name__ == "__main__":
    if sys.argv[1:2] == ["--serve"]:
        serve(sys.argv[2])
    else:
        main()
