"""Files that another command reads: written whole or not at all. And what a disk says when it takes no more."""

from __future__ import annotations

import errno
import json
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

# What a disk answers that a person can mend, and not a program.
DISK_ERRORS = frozenset((errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO))
_SAID = (  # of libraries that do not raise an OSError
    (re.compile(r"os error (\d+)"), None),  # safetensors, tokenizers
    (re.compile(r"errno (\d+)", re.IGNORECASE), None),  # pyarrow
    (re.compile(r"database or disk is full"), errno.ENOSPC),  # SQLite
    (re.compile(r"attempt to write a readonly database"), errno.EROFS),
)


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give a path beside ``path`` to write to, and move what was written there into place at the end.

    A reader sees the old file or the new one, never a part of either; after an error the old one stands.

    Args:
        path: The file to write. Its directory must be there.

    Yields:
        A path in the same directory, with the same suffix.

    Raises:
        OSError: The disk takes no more; the error names the file.
    """
    unfinished = path.with_name(f".{path.stem}.{os.getpid()}.unfinished{path.suffix}")
    try:
        with naming(path):
            yield unfinished
            os.replace(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)


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
    """Turn whatever a library raises when the disk takes no more into an ``OSError`` that names the file."""
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
    for pattern, number in _SAID:
        found = pattern.search(str(error))
        if found:
            code = int(found[1]) if number is None else number
            return code if code in DISK_ERRORS else None
    return None
