"""``--bf16`` on a GPU."""

import fairseq.distributed.utils as distributed_utils
import torch

_call_main = distributed_utils.call_main


def call_main(cfg, main, **kwargs):
    """As fairseq's, which runs a command.

    fairseq takes --bf16 for a wish for a TPU, and ends where PyTorch/XLA is not installed; here it is used on the GPU.
    """
    if cfg.common.bf16 and torch.cuda.is_available():
        cfg.common.tpu = cfg.distributed_training.tpu = False
    return _call_main(cfg, main, **kwargs)


distributed_utils.call_main = call_main
