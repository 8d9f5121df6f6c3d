"""Runs commands without leaving processes behind, and locks folders for one run at a time."""

from __future__ import annotations

import fcntl
import os
import shlex
import shutil
import signal
import site
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import IO

from ..common.errors import UserError, printable
from ..common.interruption import held_back
from .forks import Fork, fork, forkable

PACKAGE = Path(__file__).resolve().parent.parent
_PATIENCE = 30.0  # seconds that a job has to end by itself after SIGTERM
_locks: list[int] = []


class Shell(str):
    """A word of a command that the shell must evaluate when a user copies the output of a dry run."""


def say(text: str) -> None:
    """Print one or more lines at once, even into a pipe."""
    print(printable(text, kept="\n\t"), flush=True)


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Make a folder, and lock it for this process and its jobs.

    Jobs inherit the lock: the folder stays locked as long as one of them lives, even after a ``kill -9`` of this one.
    (The package filelock has no descriptor to inherit.) A new folder that gets no file is removed at the end.

    Raises:
        UserError: another run is using the folder, or the folder cannot be written to.
    """
    new_folders = [path for path in (folder, *folder.parents) if not path.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(folder / ".lock", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o666)
    except OSError as error:
        raise UserError(f"cannot write to {folder} ({error.strerror}): choose another folder or fix it") from error
    try:
        with suppress(OSError):  # a file system without locks
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise UserError(f"another run is using {folder}: wait for it, or stop it") from None
        _locks.append(descriptor)
        try:
            yield
        finally:
            _locks.remove(descriptor)
            if new_folders and os.listdir(folder) == [".lock"]:
                (folder / ".lock").unlink()
                with suppress(OSError):  # a parent that is not empty any more
                    for path in new_folders:
                        path.rmdir()
    finally:
        os.close(descriptor)


def step(name: str, *arguments: object) -> list[str]:
    """The command ``dual-fairseq NAME`` of this package; NAME is a command or a step."""
    return [sys.executable, "-m", "dual_fairseq", name, *map(str, arguments)]


def program(name: str) -> str:
    """The path of a program of this environment.

    Raises:
        UserError: it is not installed.
    """
    places = [os.path.dirname(sys.executable), os.environ.get("PATH", os.defpath)]
    path = shutil.which(name, path=os.pathsep.join(places))
    if path is None:
        raise UserError(
            f"{name} is not installed for {sys.executable}: run 'make setup' in the checkout and use its .venv, or "
            "activate the environment that has fairseq"
        )
    return path


def show(title: str, command: Sequence[str], output: Path | None = None) -> None:
    """Print a command, one option per line, ready to copy into a shell; ``output`` gets the command's output."""
    if list(command[:3]) == step("")[:3]:
        command = ["python", *command[1:]]
    lines: list[list[str]] = [[]]
    for word in command:
        if word.startswith("--") and len(word) > 2:
            lines.append([])
        lines[-1].append(word if isinstance(word, Shell) else shlex.quote(word))
    if output is not None:
        lines.append([f">{shlex.quote(str(output))} 2>&1"])
    say(f"\n# {title}\n" + " \\\n    ".join(map(" ".join, lines)))


def run(
    command: Sequence[str],
    output: Path | None = None,
    see: Callable[[str], None] | None = None,
    errors: int | None = subprocess.STDOUT,
) -> int:
    """Run a command in a process group of its own, without input.

    If this function ends early, the whole group is ended, including processes that the command has started.

    Args:
        command: the first word is a path, or the name of a program of this environment.
        output: the file that its output is appended to; None: the output of this process.
        see: gets each line of the output.
        errors: where its standard error goes; by default to the output.

    Returns:
        The exit status, negative for a signal.
    """
    executable = command[0] if os.path.isabs(command[0]) else program(command[0])
    forked = forkable(command)
    process: Fork | subprocess.Popen | None = None
    with ExitStack() as stack:
        file = stack.enter_context(open(output, "ab")) if output else None
        log = stack.enter_context(open(output, "rb")) if output else None
        if log is not None:
            log.seek(0, os.SEEK_END)
        try:
            with held_back():
                if forked:
                    out = file.fileno() if file else 1
                    process = fork(command, [out, out if file and errors else 2, *_locks], environment())
                else:
                    process = _start([executable, *command[1:]], file, errors if file else None)
            if log is not None and see is not None:
                _follow(process, log, see)
            return process.wait()
        except BaseException:
            if process is not None:
                _end(process)
            raise


def check(command: Sequence[str], output: Path | None = None) -> None:
    """Run a command that must succeed; if it fails, it has printed the reason, unless a signal ended it.

    Args:
        command, output: as in :func:`run`; standard error is that of this process.

    Raises:
        UserError: a signal ended it.
        SystemExit: it failed.
    """
    status = run(command, output, errors=None)
    if status < 0:
        name = " ".join(command[1:4]) if command[0] == sys.executable else command[0]
        raise UserError(f"{name} was ended by {signal.Signals(-status).name}")
    if status:
        sys.exit(status)


def ask(command: Sequence[str]) -> str:
    """The output of a command that must succeed, as in :func:`check`."""
    with tempfile.TemporaryDirectory() as folder:
        answer = Path(folder) / "answer"
        check(command, answer)
        return answer.read_text(encoding="utf-8").strip()


def environment() -> dict[str, str]:
    """A command's environment: it uses this package; a module of the current directory never replaces a library."""
    variables = {**os.environ, "PYTHONUNBUFFERED": "1", "PYTHONSAFEPATH": "1"}
    if str(PACKAGE.parent) not in site.getsitepackages():
        python_path = variables.get("PYTHONPATH")
        variables["PYTHONPATH"] = str(PACKAGE.parent) + (os.pathsep + python_path if python_path else "")
    return variables


def _start(command: Sequence[str], output: IO[bytes] | None, errors: int | None) -> subprocess.Popen:
    return subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=errors,
        env=environment(),
        process_group=0,
        pass_fds=_locks,
    )


def _follow(process: Fork | subprocess.Popen, log: IO[bytes], see: Callable[[str], None]) -> None:
    """Pass each line of the output to ``see`` as it comes."""
    unfinished = b""
    ended = False
    while not ended:
        with suppress(subprocess.TimeoutExpired):
            process.wait(0.1)
        ended = process.poll() is not None
        *lines, unfinished = (unfinished + log.read()).split(b"\n")
        for line in lines:
            see(line.decode("utf-8", "replace"))


def _end(process: Fork | subprocess.Popen) -> None:
    """End all processes of a job, first with SIGTERM. A second signal to this process ends the wait."""
    with suppress(ProcessLookupError):
        try:
            os.killpg(process.pid, signal.SIGTERM)
            deadline = time.monotonic() + _PATIENCE
            while time.monotonic() < deadline:
                process.poll()
                os.killpg(process.pid, 0)
                time.sleep(0.05)
        except KeyboardInterrupt:
            pass
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
