"""Trainings by fairseq-train that run once, continue if they were stopped, and refuse other options."""

from __future__ import annotations

import hashlib
import math
import os
import re
import shlex
import shutil
import sys
import time
import zipfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from ..common.errors import UserError
from ..common.files import sha256, whole_file, write_text
from ..common.folders import StageFolder, option_line
from ..common.interruption import held_back
from .changes import Typed, changes, limit_of, value_of
from .devices import Device
from .jobs import PACKAGE, Shell, ask, run, say, step
from .progress import PATIENCE, TrainingDisplay

# Raising one of these does not make it another training. If a record has several values, the last one counts.
LIMITS = ("max-update", "max-epoch", "patience")
# Options of every training that do not change its result.
_ALWAYS = "--skip-invalid-size-inputs-valid-test --no-epoch-checkpoints --log-format json --log-interval 50".split()


def digest(*files: Path) -> str:
    """One digest of the contents of files, not of their names."""
    lines = "".join(f"{sha256(file)}  -\n" for file in files)  # as `sha256sum <file` prints it
    return hashlib.sha256(lines.encode()).hexdigest()


def option_lines(words: Iterable[str]) -> list[str]:
    """The options of a command line, one per line, with their values."""
    lines: list[str] = []
    for word in words:
        if word.startswith("--") or not lines:
            lines.append(option_line(word))
        else:
            lines[-1] += f" {word}"
    return lines


def is_whole(checkpoint: Path) -> bool:
    """Whether a checkpoint is complete: it is a zip archive, and its directory is written last."""
    return zipfile.is_zipfile(checkpoint)


class NothingLeft(UserError):
    """A finished training should continue with other options, but its limit is reached."""


@dataclass
class Stage:
    """A training in a folder of its own.

    Args:
        files: the folder.
        title: what is trained, for people.
        data: the folder of binarized data.
        inputs: lines that name the input by digests.
        options: of fairseq-train; with ``inputs``, ``max_update`` and ``extra``, they decide the result.
        start: further options, such as the paths of the checkpoints that it starts from.
        max_update: the number of updates; None for no limit; a ``Shell`` if other stages decide it first.
        extra: the user's options for fairseq-train, which override the others.
        typed: what the user types for options of fairseq-train.
    """

    files: StageFolder
    title: str
    data: Path
    inputs: list[str]
    options: list[str]
    start: list[str] = field(default_factory=list)
    max_update: str | None = None
    extra: list[str] = field(default_factory=list)
    typed: Typed = field(default_factory=Typed)

    def identity(self) -> list[str]:
        """The lines of ``options.txt``: everything that affects the result."""
        words = [*self.options, "--max-update", self.max_update or "none", *self.extra]
        return [*self.inputs, *option_lines(words)]

    def command(self, device: Device, shown: bool = False) -> list[str]:
        """The command that trains it."""
        words = [*device.launch(shown), str(self.data), "--user-dir", str(PACKAGE), *self.options, *self.start]
        keeps_epochs = value_of(self.identity(), "keep-last-epochs") is not None
        words += [word for word in _ALWAYS if word != "--no-epoch-checkpoints" or not keeps_epochs]
        words += ["--max-update", self.max_update] if self.max_update else []
        return [*words, *self.extra, "--save-dir", str(self.files.folder), *device.options]

    def look(self, go_on: bool, anew: str = "") -> str:
        """Why there is something to train, as a later stage's refusal gives it; empty if there is not.

        Nothing is written.

        Args:
            go_on: whether a training with other options or input is continued.
            anew: what will be trained first and changes the input, if this stage has begun.

        Raises:
            NothingLeft: the folder holds a training with other options or input, and its limit is reached.
            UserError: such a training is not continued, or a file is missing or damaged.
        """
        files, identity = self.files, self.identity()
        for file in (files.log, files.finished):
            if file.is_symlink():  # writing would change the other file
                raise UserError(f"{file}: is a link to another file; remove it, or choose another folder")
        files.check_finished()
        if files.last.is_file() and not is_whole(files.last) and not is_whole(files.best):
            raise UserError(f"{files.last} is damaged: delete {files.folder} to train again")
        if not files.begun:
            return f"it began with an earlier {files.folder}, which will be trained again"
        recorded = files.recorded()
        raised = self._raised(recorded, identity)
        if changed := anew or changes(recorded, identity, self.typed, LIMITS if raised is not None else ()):
            if not go_on:
                raise UserError(
                    f"{files.folder} was trained with other options or input ({changed}): choose another folder, "
                    "delete this one to train again, or give --continue to continue from its last checkpoint"
                )
            if limit := self._reached(recorded):
                raise NothingLeft(f"{files.folder}: nothing is left to train ({changed}): raise {limit}")
        elif not files.finished.is_file():
            return f"it began with an earlier {files.folder}, which is not finished"
        elif not raised or ("patience" not in raised and self._reason().startswith(PATIENCE)):
            return ""
        return changed or changes(recorded, identity, self.typed)

    def begin(self, go_on: bool) -> bool:
        """Repair the folder; returns whether there is something to train. For arguments and errors see :meth:`look`."""
        if not self.look(go_on):
            return False
        files = self.files
        if files.best.is_file() and not files.last.is_file():
            # it stopped before the first copy of the best was made, or someone deleted the file
            say(f"  {files.last} is missing: continuing from {files.best.name}")
            self._copy_best()
        elif files.last.is_file() and not is_whole(files.last):
            # fairseq copies the best over the last in place. If it is killed meanwhile, the copy is incomplete.
            self._copy_best()
        return True

    @contextmanager
    def recorded_anew(self, *others: Path) -> Iterator[None]:
        """Write the record of a training that begins. If it ends without a new checkpoint, all is as it was.

        The old files stay as ``.NAME.before`` meanwhile: putting them back needs no room on the disk.

        Args:
            others: further files that belong to the record.

        Raises:
            UserError: the folder cannot be written to.
        """
        files = self.files
        kept = (files.options_file, files.finished, files.perplexity, *others)
        try:
            files.folder.mkdir(parents=True, exist_ok=True)
            for leftover in files.folder.glob("*.tmp"):
                leftover.unlink()
            for file in kept:
                keep_before(file)
        except OSError as error:
            raise UserError(f"cannot write to {files.folder} ({error.strerror}): choose another or fix it") from error
        recorded = files.recorded()
        checkpoints = self._checkpoints()
        try:
            write_text(files.options_file, "".join(f"{line}\n" for line in self.identity()))
            for file in (files.finished, files.perplexity):
                file.unlink(missing_ok=True)
            yield
            changed = changes(recorded, self.identity(), self.typed, LIMITS) if recorded else ""
            if changed and self._checkpoints() == checkpoints:
                raise NothingLeft(f"{files.folder}: nothing was left to train ({changed}): raise its limits")
        except BaseException:
            if self._checkpoints() == checkpoints:
                with held_back():
                    for file in kept:
                        with suppress(OSError):  # the others are put back, and the first error is the one to tell
                            put_back(file)
                    kept = ()
            raise
        finally:
            for file in kept:
                before(file).unlink(missing_ok=True)

    def _checkpoints(self) -> list[tuple[int, int]]:
        """Other values after a checkpoint was written."""
        files = [file.stat() for file in (self.files.best, self.files.last) if file.is_file()]
        return [(file.st_mtime_ns, file.st_ino) for file in files]

    def _updates(self) -> int:
        """The updates that its last checkpoint has made."""
        last = self.files.last if self.files.last.is_file() and is_whole(self.files.last) else self.files.best
        return int(ask(step("pipeline.probe", "updates", last)))

    def _reached(self, recorded: Sequence[str]) -> str:
        """The limit that the training has reached, in the words that a user types; empty if there is none."""
        epochs = limit_of(self.identity(), "max-epoch")
        # train-lm writes --max-epoch, and train --lm-max-epoch
        by_epochs = re.match(r"stopped by --([a-z]+-)?max-epoch ", self._reason())
        if by_epochs and epochs <= limit_of(recorded, "max-epoch"):
            return f"{self.typed.option('max-epoch')} above {epochs:.0f}"
        if (limit := self._limit) < math.inf and (updates := self._updates()) >= limit:
            return f"{self.typed.option('max-update')} above {updates}"
        return ""

    @property
    def _limit(self) -> float:
        """The limit of updates."""
        return limit_of(self.identity(), "max-update")

    def _reason(self) -> str:
        """Why a finished training stopped; empty if it is not finished, or not known."""
        return self.files.finished.read_text(encoding="utf-8").strip() if self.files.finished.is_file() else ""

    def finished_before(self) -> str:
        """A line for a finished training, with the reason why it stopped, if known."""
        reason = self._reason()
        return f"{self.title}: finished before ({self.files.folder})" + (f"; {reason}" if reason else "")

    def _copy_best(self) -> None:
        with open(self.files.best, "rb") as best, whole_file(self.files.last) as last:
            shutil.copyfileobj(best, last)

    @staticmethod
    def _raised(old: Sequence[str], new: Sequence[str]) -> list[str] | None:
        """The limits that are higher than before; None if one of them is lower."""
        raised = []
        for name in LIMITS:
            before, now = (limit_of(lines, name) for lines in (old, new))
            if now < before:
                return None
            if now > before:
                raised.append(name)
        return raised

    def train(self, device: Device) -> None:
        """Run fairseq-train to its end, append its log to ``train.log``, and note that it has finished.

        Raises:
            UserError: fairseq-train failed.
        """
        files, option = self.files, self.typed.option
        if files.last.is_file():
            updates = self._updates()
            # fairseq checks --max-update only after an update, so it would make one too many.
            if updates >= self._limit:
                write_text(files.finished, f"stopped by {option('max-update')} {self._limit:.0f}\n")
                return
            say(f"  continuing after update {updates}")
        command = self.command(device)
        began = files.log.stat().st_size if files.log.exists() else 0
        with open(files.log, "a", encoding="utf-8", errors="surrogateescape") as log:
            log.write(f"\n# started {time.strftime('%FT%T')}\n# {shlex.join(command)}\n")
        display = TrainingDisplay(*(value_of(self.identity(), name) for name in ("max-update", "max-epoch")))
        status = run(command, files.log, display)
        if status:
            raise failure(files.log, began, "fairseq-train", status, self.typed, self.extra)
        if not files.best.is_file():
            raise UserError(f"fairseq-train wrote no {files.best}; see {files.log}")
        reason = display.reason(option)
        say(f"  {reason}")
        write_text(files.finished, f"{reason}\n")


def before(file: Path) -> Path:
    """The name under which the old file stays."""
    return file.with_name(f".{file.name}.before")


def keep_before(file: Path) -> None:
    """Keep a file that will be replaced or removed, not written to."""
    before(file).unlink(missing_ok=True)  # of a killed run
    if file.is_file():
        try:
            os.link(file, before(file))
        except OSError:  # a file system without links
            shutil.copy2(file, before(file))


def put_back(file: Path) -> None:
    """Undo what was done since :func:`keep_before`."""
    if before(file).is_file():
        os.replace(before(file), file)
    else:
        file.unlink(missing_ok=True)


def failure(
    log: Path, began: int, name: str, status: int, typed: Typed | None = None, extra: Sequence[str] = ()
) -> UserError:
    """Why a fairseq command failed: its own message; without one, the end of its log is printed.

    Args:
        log: its output, from the byte ``began`` on.
        typed, extra: see :class:`Stage`.
    """
    with open(log, "rb") as file:
        file.seek(began)
        text = file.read().decode("utf-8", "replace")
    if refused := refusal(text):
        return UserError(f"{(typed or Typed()).message(refused, extra)} (log: {log})")
    print(*text.splitlines()[-20:], sep="\n", file=sys.stderr)
    return UserError(f"{name} ended with status {status}; the whole log is in {log}")


def refusal(text: str) -> str:
    """The message of a fairseq command in its output; empty if it has none."""
    found = re.search(r"^(?:dual_fairseq|fairseq-[a-z]+): error: (.*)", text, re.MULTILINE)
    return found[1] if found else ""


def updates_of(stage: StageFolder) -> Shell:
    """For a dry run: shell code for the number of updates of a stage that is not trained yet."""
    question = shlex.join(["python", "-m", "dual_fairseq", "pipeline.probe", "updates", str(stage.last)])
    return Shell(f'"$({question})"')
