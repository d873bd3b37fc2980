"""The main job from end to end on the embedded default: ``python -m clip_xai.studies.demo`` (or ``make demo``).

Draws the six sources, builds the manifest, trains both stages, judges the captions, explains photographs, measures
whether heat lies on lesions, trains and explains a classifier of chest radiographs, and writes a front page. Each part
is the command that is printed above it.
"""

from __future__ import annotations

import os
import shlex
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

import torch

from clip_xai.config.cli import compose_job, report_errors
from clip_xai.files import whole_files, write_json
from clip_xai.jobs.evaluate import evaluate
from clip_xai.jobs.explain import explain
from clip_xai.jobs.train import train
from clip_xai.metrics.results import Verdict
from clip_xai.report.demo_page import Curve, Link, read_curves, write_index
from clip_xai.report.pages import Table
from clip_xai.runs.directories import claim
from clip_xai.runs.records import prepare_manifest
from clip_xai.studies.localise import localise, write_localisation

EXPLAINED, LOCALISED, FILMS = 6, 16, 6

#: The chest study in a minute: a fifth of the films.
CHEST = [
    "experiment=chest_xray",
    "data.synthetic.patients=400",
    "data.root=data/chest_demo",
    "data.output_dir=data/chest_demo_manifest",
    "stage.epochs=10",
    "stage.batch_size=16",
    "stage.learning_rate=3.0e-3",
]


class Clock:
    """Says what runs and how long it took."""

    def __init__(self) -> None:
        self.parts: list[tuple[str, float]] = []

    @contextmanager
    def part(self, title: str, command: str) -> Iterator[None]:
        """Time one part."""
        print(f"\n== {title}\n   {command.rstrip()}", flush=True)
        started = time.perf_counter()
        yield
        self.parts.append((title, time.perf_counter() - started))
        print(f"   {title}: {self.parts[-1][1]:.0f} s", flush=True)

    @property
    def total(self) -> float:
        """Seconds of all parts."""
        return sum(seconds for _, seconds in self.parts)

    def table(self) -> Table:
        """The times for a reader."""
        rows = tuple((title, f"{seconds:.0f} s") for title, seconds in [*self.parts, ("Together", self.total)])
        return Table("Where the time went", ("part", "time"), rows, f"On {os.cpu_count()} cores.")


def demo(settings: Sequence[str] = ()) -> Path:
    """Run everything and return the front page.

    Args:
        settings: Overrides for all jobs of captions, such as ``data.synthetic.scale=0.02``.
    """
    torch.set_num_threads(max(1, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 1))
    clock = Clock()
    root = Path("runs") / "demo" / datetime.now().strftime("%Y-%m-%d_%H-%M-%S")
    common = ["trainer=cpu", "logger=csv", f"runs_root={root}", *settings]
    claim(root, "demo", {"settings": {"overrides": list(settings)}})
    typed = shlex.join(settings)
    with clock.part("Data", f"python -m clip_xai.jobs.prepare {typed}"):
        manifest = prepare_manifest(compose_job("train", common, root).data)
    stages = [root / "train" / f"stage{number}" for number in (1, 2)]
    for number, run_dir in enumerate(stages, start=1):
        with clock.part(f"Stage {number}", f"python train.py stage={number} {typed}"):
            train(compose_job("train", [*common, f"stage={number}"], run_dir))
    with clock.part("Evaluation", f"python evaluate.py ckpt=latest {typed}"):
        judged = evaluate(compose_job("evaluate", common, root / "evaluate"))
    with clock.part("Localisation", f"python -m clip_xai.studies.localise xai=basic samples={LOCALISED} {typed}"):
        config = compose_job("explain", ["xai=basic", f"samples={LOCALISED}", *common], root / "localisation")
        rows, table = localise(config)
        write_localisation(rows, table, root / "localisation")
    # Before 200 validation photographs have calibrated it, evidence takes longer than the maps and passes next to none.
    asked = ["xai=basic", f"samples={EXPLAINED}", "evidence=none"]
    with clock.part("Explanations", f"python explain.py {' '.join(asked)} {typed}"):
        explain(compose_job("explain", [*asked, *common], root / "explain"))
    look_at_films(root / "chest", clock)
    index = front_page(root, manifest, judged, table, curves(stages), clock)
    print(f"\nDone in {clock.total:.0f} s. Open {index.resolve()}")
    return index


def look_at_films(place: Path, clock: Clock) -> None:
    """Train a classifier of findings, judge it, and explain films by it."""
    with clock.part("Chest radiographs", f"python train.py {' '.join(CHEST)}"):
        train(compose_job("train", [*CHEST, "trainer=cpu", "logger=csv"], place))
    asked = [f"ckpt={place}", "trainer=cpu", "logger=csv"]
    with clock.part("Findings judged", f"python evaluate.py ckpt={place}"):
        evaluate(compose_job("evaluate", asked, place / "evaluate"))
    # The last stage of 64 pixels is a grid of 2 x 2.
    shown = ["evidence=none", "xai=[gradcam,occlusion]", "xai.gradcam.layer=-2", "target=logit", f"samples={FILMS}"]
    with clock.part("Findings explained", f"python explain.py {shlex.join([f'ckpt={place}', *shown])}"):
        explain(compose_job("explain", [*asked, *shown], place / "explain"))


def curves(stages: Sequence[Path]) -> tuple[Curve, ...]:
    """Loss curves of the stages."""
    files = [(f"Stage {number}", run_dir / "csv" / "metrics.csv") for number, run_dir in enumerate(stages, start=1)]
    found = [curve for title, file in files for curve in read_curves(file, title)]
    return tuple(curve for curve in found if curve.title.endswith("loss"))


def front_page(
    root: Path, manifest: Path, judged: dict[str, Any], localised: Table, lines: Sequence[Curve], clock: Clock
) -> Path:
    """Write ``index.html``, which leads to everything else."""
    links = [
        Link(
            "Explanations",
            "Photographs with the heat behind each word of their captions.",
            root / "explain" / "index.html",
            _card(root / "explain"),
        ),
        Link(
            "Evaluation",
            "Captions beside their references and what they have to beat.",
            root / "evaluate" / "index.html",
        ),
        Link(
            "Chest radiographs",
            "The findings that a classifier sees on rendered films, where it sees them, and the boxes they lie in.",
            root / "chest" / "explain" / "index.html",
            _card(root / "chest" / "explain"),
        ),
        Link(
            "The classifier, judged",
            "Each finding beside the prior and shuffled films.",
            root / "chest" / "evaluate" / "index.html",
        ),
        Link("Data", "What was read, grouped and split, and what was left out.", manifest.with_name("report.html")),
    ]
    write_json(root / "times.json", dict(clock.parts))
    return write_index(
        root / "index.html",
        links,
        subtitle="The whole main job on rendered photographs: data, two stages of training, evaluation, explanation; "
        "then a classifier of rendered chest radiographs.",
        verdicts=[Verdict(**verdict) for verdict in judged["verdicts"]],
        tables=[localised, clock.table()],
        curves=lines,
    )


def _card(explained: Path) -> Path | None:
    cards = whole_files(explained / "cards", "*.png")
    return cards[0] if cards else None


if __name__ == "__main__":
    with report_errors("train"):
        demo(sys.argv[1:])
