"""Files that a person's own table names: as she wrote them, and never outside of the table's folder."""

from __future__ import annotations

import os
import re
import unicodedata
from collections import defaultdict
from functools import cached_property
from pathlib import Path

from clip_xai.data.regular import is_regular, kind_of
from clip_xai.data.sources.photograph_files import IMAGE_SUFFIXES, LEFT_OVERS, walk


class NotFoundError(LookupError):
    """A name that leads to no photograph.

    Attributes:
        missing: It may be a photograph that is not there, rather than a name that means none.
    """

    def __init__(self, reason: str, missing: bool = False) -> None:
        super().__init__(reason)
        self.missing = missing


class OwnFiles:
    """Pictures below a folder by the paths that a table gives.

    A path is taken as it stands; else without regard to case or to how accents are composed; else, where it has no
    ending of a picture, with one. An absolute path must lie in the folder, or, where it was written on another machine,
    end in a path that does.

    Attributes:
        moved: How many absolute paths of another machine were found by their ends.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.moved = 0

    def find(self, name: str) -> Path:
        """Find a picture.

        Raises:
            NotFoundError: There is none, or there are several.
        """
        text = name.replace("\\", "/")
        parts = [part for part in text.split("/") if part not in ("", ".")]
        exact = self.folder / name
        if ".." not in parts and exact.is_relative_to(self.folder) and is_regular(exact):
            return _picture(exact)  # whatever signs its name holds
        if "\0" in text or ".." in parts or not parts:
            raise NotFoundError("its path leaves the folder of the table, or is not a path")
        if re.match(r"[a-z][a-z0-9+.-]+://", text, re.IGNORECASE):
            raise NotFoundError("an address, not a file: download it beside the table")
        if text.startswith(("/", "~")) or re.match(r"[A-Za-z]:", text):
            return self._absolute(text, parts)
        found = self._below("/".join(parts))
        if found is None:
            raise NotFoundError(f"listed in the table, not on disk{self._elsewhere(parts[-1])}", missing=True)
        return found

    def _absolute(self, text: str, parts: list[str]) -> Path:
        folder, real = str(self.folder), os.path.realpath(self.folder)
        for beginning, whole in ((folder, os.path.normpath(text)), (real, os.path.realpath(text))):
            if whole.startswith(f"{beginning}{os.sep}"):
                found = self._below(Path(whole).relative_to(beginning).as_posix())
                if found is not None:
                    return found
        if os.path.lexists(text):
            raise NotFoundError("it lies outside of the folder of the table: move the table above its photographs")
        for first in range(1, len(parts)):
            found = self._below("/".join(parts[first:]))
            if found is not None:
                self.moved += 1
                return found
        raise NotFoundError("listed in the table, not on disk", missing=True)

    def _below(self, relative: str) -> Path | None:
        exact = self.folder / relative
        if is_regular(exact):
            return _picture(exact)
        if os.path.lexists(exact):
            raise NotFoundError(f"it is not a file but a {kind_of(exact)}")
        lowered = _plain(relative)
        alike = self._by_path.get(lowered, [])
        if not lowered.endswith(IMAGE_SUFFIXES):
            alike = alike or self._by_stem.get(lowered, [])
        if len(alike) > 1:
            raise NotFoundError(f"it may be {' or '.join(path.name for path in alike)}: give the whole name")
        return alike[0] if alike else None

    def _elsewhere(self, name: str) -> str:
        lowered = _plain(name)
        stem = _without_zeros(os.path.splitext(lowered)[0])
        for path in (path for paths in self._by_path.values() for path in paths):
            if _plain(path.name) == lowered or _without_zeros(_plain(path.stem)) == stem:
                return f" (but {path.relative_to(self.folder).as_posix()} is)"
        return ""

    @cached_property
    def _by_path(self) -> dict[str, list[Path]]:
        found: dict[str, list[Path]] = defaultdict(list)
        for parent, _, names in walk(self.folder, leave_out=LEFT_OVERS):
            for name in names:
                if name.lower().endswith(IMAGE_SUFFIXES):
                    path = parent / name
                    found[_plain(path.relative_to(self.folder).as_posix())].append(path)
        return dict(found)

    @cached_property
    def _by_stem(self) -> dict[str, list[Path]]:
        found: dict[str, list[Path]] = defaultdict(list)
        for relative, paths in self._by_path.items():
            found[os.path.splitext(relative)[0]] += paths
        return dict(found)


def _plain(name: str) -> str:
    """Return a name without regard to case, to how its accents are composed, and to kinds of spaces."""
    return unicodedata.normalize("NFC", name.replace("\u00a0", " ")).lower()


def _without_zeros(stem: str) -> str:
    """Return a number without the zeros that a spreadsheet takes off in front of it."""
    return stem.lstrip("0") if stem.isdecimal() else stem


def _picture(path: Path) -> Path:
    if path.suffix.lower() not in IMAGE_SUFFIXES:
        raise NotFoundError(f"no picture by its name (known: {', '.join(IMAGE_SUFFIXES)})")
    return path
