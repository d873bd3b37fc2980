"""Processes that render side by side."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing import get_all_start_methods, get_context, get_start_method, parent_process, set_start_method
from threading import Thread

import numpy  # noqa: F401  its thread pool must be there before it can be limited
from threadpoolctl import threadpool_limits


@contextmanager
def rendering_pool(workers: int) -> Iterator[ProcessPoolExecutor]:
    """Give a pool of fresh processes, each of which keeps to one core and ends with the process that started it.

    Not forked: the caller may hold locks of torch's or the tokenizer's threads, on which forked processes hang. One
    thread each: the renderer's small matrix products gain nothing from more, and threads that wait for each other on
    taken cores made it six times as slow.
    """
    if get_start_method(allow_none=True) not in (None, *get_all_start_methods()):
        # In a process of joblib's launcher the default is joblib's own way to start, which a fresh process is told of
        # and does not know.
        set_start_method("spawn", force=True)
    pool = ProcessPoolExecutor(workers, mp_context=get_context("spawn"), initializer=prepare_worker)
    try:
        yield pool
    finally:
        # After an error or Ctrl-C, what was not begun is not waited for.
        pool.shutdown(cancel_futures=True)


def prepare_worker() -> None:
    """Limit the thread pools of the libraries that are loaded, and tie this process to the one that started it."""
    threadpool_limits(limits=1)
    # Ctrl-C reaches every process of a terminal; the first one alone says so and ends the others.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """End this process once the one that started it is gone.

    A worker holds both ends of the queue that it reads its work from, so a parent that is killed closes nothing and
    the worker would wait for ever.
    """
    parent = parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)
