"""Processes that read batches ahead."""

from __future__ import annotations

import ctypes
import sys

_MMAP_THRESHOLD = -3  # M_MMAP_THRESHOLD of glibc's malloc.h
_BYTES = 2**20


def keep_memory_flat(worker: int) -> None:
    """Make the C library hand large freed blocks of a worker back at once; for ``DataLoader(worker_init_fn=)``.

    glibc raises the size from which a block has pages of its own to that of the largest freed one, up to 32 MiB.
    PyTorch's aligned blocks then come from a heap in which freed ones do not fit again, and a worker grows by about one
    batch with each that it hands over: by 27 MiB a step with 256 pictures of 96 x 96. A threshold that is set stays
    (mallopt(3), M_MMAP_THRESHOLD). Other C libraries are left alone.

    Args:
        worker: Its number, which does not count.
    """
    del worker
    if sys.platform == "linux" and hasattr(library := ctypes.CDLL(None), "mallopt"):
        library.mallopt(_MMAP_THRESHOLD, _BYTES)
