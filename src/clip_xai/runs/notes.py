"""What a reader of numbers must know of the model and the photographs behind them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from clip_xai.config.schemas import EvaluateConfig
from clip_xai.data.groups import without_patients
from clip_xai.data.record import NO_PATIENT, Record
from clip_xai.metrics.results import NOTE, RENDERED
from clip_xai.runs.judged import Judged, lineage_of
from clip_xai.runs.records import evenly
from clip_xai.text import counted, plural

FEW_STEPS = 100


def data_notes(config: EvaluateConfig, on: Judged, records: Sequence[Record]) -> dict[str, str]:
    """Return on which photographs a model is judged, and all that a reader must know of them.

    Args:
        config: Says which split.
        on: The data.
        records: Those that are judged.
    """
    said = f"{on.data.name}, split {config.split}"
    said += " (which chose the checkpoint: report test)" if config.split in ("val", "all") else ""
    said += f", at most {counted(on.data.limit, 'photograph')} of it" if on.data.limit else ""
    return {
        "data": said,
        **{f"{NOTE} {number}": note for number, note in enumerate(on.notes, start=1)},
        **patients_note(records),
        **rendered_note(records),
    }


def few_steps(place: Path) -> list[str]:
    """Return the sentence that says how few steps a model was trained for, if its file tells."""
    lineage = lineage_of(place)
    if lineage is None or lineage.updates is None or lineage.updates >= FEW_STEPS:
        return []  # of an older version or from elsewhere: nothing is known, and nothing said
    return [
        f"The model was trained for {counted(lineage.updates, 'step')} only, all stages together: it shows little of "
        "what it could learn."
    ]


def patients_note(records: Sequence[Record]) -> dict[str, str]:
    """Say of which sources nobody knows whose the photographs are: intervals and splits are by photograph there."""
    alone = without_patients(records)
    said = ", ".join(f"{source} ({count})" for source, count in alone.items())
    return {"patients": f"{NO_PATIENT}: {said}"} if alone else {}


def rendered_note(records: Sequence[Record]) -> dict[str, str]:
    """Say how many of the photographs nobody took; nothing where all are of persons."""
    drawn = sum(record.rendered for record in records)
    if not drawn:
        return {}
    which = "All photographs" if drawn == len(records) else f"{drawn} of {counted(len(records), 'photograph')}"
    said = f"{which} {plural(drawn, 'is', 'are')} rendered, of no person"
    return {RENDERED: f"{said}: numbers on them say nothing of real photographs."}


def training_records(on: Judged) -> list[Record]:
    """Return what the baselines may know: the training records, none where the manifest has no such split."""
    return evenly([record for record in on.manifest if record.split == "train"], on.data.limit)
