"""A run that a signal stops says where its last checkpoint is; one run at a time writes to a ``--save-dir``."""

from __future__ import annotations

import atexit
import fcntl
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import fairseq.distributed.utils as distributed_utils
from fairseq import checkpoint_utils

from ..common.errors import UserError

# fairseq-train answers Ctrl-C with a traceback and SIGTERM with nothing. It calls this function once, before anything
# else, in the process that writes checkpoints.
_verify_checkpoint_directory = checkpoint_utils.verify_checkpoint_directory


_USUAL = {
    signal.SIGINT: signal.default_int_handler,
    signal.SIGTERM: signal.SIG_DFL,
    signal.SIGHUP: signal.SIG_DFL,  # the terminal was closed
}


def verify_checkpoint_directory(save_dir: str) -> None:
    """Check that checkpoints can be written; on Ctrl-C, SIGTERM and SIGHUP, say where the last one is.

    Raises:
        UserError: the directory cannot be made or written to, or another run uses it.
    """
    try:
        _verify_checkpoint_directory(save_dir)
    except OSError as error:
        raise UserError(
            f"--save-dir {save_dir}: cannot be written ({error.strerror}); fix that or choose another"
        ) from error
    _lock(save_dir)
    if threading.current_thread() is not threading.main_thread():
        return
    for number, usual in _USUAL.items():
        if signal.getsignal(number) == usual:  # a program that embeds fairseq keeps its own handlers
            signal.signal(number, _stopper(save_dir, usual))


# Folders that runs of this process write to. The lock is on the folder itself, and leaves no file in it.
_locked: list[int] = []


def _lock(save_dir: str) -> None:
    """Keep other runs out of a folder until this one ends.

    Raises:
        UserError: another run uses the folder.
    """
    descriptor = os.open(save_dir, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise UserError(
            f"--save-dir {save_dir}: another run writes its checkpoints there; wait for its end or choose another"
        ) from None
    except OSError:  # a file system without locks
        os.close(descriptor)
        return
    _locked.append(descriptor)


def _unlock() -> None:
    while _locked:
        with suppress(OSError):
            os.close(_locked.pop())


# A data loader's worker that outlives its run for a moment does not keep the lock.
os.register_at_fork(after_in_child=_unlock)


def _stopper(save_dir: str, usual: Any) -> Callable[[int, Any], None]:
    owner = os.getpid()

    def stop(number: int, frame: Any) -> None:
        signal.signal(number, usual)  # a second signal ends the run at once
        if os.getpid() != owner:  # a data loader's worker, which PyTorch looks after
            if number == signal.SIGINT:
                raise KeyboardInterrupt
            os.kill(os.getpid(), number)
            return
        last = os.path.join(save_dir, "checkpoint_last.pt")
        if os.path.isfile(last):
            written = time.strftime("%F %T", time.localtime(os.path.getmtime(last)))
            where = f"the same command continues from {last}, written {written}"
        else:
            where = (
                f"{save_dir} has no checkpoint_last.pt, so the same command starts again from the beginning "
                "(--save-interval-updates N writes one every N updates)"
            )
        sys.stdout.flush()
        print(f"dual_fairseq: stopped by {signal.Signals(number).name}: {where}", file=sys.stderr, flush=True)
        raise _Stop(128 + number)

    return stop


class _Stop(SystemExit):
    """A signal has stopped the run.

    Args:
        status: the exit status.
    """

    def __init__(self, status: int) -> None:
        super().__init__(status)
        self.status = status


_call_main = distributed_utils.call_main


def call_main(cfg, main, **kwargs):
    """Like fairseq's function, which runs a command; afterwards, signal handlers are restored and locks released."""
    in_main_thread = threading.current_thread() is threading.main_thread()
    before = {number: signal.getsignal(number) for number in (_USUAL if in_main_thread else ())}
    try:
        return _call_main(cfg, main, **kwargs)
    except _Stop as stop:
        # in the middle of a run, threads still load data, and Python's normal exit sometimes aborts
        atexit._run_exitfuncs()
        os._exit(stop.status)
    finally:
        _unlock()
        for number, handler in before.items():
            signal.signal(number, handler)


checkpoint_utils.verify_checkpoint_directory = verify_checkpoint_directory
distributed_utils.call_main = call_main
