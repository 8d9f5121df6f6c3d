"""``--bf16`` on a GPU."""

from importlib.util import find_spec

import fairseq.distributed.utils as distributed_utils
import torch

from ..common.errors import UserError

_call_main = distributed_utils.call_main


def call_main(cfg, main, **kwargs):
    """Like fairseq's function, which runs a command.

    fairseq reads --bf16 as a request for a TPU, and stops if PyTorch/XLA is not installed. Here a GPU can use --bf16.

    Raises:
        UserError: there is neither a GPU nor PyTorch/XLA.
    """
    if cfg.common.bf16:
        if torch.cuda.is_available():
            cfg.common.tpu = cfg.distributed_training.tpu = False
        elif find_spec("torch_xla") is None:
            raise UserError("--bf16: needs a GPU; leave it out")
    return _call_main(cfg, main, **kwargs)


distributed_utils.call_main = call_main
