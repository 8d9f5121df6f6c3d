"""fairseq's search, so that a translation does not depend on what else is in its batch.

fairseq bounds translations by ``max_len_a`` · (tokens of the batch's longest source) + ``max_len_b``, so a sentence
that does not end by itself goes on for longer beside a long one. Here the bound goes by each sentence's own source.
"""

from __future__ import annotations

import math
from typing import Any

from fairseq.data import Dictionary
from fairseq.sequence_generator import SequenceGenerator, SequenceGeneratorWithAlignment
from fairseq.tasks.translation import TranslationTask
from torch import Tensor

from ..common.errors import UserError
from .checkpoint import load_dictionary


class _BySentence(SequenceGenerator):
    """A generator that ends each sentence at its own bound; the bound of the batch is never below."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if not self.match_source_len:  # which is a bound by sentence itself
            self.should_set_src_lengths = True  # the search then has the lengths of the sentences that are left
            self._search_step = self.search.step
            self.search.step = self._bounded_step

    def _bounded_step(self, step: int, lprobs: Tensor, *args: Any, **kwargs: Any) -> Any:
        # a forced prefix is longer than the bound where </s> cannot follow
        ends = self._at_bound(step) & lprobs[:, :, self.eos].isfinite().any(dim=1)
        if ends.any():
            eos = lprobs[:, :, self.eos].clone()
            lprobs = lprobs.masked_fill(ends[:, None, None], -math.inf)
            lprobs[:, :, self.eos] = eos
        return self._search_step(step, lprobs, *args, **kwargs)

    def is_finished(self, step: int, unfin_idx: int, *args: Any) -> bool:
        at_bound = not self.match_source_len and bool(self._at_bound(step)[unfin_idx])
        return at_bound or super().is_finished(step, unfin_idx, *args)

    def _at_bound(self, step: int) -> Tensor:
        """(B,) whether each sentence has as many tokens as it may have; in the precision of fairseq's own bound."""
        bounds = (self.max_len_a * self.search.src_lengths.double() + self.max_len_b).long()
        return step >= bounds.clamp(min=max(self.min_len, 1))


class _AligningBySentence(_BySentence, SequenceGeneratorWithAlignment):
    """As :class:`_BySentence`, for ``--print-alignment``."""


class DirectionTask(TranslationTask):
    """fairseq's ``translation`` task with this search, and one line for a damaged dictionary."""

    @classmethod
    def load_dictionary(cls, filename: str) -> Dictionary:
        return load_dictionary(filename)

    def build_generator(self, models, args, seq_gen_cls=None, extra_gen_cls_kwargs=None, **kwargs):
        for name in ("lenpen", "unkpen", "temperature", "max_len_a"):
            if not math.isfinite(getattr(args, name, 1.0)):
                raise UserError(f"--{name.replace('_', '-')} {getattr(args, name)}: give a finite number")
        if seq_gen_cls is None:
            alignment = getattr(args, "print_alignment", None)
            seq_gen_cls = _AligningBySentence if alignment else _BySentence
            if alignment:
                extra_gen_cls_kwargs = {**(extra_gen_cls_kwargs or {}), "print_alignment": alignment}
        return super().build_generator(models, args, seq_gen_cls, extra_gen_cls_kwargs, **kwargs)
