"""Processes that render side by side."""

from __future__ import annotations

from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_all_start_methods, get_context, get_start_method, set_start_method

import numpy  # noqa: F401  its thread pool must be there before it can be limited
from threadpoolctl import threadpool_limits


def rendering_pool(workers: int) -> ProcessPoolExecutor:
    """Return a pool of fresh processes, each of which keeps to one core.

    Not forked: the caller may hold locks of torch's or the tokenizer's threads, on which forked processes hang. One
    thread each: the renderer's small matrix products gain nothing from more, and threads that wait for each other on
    taken cores made it six times as slow.
    """
    if get_start_method(allow_none=True) not in (None, *get_all_start_methods()):
        # In a process of joblib's launcher the default is joblib's own way to start, which a fresh process is told of
        # and does not know.
        set_start_method("spawn", force=True)
    return ProcessPoolExecutor(workers, mp_context=get_context("spawn"), initializer=keep_to_one_thread)


def keep_to_one_thread() -> None:
    """Limit the thread pools of the libraries that are loaded, for good."""
    threadpool_limits(limits=1)
