"""Work on many rows in as many passes as the memory asks for."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TypeVar

import torch

Result = TypeVar("Result")


def in_chunks(work: Callable[[slice], Result], rows: int, chunk_size: int) -> Iterator[tuple[slice, Result]]:
    """Do something for all rows, one chunk after the other; a chunk that does not fit into memory is halved.

    Args:
        work: Does it for some rows.
        rows: How many there are.
        chunk_size: Rows at once, at first.

    Yields:
        Rows, in their order, and what ``work`` gave for them.

    Raises:
        torch.OutOfMemoryError: Not even a single row fits.

    Example:
        >>> [found for _, found in in_chunks(lambda rows: (rows.start, rows.stop), 5, 2)]
        [(0, 2), (2, 4), (4, 5)]
    """
    first = 0
    while first < rows:
        chunk = slice(first, min(first + chunk_size, rows))
        try:
            done = work(chunk)
        except torch.OutOfMemoryError:
            tried = chunk.stop - chunk.start
            if tried == 1:
                raise
            chunk_size = (tried + 1) // 2
            continue
        first = chunk.stop
        yield chunk, done
