"""BLEU: sacreBLEU's metric for a language, and corpus BLEU from the summed counts of sentences.

If the target side is labels or tags, accuracy replaces BLEU.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path

from sacrebleu.metrics import BLEU
from sacrebleu.metrics.bleu import BLEUScore
from sacrebleu.tokenizers.tokenizer_spm import SPM_MODELS
from sacrebleu.utils import SACREBLEU_DIR

from .errors import UserError
from .languages import CHINESE, language_of
from .segmentation import ANNOTATIONS

# language → sacreBLEU's tokenizer for it, and the substitute if the tokenizer's package is not installed
_TOKENIZERS = dict.fromkeys(CHINESE, ("zh", "zh")) | {"ja": ("ja-mecab", "char"), "ko": ("ko-mecab", "13a")}
# Thai, Lao, Khmer, Shan, Tibetan and Dzongkha, where white space does not separate words; Burmese corpora are segmented
_TOKENIZERS |= dict.fromkeys("th tha lo lao km khm shn bo bod tib dz dzo".split(), ("char", "char"))
_OTHERS = ("13a", "13a")


def bleu_tokenizer(language: str, segmented: bool = False, chosen: str | None = None) -> str:
    """The sacreBLEU tokenizer for validation, evaluation, tuning and reports.

    Args:
        language: code of the references, such as ``zh`` or ``zho_Hans``.
        segmented: whether another program segmented the text (``--tokenizer none``); it is scored unchanged.
        chosen: the user's choice, which has priority.

    Raises:
        UserError: there is no such tokenizer, or its package is not installed.
    """
    if chosen is None:
        preferred, substitute = _TOKENIZERS.get(language_of(language), _OTHERS)
        return "none" if segmented else preferred if _problem(preferred) is None else substitute
    if chosen not in BLEU.TOKENIZERS:
        raise UserError(f"--sacrebleu-tokenize {chosen}: choose one of {', '.join(sorted(BLEU.TOKENIZERS))}")
    if problem := _problem(chosen):
        raise UserError(f"--sacrebleu-tokenize {chosen}: {problem}")
    return chosen


def missing_tokenizer(language: str, segmented: bool = False, chosen: str | None = None) -> str:
    """A message if :func:`bleu_tokenizer` uses a substitute for the language's tokenizer; else ''."""
    preferred, _ = _TOKENIZERS.get(language_of(language), _OTHERS)
    if segmented or chosen is not None or _problem(preferred) is None:
        return ""
    return (
        f"BLEU into {language} is computed with sacreBLEU's tokenizer {bleu_tokenizer(language)}, because the package "
        f"for {preferred} is not installed (pip install 'sacrebleu[{language_of(language)}]')"
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
    """The percentage of words that are correct at their place, for labels (one word a line) and tags.

    This is unigram BLEU of words with their positions. It is exact if each line has the length of its reference.
    """

    def __init__(self) -> None:
        super().__init__(tokenize="none", max_ngram_order=1)

    def _preprocess_segment(self, sent: str) -> str:
        return " ".join(f"{i}:{word}" for i, word in enumerate(sent.split())) or "<none>"


def bleu_metric(language: str, segmented: bool = False, chosen: str | None = None, subword: str = "") -> BLEU:
    """BLEU with the tokenizer of :func:`bleu_tokenizer`; accuracy if the ``--subword`` is of labels or tags."""
    return Accuracy() if subword in ANNOTATIONS else BLEU(tokenize=bleu_tokenizer(language, segmented, chosen))


def name_of(metric: BLEU) -> str:
    """The metric's name in records and logs: ``bleu`` or ``accuracy``."""
    return "accuracy" if isinstance(metric, Accuracy) else "bleu"


def signature_of(metric: BLEU) -> str:
    """sacreBLEU's full signature, even before anything is scored."""
    metric.num_refs = 1
    return metric.get_signature().format()


def metric_of_signature(signature: str) -> BLEU:
    """BLEU with the tokenizer in a score's signature (``...|tok:ja-mecab-0.996-IPA|...``).

    Raises:
        UserError: the tokenizer's package is not installed, or its model was not downloaded.
    """
    name = tokenizer_of_signature(signature)
    if (spm := SPM_MODELS.get(name)) and not Path(SACREBLEU_DIR, "models", Path(spm["url"]).name).is_file():
        raise UserError(  # a record must not start a download
            f"sacreBLEU's tokenizer {name}: its model is not on this machine; run dual-fairseq evaluate "
            f"--sacrebleu-tokenize {name}, which fetches it"
        )
    if problem := _problem(name):
        raise UserError(f"sacreBLEU's tokenizer {name}: {problem}")
    return BLEU(tokenize=name)


def tokenizer_of_signature(signature: str) -> str:
    """The tokenizer in a signature; if there is none, the tokenizer of most languages."""
    parts = dict(part.split(":", 1) for part in signature.split("|") if ":" in part)
    names = sorted(BLEU.TOKENIZERS, key=len, reverse=True)
    return next((name for name in names if parts.get("tok", "").startswith(name)), _OTHERS[0])


def bleu_counts(score: BLEUScore) -> list[int]:
    """Matching n-grams by order, n-grams by order, and the lengths of hypothesis and reference."""
    return [*score.counts, *score.totals, score.sys_len, score.ref_len]


def bleu_of_counts(counts: Sequence[int]) -> float:
    """BLEU or accuracy, 0 to 100, from the summed :func:`bleu_counts` of sentences."""
    *ngrams, sys_len, ref_len = counts
    order = len(ngrams) // 2
    return BLEU.compute_bleu(
        correct=ngrams[:order], total=ngrams[order:], sys_len=sys_len, ref_len=ref_len, smooth_method="exp",
        max_ngram_order=order,
    ).score  # fmt: skip
