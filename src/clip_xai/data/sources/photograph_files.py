"""Finding a publisher's files: whatever the case, the extension or the folder, and never outside of the data root."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from clip_xai.data.images import SUFFIXES
from clip_xai.data.sources.tables import FORMATS, header_of
from clip_xai.errors import UserError

IMAGE_SUFFIXES = SUFFIXES

#: Folders that tools leave behind.
LEFT_OVERS = re.compile(r"\..*|__macosx", re.IGNORECASE)

#: Folders whose pictures are not photographs of a data set.
NO_PHOTOGRAPHS = re.compile(r"\..*|__macosx|not_include|masks|structures|.*segmentations?.*", re.IGNORECASE)

#: What folders hold that our own commands wrote: a run, or a manifest. A table or a picture in them is not a source.
OUR_MARKS = frozenset(("asked.json", "run.json", ".hydra", "manifest.stamp", "inspected.sqlite"))

#: Files of publishers that are not tables and that sources read all the same.
MASKS_OF_CHEXLOCALIZE = r"gt_segmentations_(val|test)\.json"
PATIENTS_OF_RSNA = r"pneumonia-challenge-dataset-mappings.*\.json"
JSON_OF_SOURCES = re.compile(f"{MASKS_OF_CHEXLOCALIZE}|{PATIENTS_OF_RSNA}", re.IGNORECASE)

#: How far below `data.root` a publisher's table may lie.
TABLE_DEPTH = 3


def walk(
    root: Path, depth: int | None = None, leave_out: re.Pattern[str] = NO_PHOTOGRAPHS
) -> Iterator[tuple[Path, list[str], list[str]]]:
    """Walk like `os.walk` in a fixed order: links followed, each real folder once, hidden and lock files left out.

    Folders below the root that our own commands wrote are not entered.

    Args:
        root: Where to start.
        depth: How many folders below the root to go; None for all.
        leave_out: Names of folders that are not entered.
    """
    seen = set()
    for parent, folders, names in os.walk(root, followlinks=True):
        here = os.path.realpath(parent)
        if here in seen or (Path(parent) != root and is_ours(names, folders)):
            folders.clear()
            continue
        seen.add(here)
        level = len(Path(parent).relative_to(root).parts)
        folders[:] = sorted(name for name in folders if not leave_out.fullmatch(name))
        if depth is not None and level >= depth:
            folders.clear()
        yield Path(parent), folders, sorted(name for name in names if not name.startswith((".", "~$")))


def is_ours(*names: Iterable[str]) -> bool:
    """Tell from the names in a folder whether our own commands wrote it."""
    return any(not OUR_MARKS.isdisjoint(some) for some in names)


#: What is below a folder, while it is read by one source after the other.
_LISTINGS: dict[Path, list[Path]] = {}
_KEEPING: list[bool] = []


@contextmanager
def one_listing() -> Iterator[None]:
    """List each folder once for all tables that are looked for: millions of files must not be listed by each source."""
    _KEEPING.append(True)
    try:
        yield
    finally:
        _KEEPING.pop()
        if not _KEEPING:
            _LISTINGS.clear()


def _listed(root: Path) -> list[Path]:
    """Return the files up to `TABLE_DEPTH` folders below a folder that may be tables or lists."""
    if root in _LISTINGS:
        return _LISTINGS[root]
    found = [
        folder / name
        for folder, _, names in walk(root, depth=TABLE_DEPTH)
        for name in names
        if not name.lower().endswith(IMAGE_SUFFIXES)
    ]
    if _KEEPING:
        _LISTINGS[root] = found
    return found


def find_tables(root: Path, pattern: str, columns: Iterable[str] = (), *, other_formats: bool = True) -> list[Path]:
    """Find tables by file name, up to three folders below the root, the nearest first.

    Args:
        root: Folder that the user named.
        pattern: Regular expression for the whole file name; case is ignored.
        columns: When given, files that lack one of these columns are somebody else's and passed over. For names that
            several publishers use, such as ``metadata.csv``.
        other_formats: Where no file has such a name, take one that a spreadsheet has saved in another format.

    Raises:
        UserError: A file of such a name cannot be read as a table.
    """
    wanted = re.compile(pattern, re.IGNORECASE)
    listed = _listed(root)

    def found(fits: Callable[[Path], bool]) -> list[Path]:
        fitting = [path for path in listed if fits(path)]
        return [path for path in fitting if not columns or set(columns) <= set(header_of(path))]

    def fits_otherwise(path: Path) -> bool:
        return path.suffix.lower() in FORMATS and any(wanted.fullmatch(path.stem + ending) for ending in FORMATS)

    tables = found(lambda path: wanted.fullmatch(path.name) is not None)
    if not tables and other_formats:
        tables = found(fits_otherwise)
    return sorted(tables, key=lambda path: (len(path.parts), path))


def find_files(root: Path, pattern: str) -> list[Path]:
    """Find files by name, up to three folders below the root, the nearest first.

    Args:
        root: Folder that the user named.
        pattern: Regular expression for the whole file name; case is ignored.
    """
    wanted = re.compile(pattern, re.IGNORECASE)
    return sorted(
        (path for path in _listed(root) if wanted.fullmatch(path.name)), key=lambda path: (len(path.parts), path)
    )


def find_table(root: Path, pattern: str, columns: Iterable[str] = ()) -> Path | None:
    """Find the one table that fits, as `find_tables`; None where there is none.

    Raises:
        UserError: Two tables fit; which one is meant cannot be known.
    """
    return only(root, find_tables(root, pattern, columns))


def only(root: Path, found: list[Path]) -> Path | None:
    """Return the only file of a list, or None of an empty one.

    Raises:
        UserError: There are several.
    """
    if len(found) > 1:
        listed = ", ".join(str(path.relative_to(root)) for path in found)
        raise UserError(f"{root} holds the same table more than once ({listed}); keep one.")
    return found[0] if found else None


def home_of(root: Path, tables: list[Path], is_photograph: Callable[[str], bool]) -> Path:
    """Return the innermost folder that holds all of these tables and, somewhere below it, photographs.

    Publishers that ship tables and photographs in folders side by side are met by climbing, never above the root.
    """
    folder = Path(os.path.commonpath([str(path.parent) for path in tables]))
    while folder != root and not any(is_photograph(name) for _, _, names in walk(folder) for name in names):
        folder = folder.parent
    return folder


class PhotographIndex:
    """Photographs below a folder by file name. Only files that were found there are ever returned.

    A name from a table is looked up, never joined to a path, so no row can point outside of the folder.
    """

    def __init__(self, folder: Path) -> None:
        """Index a folder and everything below it, tools' left-overs and mask folders excepted."""
        self._by_stem: dict[str, Path | tuple[Path, ...]] = {}  # several where only their endings differ
        self._count = 0
        self.archives: list[str] = []
        self.repeated: dict[Path, Path] = {}
        for parent, _, names in walk(folder):
            for name in names:
                stem, suffix = os.path.splitext(name.lower())
                if suffix in IMAGE_SUFFIXES:
                    self._enter(stem, parent / name)
                elif suffix in (".zip", ".tar", ".gz", ".7z", ".rar"):
                    self.archives.append(name)

    @classmethod
    def empty(cls) -> PhotographIndex:
        """Return an index of nothing, for sources whose tables give whole paths."""
        index = cls.__new__(cls)
        index._by_stem, index._count, index.archives, index.repeated = {}, 0, [], {}
        return index

    def __len__(self) -> int:
        return self._count

    def find(self, name: str) -> Path | None:
        """Find a photograph by file name: exactly but for case, with another extension, or renamed to ``_cropped``."""
        lowered = name.lower()
        stem, suffix = os.path.splitext(lowered)
        stem = stem if suffix in IMAGE_SUFFIXES else lowered
        same = self._paths(stem)
        exact = next((path for path in same if path.name.lower() == lowered), None)
        return exact or next(iter((*same, *self._paths(f"{stem}_cropped"))), None)

    def _paths(self, stem: str) -> tuple[Path, ...]:
        found = self._by_stem.get(stem, ())
        return found if isinstance(found, tuple) else (found,)

    def _enter(self, stem: str, path: Path) -> None:
        same = self._paths(stem)
        known = next((other for other in same if other.name.lower() == path.name.lower()), None)
        if known is not None:
            self.repeated.setdefault(known, path)
            return
        self._by_stem[stem] = (*same, path) if same else path
        self._count += 1
