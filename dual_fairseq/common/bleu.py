"""BLEU: sacreBLEU's metric for a language, and the BLEU of a corpus from the counts of its sentences, which add up."""

from __future__ import annotations

from collections.abc import Sequence

from sacrebleu.metrics import BLEU
from sacrebleu.metrics.bleu import BLEUScore

from .errors import UserError

# Where the tokenizer that sacreBLEU has for a language needs a package that is not installed.
FALLBACK_TOKENIZERS = {"ja": "char", "ko": "13a"}


def bleu_metric(language: str, tokenize: str | None = None) -> BLEU:
    """BLEU with sacreBLEU's tokenizer for a target language.

    Args:
        language: language code of the references.
        tokenize: the name of a sacreBLEU tokenizer; by default sacreBLEU chooses (``zh``, ``ja-mecab``, ``ko-mecab``,
            else ``13a``). Where its choice needs a package that is not installed, ``FALLBACK_TOKENIZERS`` has another.

    Raises:
        UserError: there is no such tokenizer, or its package is not installed.
    """
    if tokenize is not None:
        if tokenize not in BLEU.TOKENIZERS:
            raise UserError(f"--sacrebleu-tokenize {tokenize}: choose one of {', '.join(sorted(BLEU.TOKENIZERS))}")
        try:
            return BLEU(tokenize=tokenize)
        except (RuntimeError, ImportError) as error:
            raise UserError(f"--sacrebleu-tokenize {tokenize}: {' '.join(str(error).split())}") from error
    try:
        return BLEU(trg_lang=language)
    except (RuntimeError, ImportError):
        if language not in FALLBACK_TOKENIZERS:
            raise
        fallback = FALLBACK_TOKENIZERS[language]
        print(
            f"sacreBLEU's tokenizer for '{language}' is not installed (pip install 'sacrebleu[{language}]'): "
            f"BLEU into {language} is computed with tokenizer '{fallback}'"
        )
        return BLEU(tokenize=fallback)


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
