"""Trainings by fairseq-train that run once, continue if they were stopped, and refuse other options."""

from __future__ import annotations

import difflib
import hashlib
import math
import re
import shlex
import shutil
import sys
import time
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ..common.errors import UserError
from ..common.files import sha256, whole_file
from ..common.folders import StageFolder, option_line
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
        typed: option of fairseq-train → the user's option for it, if the names differ.
    """

    files: StageFolder
    title: str
    data: Path
    inputs: list[str]
    options: list[str]
    start: list[str] = field(default_factory=list)
    max_update: str | None = None
    extra: list[str] = field(default_factory=list)
    typed: dict[str, str] = field(default_factory=dict)

    def identity(self) -> list[str]:
        """The lines of ``options.txt``: everything that affects the result."""
        words = [*self.options, "--max-update", self.max_update or "none", *self.extra]
        return [*self.inputs, *option_lines(words)]

    def command(self, device: Device, shown: bool = False) -> list[str]:
        """The command that trains it."""
        words = [*device.launch(shown), str(self.data), "--user-dir", str(PACKAGE), *self.options, *self.start]
        # epochs are kept if they will be averaged
        always = [word for word in _ALWAYS if word != "--no-epoch-checkpoints" or "--keep-last-epochs" not in words]
        words += [*always, *self.extra, "--save-dir", str(self.files.folder), *device.options]
        return words + (["--max-update", self.max_update] if self.max_update else [])

    def do(self, device: Device, go_on: bool) -> None:
        """Train, unless it is finished: :meth:`begin`, then :meth:`train`."""
        if self.begin(go_on):
            self.train(device)

    def begin(self, go_on: bool) -> bool:
        """Prepare the folder; returns whether there is something to train.

        Args:
            go_on: whether a training with other options or input is continued.

        Raises:
            UserError: the folder holds a training with other options or input, or a damaged checkpoint.
        """
        files, identity = self.files, self.identity()
        for file in (files.log, files.finished):
            if file.is_symlink():  # writing would change the other file
                raise UserError(f"{file}: is a link to another file; remove it, or choose another folder")
        files.check_finished()
        if files.finished.is_file() or files.best.is_file() or files.last.is_file():
            recorded = files.recorded()
            raised = self._raised(recorded, identity)
            if changes := _changes(recorded, identity, self.typed, LIMITS if raised is not None else ()):
                if not go_on:
                    raise UserError(
                        f"{files.folder} was trained with other options or input ({changes}): choose another folder, "
                        "delete this one to train again, or give --continue to continue from its last checkpoint"
                    )
            elif files.finished.is_file():
                patience = files.finished.read_text(encoding="utf-8").startswith(PATIENCE)
                if not raised or (patience and "patience" not in raised):
                    return False
            if files.best.is_file() and not files.last.is_file():
                # it stopped before the first copy of the best was made, or someone deleted the file
                say(f"  {files.last} is missing: continuing from {files.best.name}")
                self._copy_best()
        if files.last.is_file() and not is_whole(files.last):
            # fairseq copies the best over the last in place. If it is killed meanwhile, the copy is incomplete.
            if not is_whole(files.best):
                raise UserError(f"{files.last} is damaged: delete {files.folder} to train again")
            self._copy_best()
        try:
            files.folder.mkdir(parents=True, exist_ok=True)
            for leftover in files.folder.glob("*.tmp"):
                leftover.unlink()
            with whole_file(files.options_file) as record:
                record.write("".join(f"{line}\n" for line in identity).encode("utf-8", "surrogateescape"))
            files.finished.unlink(missing_ok=True)
        except OSError as error:
            raise UserError(f"cannot write to {files.folder} ({error.strerror}): choose another or fix it") from error
        return True

    def finished_before(self) -> str:
        """A line for a finished training, with the reason why it stopped, if known."""
        reason = self.files.finished.read_text(encoding="utf-8").strip()
        return f"{self.title}: finished before ({self.files.folder})" + (f"; {reason}" if reason else "")

    def _copy_best(self) -> None:
        with open(self.files.best, "rb") as best, whole_file(self.files.last) as last:
            shutil.copyfileobj(best, last)

    @staticmethod
    def _raised(old: Sequence[str], new: Sequence[str]) -> list[str] | None:
        """The limits that are higher than before; None if one of them is lower."""
        raised = []
        for name in LIMITS:
            before, now = (_limit(lines, name) for lines in (old, new))
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
        files = self.files
        if files.last.is_file():
            updates = int(ask(step("pipeline.probe", "updates", files.last)))
            # fairseq checks --max-update only after an update, so it would make one too many.
            if self.max_update and updates >= int(self.max_update):
                files.finished.write_text(f"{self._option('max-update')} {self.max_update}\n")
                return
            say(f"  continuing after update {updates}")
        command = self.command(device)
        began = files.log.stat().st_size if files.log.exists() else 0
        with open(files.log, "a", encoding="utf-8", errors="surrogateescape") as log:
            log.write(f"\n# started {time.strftime('%FT%T')}\n# {shlex.join(command)}\n")
        display = TrainingDisplay(self.max_update, _value(self.identity(), "max-epoch"))
        status = run(command, files.log, display)
        if status:
            raise failure(files.log, began, "fairseq-train", status)
        if not files.best.is_file():
            raise UserError(f"fairseq-train wrote no {files.best}; see {files.log}")
        reason = display.reason(self._option)
        say(f"  {reason}")
        with whole_file(files.finished) as file:
            file.write(f"{reason}\n".encode())

    def _option(self, name: str) -> str:
        """What the user types for an option of fairseq-train."""
        return self.typed.get(name, f"--{name}")


def failure(log: Path, began: int, name: str, status: int) -> UserError:
    """Why a fairseq command failed: its own message; without one, the end of its log is printed.

    Args:
        log: its output, from the byte ``began`` on.
    """
    with open(log, "rb") as file:
        file.seek(began)
        text = file.read().decode("utf-8", "replace")
    refusal = re.search(r"^(?:dual_fairseq|fairseq-[a-z]+): error: (.*)", text, re.MULTILINE)
    if refusal:
        return UserError(f"{refusal[1]} (log: {log})")
    print(*text.splitlines()[-20:], sep="\n", file=sys.stderr)
    return UserError(f"{name} ended with status {status}; the whole log is in {log}")


# Earlier versions had their own limit for the length of translations in validation.
_EARLIER_LIMIT = ', "max_len_a": 1.2, "max_len_b": 10'
# The first word of a line that names an input by its digest → the name of the input.
_INPUTS = {
    "data": "the binarized text",
    "start": "the checkpoint that it starts from",
    "language": "the language models",
}


def _changes(old: Sequence[str], new: Sequence[str], typed: Mapping[str, str], left_out: Sequence[str] = ()) -> str:
    """How two records of options differ, in the words that a user types; empty if they do not.

    Args:
        typed: see :class:`Stage`.
        left_out: options whose values do not count.
    """
    old, new = ([line for line in lines if _name(line) not in left_out] for lines in (old, new))
    names = [line.partition(" ")[0] for line in new]
    old = [line.replace(_EARLIER_LIMIT, "") for line in old]
    if sorted(old) == sorted(new) and len(set(names)) == len(names):  # the order of options does not matter
        return ""
    inputs: list[str] = []
    words = []
    for _, a, b, c, d in difflib.SequenceMatcher(None, old, new, autojunk=False).get_opcodes():
        for label, lines in (("was", old[a:b]), ("now", new[c:d])) if old[a:b] != new[c:d] else ():
            for line in lines:
                if (first := line.partition(" ")[0]) in _INPUTS:
                    inputs.append(f"{_INPUTS[first]} changed")
                else:
                    option = typed.get(_name(line), f"--{_name(line)}")
                    words.append(f"{label}: {' '.join(filter(None, (option, line.partition(' ')[2])))}")
    return ", ".join([*dict.fromkeys(inputs), *words])


def _name(line: str) -> str:
    """The option of a line of a record, without its dashes."""
    return line.partition(" ")[0].removeprefix("--")


def _value(lines: Sequence[str], name: str) -> str | None:
    """The value of an option in a record; the last one of several counts."""
    return next((line.partition(" ")[2] for line in reversed(lines) if _name(line) == name), None)


def _limit(lines: Sequence[str], name: str) -> float:
    """A limit in a record; a limit of 0 (for patience: below 0) means no limit in fairseq."""
    try:
        value = float(_value(lines, name) or 0)
    except ValueError:  # "none"
        return math.inf
    return value if value > 0 else math.inf


def updates_of(stage: StageFolder) -> Shell:
    """For a dry run: shell code for the number of updates of a stage that is not trained yet."""
    question = shlex.join(["python", "-m", "dual_fairseq", "pipeline.probe", "updates", str(stage.last)])
    return Shell(f'"$({question})"')
