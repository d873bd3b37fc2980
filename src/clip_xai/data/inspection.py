"""Every file is read and decoded once, whatever interrupts it; what was seen is kept beside the manifest."""

from __future__ import annotations

import os
import sqlite3
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import astuple, dataclass
from functools import partial
from pathlib import Path
from typing import Generic, TypeVar

from clip_xai.data.images import ImageFacts, MaskFacts, UnreadableImageError, inspect_image, inspect_mask
from clip_xai.errors import UserError
from clip_xai.files import naming
from clip_xai.progress import track

#: Raise it when files must be looked at anew because a change here finds out more about them.
VERSION = 3

_SECONDS_BETWEEN_SAVES = 0.5

Facts = TypeVar("Facts", bound=ImageFacts | MaskFacts)


@dataclass(frozen=True)
class _Look(Generic[Facts]):
    """One way of looking at files.

    Attributes:
        table: Where it is kept in the database.
        columns: What is kept of a file beside its path, its state and why it cannot be read.
        version: Changes whenever a file must be looked at anew although it has not changed.
        find: Looks at one file.
        pack: Brings what was found to the columns.
        unpack: The way back.
    """

    table: str
    columns: str
    version: str
    find: Callable[[Path], Facts]
    pack: Callable[[Facts], tuple[object, ...]]
    unpack: Callable[..., Facts]

    def row(self, outcome: Facts | str) -> tuple[object, ...]:
        """Return why a file cannot be read, or None, and what is kept of it."""
        if isinstance(outcome, str):
            return (outcome, *[None] * len(self.columns.split(",")))
        return (None, *self.pack(outcome))


def inspect_files(paths: Iterable[Path], kept: Path, workers: int | None = None) -> dict[Path, ImageFacts | str]:
    """Inspect photographs, those that have not changed since the last time from what was kept of them.

    A file counts as unchanged while size, time of writing and time of change (which no tool can set back) are the
    same; otherwise its content is read again. What was seen is saved twice a second, so a run that is killed goes on
    where it stopped. Threads suffice to use all cores: Pillow decodes and hashlib digests outside of the interpreter's
    lock. No more than a few files a core are in memory at a time.

    Args:
        paths: The files.
        kept: Database of what was seen.
        workers: Files looked at side by side; the number of cores when None.

    Returns:
        File -> its facts, or why it cannot be read, in one line.

    Raises:
        UserError: The database cannot be used.
    """
    columns = "sha256 TEXT, height INTEGER, width INTEGER, format TEXT, phash TEXT, thumbnail BLOB, rendered INTEGER, "
    columns += "photometric TEXT, study TEXT"
    look = _Look("files", columns, str(VERSION), inspect_image, _packed, _unpacked)
    return _with_base(kept, look, paths, workers, "Checking files")


def inspect_masks(
    paths: Iterable[Path], kept: Path, values: Sequence[int] = (), workers: int | None = None
) -> dict[Path, MaskFacts | str]:
    """Inspect lesion masks as `inspect_files` inspects photographs.

    Args:
        paths: The files.
        kept: Database of what was seen.
        values: The values that are lesion, if the user names them.
        workers: As for `inspect_files`.

    Returns:
        File -> its facts, or why it cannot be used, in one line.

    Raises:
        UserError: The database cannot be used.
    """
    version = f"{VERSION}:{','.join(map(str, values))}"
    find = partial(inspect_mask, values=values)
    look = _Look("masks", "height INTEGER, width INTEGER, share REAL, how TEXT", version, find, astuple, MaskFacts)
    return _with_base(kept, look, paths, workers, "Checking masks")


def _with_base(
    kept: Path, look: _Look[Facts], paths: Iterable[Path], workers: int | None, said: str
) -> dict[Path, Facts | str]:
    try:
        with naming(kept), closing(sqlite3.connect(kept)) as base, base:
            return _inspect_new(list(dict.fromkeys(paths)), base, look, workers or os.cpu_count() or 1, said)
    except sqlite3.Error as error:
        raise UserError(
            f"{kept} cannot be used ({error}); wait for the other run that writes to it, or delete the file."
        ) from error


def _inspect_new(
    wanted: list[Path], base: sqlite3.Connection, look: _Look[Facts], workers: int, said: str
) -> dict[Path, Facts | str]:
    seen: dict[Path, Facts | str] = {}
    kept = [row[1] for row in base.execute(f"PRAGMA table_info({look.table})")]
    if kept[3:] != [column.split()[0] for column in look.columns.split(", ")]:
        base.execute(f"DROP TABLE IF EXISTS {look.table}")  # of another version: files are looked at anew
    base.execute(
        f"CREATE TABLE IF NOT EXISTS {look.table} (path TEXT PRIMARY KEY, state TEXT, reason TEXT, {look.columns})"
    )
    known = {row[0]: row[1:] for row in base.execute(f"SELECT * FROM {look.table}")}
    states = {path: f"{look.version} {_state(path)}" for path in wanted}
    for path in wanted:
        state, reason, *columns = known.get(str(path), ("", None))
        if state == states[path]:
            seen[path] = look.unpack(*columns) if reason is None else reason
    new = [path for path in wanted if path not in seen]
    saved = time.monotonic()
    places = ",".join("?" * (3 + len(look.columns.split(","))))
    looked_at = track(_inspected(new, look.find, workers), said, total=len(new)) if new else iter(())
    for path, outcome in looked_at:
        seen[path] = outcome
        row = (str(path), states[path], *look.row(outcome))
        base.execute(f"INSERT OR REPLACE INTO {look.table} VALUES ({places})", row)
        if time.monotonic() - saved > _SECONDS_BETWEEN_SAVES:
            base.commit()
            saved = time.monotonic()
    return seen


def _inspected(paths: list[Path], find: Callable[[Path], Facts], workers: int) -> Iterator[tuple[Path, Facts | str]]:
    waiting: deque[tuple[Path, Future[Facts | str]]] = deque()
    with ThreadPoolExecutor(workers) as pool:
        for path in paths:
            waiting.append((path, pool.submit(_outcome, find, path)))
            if len(waiting) >= 4 * workers:
                first, future = waiting.popleft()
                yield first, future.result()
        for first, future in waiting:
            yield first, future.result()


def _outcome(find: Callable[[Path], Facts], path: Path) -> Facts | str:
    try:
        return find(path)
    except UnreadableImageError as error:
        return " ".join(str(error).removeprefix(f"{path}: ").split())


def _state(path: Path) -> str:
    try:
        found = path.stat()
    except OSError:
        return ""
    return f"{found.st_size} {found.st_mtime_ns} {found.st_ctime_ns}"


def _packed(facts: ImageFacts) -> tuple[object, ...]:
    looks = (f"{facts.phash:016x}", facts.thumbnail, facts.rendered)
    return (facts.sha256, facts.height, facts.width, facts.format, *looks, facts.photometric, facts.study)


def _unpacked(
    sha256: str, height: int, width: int, kind: str, phash: str, thumbnail: bytes, rendered: int, *told: str
) -> ImageFacts:
    return ImageFacts(sha256, height, width, kind, int(phash, 16), thumbnail, bool(rendered), *told)
