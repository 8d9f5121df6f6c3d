"""Runs commands as forks of one process that has already imported torch and fairseq.

The imports take longer than a short command. As a program, this file is that process. It loads nothing of this package:
each command does so itself. If a forked command starts other commands, the same process forks them. Machines with a GPU
do not use forks: if importing torch or fairseq touches the driver, no fork can use the GPU.
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

_VARIABLE = "DUAL_FAIRSEQ_FORKS"  # in a fork, the socket to the forking process: descriptor and inode
_GPUS = ("nvidia0", "nvidiactl", "nvgpu", "nvhost-gpu", "dxg", "kfd")  # on Linux, Jetson, Windows' Linux, AMD


class Fork:
    """A running command, with some of the names of :class:`subprocess.Popen`."""

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
    """Whether a command can be a fork and the forking process is ready."""
    is_ours = list(command[:3]) == [sys.executable, "-m", "dual_fairseq"] or command[0].startswith("fairseq-")
    return is_ours and not any(os.path.exists(f"/dev/{name}") for name in _GPUS) and _server() is not None


def fork(
    command: Sequence[str], descriptors: Sequence[int], environment: Mapping[str, str], folder: Path | None = None
) -> Fork:
    """Start a :func:`forkable` command in a process group of its own, without input.

    Args:
        command: its words.
        descriptors: standard output, standard error, and others to keep open.
        environment: the environment variables.
        folder: its current directory; by default that of this process.
    """
    server = _server()
    assert server is not None
    answers, server_end = socket.socketpair()
    with server_end, tempfile.TemporaryFile("w+") as request:
        json.dump([list(command), dict(environment), str(folder or Path.cwd())], request)
        request.seek(0)
        socket.send_fds(server, [b"\0"], [request.fileno(), server_end.fileno(), server.fileno(), *descriptors])
    return Fork(answers)


@cache
def _server() -> socket.socket | None:
    from ..common.interruption import held_back  # not at the top: as a program, this file is in no package

    with suppress(ValueError, OSError):
        descriptor, inode = map(int, os.environ.pop(_VARIABLE, "").split(":"))
        if os.fstat(descriptor).st_ino == inode:
            return socket.socket(fileno=descriptor)
    our_end, server_end = socket.socketpair()
    command, null = [sys.executable, "-P", "-u", __file__], subprocess.DEVNULL
    with server_end, held_back():
        process = subprocess.Popen(command, stdin=server_end.fileno(), stdout=null, stderr=null, process_group=0)
        atexit.register(_stop, process)
    return our_end if our_end.recv(1) else None  # if the imports fail, the command fails too and says why


def _stop(server: subprocess.Popen) -> None:
    server.kill()  # otherwise it would first finish its imports
    server.wait()


# --- the forking process


def _serve() -> Callable[[], Any] | None:
    """Answer requests for forks; in a fork, return its command."""
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
            requests.detach()  # standard input will be replaced
            return _keep(*descriptors)
        for descriptor in descriptors:
            os.close(descriptor)
    return None


def _fork() -> int:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # numpy has threads, which it ends before a fork
        return os.fork()


def _keep(request: int, answers: int, *descriptors: int) -> Callable[[], Any]:
    """Fork the command, and send its process ID and exit status to the client."""
    job = _fork()
    if job == 0:
        os.setpgid(0, 0)
        os.close(answers)
        return _command(request, *descriptors)
    for descriptor in descriptors:
        os.close(descriptor)
    with socket.socket(fileno=answers) as client:
        with suppress(PermissionError, ProcessLookupError):
            os.setpgid(job, job)  # before the client gets the ID
        for answer in (lambda: job, lambda: os.waitstatus_to_exitcode(os.waitpid(job, 0)[1])):
            client.send(answer().to_bytes(8, sys.byteorder, signed=True))
    os._exit(0)


def _command(request: int, server: int, output: int, errors: int, *kept: int) -> Callable[[], Any]:
    with open(request) as file:
        words, environment, folder = json.load(file)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    for name, descriptor, target in (("stdout", 1, output), ("stderr", 2, errors)):
        os.dup2(target, descriptor)
        old = getattr(sys, name)  # not reused: it remembers whether its old file was seekable
        stream = io.TextIOWrapper(io.FileIO(descriptor, "w"), old.encoding, old.errors, write_through=True)
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
    """Run a command, and exit without unloading the imports, which would take a second of page copies."""
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
