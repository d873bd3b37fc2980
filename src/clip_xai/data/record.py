"""What is known about one photograph, and what went wrong with those that are missing."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path


@dataclass
class Record:
    """One photograph with its caption.

    Attributes:
        image: Absolute path of the file.
        source: Name of the data set, e.g. ``ham10000``.
        name: File name of the photograph.
        group: Everything that must stay on one side of a split shares this: a patient, a lesion, a duplicate.
        diagnosis: Canonical name, or None where the publisher gives none that is known here.
        malignancy: ``benign``, ``malignant`` or ``inflammatory``, or None.
        caption: The caption to learn.
        references: Captions to be judged against; at least one, the first is `caption`.
        mask: Absolute path of the lesion mask, or None.
        split: ``train``, ``val`` or ``test`` of this manifest; None where the row takes part in no split.
        official_split: The publisher's own split, or None.
        fields: The publisher's fields that are known, by the publisher's names.
        sha256: Hexadecimal digest of the file.
        height: Height of the photograph in pixels.
        width: Width of the photograph in pixels.
        view: ``clinical`` or ``dermoscopic``.
        duplicate_of: ``source/name`` of the row that shows the same photograph and stands for it in evaluation.
        keys: Publisher's keys; rows that share one are put into one group.
    """

    image: Path
    source: str
    name: str
    group: str
    diagnosis: str | None
    malignancy: str | None
    caption: str
    references: tuple[str, ...]
    mask: Path | None = None
    split: str | None = None
    official_split: str | None = None
    fields: dict[str, object] = field(default_factory=dict)
    sha256: str | None = None
    height: int | None = None
    width: int | None = None
    view: str = "clinical"
    duplicate_of: str | None = None
    keys: tuple[str, ...] = ()

    @property
    def identifier(self) -> str:
        """``source/name``: names one row of a manifest."""
        return f"{self.source}/{self.name}"


@dataclass(frozen=True)
class Problem:
    """A row or file that is left out, and why.

    Attributes:
        source: Name of the data set.
        file: File name (or row) as the publisher has it.
        kind: ``missing``, ``unreadable``, ``duplicate`` or ``row``.
        reason: One line for a reader.
    """

    source: str
    file: str
    kind: str
    reason: str


@dataclass
class SourceTable:
    """What one adapter read.

    Attributes:
        source: Name of the data set.
        records: One for each row whose photograph is on disk.
        problems: Rows that are left out.
        rows: Number of rows in the publisher's table(s).
        unmapped: Names of diagnoses that the vocabulary does not know, with how often each occurs.
    """

    source: str
    records: list[Record]
    problems: list[Problem]
    rows: int
    unmapped: dict[str, int] = field(default_factory=dict)
