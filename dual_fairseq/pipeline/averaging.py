"""The mean of a stage's last checkpoints, instead of its best one: ``dual-fairseq train --average``."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence

from ..common.arguments import positive
from ..common.folders import StageFolder
from .choices import recorded
from .jobs import check, say, step

_EPOCHS = "keep-last-epochs"


def add_average(group: argparse._ArgumentGroup) -> None:
    """Add the option."""
    group.add_argument(
        "--average", type=positive, metavar="K",
        help="of each stage, use the mean of the weights after its last K epochs (checkpoint_average.pt) instead of "
        "its best checkpoint; until then it keeps K checkpoints. With `-- --save-interval-updates N`, but without "
        "--keep-interval-updates: its last K checkpoints of every N updates (default: the best checkpoint)",
    )  # fmt: skip


def options(files: StageFolder, count: str | None, extra: Sequence[str]) -> list[str]:
    """The options of fairseq-train that keep the checkpoints to average.

    Args:
        files: of the stage, which keeps what it began with.
        count: how many.
        extra: the user's options of fairseq-train, which may ask for checkpoints between epochs.
    """
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--save-interval-updates", default="0")
    parser.add_argument("--keep-interval-updates")
    given, _ = parser.parse_known_args(extra)
    by_updates = given.save_interval_updates not in ("0", "-1") and given.keep_interval_updates is None
    name = "--keep-interval-updates" if by_updates and _EPOCHS not in recorded(files) else f"--{_EPOCHS}"
    return [name, count] if count else []


def average(files: StageFolder, count: str | None, trained: bool) -> None:
    """Average the last checkpoints of a finished training, unless this was done before, and delete them.

    Args:
        count: how many (or all, if there are fewer); None averages nothing.
        trained: whether the training has just ended.

    Raises:
        SystemExit: a checkpoint cannot be read, or the mean cannot be written.
    """
    begun = recorded(files)
    by_updates = "keep-interval-updates" in begun and _EPOCHS not in begun
    kept = [file for _, file in files.checkpoints(by_updates)]
    if count is None or not kept:
        if trained:
            files.average.unlink(missing_ok=True)  # of an earlier training
        if trained and count is not None:
            say(
                f"warning: {files.folder}: there is no checkpoint to average, so the best one is used; "
                "--save-interval-updates writes none where an epoch ends"
            )
        return
    # the average gets the file time of the last checkpoint: this identifies them, even if the clock was set back
    last = kept[0].stat().st_mtime_ns
    if not files.average.is_file() or files.average.stat().st_mtime_ns != last:
        unit = "checkpoints" if by_updates else "epochs"
        say(f"Averaging the last {min(int(count), len(kept))} {unit}: {files.average}")
        new = files.folder / ".checkpoint_average.new"  # a command replaces no checkpoint of a run
        check(step("average", "--inputs", *kept[: int(count)], "--output", new))
        os.utime(new, ns=(last, last))
        os.replace(new, files.average)
    for file in reversed(kept):
        file.unlink()
