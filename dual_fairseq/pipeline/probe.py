"""Answers the pipeline's questions to torch and fairseq, each in a process of its own.

python -m dual_fairseq pipeline.probe gpus                  the number of GPUs
python -m dual_fairseq pipeline.probe updates CHECKPOINT    the number of updates that it has made
python -m dual_fairseq pipeline.probe score CHECKPOINT      the same, and the score of its last validation
"""

from __future__ import annotations

import argparse
import pickle
import sys
from collections.abc import Sequence
from typing import Any

from ..common.archives import check_archive
from ..common.errors import UserError


def gpus() -> int:
    """The number of GPUs that torch can use: a CPU build of torch can use none, whatever nvidia-smi says."""
    try:
        import torch
    except ImportError as error:
        raise UserError(f"torch cannot be imported by {sys.executable} ({error}): run make setup again") from error
    return torch.cuda.device_count() if torch.cuda.is_available() else 0


def read_checkpoint(path: str) -> dict[str, Any]:
    """Raises UserError if the checkpoint cannot be read."""
    import torch

    torch.serialization.add_safe_globals([argparse.Namespace])
    try:
        with open(path, "rb") as file:
            check_archive(file)
        try:
            return torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        except pickle.UnpicklingError:  # the plugin allows a few more classes, but is slow to import
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
    question, *paths = arguments
    if question == "gpus":
        print(gpus())
    else:
        state = read_checkpoint(paths[0])
        try:
            score = state["extra_state"].get("val_loss") if question == "score" else None
            numbers = [int(state["optimizer_history"][-1]["num_updates"])] + ([] if score is None else [float(score)])
        except (AttributeError, KeyError, IndexError, TypeError, ValueError) as error:
            raise UserError(f"{paths[0]} is not a checkpoint of a training: remove it, or give a copy") from error
        print(*numbers)
