"""One small adapter for each publisher; `SOURCES` names them in the order of the manifest.

A source is two files of one name in this folder: ``NAME.py`` with ``NAME`` and ``read(root)``, and ``NAME.yaml`` with
what a reader needs to know of it (title, order, expected layout, rows, official place, licence, terms). Nothing else
has to be told of a new one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from importlib.resources import files
from pathlib import Path

import yaml

from clip_xai.data.record import SourceTable


@dataclass(frozen=True)
class Source:
    """An adapter and what its YAML says.

    Attributes:
        expected: What the adapter looks for, for a message to the user.
        read: Reads the data set below a folder; None where it is not there.
        title: The data set's own name.
        order: Of a photograph that stands in two data sets, the row of the source with the smaller number is kept.
        rows: Rows that the publisher ships, or None where that is not known.
        place: Where it is officially handed out.
        licence: Its licence.
        terms: What the licence or the agreement asks for, in a sentence.
        cite: What to cite.
        evaluation_set: Published to judge models: the split scheme ``official`` puts it into the test split.
        subject: What its pictures show: ``skin`` or ``chest``. Of other subjects a report does not say what is absent.
    """

    expected: str
    read: Callable[[Path], SourceTable | None]
    title: str
    order: int
    rows: int | None
    place: str
    licence: str
    terms: str
    cite: str = ""
    evaluation_set: bool = False
    subject: str = "skin"


def _discovered() -> dict[str, Source]:
    found = {}
    for entry in files(__package__).iterdir():
        if entry.name.endswith(".yaml"):
            module = import_module(f"{__package__}.{entry.name.removesuffix('.yaml')}")
            found[module.NAME] = Source(read=module.read, **yaml.safe_load(entry.read_text(encoding="utf-8")))
    return dict(sorted(found.items(), key=lambda item: item[1].order))


SOURCES: dict[str, Source] = _discovered()
