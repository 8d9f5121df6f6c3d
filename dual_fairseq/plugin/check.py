"""Whether fairseq-train accepts some arguments for a pair, checked before the hours of work that precede training.

python -m dual_fairseq plugin.check ARGUMENTS    prints the tokens of the longest validation sentence of each language,
                                                 and on a CPU the seconds that an update takes
"""

from __future__ import annotations

import argparse
import logging
import time
from collections.abc import Sequence
from typing import Any, NoReturn

import numpy as np
from fairseq import options, tasks, utils
from fairseq.dataclass.utils import convert_namespace_to_omegaconf
from fairseq.logging import metrics

from ..common.errors import UserError
from ..compat import matmul
from ..compat.best_metric import batch_of, check_metric, small_batch

SLOW = 5.0  # seconds; a batch that takes longer runs only once


def check_pair(arguments: list[str]) -> tuple[int | float, ...]:
    """Build an untrained pair from arguments of fairseq-train, load its language models, validate two sentences.

    Returns:
        The length of each language's longest validation sentence, in tokens with ``</s>``, without sentences that
        are too long for the model. With ``--cpu`` also :func:`seconds_an_update`.

    Raises:
        SystemExit: an argument is wrong; the message is one line.
    """
    logging.disable(logging.WARNING)  # the training prints these again

    def refuse(self: argparse.ArgumentParser, message: str) -> NoReturn:
        raise UserError(message)

    argparse.ArgumentParser.error = refuse  # type: ignore
    cfg = convert_namespace_to_omegaconf(options.parse_args_and_arch(options.get_training_parser(), arguments))
    task = tasks.setup_task(cfg.task)
    model = task.build_model(cfg.model)
    criterion = task.build_criterion(cfg.criterion)
    if cfg.task.src_lm:
        task.priors.models()
    split = cfg.dataset.valid_subset.split(",")[0]
    task.load_dataset(split)
    data = task.dataset(split)
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
    longest = int(data.src_sizes[kept].max()), int(data.tgt_sizes[kept].max())
    if not cfg.common.cpu:
        return longest
    max_tokens = cfg.dataset.max_tokens * cfg.optimization.update_freq[0]
    return *longest, seconds_an_update(batches, model, criterion, max_tokens)


def seconds_an_update(batches: Any, model: Any, criterion: Any, max_tokens: int) -> float:
    """About how long an update takes on this machine, without the optimizer's step.

    Args:
        batches: of validation; the largest one is run forward and backward.
        model, criterion: of the pair, with λ = 0; the model gets gradients.
        max_tokens: tokens per update.
    """
    sizes = np.maximum(batches.dataset.src_sizes, batches.dataset.tgt_sizes)
    largest = max(batches.frozen_batches, key=lambda batch: sizes[batch].sum())
    sample = batch_of(batches, largest)
    model.train()
    for _ in range(2):  # the first time takes longer
        began = time.perf_counter()
        with matmul.products(sample):
            criterion(model, sample)[0].backward()
        seconds = time.perf_counter() - began
        if seconds > SLOW:
            break
    return seconds * max_tokens / int(sizes[largest].sum())


def main(arguments: Sequence[str]) -> None:
    """The command line; see the first lines of this file."""
    print(*check_pair([*arguments]))
