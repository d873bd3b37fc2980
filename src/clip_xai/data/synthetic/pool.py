"""Processes that render side by side."""

from __future__ import annotations

from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context

from threadpoolctl import threadpool_limits


def rendering_pool(workers: int) -> ProcessPoolExecutor:
    """Return a pool of fresh processes, each of which keeps to one core.

    Not forked: the caller may hold locks of torch's or the tokenizer's threads, on which forked processes hang. One
    thread each: the renderer's small matrix products gain nothing from more, and threads that wait for each other on
    taken cores made it six times as slow.
    """
    return ProcessPoolExecutor(
        workers, mp_context=get_context("spawn"), initializer=partial(threadpool_limits, limits=1)
    )
