"""Applies a function to many jobs in several processes."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

Job = TypeVar("Job")
Result = TypeVar("Result")

_work: Callable[[Any], Any]


def parallel(make: Callable[[], Callable[[Job], Result]], jobs: Iterable[Job], workers: int) -> Iterator[Result]:
    """Apply a function to jobs in ``workers`` processes and yield its results in order.

    Args:
        make: makes the function, once in each process.
    """
    if workers == 1:
        yield from map(make(), jobs)
        return
    # Forked, because a fresh process would import torch and fairseq again.
    with multiprocessing.get_context("fork").Pool(workers, _start_worker, (make, os.getpid())) as pool:
        yield from pool.imap(_call_worker, jobs)


def _start_worker(make: Callable[[], Callable[[Any], Any]], parent: int) -> None:
    global _work
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent answers Ctrl-C
    # The pool ends its workers by SIGTERM. With the parent's handler, a worker that is about to wait for a job would
    # miss the signal and wait forever, and the parent would wait for this worker.
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()
    _work = make()


def _end_with(parent: int) -> None:
    # Workers of a killed parent would wait for jobs forever.
    while os.getppid() == parent:
        time.sleep(1)
    os._exit(1)


def _call_worker(job: Any) -> Any:
    return _work(job)
