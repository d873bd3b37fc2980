"""One small adapter for each publisher; `SOURCES` names them in the order of the manifest.

A source is two files of one name in this folder: ``NAME.py`` with ``NAME`` and ``read(root)``, and ``NAME.yaml`` with
what a reader needs to know of it (title, order, expected layout, rows, official place, licence, terms). Nothing else
has to be told of a new one. A plugin's registers itself: ``@SOURCES.register("mine", title=..., ...)`` on ``read``.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields
from importlib import import_module
from importlib.resources import files
from pathlib import Path
from typing import Any

import yaml

from clip_xai.data.record import SourceTable
from clip_xai.errors import UserError
from clip_xai.files import reading
from clip_xai.registry import Registry

Reader = Callable[[Path], SourceTable | None]


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
    read: Reader
    title: str
    order: int
    rows: int | None
    place: str
    licence: str
    terms: str
    cite: str = ""
    evaluation_set: bool = False
    subject: str = "skin"


class SourceRegistry(Registry[Source]):
    """The data sets that adapters read, by name and in the order of the manifest; reading it imports the adapters."""

    def register(self, name: str, **facts: Any) -> Callable[[Reader], Reader]:  # type: ignore[override]
        """Return a decorator that adds the adapter ``read(root)`` of a data set.

        Args:
            name: The data set's name in the manifest.
            facts: What :class:`Source` has of it; where none is given, a YAML file beside the module says it.

        Raises:
            UserError: A fact is missing, or another data set has that name.
        """

        def add(read: Reader) -> Reader:
            self._add(name, Source(read=read, **_complete(name, facts or _beside(name, read))), read)
            return read

        return add

    def __iter__(self) -> Iterator[str]:
        """Iterate over all names: whichever data set lies below a folder is read, one of an installed package, too."""
        self._load()
        for point in self.installed():
            self[point]
        return iter(sorted(self._things, key=lambda name: self._things[name].order))

    def _load(self) -> None:
        if self._loading:
            return
        self._loading = True
        for entry in files(__package__).iterdir():
            if entry.name.endswith(".yaml"):
                module = import_module(f"{__package__}.{entry.name.removesuffix('.yaml')}")
                self.register(module.NAME, **yaml.safe_load(entry.read_text(encoding="utf-8")))(module.read)


def _beside(name: str, read: Reader) -> dict[str, Any]:
    file = Path(inspect.getfile(read)).with_suffix(".yaml")
    if not file.is_file():
        raise UserError(f"data source {name}: give its facts ({', '.join(_FACTS)}) to the decorator, or in {file}")
    with reading(file, "correct it"):
        found = yaml.safe_load(file.read_text(encoding="utf-8"))
        return dict(found)


def _complete(name: str, facts: dict[str, Any]) -> dict[str, Any]:
    missing = [fact for fact in _FACTS if fact not in facts]
    known = {item.name for item in fields(Source)} - {"read"}
    unknown = [fact for fact in facts if fact not in known]
    if missing or unknown:
        said = f"has no {', '.join(missing)}" if missing else f"cannot have {', '.join(unknown)}"
        raise UserError(f"data source {name} {said}: its facts are {', '.join(sorted(known))}")
    return {"rows": None, **facts}


_FACTS = ("title", "order", "expected", "place", "licence", "terms")
SOURCES = SourceRegistry("data source", "sources")
