"""Validation does not make memory grow, and a lack of memory is one line."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from fairseq.trainer import Trainer
from sacrebleu.metrics import BLEU
from sacrebleu.tokenizers.tokenizer_13a import Tokenizer13a
from sacrebleu.tokenizers.tokenizer_re import TokenizerRegexp
from sacrebleu.tokenizers.tokenizer_zh import TokenizerZh

import dual_fairseq
from dual_fairseq.common.errors import UserError
from dual_fairseq.common.memory import enough_memory

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


def library() -> None:
    raise ImportError("libtorch_cpu.so: failed to map segment from shared object")


def thread() -> None:
    raise RuntimeError("can't start new thread")


@pytest.mark.parametrize(
    "lacking",
    [lambda: torch.empty(2**50), lambda: bytearray(2**60), lambda: np.empty(2**55), library, thread],
    ids=["torch", "python", "numpy", "library", "thread"],
)
def test_a_lack_of_memory_is_one_line(lacking):
    with pytest.raises(UserError, match=r"there is not enough memory.*--max-tokens") as caught, enough_memory():
        lacking()
    assert "\n" not in str(caught.value)


def test_other_errors_are_not_taken_for_a_lack_of_memory():
    for error in (RuntimeError("size mismatch"), OSError(2, "No such file")):
        with pytest.raises(type(error)), enough_memory():
            raise error
