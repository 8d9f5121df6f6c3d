"""What today's Python, PyTorch and torchrun, and runs that last days, need of fairseq 0.12: a file for each promise."""

from ..common.quiet import silence_known_noise

silence_known_noise()  # before fairseq is imported

from . import (  # noqa: E402
    archs,  # noqa: F401
    bf16,  # noqa: F401
    checkpoint_loading,  # noqa: F401
    checkpoint_saving,  # noqa: F401
    memory,  # noqa: F401
    nan,  # noqa: F401
    no_eval,  # noqa: F401
    option_values,  # noqa: F401
    patience,  # noqa: F401
    processes,  # noqa: F401
    pythons,  # noqa: F401
    save_dir,  # noqa: F401
    training_state,  # noqa: F401
)
