"""BLEU: sacreBLEU's metric for a language, and the BLEU of a corpus from the counts of its sentences, which add up.

Where the target side is labels, accuracy takes the place of BLEU.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

from sacrebleu.metrics import BLEU
from sacrebleu.metrics.bleu import BLEUScore

from .errors import UserError
from .languages import CHINESE, language_of

# language → the tokenizer that sacreBLEU has for it, and another where that needs a package that is not installed
_TOKENIZERS = dict.fromkeys(CHINESE, ("zh", "zh")) | {"ja": ("ja-mecab", "char"), "ko": ("ko-mecab", "13a")}
# Thai, Lao, Khmer, Shan, Tibetan and Dzongkha, where white space does not separate words; Burmese corpora are segmented
_TOKENIZERS |= dict.fromkeys("th tha lo lao km khm shn bo bod tib dz dzo".split(), ("char", "char"))
_OTHERS = ("13a", "13a")


def bleu_tokenizer(language: str, segmented: bool = False, chosen: str | None = None) -> str:
    """The sacreBLEU tokenizer for validation, evaluation, tuning and reports.

    Args:
        language: code of the references, as ``zh`` or ``zho_Hans``.
        segmented: whether the text was segmented by someone else (``--tokenizer none``); it is scored as it is.
        chosen: the user's choice, which wins.

    Raises:
        UserError: there is no such tokenizer, or its package is not installed.
    """
    if chosen is None:
        own, other = _TOKENIZERS.get(language_of(language), _OTHERS)
        return "none" if segmented else own if _problem(own) is None else other
    if chosen not in BLEU.TOKENIZERS:
        raise UserError(f"--sacrebleu-tokenize {chosen}: choose one of {', '.join(sorted(BLEU.TOKENIZERS))}")
    if problem := _problem(chosen):
        raise UserError(f"--sacrebleu-tokenize {chosen}: {problem}")
    return chosen


def missing_tokenizer(language: str, segmented: bool = False, chosen: str | None = None) -> str:
    """What to say before the work where :func:`bleu_tokenizer` takes another tokenizer than the language's; else ''."""
    own, _ = _TOKENIZERS.get(language_of(language), _OTHERS)
    if segmented or chosen is not None or _problem(own) is None:
        return ""
    return (
        f"BLEU into {language} is computed with sacreBLEU's tokenizer {bleu_tokenizer(language)}, because the package "
        f"for {own} is not installed (pip install 'sacrebleu[{language_of(language)}]')"
    )


@cache
def _problem(tokenizer: str) -> str | None:
    """Why a tokenizer cannot be used."""
    try:
        BLEU(tokenize=tokenizer)
    except (RuntimeError, ImportError, OSError) as error:  # OSError: a model that cannot be fetched
        return " ".join(str(error).split())
    return None


class Accuracy(BLEU):
    """The percentage of lines that are right, for a side that is labels: the BLEU of unigrams, each line being one."""

    def __init__(self) -> None:
        super().__init__(tokenize="none", max_ngram_order=1)

    def _preprocess_segment(self, sent: str) -> str:
        return "_".join(sent.split()) or "<none>"


def bleu_metric(language: str, segmented: bool = False, chosen: str | None = None, labels: bool = False) -> BLEU:
    """BLEU with the tokenizer that :func:`bleu_tokenizer` takes; accuracy where the language is labels."""
    return Accuracy() if labels else BLEU(tokenize=bleu_tokenizer(language, segmented, chosen))


def name_of(metric: BLEU) -> str:
    """What records and logs call it: ``bleu`` or ``accuracy``."""
    return "accuracy" if isinstance(metric, Accuracy) else "bleu"


def signature_of(metric: BLEU) -> str:
    """sacreBLEU's full signature, also before anything was scored."""
    metric.num_refs = 1
    return metric.get_signature().format()


def metric_of_signature(signature: str) -> BLEU:
    """BLEU as a score's signature says that it was computed (``...|tok:ja-mecab-0.996-IPA|...``).

    Raises:
        UserError: the tokenizer's package is not installed.
    """
    name = tokenizer_of_signature(signature)
    if problem := _problem(name):
        raise UserError(f"sacreBLEU's tokenizer {name}: {problem}")
    return BLEU(tokenize=name)


def tokenizer_of_signature(signature: str) -> str:
    """The name of the tokenizer; where the signature has none, the one of most languages."""
    parts = dict(part.split(":", 1) for part in signature.split("|") if ":" in part)
    names = sorted(BLEU.TOKENIZERS, key=len, reverse=True)
    return next((name for name in names if parts.get("tok", "").startswith(name)), _OTHERS[0])


def bleu_counts(score: BLEUScore) -> list[int]:
    """Matching n-grams by order, n-grams by order, and the lengths of hypothesis and reference."""
    return [*score.counts, *score.totals, score.sys_len, score.ref_len]


def bleu_of_counts(counts: Sequence[int]) -> float:
    """BLEU or accuracy, 0 to 100, of the sum of some sentences' :func:`bleu_counts`."""
    *ngrams, sys_len, ref_len = counts
    order = len(ngrams) // 2
    return BLEU.compute_bleu(
        correct=ngrams[:order], total=ngrams[order:], sys_len=sys_len, ref_len=ref_len, smooth_method="exp",
        max_ngram_order=order,
    ).score  # fmt: skip
