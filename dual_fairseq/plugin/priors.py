"""P(x) and P(y): the frozen language models of a pair, loaded when first needed, and the cache of their scores."""

from __future__ import annotations

import math
import os
from typing import Any

import numpy as np
from fairseq import utils
from fairseq.data import Dictionary, LanguagePairDataset

from ..common.errors import UserError
from .language_model import FrozenLanguageModel, find_language_model, load_language_model
from .ranking import Weights
from .score_cache import ScoreCache


class Priors:
    """The language models of the source and of the target language; all pairs of values have this order.

    Args:
        cfg: the task's configuration; each call reads it again.
        dictionaries: of both languages.
    """

    def __init__(self, cfg: Any, dictionaries: tuple[Dictionary, Dictionary]) -> None:
        self.cfg = cfg
        self.dictionaries = dictionaries
        self.limit = math.inf  # the longest sentence that both score, in tokens
        self.for_inference: dict[str, FrozenLanguageModel] = {}  # by file
        self.recorded: dict[str, Any] = {}  # options of the run that a checkpoint came from
        self.trained = self.options()  # options of the run that λ and the language models belong to
        self._models: tuple[FrozenLanguageModel, FrozenLanguageModel] | None = None
        self._cache: ScoreCache | None = None

    def options(self) -> dict[str, Any]:
        """The options that a checkpoint records: the source language and the language models' files."""
        return {name: getattr(self.cfg, name) for name in ("source_lang", "src_lm", "tgt_lm")}

    @property
    def as_trained(self) -> bool:
        """Whether source and target are those of the training run.

        ``fairseq-validate`` takes λ and the language models from the checkpoint but -s and -t from the command line, so
        it may see a pair in the reverse order of its training.
        """
        return self.trained["source_lang"] == self.cfg.source_lang

    def prepare(self) -> None:
        """Check the needs of λ > 0 before any training. With ``--lm-score-cache`` no LM is loaded here.

        Raises:
            UserError: see :meth:`models`.
        """
        if self.cfg.lm_score_cache:
            self.files()
            self._cache = ScoreCache(self.cfg.lm_score_cache, self.cfg.cpu)
        else:
            self.models()

    def models(self) -> tuple[FrozenLanguageModel, FrozenLanguageModel]:
        """Both language models, loaded at the first call.

        Raises:
            UserError: one is missing, or does not fit its dictionary.
        """
        if self._models is None:
            (source_option, source_path), (target_option, target_path) = self.files()
            source, target = self.dictionaries
            source_lm = load_language_model(source_path, source, self.cfg.source_lang, source_option)
            if target_path == source_path and source == target:
                target_lm = source_lm  # one file may serve both languages of a joint dictionary
            else:
                target_lm = load_language_model(target_path, target, self.cfg.target_lang, target_option)
            self._models = (source_lm, target_lm)
            self.limit = min(source_lm.max_positions, target_lm.max_positions)
        return self._models

    def forget_models(self) -> None:
        """Free the memory of the models if their scores are cached."""
        if self._cache is not None:
            self._models = None

    def files(self) -> list[tuple[str, str]]:
        """(option, file) of each language model."""
        files = [("--src-lm", self.cfg.src_lm or ""), ("--tgt-lm", self.cfg.tgt_lm or "")]
        missing = [option for option, path in files if not path]
        if missing:
            raise UserError(
                f"{' and '.join(missing)} missing: λ > 0 needs a language model of each language; give both, or "
                "--dual-lambda 0 to train the pair without them"
            )
        unchanged = (self.cfg.src_lm, self.cfg.tgt_lm) == (self.trained["src_lm"], self.trained["tgt_lm"])
        if unchanged and not self.as_trained:
            files.reverse()  # the checkpoint's own, in reverse order
        for option, path in files:
            if not os.path.isfile(path):
                raise UserError(f"{option} {path}: there is no such file")
        return files

    def cached_scores(self, dataset: LanguagePairDataset, split: str) -> tuple[np.ndarray, np.ndarray] | None:
        """log P(x) and log P(y) of every pair of a split, two (N,) in nats; None without ``--lm-score-cache``."""
        if self._cache is None:
            return None
        sides = (
            (dataset.src, dataset.src_sizes, self.cfg.source_lang),
            (dataset.tgt, dataset.tgt_sizes, self.cfg.target_lang),
        )
        scores = []
        for i, ((_, path), (sentences, sizes, language)) in enumerate(zip(self.files(), sides, strict=True)):

            def load(index: int = i) -> FrozenLanguageModel:
                return self.models()[index]

            scores.append(self._cache.scores(sentences, sizes, self.dictionaries[i], path, load, f"{split}.{language}"))
        self.limit = min(self.limit, *(side.max_positions for side in scores))
        return scores[0].log_probs, scores[1].log_probs

    def inference_models(self, weights: Weights) -> tuple[FrozenLanguageModel | None, FrozenLanguageModel | None]:
        """The language models for dual inference: from the options, else from the training.

        Raises:
            UserError: a needed language model is missing.
        """
        recorded = [self.recorded.get("src_lm"), self.recorded.get("tgt_lm")]
        if self.recorded.get("source_lang") != self.cfg.source_lang:
            recorded.reverse()
        checkpoint = utils.split_paths(self.cfg.path)[0] if self.cfg.path else None
        lms: list[FrozenLanguageModel | None] = []
        for language, dictionary, option, file, known_file, weight in zip(
            (self.cfg.source_lang, self.cfg.target_lang),
            self.dictionaries,
            ("--src-lm", "--tgt-lm"),
            (self.cfg.src_lm, self.cfg.tgt_lm),
            recorded,
            (weights.source_lm, weights.lm),
            strict=True,
        ):
            # plain weights need all components, for tuning; else those with a weight
            path = file or find_language_model(language, known_file, checkpoint) if weight or weights.plain else None
            if not path and weight:
                raise UserError(
                    f"{option} missing: dual inference with these weights needs a language model of {language}"
                )
            lm = self.for_inference.get(path) if path else None
            if path and (lm is None or lm.dictionary != dictionary):
                lm = self.for_inference[path] = load_language_model(path, dictionary, language, option)
            lms.append(lm)
        return (lms[0], lms[1])
