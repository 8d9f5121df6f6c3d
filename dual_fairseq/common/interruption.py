"""Ctrl-C, SIGTERM and SIGHUP as one exception, so that a command can put everything in order before it ends."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Stopped(KeyboardInterrupt):
    """A signal asked this process to stop.

    Args:
        number: of the signal.
    """

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


@contextmanager
def stoppable() -> Iterator[None]:
    """Inside, the signals raise :class:`Stopped` in the main thread. Ignored ones, as by ``nohup``, stay ignored."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    owner = os.getpid()

    def stop(number: int, frame: FrameType | None) -> None:
        if os.getpid() == owner:
            raise Stopped(number)
        signal.signal(number, signal.SIG_DFL)  # a forked worker, which the process that started it looks after
        os.kill(os.getpid(), number)

    before = {number: signal.getsignal(number) for number in SIGNALS}
    try:
        for number, handler in before.items():
            if handler != signal.SIG_IGN:
                signal.signal(number, stop)
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def at_once(say: Callable[[int], None]) -> Iterator[None]:
    """Inside :func:`stoppable`, a signal ends the process: libraries swallow exceptions while they are imported.

    Args:
        say: what to do before, with the signal's number.
    """

    def stop(number: int, frame: FrameType | None) -> None:
        say(number)
        os._exit(128 + number)

    with _handled(stop):
        yield


@contextmanager
def held_back() -> Iterator[None]:
    """A signal that comes inside is answered at the end: for steps that must be whole."""
    came: list[int] = []
    try:
        with _handled(lambda number, frame: came.append(number)):
            yield
    finally:
        if came:
            signal.raise_signal(came[0])


@contextmanager
def _handled(handle: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    """Inside, this handles the signals that a function handles outside."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in SIGNALS}
    for number, handler in before.items():
        if callable(handler):
            signal.signal(number, handle)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
