"""fairseq's search with a length limit for each translation; translations that it cuts off are marked.

fairseq limits translations to ``max_len_a`` · (tokens of the batch's longest source) + ``max_len_b``, so a translation
that does not end by itself is longer in a batch with a long source. Here each sentence's own source sets the limit.
"""

from __future__ import annotations

import copy
import logging
import math
import re
import weakref
from collections import Counter
from collections.abc import Sequence
from functools import cached_property
from typing import Any

import torch
from fairseq import utils
from fairseq.data import Dictionary
from fairseq.models import FairseqLanguageModel
from fairseq.sequence_generator import SequenceGenerator, SequenceGeneratorWithAlignment
from fairseq.tasks.translation import TranslationTask
from torch import Tensor

from ..common.errors import UserError
from ..common.folders import Data
from ..common.languages import language_of
from ..common.options import flag
from ..common.segmentation import Side
from .lengths import length_limit

logger = logging.getLogger(__name__)

# fairseq's defaults of --max-len-a and --max-len-b; if both are unchanged, the training text decides.
_DEFAULTS = (0, 200)


class _BySentence(SequenceGenerator):
    """A generator that ends each sentence at its own limit; the batch's limit is never lower.

    A hypothesis has ``cut_off``: whether the limit ended it while P(``</s>``) was below 1/2.

    Attributes:
        labels: if translations are labels, the only tokens that they may begin with; a beam as large as the number of
            labels then has each of them.
        tags: if translations are tags, the only tokens before their end, which the length of the source sets.
    """

    labels: Sequence[int] = ()
    tags: Sequence[int] = ()

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if not self.match_source_len:  # this option is already a limit per sentence
            self.should_set_src_lengths = True  # the search then has the lengths of unfinished sentences
            self._search_step = self.search.step
            self.search.step = self._bounded_step

    def _generate(self, sample: dict[str, Any], *args: Any, **kwargs: Any) -> list[list[dict[str, Any]]]:
        try:
            finalized = super()._generate(sample, *args, **kwargs)
        except AssertionError as error:
            if not re.fullmatch(r"\d+ < \d+", str(error)):
                raise
            raise UserError(
                "the model's probabilities are not finite: it is damaged or its training diverged"
            ) from error
        net_input = sample["net_input"]
        limits = self.limits(net_input["src_lengths"]).tolist() if "src_lengths" in net_input else []
        for limit, hypotheses in zip(limits, finalized, strict=bool(limits)):
            for hypothesis in hypotheses:
                at_limit = not (self.match_source_len or self.labels or self.tags) and len(hypothesis["tokens"]) > limit
                hypothesis["cut_off"] = at_limit and float(hypothesis["positional_scores"][-1]) < math.log(0.5)
        return finalized

    def _bounded_step(self, step: int, lprobs: Tensor, *args: Any, **kwargs: Any) -> Any:
        at_limit = self._at_limit(step)
        if annotations := self.tags or (self.labels if step == 0 else ()):
            lprobs = _only(annotations, lprobs, ~at_limit)
        return self._search_step(step, _only([self.eos], lprobs, at_limit), *args, **kwargs)

    def is_finished(self, step: int, unfin_idx: int, *args: Any) -> bool:
        at_limit = not self.match_source_len and bool(self._at_limit(step)[unfin_idx])
        return at_limit or super().is_finished(step, unfin_idx, *args)

    def _at_limit(self, step: int) -> Tensor:
        """(B,) whether each sentence has reached its limit."""
        return step >= self.limits(self.search.src_lengths)

    def limits(self, lengths: Tensor) -> Tensor:
        """(B,) the most tokens of each translation, without ``</s>``, from its source length with ``</s>``.

        As precise as fairseq's own limit."""
        if self.tags:
            return (lengths - 1).clamp(min=1)
        limits = (self.max_len_a * lengths.double() + self.max_len_b).long()
        return limits.clamp(min=max(self.min_len, 1)).clamp(max=int(min(self.max_len, 2**31)) - 1)


def _only(tokens: Sequence[int], lprobs: Tensor, rows: Tensor) -> Tensor:
    """lprobs (B, beam, V) with only these tokens in some rows (B,), except where a forced prefix forbids them all."""
    rows = rows & lprobs[..., tokens].isfinite().flatten(1).any(dim=1)
    if not rows.any():
        return lprobs
    left = torch.full_like(lprobs, -math.inf)
    left[..., tokens] = lprobs[..., tokens]
    return torch.where(rows[:, None, None], left, lprobs)


class _AligningBySentence(SequenceGeneratorWithAlignment, _BySentence):
    """Like :class:`_BySentence`, for ``--print-alignment``."""


class CutOff:
    """Counts the translations that were cut off at the length limit, and reports them when the command ends."""

    def __init__(self) -> None:
        self._counts = counts = Counter[str]()
        weakref.finalize(self, self._say, counts)

    def count(self, hypotheses: Sequence[Sequence[dict[str, Any]]]) -> None:
        """Count the best translations of a batch."""
        best = [beam[0] for beam in hypotheses if beam]
        self._counts.update(all=len(best), cut_off=sum(bool(hypothesis.get("cut_off")) for hypothesis in best))

    @staticmethod
    def _say(counts: Counter[str]) -> None:
        if counts["cut_off"]:
            logger.warning(
                "%s of %s translations were cut off at the length limit (sentences with an L- line); --max-len-a and "
                "--max-len-b allow longer translations",
                f"{counts['cut_off']:,}", f"{counts['all']:,}",
            )  # fmt: skip


class DirectionTask(TranslationTask):
    """fairseq's ``translation`` task with this search.

    If the target side is labels, all labels are scored. If it is tags, each word of the source gets one.
    """

    @property
    def dictionaries(self) -> dict[str, Dictionary]:
        """The dictionaries of the source and of the target language."""
        return {self.cfg.source_lang: self.src_dict, self.cfg.target_lang: self.tgt_dict}

    @cached_property
    def _target_side(self) -> Side | None:
        data = Data.of_binarized(utils.split_paths(self.cfg.data)[0])
        return data.sides.get(self.cfg.target_lang) if data else None

    @cached_property
    def labels(self) -> list[int]:
        """The dictionary indices of the target side's labels; empty for tags and text."""
        return self._seen if self._target_side and self._target_side.labels else []

    @cached_property
    def tags(self) -> list[int]:
        """The dictionary indices of the target side's tags; empty for labels and text."""
        return self._seen if self._target_side and self._target_side.tags else []

    @property
    def _seen(self) -> list[int]:
        """The dictionary indices of the target side's words in the training text."""
        words = self.target_dictionary
        return [i for i in range(words.nspecial, len(words)) if words.count[i]]

    def build_tokenizer(self, args):
        """Like fairseq's (for fairseq-interactive); the codes' languages decide its rules."""
        args = copy.copy(args)
        for name in ("source_lang", "target_lang"):
            if getattr(args, name, None):
                setattr(args, name, language_of(getattr(args, name)))
        return super().build_tokenizer(args)

    def build_generator(self, models, args, seq_gen_cls=None, extra_gen_cls_kwargs=None, **kwargs):
        """Like fairseq's; the training text limits the length of translations, unless an option does."""
        for name in ("lenpen", "unkpen", "temperature", "max_len_a"):
            if not math.isfinite(getattr(args, name, 1.0)):
                raise UserError(f"{flag(name)} {getattr(args, name)}: give a finite number")
        if abs(getattr(args, "lenpen", 1.0)) > 50:  # a length to this power must be finite
            raise UserError(f"--lenpen {args.lenpen}: give a number from -50 to 50")
        args = copy.copy(args)
        self._check_search(args, (extra_gen_cls_kwargs or {}).get("lm_model"))
        if (getattr(args, "max_len_a", 0), getattr(args, "max_len_b", 200)) == _DEFAULTS:
            folder = utils.split_paths(self.cfg.data)[0]
            limit = length_limit(folder, self.cfg.source_lang, self.cfg.target_lang)
            args.max_len_a, args.max_len_b = limit.max_len_a, limit.max_len_b
        if self.labels:
            args.beam, args.max_len_a, args.max_len_b = len(self.labels), 0, 1
            args.min_len, args.match_source_len = 1, False
        if self.tags:
            args.max_len_a, args.max_len_b, args.min_len, args.match_source_len = 1, 0, 1, False
        if seq_gen_cls is None:
            alignment = getattr(args, "print_alignment", None)
            seq_gen_cls = _AligningBySentence if alignment else _BySentence
            if alignment:
                extra_gen_cls_kwargs = {**(extra_gen_cls_kwargs or {}), "print_alignment": alignment}
        try:
            generator = super().build_generator(models, args, seq_gen_cls, extra_gen_cls_kwargs, **kwargs)
        except (AssertionError, ValueError) as error:
            raise UserError(f"the options of the search do not go together: {error}") from error
        generator.labels, generator.tags = self.labels, self.tags
        return generator

    def _check_search(self, args: Any, language_model: Any) -> None:
        if getattr(args, "print_step", False):
            raise UserError("--print-step: only models with refinement steps have this; leave it out")
        words = len(self.target_dictionary)
        if getattr(args, "sampling_topk", -1) > words:
            raise UserError(f"--sampling-topk {args.sampling_topk}: the dictionary has only {words:,} words")
        if language_model is None:
            return
        if not isinstance(language_model, FairseqLanguageModel):
            raise UserError(f"--lm-path {args.lm_path}: is not a language model")
        if language_model.decoder.dictionary != self.target_dictionary:
            raise UserError(f"--lm-path {args.lm_path}: has another dictionary than the data's target language")
