"""Settings by corpus size: the tables for preprocessing, training and the documentation.

Values are text, because fairseq and records get them as written. docs/settings.md shows these tables and says where
each value was measured.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

# If two languages share this many of their words, one dictionary and shared embeddings help.
SHARED_WORDS = 0.4


@dataclass(frozen=True)
class PairSettings:
    """Settings of a pair trained on at most ``up_to`` sentence pairs; None means no limit.

    Attributes:
        up_to: None for any number.
        bpe_size: merges of BPE, which preprocessing learns.
        size: of the models; see ``dual-fairseq train --help``.
        lr, dual_lr: peak learning rates of the warm start and of dual training.
        lr_warmup: updates until the peak.
        measured: whether experiments tried these settings, not only those of smaller corpora.
    """

    up_to: int | None
    bpe_size: int
    size: str
    dropout: str
    max_tokens: str
    lr: str
    lr_warmup: str
    warmup_max_update: str | None
    warmup_max_epoch: str | None
    dual_lr: str
    dual_max_update: str | None
    dual_max_epoch: str | None
    measured: bool = True


@dataclass(frozen=True)
class LanguageModelSettings:
    """Settings of a recurrent language model trained on at most ``up_to`` sentences."""

    up_to: int | None
    size: str
    dropout: str
    max_tokens: str
    lr: str
    lr_warmup: str
    max_update: str | None
    max_epoch: str | None
    measured: bool = True


PAIRS = (
    PairSettings(
        2_000, 3000, "tiny", "0.3", "1024", "0.002", "400", "3000", None, "0.0005", "1000", None
    ),
    PairSettings(
        5_000, 3000, "tiny", "0.3", "1024", "0.002", "400", "4000", None, "0.0005", "1000", None
    ),
    PairSettings(
        20_000, 3000, "tiny", "0.3", "1024", "0.002", "400", "8000", None, "0.0005", "2000", None
    ),
    PairSettings(
        60_000, 8000, "tiny", "0.2", "2048", "0.002", "400", "12000", None, "0.0005", "4000", None
    ),
    PairSettings(
        1_000_000, 8000, "small", "0.3", "4096", "0.0007", "1000", None, "100", "0.0003", None, "50", False
    ),
    PairSettings(
        None, 32000, "base", "0.3", "4096", "0.0007", "4000", None, "100", "0.0003", None, "50", False
    ),
)  # fmt: skip
LANGUAGE_MODELS = (
    LanguageModelSettings(50_000, "tiny", "0.3", "1024", "0.003", "200", None, "40"),
    LanguageModelSettings(500_000, "tiny", "0.1", "2048", "0.003", "200", "8000", None),
    LanguageModelSettings(None, "small", "0.3", "4096", "0.001", "400", None, "50", False),
)

UNMEASURED = "usual for such models, not measured here"
# The reason for the values, by option.
REASONS = {
    "size": "larger models learned more slowly from little text",
    "dropout": "the best of the values that were tried",
    "max_tokens": "target tokens of a batch: little text needs small batches for enough updates",
    "lr": "peak learning rate; half of it was worse with small batches",
    "lr_warmup": "updates until the peak learning rate",
    "warmup_max_update": "BLEU mostly stops rising before this limit",
    "warmup_max_epoch": "BLEU mostly stops rising before this limit",
    "dual_lr": "peak learning rate of dual training, which starts from a trained pair",
    "dual_max_update": "BLEU mostly stops rising before this limit",
    "dual_max_epoch": "BLEU mostly stops rising before this limit",
    "max_update": "perplexity mostly stops falling before this limit",
    "max_epoch": "perplexity mostly stops falling before this limit",
}


def _row(table: Sequence, count: int):
    return next(row for row in table if row.up_to is None or count <= row.up_to)


def pair_settings(pairs: int) -> PairSettings:
    """The settings for a number of pairs."""
    return _row(PAIRS, pairs)


def language_model_settings(sentences: int) -> LanguageModelSettings:
    """The settings for a number of sentences."""
    return _row(LANGUAGE_MODELS, sentences)
