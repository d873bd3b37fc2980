"""Masks as run lengths in the two forms of COCO: plain counts, and the text that they are packed into.

Counts go down the columns of the mask and begin with what is not marked. Packed, each count (from the third on its
difference from the count before the last) is written in groups of five bits, the lowest first, with a sixth bit that
says that more follow, as the character with 48 more than that number.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


def decode_run_lengths(runs: str | Sequence[int], height: int, width: int) -> NDArray[np.bool_]:
    """Return the mask that run lengths stand for: bool ``[height, width]``.

    Args:
        runs: Packed text or plain counts.
        height: Height of the mask in pixels.
        width: Width of the mask in pixels.

    Raises:
        ValueError: They are damaged, or of a mask of another size.
    """
    counts = np.asarray(_unpacked(runs) if isinstance(runs, str) else list(runs), dtype=np.int64)
    if (counts < 0).any() or counts.sum() != height * width:
        raise ValueError(f"run lengths of {counts.sum()} pixels for a mask of {height} x {width}")
    marked = np.arange(len(counts)) % 2 == 1
    return np.repeat(marked, counts).reshape(width, height).T.copy()


def encode_run_lengths(mask: NDArray[np.bool_]) -> str:
    """Return the packed text of a mask ``[height, width]``."""
    flat = np.asarray(mask, dtype=bool).T.reshape(-1)
    edges = np.flatnonzero(np.diff(flat)) + 1
    counts = np.diff(np.concatenate([[0], edges, [len(flat)]])).tolist() if len(flat) else []
    return pack_counts([0, *counts] if len(flat) and flat[0] else counts)


def pack_counts(counts: Sequence[int]) -> str:
    """Return plain counts as packed text."""
    packed = []
    for place, count in enumerate(counts):
        value = int(count) - (int(counts[place - 2]) if place > 2 else 0)
        more = True
        while more:
            bits = value & 31
            value >>= 5
            more = value != (-1 if bits & 16 else 0)
            packed.append(chr(48 + bits + (32 if more else 0)))
    return "".join(packed)


def _unpacked(text: str) -> list[int]:
    counts: list[int] = []
    value = shift = 0
    for letter in text:
        code = ord(letter) - 48
        if not 0 <= code < 64:
            raise ValueError(f"run lengths with the character {letter!r}")
        value |= (code & 31) << shift
        shift += 5
        if code & 32:
            continue
        if code & 16:
            value -= 1 << shift
        counts.append(value + (counts[-2] if len(counts) > 2 else 0))
        value = shift = 0
    if shift:
        raise ValueError("run lengths that break off")
    return counts
