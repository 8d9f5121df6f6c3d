"""Validation does not make memory grow."""

from __future__ import annotations

import pytest
from fairseq.trainer import Trainer
from sacrebleu.metrics import BLEU
from sacrebleu.tokenizers.tokenizer_13a import Tokenizer13a
from sacrebleu.tokenizers.tokenizer_re import TokenizerRegexp
from sacrebleu.tokenizers.tokenizer_zh import TokenizerZh

import dual_fairseq

dual_fairseq.register()


class Stopped(Exception):
    """Ends fairseq's own part of the hook."""


class Empty:
    """A trainer without any attribute: fairseq's own begin_valid_epoch cannot go on with it."""

    def __getattr__(self, name: str):
        raise Stopped


def test_every_validation_begins_with_empty_caches_of_sacrebleu():
    for tokenizer in ("13a", "zh"):
        BLEU(tokenize=tokenizer).corpus_score(["a line"], [["another line"]])
    caches = [tokenizer.__call__ for tokenizer in (Tokenizer13a, TokenizerRegexp, TokenizerZh)]
    assert all(cache.cache_info().currsize for cache in caches)
    with pytest.raises(Stopped):
        Trainer.begin_valid_epoch(Empty(), epoch=1)
    assert not any(cache.cache_info().currsize for cache in caches)
