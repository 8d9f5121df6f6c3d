"""Trainings by fairseq-train that are done once, go on where they were stopped, and refuse other options."""

from __future__ import annotations

import difflib
import hashlib
import re
import shlex
import shutil
import sys
import time
import zipfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ..common.errors import UserError
from ..common.files import sha256, whole_file
from ..common.folders import StageFolder
from .devices import Device
from .jobs import PACKAGE, Shell, ask, run, say, step
from .progress import TrainingDisplay

# Of every training; none of them changes its result.
_ALWAYS = "--skip-invalid-size-inputs-valid-test --no-epoch-checkpoints --log-format json --log-interval 50".split()


def digest(*files: Path) -> str:
    """One digest of the contents of files, whatever their names."""
    lines = "".join(f"{sha256(file)}  -\n" for file in files)  # as `sha256sum <file` prints it
    return hashlib.sha256(lines.encode()).hexdigest()


def option_lines(words: Iterable[str]) -> list[str]:
    """Options of a command line, each on a line with its values."""
    lines: list[str] = []
    for word in words:
        if word.startswith("--") or not lines:
            lines.append(word)
        else:
            lines[-1] += f" {word}"
    return lines


def is_whole(checkpoint: Path) -> bool:
    """Whether a checkpoint was written to its end: it is a zip archive, whose directory comes last."""
    return zipfile.is_zipfile(checkpoint)


@dataclass
class Stage:
    """A training in a folder of its own.

    Args:
        files: the folder.
        title: what is trained, for people.
        data: the folder of binarized data.
        inputs: lines that name the input by digests.
        options: of fairseq-train, that decide about the result with ``inputs``, ``max_update`` and ``extra``.
        start: further options, such as the paths of what it starts from.
        max_update: the number of updates; None for no limit; unknown before other stages are trained (``Shell``).
        extra: options of the user's for fairseq-train, which win.
    """

    files: StageFolder
    title: str
    data: Path
    inputs: list[str]
    options: list[str]
    start: list[str] = field(default_factory=list)
    max_update: str | None = None
    extra: list[str] = field(default_factory=list)

    def identity(self) -> list[str]:
        """The lines of ``options.txt``: what decides about the result."""
        words = [*self.options, "--max-update", self.max_update or "none", *self.extra]
        return [*self.inputs, *option_lines(words)]

    def command(self, device: Device, shown: bool = False) -> list[str]:
        """The command that trains it."""
        words = [*device.launch(shown), str(self.data), "--user-dir", str(PACKAGE), *self.options, *self.start]
        # epochs are kept where they are averaged
        always = [word for word in _ALWAYS if word != "--no-epoch-checkpoints" or "--keep-last-epochs" not in words]
        words += [*always, *self.extra, "--save-dir", str(self.files.folder), *device.options]
        return words + (["--max-update", self.max_update] if self.max_update else [])

    def do(self, device: Device, go_on: bool) -> None:
        """Train, unless it is finished: :meth:`begin`, then :meth:`train`."""
        if self.begin(go_on):
            self.train(device)

    def begin(self, go_on: bool) -> bool:
        """Whether there is something to train.

        Args:
            go_on: whether a training with other options or input is continued.

        Raises:
            UserError: the folder holds a training with other options or input, or a damaged checkpoint.
        """
        files, identity = self.files, self.identity()
        if files.finished.is_file() or files.last.is_file():
            if changes := _changes(files.recorded(), identity):
                if not go_on:
                    raise UserError(
                        f"{files.folder} was trained with other options or input ({changes}): choose another folder, "
                        "delete this one to train anew, or give --continue to go on from its last checkpoint"
                    )
                files.finished.unlink(missing_ok=True)
            elif files.finished.is_file():
                return False
        if files.last.is_file() and not is_whole(files.last):
            # fairseq copies the best over the last in place: killed right then, it leaves a torn copy.
            if not is_whole(files.best):
                raise UserError(f"{files.last} is damaged: delete {files.folder} to train anew")
            with open(files.best, "rb") as best, whole_file(files.last) as last:
                shutil.copyfileobj(best, last)
        try:
            files.folder.mkdir(parents=True, exist_ok=True)
            for left in files.folder.glob("*.tmp"):
                left.unlink()
            with whole_file(files.options_file) as record:
                record.write("".join(f"{line}\n" for line in identity).encode("utf-8", "surrogateescape"))
        except OSError as error:
            raise UserError(f"cannot write to {files.folder} ({error.strerror}): choose another or fix it") from error
        return True

    def train(self, device: Device) -> None:
        """Run fairseq-train to its end, its log appended to ``train.log``, and note that it has finished.

        Raises:
            UserError: fairseq-train failed.
        """
        files = self.files
        if files.last.is_file():
            made = int(ask(step("pipeline.probe", "updates", files.last)))
            # fairseq looks at --max-update after an update only, and so would make one too many.
            if self.max_update and made >= int(self.max_update):
                files.finished.touch()
                return
            say(f"  going on after update {made}")
        command = self.command(device)
        began = files.log.stat().st_size if files.log.exists() else 0
        with open(files.log, "a", encoding="utf-8", errors="surrogateescape") as log:
            log.write(f"\n# started {time.strftime('%FT%T')}\n# {shlex.join(command)}\n")
        status = run(command, files.log, TrainingDisplay())
        if status:
            raise failure(files.log, began, "fairseq-train", status)
        if not files.best.is_file():
            raise UserError(f"fairseq-train wrote no {files.best}; see {files.log}")
        files.finished.touch()


def failure(log: Path, began: int, name: str, status: int) -> UserError:
    """Why a fairseq command failed: what it says in one line, else the end of its log is shown.

    Args:
        log: its output, which began at that byte.
    """
    with open(log, "rb") as file:
        file.seek(began)
        text = file.read().decode("utf-8", "replace")
    refusal = re.search(r"^(?:dual_fairseq|fairseq-[a-z]+): error: (.*)", text, re.MULTILINE)
    if refusal:
        return UserError(f"{refusal[1]} (log: {log})")
    print(*text.splitlines()[-20:], sep="\n", file=sys.stderr)
    return UserError(f"{name} ended with status {status}; the whole log is in {log}")


# Earlier versions had a limit of their own for the length of validation's translations.
_EARLIER_LIMIT = ', "max_len_a": 1.2, "max_len_b": 10'


def _changes(old: Sequence[str], new: Sequence[str]) -> str:
    """How two records of options differ, in words; empty when they do not."""
    names = [line.partition(" ")[0] for line in new]
    old = [line.replace(_EARLIER_LIMIT, "") for line in old]
    if sorted(old) == sorted(new) and len(set(names)) == len(names):  # the order of options means nothing
        return ""
    words = []
    for _, a, b, c, d in difflib.SequenceMatcher(None, old, new, autojunk=False).get_opcodes():
        if old[a:b] != new[c:d]:
            words += [f"was: {line}" for line in old[a:b]] + [f"now: {line}" for line in new[c:d]]
    return ", ".join(words)


def updates_of(stage: StageFolder) -> Shell:
    """For a dry run: the number of updates of a stage that is not trained yet, as the shell finds it out."""
    question = shlex.join(["python", "-m", "dual_fairseq", "pipeline.probe", "updates", str(stage.last)])
    return Shell(f'"$({question})"')
