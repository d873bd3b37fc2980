"""Whose a drawn folder is: a marker that lists every file of the drawing by its digest.

Nothing is removed that the list does not name, or that is no longer what was drawn.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

from clip_xai.data.manifest import path_below
from clip_xai.errors import UserError
from clip_xai.files import write_json

MARKER = "dermacap.json"

#: Folder below the data root in which a drawing is made; what it holds moves out once it is whole.
STAGE = ".drawing"

#: What the marker of an earlier version holds instead of a list of files.
_EARLIER = {"seed", "scale", "height", "width", "code", "complete"}


@dataclass(frozen=True)
class Marker:
    """What ``dermacap.json`` says of a folder.

    Attributes:
        settings: What was drawn: seed, scale, height, width, and the digest of the renderer's code.
        files: Path below the folder -> SHA-256 of every file that was drawn; none by an earlier version.
        complete: All of them were moved into place.
        earlier: Written by an earlier version, which kept no list.
    """

    settings: dict[str, Any]
    files: dict[str, str]
    complete: bool
    earlier: bool = False

    def write(self, root: Path) -> None:
        """Write ``dermacap.json``."""
        content = {"settings": self.settings, "complete": self.complete, "files": self.files}
        write_json(root / MARKER, content, indent=1)


def read_marker(root: Path) -> Marker | None:
    """Return what the marker of a folder says, or None where there is no marker or one that no drawing wrote."""
    try:
        content = json.loads((root / MARKER).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    if not isinstance(content, dict):
        return None
    if set(content) == _EARLIER:
        complete = bool(content.pop("complete"))
        return Marker(content, {}, complete, earlier=True)
    settings, files = content.get("settings"), content.get("files")
    if not isinstance(settings, dict) or not isinstance(files, dict) or not all(map(_is_text, files.values())):
        return None
    return Marker(settings, files, content.get("complete") is True)


def drawn_by_earlier_version(root: Path) -> bool:
    """Tell whether all below a folder was drawn by a version whose photographs do not say so themselves."""
    markers = (read_marker(folder) for folder in (root, *root.parents))
    return any(marker is not None and marker.earlier for marker in markers)


def owned(root: Path) -> Marker | None:
    """Return the marker of a folder that may be drawn into; None where the folder is new or empty.

    Raises:
        UserError: The folder holds something that no drawing wrote, or its marker cannot be used.
    """
    if root.is_dir():
        held = [name for name in os.listdir(root) if not name.startswith(".")]
        marker = read_marker(root)
        if not held or marker is not None:
            return marker
        what = f"{MARKER} in it was not written by a drawing" if MARKER in held else f"for one {min(held)}"
        raise UserError(f"{root} holds something else ({what}); {another(root)}.")
    if root.exists() or root.is_symlink():
        raise UserError(f"{root} is not a directory; {another(root)}.")
    return None


def another(root: Path) -> str:
    """Say which directory is free."""
    free = next(path for number in count(2) if not (path := root.with_name(f"{root.name}_{number}")).exists())
    return (
        f"give a drawing an empty or new directory, such as data.root={free}, and photographs of your own data=dermacap"
    )


def check_free(root: Path, marker: Marker | None, wanted: Iterable[str]) -> None:
    """See that a drawing would remove and overwrite nothing but an earlier one.

    Args:
        root: Folder to draw into.
        marker: Its marker, if it has one.
        wanted: Paths below it that the drawing writes.

    Raises:
        UserError: A file that was drawn has changed since, or a file of somebody else stands where one would be drawn.
    """
    mine = marker.files if marker else {}
    for name, digest in mine.items():
        path = path_below(root, name, root / MARKER)
        if path.is_file() and digest_of(path) != digest:
            raise UserError(f"{path} is no longer the file that was drawn there; {another(root)}.")
    for name in wanted:
        if name not in mine and os.path.lexists(root / name):
            raise UserError(f"{root / name} was not drawn by this command and is in its way; {another(root)}.")


def remove(root: Path, names: Iterable[str]) -> None:
    """Remove files below a folder, and the folders that this leaves empty."""
    paths = [path_below(root, name, root / MARKER) for name in names]
    for path in paths:
        path.unlink(missing_ok=True)
    parents = {parent for path in paths for parent in path.relative_to(root).parents} - {Path()}
    for parent in sorted(parents, key=lambda folder: len(folder.parts), reverse=True):
        folder = root / parent
        if folder.is_dir() and not folder.is_symlink() and not os.listdir(folder):
            folder.rmdir()


def digest_of(path: Path) -> str:
    """Return the SHA-256 of a file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _is_text(value: object) -> bool:
    return isinstance(value, str)
