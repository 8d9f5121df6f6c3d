"""Ctrl-C and SIGTERM say where the last checkpoint is."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import fairseq.distributed.utils as distributed_utils
from fairseq import checkpoint_utils

from ..common.errors import UserError

# fairseq-train answers Ctrl-C with a traceback and SIGTERM with nothing. This function it calls once, before anything
# else, in the process that writes checkpoints.
_verify_checkpoint_directory = checkpoint_utils.verify_checkpoint_directory


def verify_checkpoint_directory(save_dir: str) -> None:
    """See that checkpoints can be written, and say on Ctrl-C and SIGTERM where the last one is.

    Raises:
        UserError: the directory cannot be made or written to.
    """
    try:
        _verify_checkpoint_directory(save_dir)
    except OSError as error:
        raise UserError(
            f"--save-dir {save_dir}: cannot be written ({error.strerror}); mend that or choose another"
        ) from error
    if threading.current_thread() is not threading.main_thread():
        return
    for number, usual in ((signal.SIGINT, signal.default_int_handler), (signal.SIGTERM, signal.SIG_DFL)):
        if signal.getsignal(number) == usual:  # whoever embeds fairseq keeps handlers of their own
            signal.signal(number, _stopper(save_dir, usual))


def _stopper(save_dir: str, usual: Any) -> Callable[[int, Any], None]:
    owner = os.getpid()

    def stop(number: int, frame: Any) -> None:
        signal.signal(number, usual)  # a second one does not wait for anything
        if os.getpid() != owner:  # a data loader's worker, which PyTorch looks after
            if number == signal.SIGINT:
                raise KeyboardInterrupt
            os.kill(os.getpid(), number)
            return
        last = os.path.join(save_dir, "checkpoint_last.pt")
        if os.path.isfile(last):
            written = time.strftime("%F %T", time.localtime(os.path.getmtime(last)))
            where = f"the same command goes on from {last}, written {written}"
        else:
            where = (
                f"{save_dir} has no checkpoint_last.pt, so the same command begins anew (--save-interval-updates N "
                "writes one every N updates)"
            )
        sys.stdout.flush()
        print(f"dual_fairseq: stopped by {signal.Signals(number).name}: {where}", file=sys.stderr, flush=True)
        raise SystemExit(128 + number)

    return stop


_call_main = distributed_utils.call_main


def call_main(cfg, main, **kwargs):
    """As fairseq's, which runs a command; the handlers of signals are afterwards what they were before."""
    if threading.current_thread() is not threading.main_thread():
        return _call_main(cfg, main, **kwargs)
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        return _call_main(cfg, main, **kwargs)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


checkpoint_utils.verify_checkpoint_directory = verify_checkpoint_directory
distributed_utils.call_main = call_main
