"""CTranslate2 instead of fairseq for translation and scoring: ``--engine ctranslate2`` or ``auto``.

The engine supplies translations and log-probabilities. All other code (batches, dual inference, tables) is the same for
both engines.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
from fairseq.dataclass.configs import GenerationConfig
from torch import Tensor, nn

from ..common.errors import UserError
from ..common.options import ENGINES, INT8, NOT_INSTALLED
from ..plugin.dual_inference import DualInferenceGenerator
from ..plugin.generator import DirectionTask
from ..plugin.language_model import FrozenLanguageModel
from ..plugin.log_probs import BATCH_TOKENS, language_model_log_probs, length_sorted_batches
from ..plugin.model import direction_name, parameter_like
from ..plugin.task import DualTranslationTask
from .convert import (
    CannotConvert,
    converted_language_model,
    converted_pair,
    directions_of,
    words,
    words_of_language_model,
)

logger = logging.getLogger(__name__)

# Options of fairseq's generation that CTranslate2 has too; all others must have their default value.
_OPTIONS = {"beam", "nbest", "lenpen", "unnormalized", "max_len_a", "max_len_b", "no_beamable_mm", "print_alignment"}
BLOCK_TOKENS = 65_536  # of sentences that are searched and re-scored together, padding included
_SENTENCES = 32  # of a batch in one CPU thread; larger ones are slower: their logits leave the cache
Advance = Callable[[int], object]


def choose_engine(
    name: str,
    pairs: Sequence[Any],
    task: DirectionTask,
    checkpoints: Sequence[Path],
    int8: bool = False,
    overrides: Iterable[str] = (),
) -> CTranslate2 | None:
    """The engine that translates and scores with a pair.

    Args:
        name: ``fairseq``, ``ctranslate2``, or ``auto``: CTranslate2 if possible.
        pairs, task: from :func:`~dual_fairseq.pair.load.load_model`.
        checkpoints: the files of the pairs.
        int8: compute in 8 bits.
        overrides: names of the options that loading the pair changed.

    Returns:
        CTranslate2, or None for fairseq.

    Raises:
        UserError: there is no such engine, ``ctranslate2`` cannot run the pair, or ``int8`` is used with ``fairseq``.
    """
    if name not in ENGINES:
        raise UserError(f"engine {name}: choose one of {', '.join(ENGINES)}")
    if name == "fairseq":
        if int8:
            raise UserError(INT8)
        return None
    try:
        if len(pairs) > 1:
            raise CannotConvert("does not translate with several pairs together")
        if changed := [name for name in overrides if not name.startswith(("src_lm", "tgt_lm", "dual_inference"))]:
            raise CannotConvert(f"takes a model as it was trained, without {', '.join(changed)}")
        return CTranslate2(pairs[0], task, checkpoints[0], int8, strict=name == "ctranslate2")
    except CannotConvert as error:
        if name == "ctranslate2":
            raise UserError(f"--engine ctranslate2: {error}; give --engine fairseq") from error
        logger.warning("--engine auto: fairseq translates%s, because CTranslate2 %s", " in float32" * int8, error)
        return None


def batch_tokens(generator: Any, max_tokens: int) -> int:
    """How many padded source tokens a generator gets at a time: ``max_tokens``, or more if CTranslate2 searches."""
    search = generator.generator if isinstance(generator, DualInferenceGenerator) else generator
    return BLOCK_TOKENS if isinstance(search, _Search) else max_tokens


class CTranslate2:
    """Both models of a pair or a single model, and language models that are Transformers, run by CTranslate2.

    The number of threads is PyTorch's (``OMP_NUM_THREADS``); each thread has its own batch. Models are in 16 bits if
    the pair is.

    Args:
        pair, task: from :func:`~dual_fairseq.pair.load.load_model`.
        checkpoint: the model's file.
        int8: compute in 8 bits.
        strict: refuse a generation option that CTranslate2 lacks; otherwise fairseq translates.

    Raises:
        CannotConvert: CTranslate2 is not installed, or does not know the arch.
    """

    def __init__(
        self, pair: Any, task: DirectionTask, checkpoint: Path, int8: bool = False, strict: bool = True
    ) -> None:
        try:
            import ctranslate2
        except ImportError:
            raise CannotConvert(NOT_INSTALLED) from None
        self._library, self._strict = ctranslate2, strict
        self._directions = directions_of(pair, task)
        like = parameter_like(pair)
        self.threads = torch.get_num_threads() if like.device.type == "cpu" else 1
        half = like.dtype == torch.half
        self._settings = {
            "device": like.device.type,
            "compute_type": ("int8_float16" if half else "int8") if int8 else "float16" if half else "float32",
            "inter_threads": self.threads,
            "intra_threads": 1,
        }
        self._folder = converted_pair(pair, task, checkpoint)
        self._translators: dict[str, Any] = {}  # direction → ctranslate2.Translator
        # file of a language model → ctranslate2.Generator, or None if PyTorch runs it
        self._generators: dict[str | None, Any] = {}

    def __str__(self) -> str:
        """Name, version and number type for a record, such as ``ctranslate2 4.5.0, int8``."""
        return f"ctranslate2 {self._library.__version__}, {self._settings['compute_type']}"

    def generator(self, task: DirectionTask, generator: Any, options: GenerationConfig) -> Any:
        """A generator that uses CTranslate2 instead of fairseq, dual inference included.

        Args:
            task: the direction's task.
            generator: from ``task.build_generator`` with ``options``.

        Raises:
            UserError: CTranslate2 lacks an option, and ``strict`` is set.
        """
        standard = GenerationConfig()
        names = [f.name for f in fields(GenerationConfig) if f.name not in _OPTIONS]
        if unsupported := [name for name in names if getattr(options, name) != getattr(standard, name)]:
            message = f"CTranslate2 does not translate with {', '.join(unsupported)}"
            if self._strict:
                raise UserError(f"--engine ctranslate2: {message}; give --engine fairseq")
            logger.warning("--engine auto: fairseq translates, because %s", message)
            return generator
        if isinstance(generator, DualInferenceGenerator):
            return _DualInference(self, task, self._search(task, generator.generator, options), generator)
        return self._search(task, generator, options)

    def _search(self, task: DirectionTask, generator: Any, options: GenerationConfig) -> Any:
        """The search by CTranslate2, or by fairseq: for labels (two steps) and tags (a length for each sentence)."""
        return generator if task.labels or task.tags else _Search(self, task, generator, options)

    def translation_log_probs(
        self,
        direction: str,
        sources: Sequence[Tensor],
        targets: Sequence[Tensor],
        advance: Advance = lambda count: None,
    ) -> Tensor:
        """Like :func:`~dual_fairseq.plugin.log_probs.translation_log_probs`, with the model of a direction."""
        model, side = self._directions[direction]
        sizes = np.array([(len(x), len(y)) for x, y in zip(sources, targets, strict=True)]).reshape(-1, 2)
        limits = model.max_positions()[0], model.max_decoder_positions()
        fits = ((sizes > 0) & (sizes <= limits)).all(axis=1)
        rows = [words(sources, side.source_dictionary), words(targets, side.target_dictionary)]
        return self._scores(self.translator(direction), rows, np.where(fits, sizes.max(axis=1), 0), 0, advance)

    def language_model_log_probs(
        self,
        lm: FrozenLanguageModel,
        sentences: Sequence[Tensor],
        like: Tensor,
        max_tokens: int = BATCH_TOKENS,
        advance: Advance = lambda count: None,
    ) -> Tensor:
        """Like :func:`~dual_fairseq.plugin.log_probs.language_model_log_probs`; PyTorch runs non-Transformers."""
        generator = self._language_model(lm)
        if generator is None:
            return language_model_log_probs(lm, sentences, like, max_tokens, advance)
        sizes = np.array([len(sentence) for sentence in sentences], dtype=np.int64)
        rows = words_of_language_model(lm, sentences)
        return self._scores(generator, [rows], np.where(sizes <= lm.max_positions, sizes, 0), int(lm.bos), advance)

    def _scores(
        self, model: Any, rows: list[list[list[str]]], sizes: np.ndarray, skip: int, advance: Advance
    ) -> Tensor:
        """(N,) nats of rows of words, without each row's first ``skip`` words; NaN if the size is 0."""
        scores = torch.full((len(sizes),), float("nan"))
        for batch in length_sorted_batches(sizes, BATCH_TOKENS * self.threads):
            texts = [[row[i] for i in batch] for row in rows]
            results = model.score_batch(*texts, max_input_length=0, **self.batches())
            scores[torch.as_tensor(batch)] = torch.tensor([sum(result.log_probs[skip:]) for result in results])
            advance(len(batch))
        return scores.to(self._settings["device"])

    def batches(self) -> dict[str, Any]:
        """The options for CTranslate2's batches."""
        if self._settings["device"] == "cpu":
            return {"max_batch_size": _SENTENCES, "batch_type": "examples"}
        return {"max_batch_size": BATCH_TOKENS, "batch_type": "tokens"}

    def translator(self, direction: str) -> Any:
        """The ``ctranslate2.Translator`` of a direction, loaded at the first call."""
        if direction not in self._translators:
            folder = str(self._folder / direction)
            self._translators[direction] = self._library.Translator(folder, **self._settings)
        return self._translators[direction]

    def _language_model(self, lm: FrozenLanguageModel) -> Any:
        if lm.path not in self._generators:
            try:
                folder = converted_language_model(lm)
                self._generators[lm.path] = self._library.Generator(str(folder), **self._settings)
            except CannotConvert as error:
                logger.info("%s: PyTorch runs it, because CTranslate2 %s", lm.path, error)
                self._generators[lm.path] = None
        return self._generators[lm.path]


class _Search(nn.Module):
    """Beam search by CTranslate2, called like fairseq's ``SequenceGenerator``.

    fairseq's generator ends each sentence's translations at a limit and forces ``</s>`` there; CTranslate2 has one
    limit for all sentences. fairseq forbids an empty translation; CTranslate2 would give its probability to the others.
    So fairseq translates a sentence again if one of its translations reaches its limit or is empty.

    Args:
        generator: fairseq's generator with the same options; it knows the limits.
    """

    def __init__(self, engine: CTranslate2, task: DirectionTask, generator: Any, options: GenerationConfig) -> None:
        super().__init__()
        self.engine, self.task, self.generator, self.options = engine, task, generator, options
        self.eos = generator.eos
        self.lenpen = 0.0 if options.unnormalized else options.lenpen

    @torch.no_grad()
    def generate(self, models: Sequence[Any], sample: dict[str, Any], **kwargs: Any) -> list[list[dict[str, Any]]]:
        """Like fairseq's generators, but ``positional_scores`` holds only the sum."""
        net_input, pad = sample["net_input"], self.task.source_dictionary.pad()
        sentences = [row[row.ne(pad)] for row in net_input["src_tokens"].cpu()]
        sizes = np.array([len(sentence) for sentence in sentences])
        limits = self.generator.limits(net_input["src_lengths"]).cpu().numpy()
        finalized: list[list[dict[str, Any]]] = [[] for _ in sentences]
        again = []
        for batch in length_sorted_batches(sizes, BATCH_TOKENS * self.engine.threads):
            results = self._translate([sentences[i] for i in batch], max(limits[batch]))
            for i, result in zip(batch, results, strict=True):
                scored = zip(result.hypotheses, result.scores, strict=True)
                finalized[i] = [self._hypothesis(*hypothesis) for hypothesis in scored]
                lengths = [len(tokens) for tokens in result.hypotheses]
                if min(lengths) == 0 or max(lengths) >= limits[i]:
                    again.append(int(i))
        for part in length_sorted_batches(sizes[again], BATCH_TOKENS):
            rows = [again[i] for i in part]
            on_device = torch.tensor(rows, device=net_input["src_tokens"].device)
            some = {name: net_input[name][on_device] for name in ("src_tokens", "src_lengths")}
            for i, hypotheses in zip(rows, self.generator.generate(models, {"net_input": some}, **kwargs), strict=True):
                finalized[i] = hypotheses
        return finalized

    def _translate(self, sentences: list[Tensor], limit: int) -> list[Any]:
        direction = direction_name(self.task.cfg.source_lang, self.task.cfg.target_lang)
        return self.engine.translator(direction).translate_batch(
            words(sentences, self.task.source_dictionary),
            beam_size=self.options.beam, num_hypotheses=self.options.beam, length_penalty=self.lenpen,
            return_scores=True, max_input_length=0, min_decoding_length=0, max_decoding_length=int(limit),
            **self.engine.batches(),
        )  # fmt: skip

    def _hypothesis(self, tokens: list[str], score: float) -> dict[str, Any]:
        dictionary = self.task.target_dictionary
        return {
            "tokens": torch.tensor([*map(dictionary.index, tokens), dictionary.eos()]),
            "score": torch.tensor(score),
            "positional_scores": torch.tensor([score * (len(tokens) + 1) ** self.lenpen]),
            "attention": None,
            "alignment": None,
            "cut_off": False,
        }


class _DualInference(DualInferenceGenerator):
    """Dual inference with the translations and log-probabilities of CTranslate2.

    Args:
        search: the beam search.
        generator: fairseq's dual inference.
    """

    def __init__(
        self, engine: CTranslate2, task: DualTranslationTask, search: _Search, generator: DualInferenceGenerator
    ) -> None:
        super().__init__(
            search, generator.reverse_models, generator.lms, generator.source_dictionary, generator.left_pad_source,
            generator.weights, generator.lenpen,
        )  # fmt: skip
        self.engine, self.direction = engine, task.directions[1]

    def reverse_log_probs(self, targets: Sequence[Tensor], sources: Sequence[Tensor]) -> Tensor:
        return self.engine.translation_log_probs(self.direction, targets, sources)

    def prior_log_probs(self, lm: FrozenLanguageModel, sentences: Sequence[Tensor]) -> Tensor:
        like = parameter_like(self.reverse_models[0])
        return self.engine.language_model_log_probs(lm, sentences, like, self._batch_tokens)
