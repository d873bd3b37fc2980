"""A disk that is full, read-only or closed to the user: one line that says which, what to do, and what is kept."""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from clip_xai.files import disk_error
from clip_xai.text import counted, plural

_REASONS = {
    errno.ENOSPC: "the disk has no space left for it",
    errno.EDQUOT: "the quota of the disk leaves no space for it",
    errno.EFBIG: "it is larger than the system allows",
    errno.EROFS: "the disk is read-only",
    errno.EACCES: "permission denied",
    errno.EPERM: "permission denied",
    errno.EIO: "the disk reports an error",
}
_ADVICE = {
    errno.ENOSPC: "free some",
    errno.EDQUOT: "free some",
    errno.EFBIG: "raise the limit (ulimit -f)",
    errno.EROFS: "make it writable",
    errno.EACCES: "allow it",
    errno.EPERM: "allow it",
    errno.EIO: "have it checked",
}
_NO_SPACE = (errno.ENOSPC, errno.EDQUOT)
_LITTLE = 1 << 20  # bytes; a file that did not fit has been removed again
_SETTINGS = ("run_dir", "data.cache_dir", "data.output_dir", "data.root", "runs_root")


def disk_line(error: BaseException, places: Mapping[str, Path]) -> str | None:
    """Return the line for an error of a disk, or None for any other error.

    Args:
        error: What was raised.
        places: Setting -> the directory that it names; see :func:`places_of`.
    """
    cause: BaseException | None = error
    while cause is not None and disk_error(cause) is None:
        cause = cause.__cause__
    if cause is None:
        return None
    number = disk_error(cause)
    assert number is not None
    named = getattr(cause, "filename2", None) or getattr(cause, "filename", None)  # the second is written
    if named is None or isinstance(named, int):
        setting, place = _suspect(number, places)
    else:
        place = Path(os.fsdecode(named))
        setting = next((key for key, directory in places.items() if _within(place, directory)), None)
    subject = "a file" if place is None else str(place)
    what = _REASONS[number]
    if place is not None and number in _NO_SPACE:
        what += f" ({shutil.disk_usage(_existing(place)).free / 1e6:.1f} MB are free)"
    elsewhere = "name another place" if setting is None else f"set {setting} to another place"
    return f"{subject}: {what}; {_ADVICE[number]}, or {elsewhere}. {_kept(places.get('run_dir'))}"


def places_of(config: Any) -> dict[str, Path]:
    """Return the directories that a job writes to, by the names of their settings.

    Args:
        config: The job's settings; what is missing in them is left out.
    """
    places = {}
    for name in _SETTINGS:
        value = config
        for part in name.split("."):
            value = getattr(value, part, None)
        if isinstance(value, str):
            places[name] = Path(value)
    return places


def _suspect(number: int, places: Mapping[str, Path]) -> tuple[str | None, Path | None]:
    """The first directory that would refuse: not every library says which file it wrote."""
    for setting, directory in {**places, "TMPDIR": Path(tempfile.gettempdir())}.items():
        there = _existing(directory)
        if number in _NO_SPACE:
            refuses = shutil.disk_usage(there).free < _LITTLE
        elif number == errno.EROFS:
            refuses = bool(os.statvfs(there).f_flag & os.ST_RDONLY) if hasattr(os, "statvfs") else False
        else:
            refuses = not os.access(there, os.W_OK)
        if refuses:
            return setting, directory
    return None, None


def _existing(path: Path) -> Path:
    path = path.absolute()
    return next(part for part in (path, *path.parents) if part.exists())


def _within(path: Path, directory: Path) -> bool:
    return path.resolve().is_relative_to(directory.resolve())


def _kept(run_dir: Path | None) -> str:
    """What a later command goes on from."""
    if run_dir is not None and run_dir.is_dir():
        last = run_dir / "checkpoints" / "last.ckpt"
        if last.is_file():
            return f"{last} is kept and whole: ckpt_path={last} resumes from it"
        explained = len(list((run_dir / "results").glob("*.safetensors")))
        if explained:
            what = f"{counted(explained, 'explained photograph')} {plural(explained, 'is', 'are')}"
            return f"{what} kept: the same command goes on from there"
    return "Every file that was finished is kept and whole; then give the command again"
