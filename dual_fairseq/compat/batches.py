"""A sentence that is too long for a batch or for a model ends in one line."""

from __future__ import annotations

from typing import Any

import numpy as np
from fairseq.data import data_utils
from fairseq.tasks import FairseqTask

from ..common.errors import UserError

_batch_by_size = data_utils.batch_by_size
_filter_indices_by_size = FairseqTask.filter_indices_by_size


def batch_by_size(indices, num_tokens_fn, num_tokens_vec=None, max_tokens=None, *args: Any, **kwargs: Any):
    """As fairseq's.

    Raises:
        UserError: a sentence has more tokens than a batch may have.
    """
    if max_tokens is not None and len(indices):
        sizes = [num_tokens_fn(i) for i in indices] if num_tokens_vec is None else num_tokens_vec
        longest = int(np.max(sizes))
        if longest > max_tokens:
            number = indices[int(np.argmax(sizes))]
            raise UserError(
                f"--max-tokens {int(max_tokens)}: the longest sentence (number {number} from 0) has {longest} tokens, "
                f"</s> included; give --max-tokens {longest} or more"
            )
    return _batch_by_size(indices, num_tokens_fn, num_tokens_vec, max_tokens, *args, **kwargs)


def filter_indices_by_size(self, indices, dataset, max_positions=None, ignore_invalid_inputs=False):
    """As fairseq's.

    Raises:
        UserError: a sentence is longer than it may be and is not left out, or all of them are.
    """
    kept, ignored = dataset.filter_indices_by_size(indices, max_positions)
    if ignored and (not ignore_invalid_inputs or not len(kept)):
        size = int(np.max(dataset.size(ignored[0])))
        limit = int(np.min(max_positions))
        if len(kept):
            which = f"sentence number {ignored[0]} (from 0) has {size} tokens"
            fix = "give --skip-invalid-size-inputs-valid-test to leave such sentences out"
        else:
            which = f"all {len(ignored):,} sentences are too long; number {ignored[0]} (from 0) has {size} tokens"
            fix = "give higher --max-tokens, or a model of more positions"
        raise UserError(f"{which}, </s> included, where {limit} is the limit of --max-tokens and of the model; {fix}")
    return _filter_indices_by_size(self, indices, dataset, max_positions, ignore_invalid_inputs)


data_utils.batch_by_size = batch_by_size
FairseqTask.filter_indices_by_size = filter_indices_by_size
