"""What is known about one photograph, and what went wrong with those that are missing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from clip_xai.data.boxes import Box
from clip_xai.data.shared import NOTHING
from clip_xai.text import printable

if TYPE_CHECKING:
    from clip_xai.data.captions import CaptionFacts

#: A row that shows the same photograph as another one which says something else.
CONFLICT = "conflicting diagnosis"

#: A row that counts as a patient of its own, because nothing tells whose it is.
NO_PATIENT = "no patient known: splits are by photograph"

#: A row whose mask can measure nothing.
EMPTY_MASK, FULL_MASK = "its mask marks nothing", "its mask marks the whole photograph"


@dataclass(slots=True)
class Record:
    """One photograph with what is known about it: a caption, labels, or both; boxes and masks of its findings.

    There are hundreds of thousands of them, so what rows say alike is one object: mappings are replaced, not changed.

    Attributes:
        image: Absolute path of the file.
        source: Name of the data set, e.g. ``ham10000``.
        name: File name of the photograph.
        group: Everything that must stay on one side of a split shares this: a patient, a lesion, a duplicate.
        diagnosis: Canonical name, or None where the publisher gives none that is known here.
        malignancy: ``benign``, ``malignant`` or ``inflammatory``, or None.
        caption: The caption to learn; empty where the source has labels alone.
        references: Captions to be judged against; the first is `caption`, and there is none where that is empty.
        mask: Absolute path of the lesion mask, or None.
        rendered: Drawn by this package: no person's, and no publisher's, whatever the source is called.
        mask_values: The values that are lesion in it, where the user named them.
        split: ``train``, ``val`` or ``test`` of this manifest; None where the row takes part in no split.
        official_split: The publisher's own split, or None.
        fields: The publisher's fields that are known, by the publisher's names.
        sha256: Hexadecimal digest of the file.
        height: Height of the photograph in pixels.
        width: Width of the photograph in pixels.
        view: ``clinical`` or ``dermoscopic``.
        duplicate_of: ``source/name`` of the row that shows the same photograph and stands for it in evaluation.
        keys: Publisher's keys; rows that share one are put into one group.
        skin_types: Fitzpatrick types 1 to 6 that the publisher states, in order.
        flags: What a reader should know of the row, such as `CONFLICT`.
        fold: Number of its fold where the splits are folds of a cross-validation.
        labels: What is stated of each label: True present, False absent, None uncertain. A label that is not in it is
            not stated.
        boxes: Boxes around its findings.
        label_masks: Label -> run lengths of its mask, packed as COCO packs them (`clip_xai.data.run_lengths`).
        box_frame: Width and height of the picture that the boxes were drawn on, where that is not this file; known
            while a manifest is built, not kept in it.
        mask_sizes: Height and width of the picture that the masks of findings were drawn on, likewise.
        facts: What a caption may say; known while a manifest is built, not kept in it.
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
    fields: Mapping[str, object] = NOTHING
    sha256: str | None = None
    height: int | None = None
    width: int | None = None
    view: str = "clinical"
    duplicate_of: str | None = None
    keys: tuple[str, ...] = ()
    skin_types: tuple[int, ...] = ()
    flags: tuple[str, ...] = ()
    fold: int | None = None
    rendered: bool = False
    mask_values: tuple[int, ...] = ()
    labels: Mapping[str, bool | None] = NOTHING
    boxes: tuple[Box, ...] = ()
    label_masks: Mapping[str, str] = NOTHING
    box_frame: tuple[int, int] | None = field(default=None, compare=False, repr=False)
    mask_sizes: Mapping[str, tuple[int, int]] = field(default=NOTHING, compare=False, repr=False)
    facts: CaptionFacts | None = field(default=None, compare=False, repr=False)

    @property
    def identifier(self) -> str:
        """``source/name``: names one row of a manifest."""
        return f"{self.source}/{self.name}"

    @property
    def shown_source(self) -> str:
        """The source as a reader is to see it: ``ham10000``, or ``ham10000 (rendered)``."""
        return f"{self.source} (rendered)" if self.rendered else self.source

    @property
    def skin_tone(self) -> str | None:
        """``I-II``, ``III-IV`` or ``V-VI``, or None where no type or types of two of these are stated."""
        tones = {("I-II", "III-IV", "V-VI")[(kind - 1) // 2] for kind in self.skin_types}
        return tones.pop() if len(tones) == 1 else None


@dataclass(frozen=True)
class Problem:
    """A row or file that is left out, and why.

    Attributes:
        source: Name of the data set.
        file: File name (or row) as the publisher has it.
        kind: ``missing``, ``unreadable``, ``mask``, ``box``, ``label``, ``description`` or ``row``.
        reason: One line for a reader.
    """

    source: str
    file: str
    kind: str
    reason: str

    def __post_init__(self) -> None:
        for name in ("file", "reason"):
            object.__setattr__(self, name, printable(getattr(self, name)))


@dataclass
class SourceTable:
    """What one adapter read.

    Attributes:
        source: Name of the data set.
        records: One for each row whose photograph is on disk.
        problems: Rows that are left out.
        rows: Number of rows in the publisher's table(s).
        unmapped: Names of diagnoses that the vocabulary does not know, with how often each occurs.
        expected: Rows that the publisher's tables of this layout have, or None where it does not say.
        notes: What is to be said of the whole download, each in a sentence.
        path: The table, where it is one of a person's own.
        labels: The publisher's labels with the canonical names that they became, and how often.
        compare_looks: Whether photographs that look alike may be one photograph. Of chest radiographs, which all look
            alike, it would put strangers into one group.
    """

    source: str
    records: list[Record]
    problems: list[Problem]
    rows: int
    unmapped: dict[str, int] = field(default_factory=dict)
    expected: int | None = None
    notes: list[str] = field(default_factory=list)
    labels: dict[str, dict[str, int]] = field(default_factory=dict)
    path: Path | None = None
    compare_looks: bool = True
