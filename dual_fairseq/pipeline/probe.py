"""What the pipeline has to ask torch and fairseq, each question in a process of its own.

python -m dual_fairseq pipeline.probe gpus                  the number of GPUs
python -m dual_fairseq pipeline.probe updates CHECKPOINT    the number of updates that it has made
python -m dual_fairseq pipeline.probe score CHECKPOINT      that, and the score of its last validation
python -m dual_fairseq pipeline.probe pair ARGUMENTS        whether fairseq-train takes these for a pair; the tokens of
                                                            the longest validation sentence of each language
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


def check_pair(arguments: list[str]) -> tuple[int, int]:
    """Build a pair of untrained models by arguments of fairseq-train, load its language models, validate two sentences.

    Returns:
        The longest sentence of each language in the validation text, in tokens with ``</s>``; those that the model
        does not take left out.

    Raises:
        SystemExit: something is wrong with the arguments, in one line.
    """
    logging.disable(logging.WARNING)  # the training itself will say it again
    _register()

    def refuse(self: argparse.ArgumentParser, message: str) -> NoReturn:
        raise UserError(message)

    argparse.ArgumentParser.error = refuse  # type: ignore
    from fairseq import options, tasks, utils
    from fairseq.dataclass.utils import convert_namespace_to_omegaconf
    from fairseq.logging import metrics

    from ..compat.best_metric import check_metric, small_batch

    cfg = convert_namespace_to_omegaconf(options.parse_args_and_arch(options.get_training_parser(), arguments))
    task = tasks.setup_task(cfg.task)
    model = task.build_model(cfg.model)
    criterion = task.build_criterion(cfg.criterion)
    if cfg.task.src_lm:
        task.priors.models()
    task.load_dataset("valid")
    data = task.dataset("valid")
    batches = task.get_batch_iterator(
        data,
        max_tokens=cfg.dataset.max_tokens_valid,
        max_sentences=cfg.dataset.batch_size_valid,
        max_positions=utils.resolve_max_positions(task.max_positions(), model.max_positions()),
        ignore_invalid_inputs=True,
    )
    with metrics.aggregate(new_root=True) as logged:
        _, _, sums = task.valid_step(small_batch(batches), model, criterion)
        task.reduce_metrics([sums], criterion)
    check_metric(cfg.checkpoint.best_checkpoint_metric, logged.get_smoothed_values())
    kept = [i for batch in batches.frozen_batches for i in batch]
    return int(data.src_sizes[kept].max()), int(data.tgt_sizes[kept].max())


def _register() -> None:
    import dual_fairseq

    dual_fairseq.register()


def main(arguments: Sequence[str]) -> None:
    """The command line; see the first lines of this file."""
    question, *rest = arguments
    if question == "gpus":
        print(gpus())
    elif question == "pair":
        print(*check_pair(rest))
    else:
        state = read_checkpoint(rest[0])
        try:
            score = state["extra_state"].get("val_loss") if question == "score" else None
            numbers = [int(state["optimizer_history"][-1]["num_updates"])] + ([] if score is None else [float(score)])
        except (AttributeError, KeyError, IndexError, TypeError, ValueError) as error:
            raise UserError(f"{rest[0]} is no checkpoint of a training: remove it, or give a copy of it") from error
        print(*numbers)
