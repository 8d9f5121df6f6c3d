"""Commands as forks of one process that has imported torch and fairseq, which takes longer than a short command.

As a program this file is that process. It has loaded nothing of this package: a command does, as when it is started.
A forked command that starts others has them forked, too, from the same process.
It is not for machines with a GPU: where importing torch or fairseq touches the driver, no fork can use the GPU.
"""

from __future__ import annotations

import atexit
import gc
import importlib.metadata
import io
import json
import logging
import os
import runpy
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import cache, partial
from pathlib import Path
from typing import Any

_VARIABLE = "DUAL_FAIRSEQ_FORKS"  # the socket to the process that forks, in a fork: descriptor and inode
_GPUS = ("nvidia0", "nvidiactl", "nvgpu", "nvhost-gpu", "dxg", "kfd")  # of Linux, Jetson, Windows' Linux, AMD


class Fork:
    """A running command: what :class:`subprocess.Popen` has of the same names."""

    def __init__(self, answers: socket.socket) -> None:
        self._answers = answers
        self.pid = self._answer()
        self.returncode: int | None = None

    def _answer(self) -> int:
        answer = self._answers.recv(8, socket.MSG_WAITALL)
        return int.from_bytes(answer, sys.byteorder, signed=True) if answer else -signal.SIGKILL

    def wait(self, timeout: float | None = None) -> int:
        if self.returncode is None:
            self._answers.settimeout(timeout)
            try:
                self.returncode = self._answer()
            except TimeoutError:
                raise subprocess.TimeoutExpired("", timeout or 0) from None
            self._answers.close()
        return self.returncode

    def poll(self) -> int | None:
        try:
            return self.wait(1e-6)
        except subprocess.TimeoutExpired:
            return None


def forkable(command: Sequence[str]) -> bool:
    """Whether a command can be a fork, and the process to fork it from is ready."""
    ours = list(command[:3]) == [sys.executable, "-m", "dual_fairseq"] or command[0].startswith("fairseq-")
    return ours and not any(os.path.exists(f"/dev/{name}") for name in _GPUS) and _server() is not None


def fork(
    command: Sequence[str], descriptors: Sequence[int], environment: Mapping[str, str], folder: Path | None = None
) -> Fork:
    """Start a :func:`forkable` command in a process group of its own, without input.

    Args:
        command: its words.
        descriptors: standard output, standard error, and what else it is to keep open.
        environment: the environment variables.
        folder: the current directory; by default that of this process.
    """
    server = _server()
    assert server is not None
    answers, theirs = socket.socketpair()
    with theirs, tempfile.TemporaryFile("w+") as request:
        json.dump([list(command), dict(environment), str(folder or Path.cwd())], request)
        request.seek(0)
        socket.send_fds(server, [b"\0"], [request.fileno(), theirs.fileno(), server.fileno(), *descriptors])
    return Fork(answers)


@cache
def _server() -> socket.socket | None:
    from ..common.interruption import held_back  # not above: as a program this file is in no package

    with suppress(ValueError, OSError):
        descriptor, inode = map(int, os.environ.pop(_VARIABLE, "").split(":"))
        if os.fstat(descriptor).st_ino == inode:
            return socket.socket(fileno=descriptor)
    ours, theirs = socket.socketpair()
    command, null = [sys.executable, "-P", "-u", __file__], subprocess.DEVNULL
    with theirs, held_back():
        process = subprocess.Popen(command, stdin=theirs.fileno(), stdout=null, stderr=null, process_group=0)
        atexit.register(_stop, process)
    return ours if ours.recv(1) else None  # where it fails, so would the command, and that says why


def _stop(server: subprocess.Popen) -> None:
    server.kill()  # by itself it would end after its imports
    server.wait()


# --- the process that is forked


def _serve() -> Callable[[], Any] | None:
    """In a fork: its command."""
    import fairseq.trainer  # noqa: F401
    import torch._dynamo  # noqa: F401  (as the first optimizer does)

    logging.getLogger().handlers.clear()  # a command sets up its own
    gc.freeze()
    requests = socket.socket(fileno=0)
    requests.send(b"\0")
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    while descriptors := socket.recv_fds(requests, 1, 64)[1]:
        if _fork() == 0:
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            requests.detach()  # standard input is to be another
            return _keep(*descriptors)
        for descriptor in descriptors:
            os.close(descriptor)
    return None


def _fork() -> int:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # numpy has threads, which it ends before a fork
        return os.fork()


def _keep(request: int, answers: int, *descriptors: int) -> Callable[[], Any]:
    """Fork the command, and answer its process's number and exit status."""
    job = _fork()
    if job == 0:
        os.setpgid(0, 0)
        os.close(answers)
        return _command(request, *descriptors)
    for descriptor in descriptors:
        os.close(descriptor)
    with socket.socket(fileno=answers) as client:
        with suppress(PermissionError, ProcessLookupError):
            os.setpgid(job, job)  # before anybody learns of it
        for answer in (lambda: job, lambda: os.waitstatus_to_exitcode(os.waitpid(job, 0)[1])):
            client.send(answer().to_bytes(8, sys.byteorder, signed=True))
    os._exit(0)


def _command(request: int, server: int, output: int, errors: int, *kept: int) -> Callable[[], Any]:
    with open(request) as file:
        words, environment, folder = json.load(file)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    for name, descriptor, target in (("stdout", 1, output), ("stderr", 2, errors)):
        os.dup2(target, descriptor)
        before = getattr(sys, name)  # it knows whether its file can be sought in, and that was another
        stream = io.TextIOWrapper(io.FileIO(descriptor, "w"), before.encoding, before.errors, write_through=True)
        setattr(sys, name, stream)
        setattr(sys, f"__{name}__", stream)
    os.environ.clear()
    os.environ.update(environment)
    os.environ[_VARIABLE] = f"{server}:{os.fstat(server).st_ino}"
    os.chdir(folder)
    sys.path[:0] = [path for path in environment.get("PYTHONPATH", "").split(os.pathsep) if path not in sys.path]
    if words[0] == sys.executable:
        sys.argv = words[1:2] + words[3:]
        return partial(_module, words[2])
    sys.argv = words
    (script,) = importlib.metadata.entry_points(group="console_scripts", name=words[0])
    return script.load()


def _module(name: str) -> None:
    runpy.run_module(name, run_name="__main__", alter_sys=True)


def _end(run: Callable[[], Any]) -> None:
    """Run a command, and end without taking down what was imported, which takes a second of page copies."""
    status: Any = 1
    try:
        status = run()
    except SystemExit as error:
        status = error.code
        if isinstance(status, str):
            print(status, file=sys.stderr)
    except BaseException:
        sys.excepthook(*sys.exc_info())
    for thread in threading.enumerate():
        if thread is not threading.main_thread() and not thread.daemon:
            thread.join()
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with suppress(Exception):
            stream.flush()
    os._exit(status if isinstance(status, int) else status is not None)


if __name__ == "__main__":
    if _run := _serve():
        _end(_run)
