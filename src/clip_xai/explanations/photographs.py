"""Which photographs a job of explaining looks at: files of the user, or records of a data set."""

from __future__ import annotations

import glob
import logging
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from clip_xai.data.boxes import Box
from clip_xai.data.images import SUFFIXES
from clip_xai.data.localisation import localisation_truth, localised_labels
from clip_xai.data.record import Record
from clip_xai.data.regular import is_regular
from clip_xai.data.rendered_mark import is_marked
from clip_xai.data.sources.photograph_files import LEFT_OVERS, walk
from clip_xai.errors import UserError
from clip_xai.text import counted, printable

log = logging.getLogger(__name__)

#: How many of the files that are left out are named.
_NAMED = 5


@dataclass(frozen=True)
class Photograph:
    """One photograph to explain, with what is known about it.

    Attributes:
        path: Where it is.
        name: What it is called on pages.
        mask: Its lesion mask, if there is one.
        group: Its patient or lesion.
        references: Captions that others gave it.
        facts: What is shown beside it.
        mask_values: Which of the mask's values are lesion; none where they say so themselves.
        rendered: Drawn by this package.
        warning: What a reader must see before anything else; empty for most.
        labels: What is stated of each label, as in a record.
        boxes: Boxes around its findings.
        label_masks: Run lengths of the findings' masks, as in a record.
    """

    path: Path
    name: str
    mask: Path | None = None
    group: str = ""
    references: tuple[str, ...] = ()
    facts: dict[str, str] = field(default_factory=dict)
    mask_values: tuple[int, ...] = ()
    rendered: bool = False
    warning: str = ""
    labels: Mapping[str, bool | None] = field(default_factory=dict)
    boxes: tuple[Box, ...] = ()
    label_masks: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, record: Record) -> Photograph:
        """The photograph of a record."""
        facts = {"source": record.shown_source, "diagnosis": record.diagnosis or "", "view": record.view}
        shown = {key: value for key, value in facts.items() if value}
        return cls(
            record.image,
            record.name,
            record.mask,
            record.group,
            record.references,
            shown,
            record.mask_values,
            record.rendered,
            labels=record.labels if localised_labels(record) else {},
            boxes=record.boxes,
            label_masks=record.label_masks,
        )

    def findings(self, height: int, width: int) -> dict[str, NDArray[np.bool_]]:
        """Return where each of its findings is that has boxes or a mask of its own, bool ``[height, width]``.

        Args:
            height: Of the photograph.
            width: Of the photograph.
        """
        record = self._record(height, width)
        found = {label: localisation_truth(record, label) for label in localised_labels(record)}
        return {label: place for label, place in found.items() if place is not None}

    def outline(self, height: int, width: int) -> NDArray[np.bool_] | None:
        """Return where all that is known of it lies: its mask file, boxes and findings' masks; None where nothing is.

        Raises:
            UnreadableImageError: The mask file cannot be used.
            ValueError: It is not of the photograph's size.
        """
        return localisation_truth(self._record(height, width))

    def _record(self, height: int, width: int) -> Record:
        return Record(
            self.path, "", self.name, self.group, None, None, "", (), mask=self.mask, mask_values=self.mask_values,
            height=height, width=width, labels=self.labels, boxes=self.boxes, label_masks=self.label_masks,
        )  # fmt: skip

    def plain(self) -> dict[str, Any]:
        """Everything as values that JSON can hold."""
        mask = None if self.mask is None else str(self.mask)
        listed = {"references": list(self.references), "mask_values": list(self.mask_values)}
        known = asdict(self) | {"path": str(self.path), "mask": mask, **listed}
        known["boxes"] = [asdict(box) for box in self.boxes]
        # Photographs without findings are written as they were before there were any: their results stay valid.
        return {key: value for key, value in known.items() if value or key not in ("labels", "boxes", "label_masks")}

    @classmethod
    def from_plain(cls, values: dict[str, Any]) -> Photograph:
        """The photograph that ``plain`` wrote."""
        mask = None if values["mask"] is None else Path(values["mask"])
        listed = {name: tuple(values.get(name, ())) for name in ("references", "mask_values")}
        boxes = tuple(Box(**box) for box in values.get("boxes", ()))
        return cls(**{**values, **listed, "boxes": boxes, "path": Path(values["path"]), "mask": mask})


def photographs_at(image: str) -> list[Photograph]:
    """The photographs that ``image=`` names: a file, a folder with all below it, or a pattern.

    Each is named by its path below what they have in common, so that two of one name can be told apart. What is left
    out is named in the log.

    Raises:
        UserError: Nothing is there.
    """
    place = Path(image)
    if place.is_dir():
        found = [folder / name for folder, _, names in walk(place, leave_out=LEFT_OVERS) for name in names]
        home = place
    elif is_regular(place):
        found, home = [place], place.parent
    else:
        found = sorted(path for name in glob.glob(image, recursive=True) if not (path := Path(name)).is_dir())
        home = Path(os.path.commonpath([path.parent for path in found])) if found else place
    paths = [path for path in found if is_regular(path) and (path.suffix.lower() in SUFFIXES or not place.is_dir())]
    left_out = [path.relative_to(home).as_posix() for path in found if path not in set(paths)]
    if left_out:
        listed = ", ".join(printable(name) for name in left_out[:_NAMED]) + (", ..." if len(left_out) > _NAMED else "")
        log.warning("left out %s that cannot be read as a photograph: %s", counted(len(left_out), "file"), listed)
    if not paths:
        raise UserError(f"image={image}: no photograph there; give a file, a folder of photographs or a pattern")
    names = [printable(path.relative_to(home).as_posix()) for path in paths]
    return [
        Photograph(path, name, group=name, rendered=_is_rendered(path)) for path, name in zip(paths, names, strict=True)
    ]


def _is_rendered(path: Path) -> bool:
    """Whether a file says that this package drew it; one that cannot be opened is named when its turn comes."""
    try:
        with Image.open(path) as opened:
            return is_marked(opened)
    except (OSError, ValueError, Image.DecompressionBombError):
        return False
