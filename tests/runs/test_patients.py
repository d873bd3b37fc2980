"""What is not known of the data is repeated where they are judged."""

from __future__ import annotations

from pathlib import Path

from clip_xai.data.record import NO_PATIENT, Record
from clip_xai.runs.evaluate import patients_note


def test_sources_without_patients_are_named_beside_the_numbers() -> None:
    def record(source: str, *flags: str) -> Record:
        return Record(Path("a"), source, "a", "g", None, None, "One.", ("One.",), flags=flags)

    records = [record("own", NO_PATIENT), record("own", "x"), record("own", NO_PATIENT), record("pad_ufes_20")]
    assert patients_note(records) == {"patients": "no patient known: splits are by photograph: own (2)"}
    assert patients_note(records[-1:]) == {}
