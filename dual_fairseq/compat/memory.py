"""Memory does not grow with the number of validations."""

from __future__ import annotations

from fairseq import trainer as fairseq_trainer
from sacrebleu.tokenizers.tokenizer_base import BaseTokenizer

# sacreBLEU keeps the last 65,536 lines that each tokenizer has seen. Those of a validation serve nobody after it, and
# --eval-bleu has new ones every time: about 60 MB of short sentences in the long run.
_begin_valid_epoch = fairseq_trainer.Trainer.begin_valid_epoch


def begin_valid_epoch(self, epoch: int) -> None:
    """As fairseq's, called before every validation."""
    for tokenizer in BaseTokenizer.__subclasses__():
        if forget := getattr(tokenizer.__call__, "cache_clear", None):
            forget()
    _begin_valid_epoch(self, epoch)


fairseq_trainer.Trainer.begin_valid_epoch = begin_valid_epoch
