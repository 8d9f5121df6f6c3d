"""What today's PyTorch needs in order to run fairseq 0.12, each with its reason."""

from __future__ import annotations

import argparse

import numpy as np
import torch

# PyTorch >= 2.6 unpickles checkpoints with ``weights_only=True`` and refuses every class it was not told of. fairseq
# stores the options of a run as an ``argparse.Namespace``, and its ``translation`` task (with ``--eval-bleu``) n-gram
# counts as numpy arrays. Allowing these plain records keeps fairseq checkpoints loadable and still keeps a hostile
# checkpoint from running code.
torch.serialization.add_safe_globals(
    [
        argparse.Namespace,
        np.ndarray,
        np.dtype,
        type(np.dtype(np.int64)),
        type(np.dtype(np.float64)),
        np.core.multiarray._reconstruct,
        np.core.multiarray.scalar,
    ]
)
