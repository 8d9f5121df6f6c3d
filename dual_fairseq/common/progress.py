"""Progress of long work: a bar on a terminal, else a line every half minute."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable

from tqdm import tqdm

from .errors import printable

SECONDS = 30.0  # between two lines


def say(line: str) -> None:
    """Print a line, or several, to standard error."""
    print(printable(line, kept="\n\t"), file=sys.stderr, flush=True)


def duration(seconds: float) -> str:
    """A readable duration: ``40 s``, ``12 min``, ``1 h 05 min``."""
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"


def time_to_go(seconds: float, done: int, total: int | None) -> str:
    """The remaining time, to append to a line; empty if it is unknown.

    Args:
        seconds: the time for the finished items.
        done, total: numbers of items.
    """
    if total is None or done <= 0 or done >= total:
        return ""
    return f", about {duration(seconds * (total - done) / done)} to go"


class Progress:
    """A context manager that counts items.

    Args:
        title: the name of the work.
        total: the number of items; None if unknown.
        unit: the name of the items.
        shown: False for silence (all processes of a run except the first; a bar that would mix with the output).
        tell: prints a line if standard error is not a terminal.
    """

    def __init__(
        self,
        title: str,
        total: int | None = None,
        unit: str = "sentences",
        shown: bool = True,
        tell: Callable[[str], None] = say,
    ) -> None:
        self.title, self.total, self.unit = title, total, unit
        self.done = 0
        self._tell = tell if shown and not sys.stderr.isatty() else None
        self._began = self._last = time.monotonic()
        self._bar = tqdm(
            total=total, desc=title, unit=f" {unit}", mininterval=2, disable=not shown or self._tell is not None
        )

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.close()

    def update(self, count: int) -> None:
        """Count more finished items."""
        self.done += count
        self._bar.update(count)
        if self._tell is not None and time.monotonic() - self._last >= SECONDS:
            self._last = time.monotonic()
            total = f" of {self.total:,}" if self.total is not None else ""
            to_go = time_to_go(self._last - self._began, self.done, self.total)
            self._tell(f"{self.title}: {self.done:,}{total} {self.unit}{to_go}")
