"""Files that another command reads: written whole or not at all. And what a disk says when it is full."""

from __future__ import annotations

import errno
import functools
import hashlib
import json
import logging
import os
import re
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from clip_xai import private_api
from clip_xai.errors import UserError

log = logging.getLogger(__name__)

# What a disk answers that a person can mend, and not a program.
DISK_ERRORS = frozenset((errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO))


_UNFINISHED = re.compile(r"\..*\.(?P<host>[0-9a-f]{8})-(?P<process>\d+)\.unfinished(\.\w+)?")
_STEM = 64  # bytes
_SWEPT: set[Path] = set()


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give a path beside ``path`` to write to, and move what was written there into place at the end.

    A reader sees the old file or the new one, never a part of either; after an error the old one stands. What killed
    processes left unfinished in the directory is removed at a process's first file there.

    Args:
        path: The file to write. Its directory must be there.

    Yields:
        A path in the same directory, with the same suffix.

    Raises:
        OSError: The disk is full; the error names the file.
    """
    if path.parent not in _SWEPT:
        _SWEPT.add(path.parent)
        remove_unfinished(path.parent)
    # Cut: with its additions, a long name would be longer than file systems allow.
    stem = path.stem.encode()[:_STEM].decode(errors="ignore")
    unfinished = path.with_name(f".{stem}.{_host()}-{os.getpid()}.unfinished{path.suffix}")
    try:
        with naming(path):
            unfinished.touch()
            mode = unfinished.stat().st_mode
            yield unfinished
            unfinished.chmod(mode)  # safetensors writes files that nobody else may read
            os.replace(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)


def whole_files(directory: Path, pattern: str) -> list[Path]:
    """The files of a directory whose names match, in order, without those that are not finished."""
    return sorted(file for file in directory.glob(pattern) if not _UNFINISHED.fullmatch(file.name))


def remove_unfinished(directory: Path) -> None:
    """Remove the unfinished files of processes of this machine that have ended."""
    for file in directory.glob(".*.unfinished*"):
        found = _UNFINISHED.fullmatch(file.name)
        if found and found["host"] == _host() and not _runs(int(found["process"])):
            file.unlink(missing_ok=True)


@functools.cache
def _host() -> str:
    return hashlib.sha256(socket.gethostname().encode()).hexdigest()[:8]


def _runs(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:  # it is another user's
        return True
    return True


def read_json(path: Path) -> dict[str, Any] | None:
    """What a JSON object of an earlier run holds, or None where the file is missing, empty or damaged.

    A damaged one is named in the log.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except ValueError:
        content = None
    if not isinstance(content, dict):
        log.warning("%s is empty or damaged: it does not count", path)
        return None
    return content


@contextmanager
def reading(path: Path, advice: str) -> Iterator[None]:
    """Turn whatever a library raises over an empty or damaged file into one line that names the file.

    Args:
        path: The file that is read.
        advice: What to do about it.

    Raises:
        UserError: The file is damaged.
        OSError: It is not there, or the disk does not give it.
    """
    try:
        yield
    except (UserError, OSError, MemoryError):
        raise
    except Exception as error:
        said = str(error).strip().splitlines() or [type(error).__name__]
        raise UserError(f"{path} is empty or damaged ({said[0]}); {advice}") from error


def write_text(path: Path, text: str) -> None:
    """Write a text file in UTF-8, whole or not at all."""
    with replacing(path) as unfinished:
        unfinished.write_text(text, encoding="utf-8")


def write_json(path: Path, content: Any, indent: int = 2) -> None:
    """Write a JSON file, whole or not at all.

    Raises:
        ValueError: A number is not finite: JSON has no NaN, and a measure that is not there is None.
    """
    write_text(path, json.dumps(content, indent=indent, ensure_ascii=False, allow_nan=False) + "\n")


def reserve(file: IO[bytes], size: int) -> None:
    """Take the space of a file before it is written, where the file system can.

    Raises:
        OSError: There is not so much.
    """
    if not size or not hasattr(os, "posix_fallocate"):
        return
    try:
        os.posix_fallocate(file.fileno(), 0, size)
    except OSError as error:
        if error.errno not in (errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL):
            raise


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Turn whatever a library raises when the disk is full into an ``OSError`` that names the file."""
    try:
        yield
    except Exception as error:
        number = disk_error(error)
        if number is None or (isinstance(error, OSError) and error.filename is not None):
            raise
        raise OSError(number, os.strerror(number), str(path)) from error


def disk_error(error: BaseException) -> int | None:
    """The number of the error (``errno``) by which a disk refused to write, or None where it is another error."""
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno if error.errno in DISK_ERRORS else None
    number = private_api.disk_errno(error)
    return number if number in DISK_ERRORS else None
