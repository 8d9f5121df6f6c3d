"""What fairseq needs to run with Python 3.14 and numpy 2. (For its import, see ``dual_fairseq_python314``.)"""

from __future__ import annotations

import multiprocessing
from types import SimpleNamespace

import fairseq.distributed.utils as distributed_utils
import numpy as np

# fairseq's language models and translation task use np.compat.long (Python 2's integer); numpy 2 has no np.compat.
if not hasattr(np, "compat"):
    np.compat = SimpleNamespace(long=int)  # type: ignore[attr-defined]

_call_main = distributed_utils.call_main


def call_main(cfg, main, **kwargs):
    """Like fairseq's function, which runs a command; its processes that load data (``--num-workers``) are forks.

    Since Python 3.14, Linux would start them as new processes, which import PyTorch and fairseq, at every epoch.
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
