"""Memory does not grow with the number of validations."""

from __future__ import annotations

from fairseq import trainer as fairseq_trainer
from sacrebleu.tokenizers.tokenizer_base import BaseTokenizer

# sacreBLEU keeps the last 65,536 lines that each tokenizer has seen. After a validation its lines are useless, and
# --eval-bleu adds new lines every time: about 60 MB of short sentences in the long run.
_begin_valid_epoch = fairseq_trainer.Trainer.begin_valid_epoch


def begin_valid_epoch(self, epoch: int) -> None:
    """Like fairseq's method, which is called before every validation."""
    for tokenizer in BaseTokenizer.__subclasses__():
        if forget := getattr(tokenizer.__call__, "cache_clear", None):
            forget()
    _begin_valid_epoch(self, epoch)


fairseq_trainer.Trainer.begin_valid_epoch = begin_valid_epoch
