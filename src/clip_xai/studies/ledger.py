"""Does the ledger say what is known beforehand? ``python -m clip_xai.studies.ledger``.

Two captioners on one frozen tower learn captions of rendered scenes, in one language with the diagnosis before the
description and in the other behind it; in front of both stand the age and sex of a patient, drawn by lot. Then, on
fresh scenes:

- max(D, C) tells what a scene draws and a caption states rightly from age and sex, also among words of one base rate;
- the diagnosis that stands first is not carried, the one that stands last is;
- another value in the place of the word that is credited moves the diagnosis, in the place of others it does not;
- where the diagnosis stands first, its map that follows the words is as good as the direct one;
- whether wrong words are those that the picture did not decide, and whether P(slot = w | image) is calibrated.

Settings: ``scenes=300 training=3000 epochs=4 seed=0 training_seed=0 run_dir=DIR``. The same command in the same
directory goes on: captioners that are trained, and what is measured of one, are read.
"""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

from clip_xai.config.cli import report_errors
from clip_xai.data.synthetic.pool import rendering_pool
from clip_xai.errors import UserError
from clip_xai.explanations.ledger import LedgerSettings
from clip_xai.explanations.lesion_maps import finite
from clip_xai.files import write_json, write_text
from clip_xai.ranges import SEEDS, Checked, setting
from clip_xai.report.pages import Table
from clip_xai.runs.directories import claim, code_digest
from clip_xai.studies.ledger_captioners import (
    FIRST,
    LAST,
    ORDERS,
    VOCABULARY,
    Recipe,
    untrained,
    vocabulary_with_patients,
)
from clip_xai.studies.ledger_judged import RIVALS, SWAPPED
from clip_xai.studies.ledger_measures import KINDS
from clip_xai.studies.ledger_one import Plan, measure_captioner
from clip_xai.studies.localise import markdown
from clip_xai.text import with_bounds

VALIDATION, OF_FIRST, FOLLOWED = 100, 100, 40  # scenes: of the temperature, and of what is asked of one captioner


@dataclass
class StudySettings(Checked):
    """What is measured.

    Attributes:
        scenes: Fresh scenes that the ledger is judged on.
        training: Scenes that the captioners learn from.
        epochs: How often each of them is seen.
        seed: Another one gives other fresh scenes and draws.
        training_seed: Another one gives other captioners: other scenes to learn from, patients and weights.
        run_dir: Where everything is written.
    """

    scenes: int = setting(300, least=20)
    training: int = setting(3000, least=32)
    epochs: int = setting(4, least=1)
    seed: int = setting(0, least=0, most=SEEDS)
    training_seed: int = setting(0, least=0, most=SEEDS)
    run_dir: str = setting("runs/ledger", path=True)


def study(settings: StudySettings) -> tuple[dict[str, Any], list[Table]]:
    """Train, judge and measure; see the module."""
    run_dir = Path(settings.run_dir)
    asked = {name: value for name, value in vars(settings).items() if name != "run_dir"}
    claim(run_dir, "ledger", {"settings": asked, "code": code_digest("data", "models", "xai", "explanations")})
    vocabulary = vocabulary_with_patients(run_dir)
    plan = plan_of(settings)
    left = [order for order in ORDERS if not plan.result(order).is_file()]
    if left:
        reader = untrained(vocabulary)
        if not all(map(plan.is_trained, left)):
            plan.learned(reader)
        plan.tested(reader, LAST)
        plan.checked(reader)
        # Side by side: each of them keeps to one core.
        with rendering_pool(len(left)) as pool:
            list(pool.map(partial(measure_captioner, plan), left))
        shutil.rmtree(plan.kept)
    found: dict[str, Any] = {order: json.loads(plan.result(order).read_text(encoding="utf-8")) for order in ORDERS}
    found |= {name: found[LAST].pop(name) for name in ("swaps", "calibration")}
    return found, tables_of(found, settings)


def plan_of(settings: StudySettings) -> Plan:
    """Return what is done with each of the captioners."""
    run_dir = Path(settings.run_dir)
    return Plan(
        run_dir=run_dir,
        vocabulary=run_dir / VOCABULARY,
        recipe=Recipe(scenes=settings.training, epochs=settings.epochs, seed=settings.training_seed),
        scenes={FIRST: min(OF_FIRST, settings.scenes), LAST: settings.scenes},
        validation=min(VALIDATION, settings.scenes),
        followed=min(FOLLOWED, settings.scenes),
        how=LedgerSettings(seed=settings.seed),
        seed=settings.seed,
    )


def tables_of(found: dict[str, Any], settings: StudySettings) -> list[Table]:
    """The numbers for a reader."""
    names = [name for name, value in found[LAST].items() if isinstance(value, dict) and "value" in value]
    rows = [
        ("accuracy of the diagnosis", *(f"{found[order]['accuracy of the diagnosis']:.2f}" for order in (FIRST, LAST)))
    ]
    rows += [(name, *(_cell(found[order][name]) for order in (FIRST, LAST))) for name in names]
    rows += [
        (f"wrong words told by {name}", *(_cell(found[order]["wrong words told by"][name]) for order in (FIRST, LAST)))
        for name in found[LAST]["wrong words told by"]
    ]
    rows += [
        (f"{title}, followed less direct", _cell(less), "")
        for title, less in found[FIRST]["followed less direct"].items()
    ]
    note = (
        f"{settings.scenes} scenes that no training has seen, {FIRST} "
        f"{min(OF_FIRST, settings.scenes)} of them, one caption of each drawn at temperature 1; 95 % "
        "intervals over scenes. Area under the ROC curve of max(D, C): 1 for words that the scene draws and the "
        "caption states rightly, 0 for age and sex, which are drawn by lot. Of the diagnosis medians, C by its "
        "formula. Wrong words: area under the ROC curve that tells words that the scene does not draw from the others. "
        "Followed less direct: rank agreement of the diagnosis' map with what parts of the scene do to captions "
        f"written anew, {min(FOLLOWED, settings.scenes)} of the scenes."
    )
    swaps = found["swaps"]
    of_swaps = tuple(
        (
            name,
            str(swaps[name]["n"]),
            f"{swaps[name]['structures']:.0%}",
            _cell(swaps[name]["change"]),
            _cell(swaps[name]["lost"]),
        )
        for name in ("credited", "others")
    )
    fitted = found["calibration"]
    of_attributes = tuple((kind, _cell(fitted[kind]["before"]), _cell(fitted[kind]["after"])) for kind in KINDS)
    return [
        Table("Known answers", ("measure", FIRST, LAST), tuple(rows), note),
        Table(
            "Swapping a word before the diagnosis",
            ("word", "n", "structures", "change in nats", "diagnosis lost"),
            of_swaps,
            f"Log p of the diagnosis, mean over {RIVALS} other values of the word's vocabulary at most, {LAST}, "
            f"{SWAPPED} captions at most. Structures: share of words that name one. Lost: less likely than all else.",
        ),
        Table(
            "Calibration of P(slot = w | image)", ("attribute", "error", "at the fitted temperature"), of_attributes,
            f"Expected calibration error in ten bins, {LAST}; temperature {fitted['temperature']:.2f}, fitted on "
            f"{min(VALIDATION, settings.scenes)} other scenes for all attributes together.",
        ),
    ]  # fmt: skip


def _cell(interval: dict[str, Any]) -> str:
    return with_bounds(interval["value"], interval["low"], interval["high"])


def settings_of(arguments: Sequence[str]) -> StudySettings:
    """Read settings as they are typed.

    Raises:
        UserError: One is unknown or out of its range.
    """
    given: dict[str, Any] = {}
    for argument in arguments:
        name, _, value = argument.partition("=")
        if name not in StudySettings.__dataclass_fields__:
            raise UserError(
                f"{argument}: choose one of {', '.join(StudySettings.__dataclass_fields__)}, as in scenes=300"
            )
        if name != "run_dir" and not value.isdigit():
            raise UserError(f"{argument}: give a whole number")
        given[name] = value if name == "run_dir" else int(value)
    return StudySettings(**{"run_dir": f"runs/ledger/{datetime.now():%Y-%m-%d_%H-%M-%S}", **given})


def main(arguments: list[str]) -> None:
    """Run the study and print its tables."""
    with report_errors("explain"):
        settings = settings_of(arguments)
        found, tables = study(settings)
        write_json(Path(settings.run_dir) / "ledger.json", _finite(found))
        text = "\n\n".join(markdown(table) for table in tables)
        write_text(Path(settings.run_dir) / "ledger.md", text)
        print(text)


def _finite(values: Any) -> Any:
    return {key: _finite(value) for key, value in finite(values).items()} if isinstance(values, dict) else values


if __name__ == "__main__":
    main(sys.argv[1:])
