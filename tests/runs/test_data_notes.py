"""What is not known of the data is repeated where they are judged."""

from __future__ import annotations

from pathlib import Path

from clip_xai.data.record import EMPTY_MASK, FULL_MASK, NO_PATIENT, Record
from clip_xai.runs.notes import patients_note
from clip_xai.studies.localise import measurable


def test_sources_without_patients_are_named_beside_the_numbers() -> None:
    def record(source: str, *flags: str) -> Record:
        return Record(Path("a"), source, "a", "g", None, None, "One.", ("One.",), flags=flags)

    records = [record("own", NO_PATIENT), record("own", "x"), record("own", NO_PATIENT), record("pad_ufes_20")]
    assert patients_note(records) == {"patients": "no patient known: splits are by photograph: own (2)"}
    assert patients_note(records[-1:]) == {}


def test_masks_of_nothing_or_everything_measure_nothing() -> None:
    def record(mask: str | None, diagnosis: str | None = "melanoma", *flags: str) -> Record:
        place = Path(mask) if mask else None
        return Record(Path("a"), "own", "a", "g", diagnosis, None, "One.", ("One.",), mask=place, flags=flags)

    able = record("m", "nevus", NO_PATIENT)
    others = [record("m", "nevus", EMPTY_MASK), record("m", "nevus", FULL_MASK), record(None), record("m", None)]
    assert measurable([*others, able]) == ([able], 2)
