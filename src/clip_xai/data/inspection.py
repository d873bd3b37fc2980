"""Every file is read and decoded once, whatever interrupts it; what was seen is kept beside the manifest."""

from __future__ import annotations

import os
import sqlite3
import time
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

from clip_xai.data.images import ImageFacts, UnreadableImageError, inspect_image
from clip_xai.errors import UserError
from clip_xai.progress import track

#: Raise it when files must be looked at anew because a change here finds out more about them.
VERSION = 1

_SECONDS_BETWEEN_SAVES = 0.5

Outcome = ImageFacts | str


def inspect_files(paths: Iterable[Path], kept: Path, workers: int | None = None) -> dict[Path, Outcome]:
    """Inspect image files, those that have not changed since the last time from what was kept of them.

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
    try:
        with closing(sqlite3.connect(kept)) as base, base:
            return _inspect_new(list(dict.fromkeys(paths)), base, workers or os.cpu_count() or 1)
    except sqlite3.Error as error:
        raise UserError(
            f"{kept} cannot be used ({error}); wait for the other run that writes to it, or delete the file."
        ) from error


def _inspect_new(wanted: list[Path], base: sqlite3.Connection, workers: int) -> dict[Path, Outcome]:
    seen: dict[Path, Outcome] = {}
    base.execute(
        "CREATE TABLE IF NOT EXISTS files (path TEXT PRIMARY KEY, state TEXT, reason TEXT, sha256 TEXT, "
        "height INTEGER, width INTEGER, format TEXT, phash TEXT, thumbnail BLOB)"
    )
    known = {row[0]: row[1:] for row in base.execute("SELECT * FROM files")}
    states = {path: _state(path) for path in wanted}
    for path in wanted:
        row = known.get(str(path))
        if row is not None and row[0] == states[path]:
            seen[path] = _outcome(row)
    new = [path for path in wanted if path not in seen]
    saved = time.monotonic()
    progress = track(_inspected(new, workers), "Checking files", total=len(new))
    for path, outcome in progress if new else ():
        seen[path] = outcome
        base.execute("INSERT OR REPLACE INTO files VALUES (?,?,?,?,?,?,?,?,?)", _row(path, states[path], outcome))
        if time.monotonic() - saved > _SECONDS_BETWEEN_SAVES:
            base.commit()
            saved = time.monotonic()
    return seen


def _inspected(paths: list[Path], workers: int) -> Iterator[tuple[Path, Outcome]]:
    waiting: deque[tuple[Path, Future[Outcome]]] = deque()
    with ThreadPoolExecutor(workers) as pool:
        for path in paths:
            waiting.append((path, pool.submit(_inspect, path)))
            if len(waiting) >= 4 * workers:
                first, future = waiting.popleft()
                yield first, future.result()
        for first, future in waiting:
            yield first, future.result()


def _inspect(path: Path) -> Outcome:
    try:
        return inspect_image(path)
    except UnreadableImageError as error:
        return " ".join(str(error).removeprefix(f"{path}: ").split())


def _state(path: Path) -> str:
    try:
        found = path.stat()
    except OSError:
        return ""
    return f"{VERSION} {found.st_size} {found.st_mtime_ns} {found.st_ctime_ns}"


def _row(path: Path, state: str, outcome: Outcome) -> tuple[object, ...]:
    if isinstance(outcome, str):
        return (str(path), state, outcome, None, None, None, None, None, None)
    facts = outcome
    looks = (f"{facts.phash:016x}", facts.thumbnail)
    return (str(path), state, None, facts.sha256, facts.height, facts.width, facts.format, *looks)


def _outcome(row: tuple) -> Outcome:
    _, reason, sha256, height, width, kind, phash, thumbnail = row
    return reason if reason is not None else ImageFacts(sha256, height, width, kind, int(phash, 16), thumbnail)
