"""Files of somebody else's, read only where they are files: no pipe, no device, nothing endless."""

from __future__ import annotations

import os
import stat
from pathlib import Path

#: Above this many bytes a file is neither a photograph nor a table.
MAX_BYTES = 512 * 2**20


class NoFileError(OSError):
    """Something that is there and is not a file that can be read; the message says why."""


def read_regular(path: Path, most: int = MAX_BYTES) -> bytes:
    """Read a whole file.

    Args:
        path: The file; links are followed.
        most: More bytes than these are refused before they are read.

    Raises:
        FileNotFoundError: There is nothing.
        NoFileError: It is a folder, a pipe, a device, a loop of links, or too large.
        OSError: It cannot be opened.
    """
    # Opening a pipe would wait for somebody to write into it, opening a device may do anything.
    if not stat.S_ISREG(_state(path).st_mode):
        raise NoFileError(f"not a file but a {kind_of(path)}")
    with open(os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)), "rb") as file:
        state = os.fstat(file.fileno())
        if not stat.S_ISREG(state.st_mode):
            raise NoFileError("not a file")
        if state.st_size > most:
            raise NoFileError(f"{state.st_size:,} bytes are more than {most:,}")
        return file.read(most + 1)[:most]


def is_regular(path: Path) -> bool:
    """Tell whether a path is a file, by links or not; whatever else is wrong with it, it is none."""
    try:
        return stat.S_ISREG(path.stat().st_mode)
    except (OSError, ValueError):
        return False


def kind_of(path: Path) -> str:
    """Say in a word or two what is at a path that is not a file."""
    try:
        mode = path.stat().st_mode
    except OSError:
        return "link that leads nowhere"
    kinds = {stat.S_ISDIR: "folder", stat.S_ISFIFO: "pipe", stat.S_ISSOCK: "socket"}
    return next((name for holds, name in kinds.items() if holds(mode)), "device")


def _state(path: Path) -> os.stat_result:
    try:
        return path.stat()
    except FileNotFoundError:
        if path.is_symlink():
            raise NoFileError("a link that leads nowhere") from None
        raise
    except OSError as error:
        raise NoFileError(str(error.strerror)) from error
