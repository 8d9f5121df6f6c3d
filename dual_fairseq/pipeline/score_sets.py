"""Sets of scores: which of two evaluations may take the place of the other, by their records (``options.txt``)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from ..common.folders import option_line

# A record of an evaluation: lines that name its input, then its settings, which end with that of dual inference.
_CHECKPOINT, _DATA, _LANGUAGE_MODELS = range(3)  # the lines that name these


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
    if theirs[_DATA] != mine[_DATA]:
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


def place(
    first: Path, record_like: Callable[[Sequence[str]], Sequence[str]], settings: str, models: Callable[[], str]
) -> Path:
    """The folder that holds scores with some settings, or may get them.

    Args:
        first: that of the first settings that the split was evaluated with.
        record_like: a record → that of this evaluation, of the splits that the first is of.
        settings: a name for them.
        models: makes a name for the language models, of their content.
    """
    folders = [first, *sorted(first.parent.glob(f"{first.name}-*"))]
    of_other_text = ""
    for folder in folders:
        if not (theirs := recorded(folder)):
            continue
        mine = record_like(theirs)
        if same_settings(theirs, mine):
            return folder
        if folder == first and theirs[_DATA] != mine[_DATA]:
            of_other_text = f"-{mine[_DATA].split()[-1][:6]}"
    if not (first / "options.txt").is_file() and not (first / "scores.json").is_file():
        return first
    name = f"{first.name}-{settings}{of_other_text}"
    if any(folder.name == name and recorded(folder) for folder in folders):  # with other language models
        name += f"-lm{models()}"
    return first.with_name(name)
