"""One process at a time where several would write the same files: those of a strategy, or of a sweep side by side."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from clip_xai.errors import UserError

log = logging.getLogger(__name__)


@contextmanager
def one_at_a_time(directory: Path) -> Iterator[None]:
    """Let one process at a time into the ``with`` block of a directory; the others wait, and say so.

    Args:
        directory: Made if it is missing; ``.lock`` in it is the lock, which a killed process gives up.

    Raises:
        UserError: The directory is a file, or lies below one.
    """
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as error:
        raise UserError(f"{directory} cannot be made: a part of its path is a file; name another") from error
    lock = FileLock(directory / ".lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        log.info("another process is writing %s: waiting for it", directory)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()
