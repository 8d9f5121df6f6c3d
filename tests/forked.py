"""``fairseq-<command>`` in a process of its own that does not import torch and fairseq: a fork of one that has, once.

Only fairseq is there already, nothing of ours: ``--user-dir`` loads the plugin, as in a user's process. As a program this
file is the server: a line is a request, the answer is the exit status, negative for a signal.
"""

from __future__ import annotations

import atexit
import importlib
import json
import logging
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence

_servers: list[subprocess.Popen] = []


def run(command: str, arguments: Sequence[str], environment: Mapping[str, str]) -> tuple[int, str]:
    """The exit status, and what was printed: standard output, then standard error."""
    if not _servers:
        pipe = subprocess.PIPE
        _servers.append(subprocess.Popen([sys.executable, __file__], stdin=pipe, stdout=pipe, text=True))
        atexit.register(_servers[0].communicate)
    server = _servers[0]
    with tempfile.NamedTemporaryFile() as out, tempfile.NamedTemporaryFile() as err:
        request = [out.name, err.name, dict(environment), os.getcwd(), command, *arguments]
        print(json.dumps(request), file=server.stdin, flush=True)
        status = int(server.stdout.readline())
        return status, (out.read() + err.read()).decode()


def _serve() -> None:
    import fairseq.trainer
    import torch._dynamo  # as the first optimizer does

    logging.getLogger().handlers.clear()  # a command sets up its own
    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            return _fairseq(*json.loads(line))
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)


def _fairseq(output: str, errors: str, environment: dict[str, str], folder: str, command: str, *arguments: str) -> None:
    for descriptor, path in enumerate((os.devnull, output, errors)):
        os.dup2(os.open(path, os.O_RDWR | os.O_APPEND), descriptor)
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    sys.argv = [f"fairseq-{command}", *arguments]
    sys.path[0] = environment["PYTHONPATH"]
    importlib.import_module(f"fairseq_cli.{command}").cli_main()


if __name__ == "__main__":
    _serve()
