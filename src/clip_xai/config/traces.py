"""What Hydra writes into a run directory before any job has looked at it.

A command that is refused leaves none of it: a directory that another run made keeps its own, and one that was made for
this command goes again.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

SETTINGS = ".hydra"
HYDRAS = {SETTINGS, ".lock", "multirun.yaml", "train.log", "evaluate.log", "explain.log"}


@dataclass(frozen=True)
class Found:
    """A run directory as it was before Hydra wrote into it.

    Attributes:
        place: The directory that was typed; None where Hydra chooses a new one.
        names: What it held; None where it did not exist.
        settings: What its ``.hydra`` held, by name.
    """

    place: Path | None = None
    names: frozenset[str] | None = None
    settings: dict[str, bytes] = field(default_factory=dict)

    @classmethod
    def of(cls, arguments: Sequence[str]) -> Found:
        """Look at the directory that a command names as ``hydra.run.dir``, if it names one."""
        typed = [one.lstrip("+").partition("=")[2] for one in arguments if one.lstrip("+").startswith("hydra.run.dir=")]
        if not typed or not typed[-1]:
            return cls()
        place = Path(typed[-1].strip("'\""))
        files = sorted((place / SETTINGS).glob("*.yaml")) if place.is_dir() else []
        names = frozenset(path.name for path in place.iterdir()) if place.is_dir() else None
        return cls(place, names, {file.name: file.read_bytes() for file in files})

    def leave(self, run_dir: Path) -> None:
        """Put a directory back into the state in which it was found, as far as Hydra changed it.

        Args:
            run_dir: The directory that Hydra wrote into.
        """
        for name, content in self.settings.items():
            (run_dir / SETTINGS / name).write_bytes(content)
        if not run_dir.is_dir():
            return
        made = {path.name for path in run_dir.iterdir()} - (self.names or frozenset())
        if not made <= HYDRAS:  # the job has begun its work
            return
        if self.names is None:
            shutil.rmtree(run_dir, ignore_errors=True)  # a log that is open cannot go everywhere
        elif SETTINGS in made:
            shutil.rmtree(run_dir / SETTINGS)
