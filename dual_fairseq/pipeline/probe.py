"""What the pipeline has to ask torch and fairseq, each question in a process of its own.

python -m dual_fairseq pipeline.probe gpus                  the number of GPUs
python -m dual_fairseq pipeline.probe updates CHECKPOINT    the number of updates that it has made
python -m dual_fairseq pipeline.probe score CHECKPOINT      that, and the score of its last validation
python -m dual_fairseq pipeline.probe pair ARGUMENTS        whether fairseq-train takes these for a pair
"""

from __future__ import annotations

import argparse
import logging
import pickle
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

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


def check_pair(arguments: list[str]) -> None:
    """Build a pair of untrained models by arguments of fairseq-train, and load its language models.

    Raises:
        SystemExit: something is wrong with the arguments, in one line.
    """
    logging.disable(logging.WARNING)  # the training itself will say it again
    _register()

    def refuse(self: argparse.ArgumentParser, message: str) -> NoReturn:
        raise UserError(message)

    argparse.ArgumentParser.error = refuse  # type: ignore
    from fairseq import options, tasks
    from fairseq.dataclass.utils import convert_namespace_to_omegaconf

    cfg = convert_namespace_to_omegaconf(options.parse_args_and_arch(options.get_training_parser(), arguments))
    task = tasks.setup_task(cfg.task)
    task.build_model(cfg.model)
    if cfg.task.src_lm:
        task.priors.models()


def _register() -> None:
    import dual_fairseq

    dual_fairseq.register()


def main(arguments: Sequence[str]) -> None:
    """The command line; see the first lines of this file."""
    question, *rest = arguments
    if question == "gpus":
        print(gpus())
    elif question == "pair":
        check_pair(rest)
    else:
        state = read_checkpoint(rest[0])
        try:
            score = state["extra_state"].get("val_loss") if question == "score" else None
            numbers = [int(state["optimizer_history"][-1]["num_updates"])] + ([] if score is None else [float(score)])
        except (AttributeError, KeyError, IndexError, TypeError, ValueError) as error:
            raise UserError(f"{rest[0]} is no checkpoint of a training: remove it, or give a copy of it") from error
        print(*numbers)
