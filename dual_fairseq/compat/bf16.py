"""``--bf16`` on a GPU."""

from importlib.util import find_spec

import fairseq.distributed.utils as distributed_utils
import torch

from ..common.errors import UserError

_call_main = distributed_utils.call_main


def call_main(cfg, main, **kwargs):
    """As fairseq's, which runs a command.

    fairseq takes --bf16 for a wish for a TPU, and ends where PyTorch/XLA is not installed; here it is used on the GPU.

    Raises:
        UserError: there is neither.
    """
    if cfg.common.bf16:
        if torch.cuda.is_available():
            cfg.common.tpu = cfg.distributed_training.tpu = False
        elif find_spec("torch_xla") is None:
            raise UserError("--bf16: needs a GPU; leave it out")
    return _call_main(cfg, main, **kwargs)


distributed_utils.call_main = call_main
