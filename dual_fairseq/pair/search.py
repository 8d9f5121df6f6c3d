"""Beam search over any number of sentences, batch by batch."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from fairseq import utils
from fairseq.data import LanguagePairDataset
from torch import Tensor

from ..common.errors import UserError
from ..plugin.generator import DirectionTask
from ..plugin.log_probs import length_sorted_batches
from ..plugin.model import parameter_like


def check_beam(beam: int, nbest: int, lenpen: float | None, max_tokens: int) -> None:
    """Raises UserError if a number is out of range."""
    for name, value in (("beam", beam), ("nbest", nbest), ("max_tokens", max_tokens)):
        if value < 1:
            raise UserError(f"{name} {value}: give a whole number above 0")
    if lenpen is not None and not math.isfinite(lenpen):
        raise UserError(f"lenpen {lenpen}: give a finite number")
    if nbest > beam:
        raise UserError(f"nbest {nbest}: is more than the beam of {beam}; give a beam of at least {nbest}")


def search(
    task: DirectionTask, generator: Any, pairs: Sequence[Any], sentences: Sequence[Tensor], max_tokens: int
) -> Iterator[tuple[int, list[dict[str, Any]]]]:
    """Yields (index of a sentence, its hypotheses as fairseq makes them, best first), the longest sentences first.

    Args:
        task, generator: for the direction.
        pairs: a pair or a model of the direction, or several as an ensemble.
        sentences: token indices, each ending in ``</s>``.
        max_tokens: padded source tokens in a batch.

    Raises:
        UserError: a GPU's memory ran out.
    """
    device = parameter_like(pairs[0]).device
    sizes = [len(sentence) for sentence in sentences]
    dataset = LanguagePairDataset(
        sentences, sizes, task.source_dictionary, tgt_dict=task.target_dictionary,
        left_pad_source=task.cfg.left_pad_source, shuffle=False,
    )  # fmt: skip
    for batch in length_sorted_batches(np.asarray(sizes), max_tokens):
        sample = dataset.collater([dataset[int(i)] for i in batch])
        sample = utils.apply_to_sample(lambda tensor: tensor.to(device), sample)
        try:
            beams = task.inference_step(generator, pairs, sample)
        except torch.OutOfMemoryError:
            raise UserError(
                f"the GPU's memory does not hold {len(batch)} sentences of up to {sizes[batch[0]]} tokens; give a "
                f"smaller max_tokens (--max-tokens) than {max_tokens}, or a smaller beam"
            ) from None
        yield from zip(sample["id"].tolist(), beams, strict=True)
