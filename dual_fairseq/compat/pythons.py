"""Python 3.14 and numpy 2: what fairseq takes from older ones. (The import of fairseq: ``dual_fairseq_python314``.)"""

from __future__ import annotations

import multiprocessing
from types import SimpleNamespace

import fairseq.distributed.utils as distributed_utils
import numpy as np

# fairseq's language models and its translation task name Python 2's long integer so; numpy 2 has no np.compat.
if not hasattr(np, "compat"):
    np.compat = SimpleNamespace(long=int)  # type: ignore[attr-defined]

_call_main = distributed_utils.call_main


def call_main(cfg, main, **kwargs):
    """As fairseq's, which runs a command; the processes that load data (``--num-workers``) are forks of it.

    From Python 3.14 on they would be started anew on Linux and import PyTorch and fairseq, at every epoch.
    """
    chosen = multiprocessing.get_start_method(allow_none=True)
    if chosen is not None or multiprocessing.get_all_start_methods()[0] != "forkserver":
        return _call_main(cfg, main, **kwargs)
    multiprocessing.set_start_method("fork")
    try:
        return _call_main(cfg, main, **kwargs)
    finally:
        multiprocessing.set_start_method(None, force=True)


distributed_utils.call_main = call_main
