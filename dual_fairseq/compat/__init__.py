"""Changes to fairseq 0.12 for today's Python, PyTorch and torchrun, and for long runs: one file per promise."""

from ..common.quiet import silence_known_noise

silence_known_noise()  # before fairseq is imported

from . import (  # noqa: E402, F401
    archs,
    batches,
    best_metric,
    bf16,
    binarized,
    checkpoint_loading,
    checkpoint_saving,
    commands,
    dictionaries,
    dropout,
    initial_values,
    matmul,
    memory,
    nan,
    no_eval,
    option_values,
    patience,
    processes,
    pythons,
    save_dir,
    training_state,
)
