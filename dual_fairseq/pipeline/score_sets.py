"""Sets of scores: which of two evaluations may take the place of the other, by their records (``options.txt``)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ..common.folders import option_line

# A record of an evaluation: lines that name its input, then its settings, which end with that of dual inference.
_CHECKPOINT, DATA, _LANGUAGE_MODELS = range(3)  # the lines that name these


def recorded(folder: Path) -> list[str]:
    """The lines of the record of an evaluation; none where there is no complete one."""
    record = folder / "options.txt"
    if not record.is_file():
        return []
    lines = [option_line(line) for line in record.read_text("utf-8", "surrogateescape").splitlines()]
    return lines if len(lines) > _LANGUAGE_MODELS + 1 else []


def same_settings(theirs: Sequence[str], mine: Sequence[str]) -> bool:
    """Whether one record may take the place of the other, or holds all of it: of another checkpoint, or with and
    without language models, which change nothing about the translations. Other text has a record of its own."""
    if theirs[_LANGUAGE_MODELS + 1 : -1] != mine[_LANGUAGE_MODELS + 1 : -1]:
        return False
    if theirs[_CHECKPOINT] != mine[_CHECKPOINT]:
        return True
    if theirs[DATA] != mine[DATA]:
        return False
    names = {
        line.removeprefix("language models").strip() for line in (theirs[_LANGUAGE_MODELS], mine[_LANGUAGE_MODELS])
    }
    return len(names - {""}) < 2


def covers(theirs: Sequence[str], mine: Sequence[str]) -> bool:
    """Whether an evaluation has all that this one would have."""
    if not theirs or not same_settings(theirs, mine) or theirs[:_LANGUAGE_MODELS] != mine[:_LANGUAGE_MODELS]:
        return False
    return all(
        a == b or b.strip() in ("language models", "--dual-inference") for a, b in zip(theirs, mine, strict=True)
    )
