"""Two studies from training to the table of explainers: ``python -m clip_xai.studies.classifiers chest_xray``.

``chest_xray``: a narrow DenseNet-121 and a narrow ViT learn findings of rendered radiographs; Grad-CAM, SmoothGrad
and extremal perturbation are held against the boxes of the findings and by insertion and deletion. A further DenseNet
learns from radiographs on which a chest tube goes with pneumothorax, and is audited for it.

``folder_study``: a narrow ResNet-18 learns four classes of an image folder; RISE and Abs-CAM are compared by insertion
and deletion.

More settings of ``train`` may follow, such as ``data.synthetic.patients=400``. Each step is a run directory of its own
below ``runs/studies``; the same command in the same directory (``run_dir=DIR``) goes on where it stopped.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from clip_xai.config.cli import compose_job, report_errors
from clip_xai.errors import UserError
from clip_xai.files import write_json, write_text
from clip_xai.jobs.evaluate import evaluate
from clip_xai.jobs.explain import explain
from clip_xai.jobs.train import train
from clip_xai.text import with_bounds

QUIET = ("logger=csv", "callbacks.progress_bar=false")


@dataclass(frozen=True)
class Study:
    """What is trained and how its explanations are judged.

    Attributes:
        towers: Name -> the experiment that trains it.
        methods: The explainers.
        protocol: Of insertion and deletion.
        samples: Photographs whose likeliest class is explained, as in the studies.
        settings: More settings of ``explain``.
        audited: Name -> what is changed in the first experiment to be audited for a shortcut, and the fields audited.
    """

    towers: Mapping[str, str]
    methods: Sequence[str]
    protocol: str
    samples: int
    settings: Sequence[str] = ()
    audited: Mapping[str, tuple[Sequence[str], Sequence[str]]] = field(default_factory=dict)


STUDIES = {
    "chest_xray": Study(
        towers={"densenet121": "chest_xray", "vit": "chest_xray_vit"},
        methods=("gradcam", "smoothgrad", "extremal_perturbation"),
        protocol="chest_study",
        samples=8,
        settings=("xai.extremal_perturbation.iterations=100",),
        # Half of the patients test it: where the tube nearly always goes with the label, few films tell the two apart.
        audited={
            "chest tube with pneumothorax": (
                (
                    "data.synthetic.tube=0.9",
                    "data.synthetic.patients=2500",
                    "data.synthetic.test_share=0.5",
                    "stage.epochs=6",
                ),
                ("artefacts",),
            )
        },
    ),
    "folder_study": Study(
        towers={"resnet18": "folder_study"},
        methods=("rise", "abscam_init", "abscam_final"),
        protocol="abs_cam_study",
        samples=24,
    ),
}


@dataclass(frozen=True)
class Told:
    """What a study found.

    Attributes:
        measures: A line a tower: what it is worth beside its baselines.
        explainers: A line a tower and method.
        audits: The sentences of the audits.
        seconds: How long each step took.
    """

    measures: list[dict[str, str]]
    explainers: list[dict[str, str]]
    audits: list[str]
    seconds: dict[str, float]


def run_study(name: str, settings: Sequence[str], run_dir: Path) -> Told:
    """Train, judge and explain.

    Args:
        name: Of ``STUDIES``.
        settings: More settings of ``train``.
        run_dir: Where the runs are written.

    Raises:
        UserError: There is no such study.
    """
    if name not in STUDIES:
        raise UserError(f"there is no study {name!r}; choose one of {', '.join(STUDIES)}")
    study, told = STUDIES[name], Told([], [], [], {})
    for tower, experiment in study.towers.items():
        place = _trained(f"experiment={experiment}", settings, run_dir / tower, told, tower)
        judged = _timed(told, f"{tower}: judged", lambda place=place: _judged(place))
        told.measures.append({"tower": tower, **_cells(judged)})
        explained = _timed(told, f"{tower}: explained", lambda place=place: _explained(place, study))
        told.explainers.extend(_lines(tower, explained))
    for what, (changes, fields) in study.audited.items():
        folder = what.replace(" ", "_")
        root = run_dir / "data" / folder
        apart = [f"data.root={root}", f"data.output_dir={root}_manifest"]
        place = _trained(f"experiment={name}", [*settings, *changes, *apart], run_dir / folder, told, what)
        asked = [f"shortcuts=[{','.join(fields)}]", f"attributes={root / 'synthetic' / 'films.parquet'}"]
        judged = _timed(told, f"{what}: judged", lambda place=place, asked=asked: _judged(place, asked))
        for audit in judged["shortcuts"]:
            following = [label["label"] for label in audit["labels"] if label["found"]]
            told.audits.append(f"{audit['attribute']}: followed by {', '.join(following) or 'no label'}")
    return told


def _trained(experiment: str, changes: Sequence[str], place: Path, told: Told, what: str) -> Path:
    _timed(told, f"{what}: trained", lambda: train(compose_job("train", [experiment, *QUIET, *changes], place)))
    return place


def _judged(place: Path, more: Sequence[str] = ()) -> dict[str, Any]:
    return evaluate(compose_job("evaluate", [f"ckpt={place}", "trainer=cpu", "logger=csv", *more], place / "judged"))


def _explained(place: Path, study: Study) -> dict[str, Any]:
    asked = [f"ckpt={place}", "trainer=cpu", "logger=csv", f"xai=[{','.join(study.methods)}]", "target=logit"]
    asked += [f"samples={study.samples}", f"curves={study.protocol}", *study.settings]
    return explain(compose_job("explain", asked, place / "explained"))


def _timed(told: Told, what: str, step: Any) -> Any:
    started = time.perf_counter()
    found = step()
    told.seconds[what] = round(time.perf_counter() - started, 1)
    return found


def _cells(judged: Mapping[str, Any]) -> dict[str, str]:
    scores = [score for score in judged["scores"] if "/" not in score["metric"]]
    found = {}
    for score in scores:
        if score["system"] == "model":
            low, high = score["low"], score["high"]
            found[score["metric"]] = with_bounds(score["value"], low, high, 3)
    return found


def _lines(tower: str, explained: Mapping[str, Any]) -> list[dict[str, str]]:
    places: dict[str, Mapping[str, Any]] = {}
    for row in explained.get("findings", []):  # of one finding alone there is no row of all
        if row["finding"] == "all findings" or row["method"] not in places:
            places[row["method"]] = row
    curves = {row["method"]: row for row in explained.get("curves", [])}
    lines = []
    for method in dict.fromkeys([*curves, *places]):
        line = {"tower": tower, "method": method}
        for source, measures in ((places, ("pointing", "energy", "iou_otsu")), (curves, ("insertion", "deletion"))):
            for measure in measures:
                value = source.get(method, {}).get(measure)
                line[measure] = "–" if value is None else _interval(value)
        lines.append(line)
    return lines


def _interval(value: Mapping[str, Any]) -> str:
    return with_bounds(value["value"], value["low"], value["high"])


def _table(title: str, rows: Sequence[Mapping[str, str]]) -> Table:
    table = Table(title=title, box=box.SIMPLE, pad_edge=False)
    columns = list(dict.fromkeys(key for row in rows for key in row))
    for column in columns:
        table.add_column(column, no_wrap=True)
    for row in rows:
        table.add_row(*(row.get(column, "–") for column in columns))
    return table


def _markdown(rows: Sequence[Mapping[str, str]]) -> str:
    columns = list(dict.fromkeys(key for row in rows for key in row))
    lines = [columns, ["---"] * len(columns), *([row.get(column, "–") for column in columns] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def main(arguments: list[str]) -> None:
    """Run a study and print what it found."""
    with report_errors("train"):
        if not arguments or arguments[0] in ("-h", "--help"):
            print(__doc__)
            return
        name, settings = arguments[0], [one for one in arguments[1:] if not one.startswith("run_dir=")]
        named = next((one.partition("=")[2] for one in arguments[1:] if one.startswith("run_dir=")), None)
        moment = datetime.now().strftime("%Y-%m-%d_%H-%M-%S")
        run_dir = Path(named) if named else Path("runs") / "studies" / f"{moment}_{name}"
        told = run_study(name, settings, run_dir)
        console = Console()
        console.print(_table("Judged on test photographs, with 95 % intervals", told.measures))
        console.print(_table("Explainers", told.explainers))
        for sentence in told.audits:
            console.print(sentence, markup=False, soft_wrap=True)
        console.print(f"{sum(told.seconds.values()):.0f} seconds; runs: {run_dir}", markup=False, soft_wrap=True)
        write_json(run_dir / "study.json", vars(told))
        parts = [_markdown(told.measures), _markdown(told.explainers), *told.audits]
        write_text(run_dir / "study.md", "\n\n".join(parts) + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
