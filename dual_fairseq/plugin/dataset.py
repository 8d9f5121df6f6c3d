"""Batches in both directions."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from fairseq.data import BaseWrapperDataset, LanguagePairDataset


class DualLanguagePairDataset(BaseWrapperDataset):
    """Source→target batches that carry the same sentence pairs as target→source batches.

    A batch is fairseq's own source→target batch (so ``fairseq-generate`` and ``fairseq-interactive`` can use it
    unchanged) with two more entries:

    - ``reverse``: the same pairs as fairseq's own target→source batch, sorted by *its* source length, because
      fairseq's LSTM encoder demands that order;
    - ``align``: (B,) long, row ``align[i]`` of ``reverse`` is the sentence pair in row ``i`` of the batch.

    Args:
        forward: source→target pairs, as fairseq loads them. Without targets, batches have only fairseq's entries.
        keep_remainder: batch every sentence. fairseq drops the last batch (the longest sentences) if its size is not a
            multiple of ``--required-batch-size-multiple`` (8 by default); this is usual in training, but no validation
            or test sentence may be lost.
        lm_scores: log P(x) and log P(y) of every pair, two (N,) arrays in nats, if they are known; a batch then
            carries them as ``log_p_source`` and ``log_p_target``, (B,) float64 in the order of its rows.
    """

    dataset: LanguagePairDataset

    def __init__(
        self,
        forward: LanguagePairDataset,
        keep_remainder: bool = False,
        lm_scores: tuple[np.ndarray, np.ndarray] | None = None,
    ) -> None:
        super().__init__(forward)
        self.keep_remainder = keep_remainder
        self.lm_scores = lm_scores
        self.reverse = None if forward.tgt is None else reversed_pairs(forward)

    def __getattr__(self, name: str) -> Any:
        # fairseq asks language-pair datasets for more than BaseWrapperDataset passes on (src, tgt, src_sizes, ...)
        if name == "dataset":  # not yet set: unpickling in a data-loader worker
            raise AttributeError(name)
        return getattr(self.dataset, name)

    def batch_by_size(self, indices, max_tokens=None, max_sentences=None, required_batch_size_multiple=1):
        batches = self.dataset.batch_by_size(indices, max_tokens, max_sentences, required_batch_size_multiple)
        batched = sum(len(batch) for batch in batches)
        if self.keep_remainder and batched < len(indices):
            batches = [*batches, indices[batched:]]  # batches are consecutive runs of the indices
        return batches

    def collater(self, samples: list[dict[str, Any]]) -> dict[str, Any]:
        """Merge pairs (``id``, ``source``, ``target``) into one batch; an empty list gives an empty batch."""
        batch = self.dataset.collater(samples)
        if not batch or self.reverse is None:
            return batch
        swapped = [{"id": s["id"], "source": s["target"], "target": s["source"]} for s in samples]
        batch["reverse"] = self.reverse.collater(swapped)
        batch["align"] = align_rows(batch["id"], batch["reverse"]["id"])
        if self.lm_scores is not None:
            rows = batch["id"].numpy()
            for name, scores in zip(("log_p_source", "log_p_target"), self.lm_scores, strict=True):
                # float64: the trainer turns a batch's float32 into half precision, too coarse for hundreds of nats
                batch[name] = torch.from_numpy(scores[rows].astype(np.float64))
        return batch


def reversed_pairs(forward: LanguagePairDataset) -> LanguagePairDataset:
    """The same sentence pairs as target→source."""
    return LanguagePairDataset(
        forward.tgt,
        forward.tgt_sizes,
        forward.tgt_dict,
        forward.src,
        forward.src_sizes,
        forward.src_dict,
        left_pad_source=forward.left_pad_source,
        left_pad_target=forward.left_pad_target,
        shuffle=forward.shuffle,
        input_feeding=forward.input_feeding,
        pad_to_multiple=forward.pad_to_multiple,
    )


def align_rows(ids: torch.Tensor, other_ids: torch.Tensor) -> torch.Tensor:
    """The row of each of ``ids`` in ``other_ids``: ``other_ids[align_rows(ids, other_ids)] == ids``.

    Args:
        ids, other_ids: (B,) the same sentence ids in two orders. An id may occur more than once.

    Returns:
        (B,) long.
    """
    align = torch.empty_like(ids)
    align[ids.argsort(stable=True)] = other_ids.argsort(stable=True)
    return align
