"""The files of the feature cache: rows of numbers, and beside them whose they are."""

from __future__ import annotations

import json
import logging
import math
import os
import re
import uuid
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from clip_xai.files import naming, replacing, reserve

log = logging.getLogger(__name__)
_OURS = re.compile(r"\.?([0-9a-f]{32})(\.bin|\.json|\..+\.unfinished\.json)")


class Part:
    """A part that is being written: rows are appended, and count from the moment on that their list is written."""

    def __init__(self, place: Path, shape: Sequence[int], dtype: np.dtype) -> None:
        """Open a part.

        Args:
            place: Its file, ``<part>.bin``.
            shape: Of one row.
            dtype: Number format.
        """
        place.parent.mkdir(parents=True, exist_ok=True)
        self.place, self.shape, self.dtype = place, list(shape), dtype
        self.file = place.open("wb")

    def reserve(self, rows: int) -> None:
        """Take the space of so many rows.

        Raises:
            OSError: The disk does not have that much space.
        """
        with naming(self.place):
            reserve(self.file, rows * math.prod(self.shape) * self.dtype.itemsize)

    def append(self, rows: NDArray[np.floating]) -> None:
        """Write rows ``[R, *shape]``."""
        with naming(self.place):
            self.file.write(np.ascontiguousarray(rows, self.dtype).tobytes())

    def finish(self, digests: Sequence[str]) -> None:
        """Give back what was reserved and not written, and write whose the rows are."""
        with naming(self.place):
            self.file.truncate()
            self.file.flush()
            os.fsync(self.file.fileno())
        listing = {"shape": self.shape, "dtype": self.dtype.name, "rows": list(digests)}
        with replacing(self.place.with_suffix(".json")) as unfinished:
            unfinished.write_text(json.dumps(listing))


@contextmanager
def parts(directory: Path, shapes: dict[str, tuple[int, ...]], dtype: np.dtype, rows: int) -> Iterator[dict[str, Part]]:
    """Open one part of each kind; one that was not finished, for whatever reason, leaves no file."""
    name = uuid.uuid4().hex
    made: dict[str, Part] = {}
    with ExitStack() as stack:
        for kind, shape in shapes.items():
            place = directory / kind / f"{name}.bin"
            stack.callback(_remove_unlisted, place)
            made[kind] = Part(place, shape, dtype)
            stack.callback(made[kind].file.close)
            made[kind].reserve(rows)
        yield made


def _remove_unlisted(place: Path) -> None:
    if not place.with_suffix(".json").is_file():
        place.unlink(missing_ok=True)


def read_parts(directory: Path, shape: Sequence[int], dtype: np.dtype) -> dict[str, tuple[NDArray[np.floating], int]]:
    """Return the rows of all whole parts: file digest -> memory-mapped array and row in it.

    A part that is damaged does not count, is removed and named in the log: its photographs are computed again. Nobody
    else may write to the directory meanwhile.

    Args:
        directory: The parts of one kind.
        shape: Of one row.
        dtype: Number format.
    """
    index: dict[str, tuple[NDArray[np.floating], int]] = {}
    for listing in sorted(file for file in directory.glob("*.json") if _OURS.fullmatch(file.name)):
        try:
            array, digests = _read(listing, list(shape), dtype)
        except (ValueError, KeyError, TypeError, FileNotFoundError) as error:
            log.warning("%s is damaged (%s): its photographs are computed again", listing, error)
            listing.unlink()
            listing.with_suffix(".bin").unlink(missing_ok=True)
            continue
        index.update({digest: (array, row) for row, digest in enumerate(digests)})
    return index


def _read(listing: Path, shape: list[int], dtype: np.dtype) -> tuple[NDArray[np.floating], list[str]]:
    known = json.loads(listing.read_text(encoding="utf-8"))
    digests = known["rows"]
    if known["shape"] != shape or known["dtype"] != dtype.name or not isinstance(digests, list) or not digests:
        raise ValueError("its list is not one of this tower")
    place = listing.with_suffix(".bin")
    expected = len(digests) * math.prod(shape) * dtype.itemsize
    if place.stat().st_size != expected:
        raise ValueError(f"{place.stat().st_size} bytes instead of {expected}")
    return np.memmap(place, dtype, "r", shape=(len(digests), *shape)), digests


def remove_orphans(directory: Path) -> None:
    """Remove what a killed process left: files that bear a part's name, and belong to no whole part.

    Nobody else may write to the directory meanwhile.
    """
    for file in directory.glob("*"):
        ours = _OURS.fullmatch(file.name)
        if ours and (file.name.startswith(".") or not (directory / f"{ours[1]}.json").is_file()):
            log.info("removing %s, which a process that was stopped did not finish", file)
            file.unlink(missing_ok=True)
