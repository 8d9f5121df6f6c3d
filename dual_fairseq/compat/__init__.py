"""What today's PyTorch and torchrun, and runs that last days, need of fairseq 0.12: a file for each promise."""

from ..common.quiet import silence_known_noise

silence_known_noise()  # before fairseq is imported

from . import (  # noqa: E402, F401
    archs,
    bf16,
    checkpoint_loading,
    checkpoint_saving,
    memory,
    nan,
    no_eval,
    patience,
    processes,
    save_dir,
    training_state,
)
