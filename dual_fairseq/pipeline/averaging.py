"""The mean of a stage's last epochs, instead of its best checkpoint: ``dual-fairseq train --average``."""

from __future__ import annotations

import argparse
import os
import re
from pathlib import Path

from ..common.arguments import positive
from ..common.folders import StageFolder
from .jobs import check, say, step


def add_average(group: argparse._ArgumentGroup) -> None:
    """Add the option."""
    group.add_argument(
        "--average", type=positive, metavar="K",
        help="of each stage, use the mean of the weights after its last K epochs (checkpoint_average.pt) instead of "
        "its best checkpoint; until then it keeps K checkpoints (default: the best checkpoint)",
    )  # fmt: skip


def options(count: str | None) -> list[str]:
    """The options of fairseq-train that keep the checkpoints to average."""
    return ["--keep-last-epochs", count] if count else []


def average(files: StageFolder, count: str | None) -> None:
    """Average the last epochs of a finished training, unless this was done before, and delete their checkpoints.

    Args:
        count: how many epochs (or all, if there are fewer); None averages nothing.

    Raises:
        SystemExit: a checkpoint cannot be read, or the mean cannot be written.
    """
    epochs = sorted(_epochs(files.folder), key=lambda file: int(re.sub(r"\D", "", file.name)), reverse=True)
    if count is None or not epochs:
        return
    # the average gets the file time of its last epoch: this identifies its epochs, even if the clock was set back
    last = epochs[0].stat().st_mtime_ns
    if not files.average.is_file() or files.average.stat().st_mtime_ns != last:
        say(f"Averaging the last {min(int(count), len(epochs))} epochs: {files.average}")
        new = files.folder / ".checkpoint_average.new"  # a command replaces no checkpoint of a run
        check(step("average", "--inputs", *epochs[: int(count)], "--output", new))
        os.utime(new, ns=(last, last))
        os.replace(new, files.average)
    for file in reversed(epochs):
        file.unlink()


def _epochs(folder: Path) -> list[Path]:
    return [file for file in folder.glob("checkpoint*.pt") if re.fullmatch(r"checkpoint\d+\.pt", file.name)]
