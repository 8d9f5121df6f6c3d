"""The mean of a stage's last checkpoints, instead of its best one: ``dual-fairseq train --average``."""

from __future__ import annotations

import argparse
import os
import re
from collections.abc import Sequence

from ..common.arguments import positive
from ..common.folders import StageFolder
from .jobs import check, say, step


def add_average(group: argparse._ArgumentGroup) -> None:
    """Add the option."""
    group.add_argument(
        "--average", type=positive, metavar="K",
        help="of each stage, use the mean of the weights after its last K epochs (checkpoint_average.pt) instead of "
        "its best checkpoint; until then it keeps K checkpoints. With `-- --save-interval-updates N`, one every N "
        "updates instead of epochs (default: the best checkpoint)",
    )  # fmt: skip


def options(count: str | None, extra: Sequence[str]) -> list[str]:
    """The options of fairseq-train that keep the checkpoints to average.

    Args:
        count: how many.
        extra: the user's options of fairseq-train, which may ask for checkpoints between epochs.
    """
    return ["--keep-interval-updates" if _by_updates(extra) else "--keep-last-epochs", count] if count else []


def average(files: StageFolder, count: str | None, extra: Sequence[str]) -> None:
    """Average the last checkpoints of a finished training, unless this was done before, and delete them.

    Args:
        count: how many (or all, if there are fewer); None averages nothing.
        extra: the user's options of fairseq-train.

    Raises:
        SystemExit: a checkpoint cannot be read, or the mean cannot be written.
    """
    unit, pattern = ("checkpoints", r"checkpoint_\d+_(\d+)\.pt") if _by_updates(extra) else _EPOCHS
    names = [match for file in files.folder.glob("checkpoint*.pt") if (match := re.fullmatch(pattern, file.name))]
    kept = [files.folder / match[0] for match in sorted(names, key=lambda match: int(match[1]), reverse=True)]
    if count is None or not kept:
        return
    # the average gets the file time of the last checkpoint: this identifies them, even if the clock was set back
    last = kept[0].stat().st_mtime_ns
    if not files.average.is_file() or files.average.stat().st_mtime_ns != last:
        say(f"Averaging the last {min(int(count), len(kept))} {unit}: {files.average}")
        new = files.folder / ".checkpoint_average.new"  # a command replaces no checkpoint of a run
        check(step("average", "--inputs", *kept[: int(count)], "--output", new))
        os.utime(new, ns=(last, last))
        os.replace(new, files.average)
    for file in reversed(kept):
        file.unlink()


_EPOCHS = ("epochs", r"checkpoint(\d+)\.pt")


def _by_updates(extra: Sequence[str]) -> bool:
    """Whether the user's options ask for a checkpoint every N updates."""
    return any(word.split("=")[0] == "--save-interval-updates" for word in extra)
