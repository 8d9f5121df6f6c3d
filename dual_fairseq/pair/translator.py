"""Raw text in, raw text out, with a trained pair.

from dual_fairseq import DualTranslator

pair = DualTranslator.from_pretrained("run")
pair.translate("Ein Hund rennt.", target="en")
pair.translate(["Ein Hund rennt.", "Ein Mann singt."], source="de", target="en")
pair.translate_nbest(["A dog runs."], source="en", target="de", nbest=5)
"""

from __future__ import annotations

import copy
import logging
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from types import SimpleNamespace
from typing import Any, overload

import torch
from fairseq import tasks
from fairseq.data import Dictionary
from fairseq.dataclass.configs import GenerationConfig
from torch import Tensor

from ..common.errors import UserError
from ..common.folders import find_checkpoint, refuse_colons
from ..data.text import TextPipeline, UnknownLabel, indices, looks_foreign
from ..plugin.generator import DirectionTask
from ..plugin.model import parameter_like
from ..plugin.ranking import Choice, Weighting, choices_by_language
from ..plugin.task import DualTranslationTask
from .engine import CTranslate2, batch_tokens, choose_engine
from .load import load_model
from .search import check_beam, search

logger = logging.getLogger(__name__)

_Found = tuple[str, float, bool]  # tokens of a piece, score, whether it was cut off


@dataclass(frozen=True)
class Hypothesis:
    """One translation.

    Attributes:
        text: raw text, detokenised.
        score: fairseq's score: log P(translation | source) in nats, ``</s>`` included, divided by length ** lenpen
            (nats per token if lenpen is 1). With dual inference, the score that decides. For a line translated in
            pieces, the mean over the pieces, weighted by length.
        tokens: the tokens of the model (BPE pieces, characters or words), joined by spaces.
        cut_off: whether the translation, or one of its pieces, was cut off at the length limit.
    """

    text: str
    score: float
    tokens: str
    cut_off: bool = False


class DualTranslator:
    """A pair that translates raw text in both directions, or one direction; see :meth:`from_pretrained`.

    Args:
        pairs: one pair or exported model, or several with the same languages and dictionaries as an ensemble.
        task: the task of one direction.
        text: tokenisation and segmentation.
        engine: translates instead of fairseq.

    Attributes:
        languages: the two languages, the source language of training first.
    """

    def __init__(
        self,
        pairs: Sequence[Any],
        task: DirectionTask,
        text: TextPipeline,
        engine: CTranslate2 | None = None,
    ) -> None:
        self.pairs = list(pairs)
        self.engine = engine
        self.text = text
        self.languages: tuple[str, str] = (task.cfg.source_lang, task.cfg.target_lang)
        if set(text.languages) != set(self.languages):
            raise UserError(
                f"{text.folder}: is text of {' and '.join(text.languages)}, but the pair's languages are "
                f"{' and '.join(self.languages)}; give the folder that the pair was trained on"
            )
        self._tasks: dict[tuple[str, str], Any] = {self.languages: task}
        if isinstance(task, DualTranslationTask):
            self._tasks[self.languages[::-1]] = back = _reversed(task)
            back.priors.for_inference = task.priors.for_inference  # loaded once
        self._generators: dict[str, tuple[Any, Any]] = {}  # target language → (options, generator)
        self._choices: dict[str, Choice | None] | None = None  # of dual inference, by target language
        self._warned: set[str] = set()  # source languages whose text looks foreign
        for pair in self.pairs:
            # without BeamableMM (of fconv), which binds a model to one beam size
            pair.prepare_for_inference_(SimpleNamespace(generation=GenerationConfig(no_beamable_mm=True)))

    @classmethod
    def from_pretrained(
        cls,
        run_dir: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
        dest: str | os.PathLike[str] | None = None,
        device: str | torch.device | None = None,
        fp16: bool = False,
        dual_inference: Weighting | Mapping[str, Weighting | None] | None = None,
        engine: str = "fairseq",
        int8: bool = False,
        **overrides: Any,
    ) -> DualTranslator:
        """Load a trained pair.

        Args:
            run_dir: a folder of ``dual-fairseq train`` or of one of its stages, a checkpoint of a pair, or an
                output of ``dual-fairseq export``, see :func:`find_checkpoint`. Several translate as an ensemble.
            dest: the folder that ``dual-fairseq preprocess`` wrote, if neither the run nor the checkpoint names it, see
                :meth:`TextPipeline.of_checkpoint`.
            device: where to put the models; default: a GPU if there is one.
            fp16: half precision, on a GPU.
            dual_inference: let both models and both language models choose among the translations of the beam: an α,
                the ``weights.json`` of ``dual-fairseq tune`` (other target languages are refused), or one of these for
                each target language (None: plain search; languages left out are refused).
            engine: ``fairseq``, ``ctranslate2``, or ``auto``, see :func:`~dual_fairseq.pair.engine.choose_engine`.
            int8: compute in 8 bits, with CTranslate2.
            overrides: new values of fairseq's model and task options, e.g. ``src_lm="lm.de.pt"``.

        Raises:
            UserError: there is no pair, a file that belongs to it is missing, or the engine cannot run it.
        """
        for name in ("fairseq", "dual_fairseq"):  # importing fairseq turns on all INFO messages
            if (library := logging.getLogger(name)).level == logging.NOTSET:
                library.setLevel(logging.WARNING)
        runs = [run_dir] if isinstance(run_dir, (str, os.PathLike)) else list(run_dir)
        checkpoints = [find_checkpoint(run) for run in runs]
        text = TextPipeline.of_checkpoint(checkpoints[0], dest)
        refuse_colons(text.dictionaries)
        pairs, directions = [], []
        for checkpoint in checkpoints:
            pair, task = load_model(
                checkpoint, text.dictionaries, device=device, overrides={"eval_bleu": False, **overrides}
            )
            if fp16 and not parameter_like(pair).is_cuda:
                raise UserError("fp16: half precision needs a GPU; leave it out")
            pairs.append(pair.half() if fp16 else pair)
            directions.append(getattr(task, "directions", (task.cfg.source_lang, task.cfg.target_lang)))
            if directions[0] != directions[-1]:
                raise UserError(f"{checkpoint}: is not a pair of the same languages as {checkpoints[0]}")
        translator = cls(pairs, task, text, choose_engine(engine, pairs, task, checkpoints, int8, overrides))
        if dual_inference is not None:
            translator._use_dual_inference(dual_inference)
        return translator

    def _use_dual_inference(self, weighting: Weighting | Mapping[str, Weighting | None]) -> None:
        if len(self._tasks) == 1:
            raise UserError("dual inference: needs a pair, not a model of one direction; give a run, or leave it out")
        self._choices = choices_by_language(weighting, self.languages)
        for (_, target), task in self._tasks.items():
            if (choice := self._choices.get(target)) is not None:
                task.dual_inference = choice.weights

    def chooses(self, target: str) -> bool:
        """Whether translations into a language are chosen by dual inference."""
        return any(
            getattr(task, "dual_inference", None) is not None
            for (_, into), task in self._tasks.items()
            if into == target
        )

    def use_language_models(self, files: Mapping[str, str | None]) -> None:
        """Set each language's model file for dual inference; None keeps the file of the pair's training."""
        for (source, target), task in self._tasks.items() if len(self._tasks) > 1 else ():
            task.cfg.src_lm = files.get(source) or task.cfg.src_lm
            task.cfg.tgt_lm = files.get(target) or task.cfg.tgt_lm
        self._generators.clear()

    def direction(self, source: str | None = None, target: str | None = None) -> tuple[str, str]:
        """(source, target); one may be left out, or both if there is only one direction.

        Raises:
            UserError: these are not the pair's two languages.
        """
        first, second = self.languages
        if len(self._tasks) == 1 and source is None and target is None:
            return self.languages
        if source is None and target is not None:
            source = first if target == second else second
        elif target is None and source is not None:
            target = first if source == second else second
        for direction in self._tasks:
            if direction == (source, target):
                return direction
        asked = f"{source} to {target}" if source is not None else "no language was named"
        known = " and ".join(f"{source} to {target}" for source, target in self._tasks)
        raise UserError(f"{asked}: this {'pair' if len(self._tasks) > 1 else 'model'} translates {known}")

    def __repr__(self) -> str:
        first, second = self.languages
        several = f"{len(self.pairs)} pairs, " * (len(self.pairs) > 1)
        where = f"{several}{parameter_like(self.pairs[0]).device}, {self.engine or 'fairseq'}"
        return f"<DualTranslator {first}-{second}, {where}, text as in {self.text.folder}>"

    @overload
    def translate(self, texts: str, source: str | None = None, target: str | None = None, **options: Any) -> str: ...

    @overload
    def translate(
        self, texts: Iterable[str], source: str | None = None, target: str | None = None, **options: Any
    ) -> list[str]: ...

    def translate(
        self, texts: str | Iterable[str], source: str | None = None, target: str | None = None, **options: Any
    ) -> str | list[str]:
        """The best translation of each text.

        Args:
            texts: raw text, one sentence each; or one string.
            source, target: the languages; one of them may be left out.
            options: options of :meth:`translate_nbest`.

        Returns:
            Raw text, in the order of ``texts``; one string for one string.
        """
        if isinstance(texts, str):
            return self.translate([texts], source, target, **options)[0]
        return [best[0].text for best in self.translate_nbest(texts, source, target, nbest=1, **options)]

    def translate_nbest(
        self,
        texts: Iterable[str],
        source: str | None = None,
        target: str | None = None,
        *,
        nbest: int = 1,
        beam: int = 5,
        lenpen: float | None = None,
        max_tokens: int = 4096,
        first: int = 1,
        advance: Callable[[int], object] = lambda count: None,
        **generation: Any,
    ) -> list[list[Hypothesis]]:
        """The ``nbest`` best translations of each text, best first.

        Texts of similar length are translated together. An empty text has one translation: empty, with score 0. A text
        with more tokens than the model accepts is cut into its sentences, or into shorter pieces if there are no
        sentence ends. The translations are joined, and a warning is logged.

        Args:
            texts: raw text, one sentence each.
            source, target: the languages; one of them may be left out.
            nbest: the number of translations, at most ``beam``.
            beam: beam size.
            lenpen: length penalty; above 1 favours longer translations. Default: 1, or the value of tuned weights.
            max_tokens: padded source tokens in a batch of fairseq; CTranslate2 makes its own batches.
            first: the number of the first text, in warnings.
            advance: called with the number of texts that have just been finished.
            generation: further options of fairseq's generation (fields of its ``GenerationConfig``, except
                ``constraints``), e.g. ``no_repeat_ngram_size=3``. A translation of n source tokens has at most
                ``max_len_a`` · n + ``max_len_b`` tokens; the default is
                :func:`~dual_fairseq.plugin.lengths.length_limit`. If it ended the best one, a warning is logged.

        Returns:
            One list per text, in the order of ``texts``.

        Raises:
            UserError: the languages are not the pair's, an option's value is invalid, or a GPU's memory ran out.
            TypeError: an option does not exist, or ``texts`` is one string.
        """
        if isinstance(texts, str):
            raise TypeError("texts: give a list of strings, not one string; translate() takes one, too")
        if unknown := generation.keys() - {f.name for f in fields(GenerationConfig) if f.name != "constraints"}:
            raise TypeError(f"unknown options of translation: {', '.join(sorted(unknown))}")
        check_beam(beam, nbest, lenpen, max_tokens)
        source, target = self.direction(source, target)
        task = self._tasks[source, target]
        if self._choices is not None and target not in self._choices:
            raise UserError(
                f"dual_inference: has weights for translations into {' and '.join(self._choices)}, not {target}; give "
                "weights by language, or None for plain search"
            )
        if lenpen is None:
            choice = (self._choices or {}).get(target)
            lenpen = 1.0 if choice is None or choice.lenpen is None else choice.lenpen
        generator = self._build_generator(task, {**generation, "beam": beam, "lenpen": lenpen})
        limit = int(min(task.max_positions()[0], *(pair.max_positions()[0] for pair in self.pairs))) - 1  # </s>

        pieces, text_of, left = self._cut(texts, source, task.source_dictionary, limit, first)
        advance(left.count(0))

        translated: list[list[_Found]] = [[] for _ in pieces]
        string = task.target_dictionary.string
        for number, beam_of_piece in search(task, generator, self.pairs, pieces, batch_tokens(generator, max_tokens)):
            kept = beam_of_piece[:nbest]
            translated[number] = [(string(h["tokens"].cpu()), float(h["score"]), h["cut_off"]) for h in kept]
            left[text_of[number]] -= 1
            if left[text_of[number]] == 0:
                advance(1)
        parts_of: list[list[list[_Found]]] = [[] for _ in left]
        for number, hypotheses in zip(text_of, translated, strict=True):
            parts_of[number].append(hypotheses)
        results = [self._joined(parts, target) for parts in parts_of]
        _warn_of_cut_off([first + number for number, best in enumerate(results) if best[0].cut_off], len(results))
        return results

    def _cut(
        self, texts: Iterable[str], source: str, dictionary: Dictionary, limit: int, first: int
    ) -> tuple[list[Tensor], list[int], list[int]]:
        """Texts as token indices; over-long texts in several pieces, with warnings.

        Returns:
            The pieces; for each piece, the number of its text; for each text, the number of its pieces.
        """
        pieces: list[Tensor] = []
        text_of: list[int] = []
        counts: list[int] = []
        for number, text in enumerate(texts):
            try:
                tokens = self.text.encode(text, source).split()
            except UnknownLabel as error:
                raise UserError(f"line {first + number}: {error}") from error
            parts = self.text.subword[source].cut(tokens, limit) if tokens else []
            if len(parts) > 1:
                logger.warning(
                    "line %d: %s tokens, more than the %s that this model can read; translated in %d pieces",
                    first + number, f"{len(tokens):,}", f"{limit:,}", len(parts),
                )  # fmt: skip
            pieces += [indices(part, dictionary) for part in parts]
            text_of += [number] * len(parts)
            counts.append(len(parts))
        if source not in self._warned and looks_foreign(pieces, dictionary):
            self._warned.add(source)  # once per language
            logger.warning(
                "lines %d to %d: most tokens are unknown to the models; is the text %s?",
                first, first + len(counts) - 1, source,
            )  # fmt: skip
        return pieces, text_of, counts

    def _build_generator(self, task: DirectionTask, options: dict[str, Any]) -> Any:
        last_options, generator = self._generators.get(task.cfg.target_lang, (None, None))
        if last_options != options:
            config = GenerationConfig(**options)
            generator = task.build_generator(self.pairs, config)
            if self.engine is not None:
                generator = self.engine.generator(task, generator, config)
            self._generators[task.cfg.target_lang] = (options, generator)
        return generator

    def _joined(self, parts: list[list[_Found]], target: str) -> list[Hypothesis]:
        """The n-best list of a text from the lists of its pieces, as long as the shortest of these."""
        if not parts:
            return [Hypothesis("", 0.0, "")]
        hypotheses = []
        for ranked in zip(*parts, strict=False):
            tokens = self.text.join([tokens for tokens, _, _ in ranked], target)
            lengths = [len(tokens.split()) + 1 for tokens, _, _ in ranked]  # with </s>
            score = sum(score * n for (_, score, _), n in zip(ranked, lengths, strict=True)) / sum(lengths)
            cut_off = any(cut_off for _, _, cut_off in ranked)
            hypotheses.append(Hypothesis(self.text.decode(tokens, target), score, tokens, cut_off))
        return hypotheses


def _warn_of_cut_off(numbers: Sequence[int], count: int) -> None:
    """Warn which texts have a translation that was cut off at the length limit."""
    if numbers:
        logger.warning(
            f"line {', '.join(map(str, numbers[:10]))}{', ...' * (len(numbers) > 10)}: {len(numbers):,} of {count:,} "
            "translations were cut off at the length limit; --max-len-a and --max-len-b (in Python max_len_a and "
            "max_len_b) allow longer translations"
        )


def _reversed(task: DualTranslationTask) -> DualTranslationTask:
    """The task of the other direction, over the same dictionaries."""
    cfg = copy.deepcopy(task.cfg)
    cfg.source_lang, cfg.target_lang = task.cfg.target_lang, task.cfg.source_lang
    cfg.src_lm, cfg.tgt_lm = task.cfg.tgt_lm, task.cfg.src_lm
    return tasks.setup_task(cfg, from_checkpoint=True)
