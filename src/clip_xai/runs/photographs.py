"""Which photographs a job of explaining looks at: files of the user, or records of a data set."""

from __future__ import annotations

import glob
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from clip_xai.data.record import Record
from clip_xai.errors import UserError

SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp", ".gif"}


@dataclass(frozen=True)
class Photograph:
    """One photograph to explain, with what is known about it."""

    path: Path
    name: str
    mask: Path | None = None
    group: str = ""
    references: tuple[str, ...] = ()
    facts: dict[str, str] = field(default_factory=dict)
    mask_values: tuple[int, ...] = ()

    @classmethod
    def of(cls, record: Record) -> Photograph:
        """The photograph of a record."""
        facts = {"source": record.source, "diagnosis": record.diagnosis or "", "view": record.view}
        shown = {key: value for key, value in facts.items() if value}
        return cls(record.image, record.name, record.mask, record.group, record.references, shown, record.mask_values)

    def plain(self) -> dict[str, Any]:
        """Everything as values that JSON can hold."""
        mask = None if self.mask is None else str(self.mask)
        listed = {"references": list(self.references), "mask_values": list(self.mask_values)}
        return asdict(self) | {"path": str(self.path), "mask": mask, **listed}

    @classmethod
    def from_plain(cls, values: dict[str, Any]) -> Photograph:
        """The photograph that ``plain`` wrote."""
        mask = None if values["mask"] is None else Path(values["mask"])
        listed = {name: tuple(values.get(name, ())) for name in ("references", "mask_values")}
        return cls(**{**values, **listed, "path": Path(values["path"]), "mask": mask})


def photographs_at(image: str) -> list[Photograph]:
    """The photographs that ``image=`` names: a file, a folder or a pattern.

    Raises:
        UserError: Nothing is there.
    """
    place = Path(image)
    if place.is_dir():
        paths = sorted(path for path in place.iterdir() if path.suffix.lower() in SUFFIXES)
    elif place.is_file():
        paths = [place]
    else:
        paths = sorted(Path(path) for path in glob.glob(image, recursive=True) if Path(path).is_file())
    if not paths:
        raise UserError(f"image={image}: no photograph there; give a file, a folder of photographs or a pattern")
    return [Photograph(path, path.name, group=path.name) for path in paths]
