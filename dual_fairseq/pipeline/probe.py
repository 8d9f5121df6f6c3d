"""What the pipeline has to ask torch and fairseq, each question in a process of its own.

python -m dual_fairseq pipeline.probe gpus                  the number of GPUs
python -m dual_fairseq pipeline.probe updates CHECKPOINT    the number of updates that it has made
python -m dual_fairseq pipeline.probe score CHECKPOINT      that, and the score of its last validation
"""

from __future__ import annotations

import argparse
import pickle
import sys
from collections.abc import Sequence
from typing import Any

from ..common.errors import UserError


def gpus() -> int:
    """torch is asked, not nvidia-smi: a CPU build of torch cannot use a GPU."""
    try:
        import torch
    except ImportError as error:
        raise UserError(f"torch cannot be imported by {sys.executable} ({error}): run make setup again") from error
    return torch.cuda.device_count() if torch.cuda.is_available() else 0


def read_checkpoint(path: str) -> dict[str, Any]:
    """Raises: UserError: it cannot be read."""
    import torch

    torch.serialization.add_safe_globals([argparse.Namespace])
    try:
        try:
            return torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        except pickle.UnpicklingError:  # the plugin allows a few more classes, but takes its time to import
            _register()
            return torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except Exception as error:
        reason = str(error).split("\n")[0]
        raise UserError(f"{path} cannot be read ({reason}): remove it, or copy checkpoint_best.pt over it") from error


def _register() -> None:
    import dual_fairseq

    dual_fairseq.register()


def main(arguments: Sequence[str]) -> None:
    """The command line; see the first lines of this file."""
    question, *rest = arguments
    if question == "gpus":
        print(gpus())
    else:
        state = read_checkpoint(rest[0])
        try:
            score = state["extra_state"].get("val_loss") if question == "score" else None
            numbers = [int(state["optimizer_history"][-1]["num_updates"])] + ([] if score is None else [float(score)])
        except (AttributeError, KeyError, IndexError, TypeError, ValueError) as error:
            raise UserError(f"{rest[0]} is not a checkpoint of a training: remove it, or give a copy") from error
        print(*numbers)
