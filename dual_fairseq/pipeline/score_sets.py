"""Whether the scores of one evaluation may replace those of another, by their records (``options.txt``)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from ..common.folders import option_line

# The record of an evaluation: lines that name its input, then its settings; the last one is that of dual inference.
_CHECKPOINT, _DATA, _LANGUAGE_MODELS = range(3)  # the lines that name these


def recorded(folder: Path) -> list[str]:
    """The lines of the record of an evaluation; empty if there is no complete record."""
    record = folder / "options.txt"
    if not record.is_file():
        return []
    lines = [option_line(line) for line in record.read_text("utf-8", "surrogateescape").splitlines()]
    return lines if len(lines) > _LANGUAGE_MODELS + 1 else []


def same_settings(theirs: Sequence[str], mine: Sequence[str]) -> bool:
    """Whether one record may replace or include the other: the settings are equal, and the checkpoints differ, or the
    text is the same and the language models do not conflict. Language models do not change the translations."""
    if theirs[_LANGUAGE_MODELS + 1 : -1] != mine[_LANGUAGE_MODELS + 1 : -1]:
        return False
    if theirs[_CHECKPOINT] != mine[_CHECKPOINT]:
        return True
    if theirs[_DATA] != mine[_DATA]:
        return False
    names = {
        line.removeprefix("language models").strip() for line in (theirs[_LANGUAGE_MODELS], mine[_LANGUAGE_MODELS])
    }
    return len(names - {""}) < 2


def covers(theirs: Sequence[str], mine: Sequence[str]) -> bool:
    """Whether an earlier evaluation (``theirs``) has everything that this one would have."""
    if not theirs or not same_settings(theirs, mine) or theirs[:_LANGUAGE_MODELS] != mine[:_LANGUAGE_MODELS]:
        return False
    return all(
        a == b or b.strip() in ("language models", "--dual-inference") for a, b in zip(theirs, mine, strict=True)
    )


def place(
    first: Path, record_like: Callable[[Sequence[str]], Sequence[str]], settings: str, models: Callable[[], str]
) -> Path:
    """The folder that holds the scores with some settings, or will get them.

    Args:
        first: the folder of the first settings that the split was evaluated with.
        record_like: a record → the record of this evaluation for the same splits.
        settings: a name for the settings.
        models: makes a name for the language models from their content.
    """
    folders = [first, *sorted(first.parent.glob(f"{first.name}-*"))]
    of_other_text = ""
    for folder in folders:
        if not (record := recorded(folder)):
            continue
        mine = record_like(record)
        if same_settings(record, mine):
            return folder
        if folder == first and record[_DATA] != mine[_DATA]:
            of_other_text = f"-{mine[_DATA].split()[-1][:6]}"
    if not (first / "options.txt").is_file() and not (first / "scores.json").is_file():
        return first
    name = f"{first.name}-{settings}{of_other_text}"
    if any(folder.name == name and recorded(folder) for folder in folders):  # with other language models
        name += f"-lm{models()}"
    return first.with_name(name)
