"""Does the ranking carry over? ``python -m clip_xai.studies.carry_over RUN OTHER [seed=0] [run_dir=DIR]``.

RUN is a run directory of ``evaluate.py task=explanations``; OTHER is one of another tower or model, of other scenes, or
one of ``python -m clip_xai.studies.measures`` on photographs. Prints Kendall's tau between the two by every criterion
that both have, with an interval over scenes, beside what a half of the scenes has in common with the other half; and
which measure that needs no label foretells the true effects. Writes ``carry_over.json``, ``carry_over.csv``,
``predictors.csv``, ``carry_over.md`` and the page ``index.html`` into the run directory.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import pandas as pd

from clip_xai.config.cli import report_errors
from clip_xai.errors import UserError
from clip_xai.explanations.carry_over import (
    CarryOver,
    Predictor,
    Ranking,
    carry_over,
    of_criteria,
    of_measures,
    predictors,
)
from clip_xai.explanations.carry_over_tables import (
    FEWEST_METHODS,
    LABEL_FREE,
    RANKED,
    SHOWN,
    carry_rows,
    carry_table,
    family_table,
    predictor_rows,
    predictor_table,
    tau,
)
from clip_xai.explanations.causes.measures import AGREEMENT
from clip_xai.explanations.causes.tables import EVERY
from clip_xai.files import replacing, write_json, write_text
from clip_xai.metrics.intervals import FEWEST
from clip_xai.report.causes_page import write_causes_page
from clip_xai.report.pages import Table
from clip_xai.runs.directories import claim
from clip_xai.studies.localise import markdown
from clip_xai.text import counted, decimals

MAPS_TABLE, MEASURED_TABLE = "maps.parquet", "measured.parquet"
FEWEST_PHOTOGRAPHS = 100  # photographs from which on their ranking means something
PHOTOGRAPHS = "photographs"
Rankings = dict[tuple[str, str], Ranking]


@dataclass(frozen=True)
class JudgedRun:
    """What one run directory says of methods.

    Attributes:
        place: The directory.
        criteria: Rankings by criteria that are causal; none of photographs.
        measures: Rankings by measures of maps.
        model: The model in words.
        pictures: How many scenes or photographs were judged.
        with_region: How many of them have a mask or boxes.
    """

    place: Path
    criteria: Rankings
    measures: Rankings
    model: str
    pictures: int
    with_region: int

    @classmethod
    def read(cls, place: Path) -> JudgedRun:
        """Read what a run wrote.

        Raises:
            UserError: It did not write what can be compared.
        """
        maps, measured = (_table(place / name) for name in (MAPS_TABLE, MEASURED_TABLE))
        if maps is None and measured is None:
            raise UserError(
                f"{place} holds neither {MAPS_TABLE} nor {MEASURED_TABLE}, or no row in them: name a run directory of "
                "evaluate.py task=explanations, or of python -m clip_xai.studies.measures"
            )
        criteria = {} if maps is None else {key: one for key, one in of_criteria(maps).items() if key[0] in SHOWN}
        measures = {} if measured is None else of_measures(measured, RANKED)
        region = set()
        if measured is not None:
            needs = ~measured["measure"].isin(LABEL_FREE) & measured["measure"].isin(list(RANKED))
            region = set(measured[needs & measured["value"].notna()]["picture"])
        pictures = 0 if measured is None else measured["picture"].nunique()
        scenes = pictures if maps is None else maps["scene"].nunique()
        return cls(place, criteria, measures, _model(place), int(scenes), len(region))

    @property
    def of_photographs(self) -> bool:
        """Whether it is of photographs, of which nobody knows the true effects."""
        return not self.criteria


@dataclass(frozen=True)
class Compared:
    """How the ranking of one run carries over to another.

    Attributes:
        names: What the two are called.
        found: By criterion or measure, and target.
        foretold: Which measures foretell the true effects, by whose measures they are.
        warnings: What a reader has to know, a sentence each.
    """

    names: tuple[str, str]
    found: dict[tuple[str, str], CarryOver]
    foretold: dict[str, list[Predictor]]
    warnings: list[str]

    @classmethod
    def of(cls, first: JudgedRun, second: JudgedRun, seed: int = 0) -> Compared:
        """Compare two runs.

        Raises:
            UserError: The first is of photographs, or they do not have three methods in common.
        """
        if first.of_photographs:
            raise UserError(
                f"{first.place} is of photographs: name the run of evaluate.py task=explanations first, then the other"
            )
        names = ("the first run", PHOTOGRAPHS if second.of_photographs else "the second run")
        found = {}
        for own, others in ((first.criteria, second.criteria), (first.measures, second.measures)):
            for key, ranking in own.items():
                methods = {*ranking.methods} & {*others[key].methods} if key in others else set()
                if len(methods) >= FEWEST_METHODS:
                    found[key] = carry_over(ranking, others[key], seed)
        truth = first.criteria.get((AGREEMENT, EVERY))
        if not found and (truth is None or not second.of_photographs or not second.measures):
            raise UserError(
                f"{first.place} and {second.place} do not have {FEWEST_METHODS} methods and a criterion in common: "
                "judge both by the same methods (xai=) and protocol"
            )
        foretold = {}
        for name, run, true in (
            (names[0], first, truth),
            (names[1], second, second.criteria.get((AGREEMENT, EVERY)) or truth),
        ):
            of_any = {key: one for (key, target), one in run.measures.items() if target == EVERY}
            if true is not None and of_any:
                foretold[name] = predictors(of_any, true, LABEL_FREE, seed)
        return cls(names, found, foretold, _warnings(first, second))

    def tables(self) -> list[Table]:
        """Return the tables of the page."""
        tables = [carry_table(self.found, self.names, " ".join(self.warnings))] if self.found else []
        tables += family_table(self.found, self.names)
        for name, found in self.foretold.items():
            table = predictor_table(found, f" on {name}")
            if table is not None:
                tables.append(Table(f"{table.title} ({name})", table.head, table.rows, table.note))
        return tables

    def sentences(self) -> list[tuple[str, bool]]:
        """Return the verdicts of the page, and whether each is a warning."""
        said = [(one, True) for one in self.warnings]
        one = self.found.get((AGREEMENT, EVERY))
        if one is not None:
            said.append(_in_words(one, few=bool(self.warnings)))
        return said


def _in_words(one: CarryOver, few: bool) -> tuple[str, bool]:
    """Say how correctness carries over; a warning unless tau lies above 0 with its whole interval."""
    if math.isnan(one.tau.value):
        return "Correctness puts no two methods in an order in one of the runs.", True
    known = [half.mean for half in one.own if not math.isnan(half.mean)]
    halves = ""
    if not math.isnan(one.halves.mean) and known:
        halves = (
            f", of halves of the scenes {decimals(one.halves.mean)}; within a run halves agree by "
            f"{decimals(min(known))} at least"
        )
    agree = f"Kendall's tau {tau(one.tau)}{halves}"
    if few:
        return f"Whether correctness carries over is not known from so few: {agree}.", True
    if not one.tau.low > 0:
        return f"It is not shown that correctness carries over: {agree}.", True
    return f"Correctness carries over with {agree}.", False


def _warnings(first: JudgedRun, second: JudgedRun) -> list[str]:
    said = [
        f"{counted(run.pictures, 'scene')} in {name}: too few to tell an order of methods from luck ({FEWEST} are "
        "needed for an interval)."
        for name, run in (("the first run", first), ("the second run", second))
        if run.pictures < FEWEST and not run.of_photographs
    ]
    enough = second.pictures >= FEWEST_PHOTOGRAPHS <= second.with_region
    if second.of_photographs and not enough:
        of = f"{counted(second.pictures, 'photograph')}, {second.with_region} with a mask or boxes"
        needed = f"{FEWEST_PHOTOGRAPHS} are needed"
        said.append(f"{of}: too few to say whether the ranking carries over to photographs ({needed}).")
    return said


def _table(place: Path) -> pd.DataFrame | None:
    table = pd.read_parquet(place) if place.is_file() else None
    return table if table is not None and len(table) else None  # of nothing measured there are no columns either


def _model(place: Path) -> str:
    """What model a run judged, where it says so."""
    file = place / "metrics.json"
    known: dict[str, Any] = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    return str(known.get("model", place))


def write(compared: Compared, runs: Sequence[JudgedRun], seed: int, run_dir: Path) -> list[Table]:
    """Write tables and page, and return the tables."""
    tables, rows = compared.tables(), carry_rows(compared.found)
    foretold = {name: predictor_rows(found) for name, found in compared.foretold.items()}
    write_json(run_dir / "carry_over.json",
               {"runs": [str(run.place) for run in runs], "warnings": compared.warnings, "carry over": rows,
                "predictors": foretold})  # fmt: skip
    long = [{"measured on": name} | row for name, found in foretold.items() for row in found]
    for name, table in {"carry_over": rows, "predictors": long}.items():
        with replacing(run_dir / f"{name}.csv") as unfinished:
            pd.DataFrame(table).to_csv(unfinished, index=False)
    write_text(run_dir / "carry_over.md", "\n".join(f"## {table.title}\n\n{markdown(table)}" for table in tables))
    write_causes_page(
        run_dir / "index.html",
        title="Does the ranking of explainers carry over?",
        subtitle=" · ".join(f"{name}: {run.model}, {run.pictures} {PHOTOGRAPHS if run.of_photographs else 'scenes'}"
                            for name, run in zip(compared.names, runs, strict=True)),
        verdicts=compared.sentences(), tables=tables,
        settings={"seed": seed, **{name: run.place for name, run in zip(compared.names, runs, strict=True)}},
    )  # fmt: skip
    return tables


def main(arguments: list[str]) -> None:
    """Compare two runs and print the tables."""
    with report_errors("evaluate"):
        if {"--help", "-h"} & {*arguments}:
            print(__doc__)
            return
        settings = dict(one.split("=", 1) for one in arguments if one.partition("=")[0] in ("run_dir", "seed"))
        places = [one for one in arguments if one.partition("=")[0] not in ("run_dir", "seed")]
        if len(places) != 2:
            raise UserError(f"two run directories are compared, and {len(places)} were named: "
                            "python -m clip_xai.studies.carry_over RUN OTHER")  # fmt: skip
        if not settings.get("seed", "0").isdigit():
            raise UserError(f"seed={settings['seed']} is not a whole number from 0 up")
        seed, stamp = int(settings.get("seed", "0")), datetime.now().strftime("%Y-%m-%d_%H-%M-%S")
        run_dir = Path(settings.get("run_dir", f"runs/carry_over/{stamp}"))
        runs = [JudgedRun.read(Path(place)) for place in places]
        compared = Compared.of(runs[0], runs[1], seed)
        claim(
            run_dir, "carry-over", {"settings": {"runs": [str(Path(one).absolute()) for one in places], "seed": seed}}
        )
        for table in write(compared, runs, seed, run_dir):
            print(f"{table.title}\n\n{markdown(table)}")
        for warning in compared.warnings:
            print(warning)
        print(f"report: {run_dir / 'index.html'}")


if __name__ == "__main__":
    main(sys.argv[1:])
