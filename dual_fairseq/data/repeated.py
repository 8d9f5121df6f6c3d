"""Held-out text that is in the training text too, so that scores on it show what was learned by heart."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from ..common.progress import say
from .subword import count_lines, text_lines

SHORT = 20  # characters; shorter lines ("Thank you.") are in every text again, and a label is in most lines


class Repeated(NamedTuple):
    """How many pairs of a text are in the training text: both sides as a pair, or only a side. Short lines are not."""

    pairs: int
    one_side: int


def long_lines(files: Iterable[Path]) -> frozenset[str]:
    """The lines of some files that are long enough to be told from others."""
    return frozenset(line for file in files for line in text_lines(file) if len(line) >= SHORT)


def count_repeated(train: Sequence[Path], text: Sequence[Path]) -> Repeated:
    """Compare a text with the training text.

    Args:
        train, text: a file a side, cleaned, in the same order of languages.
    """
    rows = [*zip(*map(text_lines, text), strict=True)]
    wanted, sides = set(rows), [long_lines([file]) for file in text]
    pairs: set[tuple[str, ...]] = set()
    found: list[set[str]] = [set() for _ in sides]
    for row in zip(*map(text_lines, train), strict=True):
        if row in wanted:
            pairs.add(row)
        for line, side, seen in zip(row, sides, found, strict=True):
            if line in side:
                seen.add(line)
    both = one = 0
    for row in rows:
        hits = [line in seen for line, seen in zip(row, found, strict=True)]
        both += any(hits) and row in pairs
        one += any(hits) and row not in pairs
    return Repeated(both, one)


def report(split: str, train: Sequence[Path], text: Sequence[Path], fix: str) -> dict[str, int]:
    """Count as :func:`count_repeated`, and warn.

    Args:
        split: the name of the text.
        fix: what can be done.
    """
    found, lines = count_repeated(train, text), count_lines(text[0])
    if found.pairs or found.one_side > lines / 100:
        say(
            f"warning: {split}: {found.pairs:,} of {lines:,} pairs are also in the training text, and "
            f"{found.one_side:,} more have one side there: scores on them are too good; {fix}"
        )
    return found._asdict()
