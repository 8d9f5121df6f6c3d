"""Runs commands so that none of their processes is left behind, and folders that one run at a time may use."""

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
_PATIENCE = 30.0  # seconds that a job has to end by itself when it is asked to
_locks: list[int] = []


class Shell(str):
    """A word of a command that the shell has to evaluate when a dry run's output is copied."""


def say(text: str) -> None:
    """Print a line, or several, at once, also where the output is a pipe."""
    print(printable(text, kept="\n\t"), flush=True)


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Make a folder, and keep it for this process and the jobs that it starts.

    Jobs inherit the lock: as long as one of them lives, even after a ``kill -9`` of this process, the folder is taken.
    (The package filelock has no descriptor to inherit.) A new folder that gets no file is removed in the end.

    Raises:
        UserError: another run is at work there, or the folder cannot be written to.
    """
    made = [path for path in (folder, *folder.parents) if not path.exists()]
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
            if made and os.listdir(folder) == [".lock"]:
                (folder / ".lock").unlink()
                with suppress(OSError):  # a parent that holds something by now
                    for path in made:
                        path.rmdir()
    finally:
        os.close(descriptor)


def step(name: str, *arguments: object) -> list[str]:
    """The command ``dual-fairseq NAME`` of this package, where NAME is a command or a module."""
    return [sys.executable, "-m", "dual_fairseq", name, *map(str, arguments)]


def program(name: str) -> str:
    """The path of a program of this environment.

    Raises:
        UserError: it is not installed.
    """
    places = [os.path.dirname(sys.executable), os.environ.get("PATH", os.defpath)]
    found = shutil.which(name, path=os.pathsep.join(places))
    if found is None:
        raise UserError(
            f"{name} is not installed for {sys.executable}: run 'make setup' in the checkout and use its .venv, or "
            "activate the environment that has fairseq"
        )
    return found


def show(title: str, command: Sequence[str], output: Path | None = None) -> None:
    """Print a command, an option a line, so that it can be copied into a shell; ``output`` gets what it prints."""
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

    Whatever ends this function early ends the whole group, also the processes that the command has started.

    Args:
        command: the first word is a path, or the name of a program of this environment.
        output: the file that gets what it prints, at the end; None: it prints where this process does.
        see: gets each line of the output.
        errors: where its standard error goes; by default to the output.

    Returns:
        The exit status, negative for a signal.
    """
    first = command[0] if os.path.isabs(command[0]) else program(command[0])
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
                    process = _start([first, *command[1:]], file, errors if file else None)
            if log is not None and see is not None:
                _follow(process, log, see)
            return process.wait()
        except BaseException:
            if process is not None:
                _end(process)
            raise


def check(command: Sequence[str], output: Path | None = None) -> None:
    """Run a command that has to succeed; where it fails, it has said why, unless a signal ended it.

    Args:
        command, output: as in :func:`run`; its standard error goes where this process's does.

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
    """What a command prints, which has to succeed, as in :func:`check`."""
    with tempfile.TemporaryDirectory() as folder:
        answer = Path(folder) / "answer"
        check(command, answer)
        return answer.read_text(encoding="utf-8").strip()


def environment() -> dict[str, str]:
    """That of a command: it uses this package, and no module of the current directory in place of a library's."""
    variables = {**os.environ, "PYTHONUNBUFFERED": "1", "PYTHONSAFEPATH": "1"}
    if str(PACKAGE.parent) not in site.getsitepackages():
        others = variables.get("PYTHONPATH")
        variables["PYTHONPATH"] = str(PACKAGE.parent) + (os.pathsep + others if others else "")
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
    """See the lines of the output while they come."""
    rest = b""
    ended = False
    while not ended:
        with suppress(subprocess.TimeoutExpired):
            process.wait(0.1)
        ended = process.poll() is not None
        *lines, rest = (rest + log.read()).split(b"\n")
        for line in lines:
            see(line.decode("utf-8", "replace"))


def _end(process: Fork | subprocess.Popen) -> None:
    """End all processes of a job: gently at first. A second signal does not wait any longer."""
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
