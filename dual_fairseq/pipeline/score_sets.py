"""Whether the scores of one evaluation may replace those of another, by their records (``options.txt``)."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

from ..common.folders import recorded_lines

# The record of an evaluation: lines that name its input, then its settings; the last one is that of dual inference.
_CHECKPOINT, _DATA, _LANGUAGE_MODELS = range(3)  # the lines that name these


def evaluated(folder: Path) -> list[str]:
    """The lines of the record of an evaluation; empty if there is no complete record."""
    lines = recorded_lines(folder / "options.txt")
    return lines if len(lines) > _LANGUAGE_MODELS + 1 else []


def same_settings(theirs: Sequence[str], mine: Sequence[str]) -> bool:
    """Whether one record may replace or include the other: the settings are equal, and the checkpoints differ, or the
    text is the same and the language models do not conflict. Language models do not change the translations.

    A line without a digest is of a file that is gone, or was not given: no other one conflicts with it.
    """
    if theirs[_LANGUAGE_MODELS + 1 : -1] != mine[_LANGUAGE_MODELS + 1 : -1]:
        return False
    if theirs[_CHECKPOINT] != mine[_CHECKPOINT] and mine[_CHECKPOINT].strip() != "checkpoint":
        return True
    if theirs[_DATA] != mine[_DATA]:
        return False
    names = {
        line.removeprefix("language models").strip() for line in (theirs[_LANGUAGE_MODELS], mine[_LANGUAGE_MODELS])
    }
    return len(names - {""}) < 2


def covers(theirs: Sequence[str], mine: Sequence[str]) -> bool:
    """Whether an earlier evaluation (``theirs``) has everything that this one would have."""
    if not theirs or not same_settings(theirs, mine):
        return False
    unknown = ("checkpoint", "language models", "--dual-inference")
    return all(a == b or b.strip() in unknown for a, b in zip(theirs, mine, strict=True))


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
        if not (record := evaluated(folder)):
            continue
        mine = record_like(record)
        if same_settings(record, mine):
            return folder
        if folder == first and record[_DATA] != mine[_DATA]:
            of_other_text = f"-{mine[_DATA].split()[-1][:6]}"
    if not (first / "options.txt").is_file() and not (first / "scores.json").is_file():
        return first
    name = f"{first.name}-{settings}{of_other_text}"
    if any(folder.name == name and evaluated(folder) for folder in folders):  # with other language models
        name += f"-lm{models()}"
    return first.with_name(name)


def replace(folder: Path, new: Path, directions: Sequence[str]) -> None:
    """Move the files of an evaluation to their places.

    What only an earlier evaluation has, the results of dual inference, is removed: it is of another checkpoint or of
    other settings.

    Args:
        folder: the folder of the scores.
        new: the folder of the new files, which is removed.
        directions: of the pair, such as ``de-en``.
    """
    files = {path.relative_to(new): path for path in sorted(new.rglob("*")) if path.is_file()}
    for name, path in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        os.replace(path, folder / name)
    shutil.rmtree(new)
    for direction in directions:
        tuned = folder / "tuning" / direction
        if (name := Path(f"{direction}.dual-inference.hyp.txt")) not in files:
            (folder / name).unlink(missing_ok=True)
        if tuned.relative_to(folder) / "weights.json" not in files and tuned.is_dir():
            shutil.rmtree(tuned)
    if (folder / "tuning").is_dir() and not os.listdir(folder / "tuning"):
        (folder / "tuning").rmdir()
