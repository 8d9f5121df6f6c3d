"""Applies a function to many jobs in several processes."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Any, TypeVar

from ..common.errors import UserError

Job = TypeVar("Job")
Result = TypeVar("Result")

_work: Callable[[Any], Any]
_refused: UserError | None = None  # by make, in this process


def parallel(make: Callable[[], Callable[[Job], Result]], jobs: Iterable[Job], workers: int) -> Iterator[Result]:
    """Apply a function to jobs in ``workers`` processes and yield its results in order.

    Args:
        make: makes the function, once in each process.

    Raises:
        UserError: a process was killed, or ``make`` raised it.
    """
    if workers == 1:
        yield from map(make(), jobs)
        return
    # Forked, because a fresh process would import torch and fairseq again.
    context = multiprocessing.get_context("fork")
    pool = ProcessPoolExecutor(workers, context, _start_worker, (make, os.getpid()))
    results: deque[Future[Result]] = deque()
    try:
        for job in jobs:
            results.append(pool.submit(_call_worker, job))
            if len(results) > 2 * workers:  # the jobs of a large corpus do not fit into memory
                yield results.popleft().result()
        while results:
            yield results.popleft().result()
    except BrokenProcessPool as error:
        raise UserError("a worker process was killed, maybe for lack of memory: give --workers 1") from error
    finally:
        pool.shutdown(cancel_futures=True)


def _start_worker(make: Callable[[], Callable[[Any], Any]], parent: int) -> None:
    global _work, _refused
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent answers Ctrl-C
    signal.signal(signal.SIGTERM, signal.SIG_DFL)  # not with the parent's handler
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()
    try:
        _work = make()
    except UserError as error:  # the pool would say that the process was killed
        _refused = error


def _end_with(parent: int) -> None:
    # Workers of a killed parent would wait for jobs forever.
    while os.getppid() == parent:
        time.sleep(1)
    os._exit(1)


def _call_worker(job: Any) -> Any:
    if _refused is not None:
        raise _refused
    return _work(job)
