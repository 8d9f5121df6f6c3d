"""The look of pictures."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

REPORT: Mapping[str, Any] = {
    "font.size": 9.5, "axes.spines.top": False, "axes.spines.right": False, "grid.alpha": 0.25,
    "text.parse_math": False,  # a run may be called $x
}  # fmt: skip


@contextmanager
def look(settings: Mapping[str, Any] | None = None) -> Iterator[None]:
    """matplotlib with its own defaults and these settings; also a decorator.

    matplotlib reads a file ``matplotlibrc`` in the current folder, which may come from a stranger and start LaTeX.
    """
    from matplotlib.style import context

    with context(dict(settings or {}), after_reset=True):
        yield
