"""BLEU of a corpus from the counts of its sentences, which add up: over batches, processes, or chosen translations."""

from __future__ import annotations

from collections.abc import Sequence

from sacrebleu.metrics import BLEU
from sacrebleu.metrics.bleu import BLEUScore


def bleu_counts(score: BLEUScore) -> list[int]:
    """Matching n-grams by order, n-grams by order, and the lengths of hypothesis and reference."""
    return [*score.counts, *score.totals, score.sys_len, score.ref_len]


def bleu_of_counts(counts: Sequence[int]) -> float:
    """BLEU, 0 to 100, of the sum of some sentences' :func:`bleu_counts`."""
    *ngrams, sys_len, ref_len = counts
    order = len(ngrams) // 2
    return BLEU.compute_bleu(
        correct=ngrams[:order], total=ngrams[order:], sys_len=sys_len, ref_len=ref_len, smooth_method="exp"
    ).score  # fmt: skip
