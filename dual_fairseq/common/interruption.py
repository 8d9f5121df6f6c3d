"""Ctrl-C, SIGTERM and SIGHUP as one exception, so that a command can clean up before it ends."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Stopped(KeyboardInterrupt):
    """A signal asked this process to stop.

    Args:
        number: the signal's number.
    """

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


@contextmanager
def stoppable() -> Iterator[None]:
    """In this context, signals raise :class:`Stopped` in the main thread. Signals ignored by ``nohup`` stay ignored."""
    owner = os.getpid()

    def stop(number: int, frame: FrameType | None) -> None:
        if os.getpid() == owner:
            raise Stopped(number)
        signal.signal(number, signal.SIG_DFL)  # a forked worker: its parent handles the stop
        os.kill(os.getpid(), number)

    with _handled(stop, lambda handler: handler != signal.SIG_IGN):
        yield


@contextmanager
def at_once(say: Callable[[int], None]) -> Iterator[None]:
    """Inside :func:`stoppable`, a signal ends the process at once: imports of libraries swallow exceptions.

    Args:
        say: called before, with the signal's number.
    """

    def stop(number: int, frame: FrameType | None) -> None:
        say(number)
        os._exit(128 + number)

    with _handled(stop):
        yield


@contextmanager
def held_back() -> Iterator[None]:
    """Signals wait until the end of this context, for steps that must be complete."""
    received: list[int] = []
    try:
        with _handled(lambda number, frame: received.append(number)):
            yield
    finally:
        if received:
            signal.raise_signal(received[0])


@contextmanager
def _handled(
    handle: Callable[[int, FrameType | None], None], replaces: Callable[[Any], bool] = callable
) -> Iterator[None]:
    """In this context, ``handle`` replaces the handlers that ``replaces`` is true for: by default, functions."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    previous = {number: signal.getsignal(number) for number in SIGNALS}
    try:
        for number, handler in previous.items():
            if replaces(handler):
                signal.signal(number, handle)
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
