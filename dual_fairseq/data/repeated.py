"""Finds held-out text that is also in the training text; scores on it only show what was learned by heart."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from ..common.files import count_lines
from ..common.progress import say
from .subword import text_lines

SHORT = 20  # characters; shorter lines ("Thank you.") are common in every text, and so are labels


class Repeated(NamedTuple):
    """How many pairs of a text are in the training text, whole or with a side elsewhere. Short lines do not count."""

    pairs: int
    one_side: int


def long_lines(files: Iterable[Path]) -> frozenset[str]:
    """The lines of some files that are not short (:data:`SHORT`)."""
    return frozenset(line for file in files for line in text_lines(file) if len(line) >= SHORT)


def count_repeated(train: Sequence[Path], text: Sequence[Path]) -> Repeated:
    """Compare a text with the training text.

    Args:
        train, text: cleaned files, one per side, in the same order of languages.
    """
    rows = [*zip(*map(text_lines, text), strict=True)]
    wanted, sides = set(rows), [long_lines([file]) for file in text]
    pairs: set[tuple[str, ...]] = set()
    seen_lines: list[set[str]] = [set() for _ in sides]
    for row in zip(*map(text_lines, train), strict=True):
        if row in wanted:
            pairs.add(row)
        for line, side, seen in zip(row, sides, seen_lines, strict=True):
            if line in side:
                seen.add(line)
    both = one_side = 0
    for row in rows:
        hits = [line in seen for line, seen in zip(row, seen_lines, strict=True)]
        both += any(hits) and row in pairs
        one_side += any(hits) and row not in pairs
    return Repeated(both, one_side)


def report(split: str, train: Sequence[Path], text: Sequence[Path], fix: str) -> dict[str, int]:
    """Count like :func:`count_repeated`, and warn.

    Args:
        split: the name of the text.
        fix: the advice in the warning.
    """
    counts, lines = count_repeated(train, text), count_lines(text[0])
    if counts.pairs or counts.one_side > lines / 100:
        say(
            f"warning: {split}: {counts.pairs:,} of {lines:,} pairs are also in the training text, and "
            f"{counts.one_side:,} more have one side there: scores on them are too good; {fix}"
        )
    return counts._asdict()
