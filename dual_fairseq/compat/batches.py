"""A sentence that is too long for a batch gives a one-line error; a resumed run has the batches of an unbroken run."""

from __future__ import annotations

from typing import Any

import numpy as np
from fairseq.data import data_utils
from fairseq.data.iterators import EpochBatchIterator
from fairseq.tasks import FairseqTask

from ..common.errors import UserError

_batch_by_size = data_utils.batch_by_size
_filter_indices_by_size = FairseqTask.filter_indices_by_size
_get_batch_iterator = FairseqTask.get_batch_iterator
_first_batch = EpochBatchIterator.first_batch.fget


def batch_by_size(indices, num_tokens_fn, num_tokens_vec=None, max_tokens=None, *args: Any, **kwargs: Any):
    """Like fairseq's function.

    Raises:
        UserError: a sentence has more tokens than a batch may have.
    """
    if not len(indices):  # fairseq's function would look for a last batch
        return []
    if max_tokens is not None:
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
    """Like fairseq's function.

    Raises:
        UserError: a sentence is longer than the model can read, and must not be left out.
    """
    if not ignore_invalid_inputs and isinstance(max_positions, int | float | tuple):
        _, ignored = dataset.filter_indices_by_size(indices, max_positions)
        if ignored:
            raise UserError(
                f"sentence number {ignored[0]} (from 0) has {_size(dataset, ignored[0])} tokens, </s> included, but "
                f"the model takes {int(np.min(max_positions))}; give --skip-invalid-size-inputs-valid-test to leave "
                "such sentences out"
            )
    return _filter_indices_by_size(self, indices, dataset, max_positions, ignore_invalid_inputs)


def check_batches(batches: EpochBatchIterator) -> None:
    """Raises UserError if there is no batch."""
    if not batches.frozen_batches:
        count = len(batches.dataset)
        shortest = min((_size(batches.dataset, i) for i in range(count)), default=0)
        raise UserError(
            f"there is no batch of the {count:,} sentences. fairseq leaves out a last batch whose size is not a "
            "multiple of --required-batch-size-multiple (give 1), and sentences longer than --max-tokens or than the "
            f"model can read (the shortest has {shortest} tokens, </s> included)"
        )


def first_batch(self) -> Any:
    """Like fairseq's property; training begins with this batch.

    Raises:
        UserError: there is no batch.
    """
    check_batches(self)
    return _first_batch(self)


def get_batch_iterator(self, dataset, *args: Any, epoch: int = 1, **kwargs: Any) -> Any:
    """Like fairseq's function, but always draws the order of sentences for the first epoch.

    fairseq makes the batches once for all epochs, in the order of its first epoch. A run that resumed in a later epoch
    would draw another order, and get other batches than before. Shards are drawn for their own epochs.
    """
    if self.has_sharded_data("train") or dataset in self.dataset_to_epoch_iter:
        return _get_batch_iterator(self, dataset, *args, epoch=epoch, **kwargs)
    iterator = _get_batch_iterator(self, dataset, *args, epoch=1, **kwargs)
    iterator.epoch = max(epoch, 1)
    dataset.set_epoch(epoch)
    return iterator


def _size(dataset: Any, index: int) -> int:
    """The number of tokens of a sentence; for a pair, of its longer side."""
    return int(np.max(dataset.size(index)))


data_utils.batch_by_size = batch_by_size
FairseqTask.filter_indices_by_size = filter_indices_by_size
FairseqTask.get_batch_iterator = get_batch_iterator
EpochBatchIterator.first_batch = property(first_batch)
