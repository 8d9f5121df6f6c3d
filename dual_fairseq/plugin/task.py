"""``dual_translation``: both directions of a language pair from one binarized directory and in one checkpoint."""

import copy
import json
import logging
import math
import os
import sys
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Optional, TextIO

import numpy as np
import torch
from fairseq import utils
from fairseq.data import data_utils, indexed_dataset
from fairseq.logging import metrics
from fairseq.models import ARCH_MODEL_REGISTRY, FairseqEncoderDecoderModel
from fairseq.models.nat import FairseqNATModel
from fairseq.tasks import register_task
from fairseq.tasks.translation import EVAL_BLEU_ORDER, TranslationConfig, TranslationTask
from omegaconf import II, OmegaConf, open_dict
from sacrebleu.metrics import BLEU

from ..common.errors import UserError
from .checkpoint import (
    check_dictionary,
    check_weightless_options,
    data_directories,
    forget_word_vectors,
    load_state,
    load_weights,
    set_options,
)
from .dataset import DualLanguagePairDataset
from .dual_inference import DualInferenceGenerator, InputNumbers, Weights, component_line, weights_of_options
from .language_model import FrozenLanguageModel, find_language_model, load_language_model
from .model import DualModel, direction_name, of_direction
from .score_cache import ScoreCache
from .word_vectors import VectorFile, check_options, start_from_vectors

logger = logging.getLogger(__name__)


@dataclass
class DualTranslationConfig(TranslationConfig):
    src_lm: Optional[str] = field(
        default=None, metadata={"help": "fairseq language model of the source language (frozen)"}
    )
    tgt_lm: Optional[str] = field(
        default=None, metadata={"help": "fairseq language model of the target language (frozen)"}
    )
    init_src2tgt: Optional[str] = field(
        default=None, metadata={"help": "plain fairseq translation checkpoint to start source→target from"}
    )
    init_tgt2src: Optional[str] = field(
        default=None, metadata={"help": "plain fairseq translation checkpoint to start target→source from"}
    )
    src_embed_path: Optional[str] = field(
        default=None,
        metadata={"help": "word vectors of the source language (text: word2vec, fastText, GloVe), for both directions"},
    )
    tgt_embed_path: Optional[str] = field(
        default=None, metadata={"help": "word vectors of the target language, for both directions"}
    )
    lm_score_cache: Optional[str] = field(
        default=None,
        metadata={"help": "directory that keeps the language models' scores of every sentence, computed once"},
    )
    dual_inference_alpha: Optional[float] = field(
        default=None,
        metadata={
            "help": "re-score translations: α log P(y|x) + (1 − α) [log P(x|y) + log P(y) − log P(x)]; 1 is plain"
        },
    )
    dual_inference_reverse_weight: Optional[float] = field(
        default=None, metadata={"help": "re-score translations by log P(y|x) + this · log P(x|y) + ..."}
    )
    dual_inference_lm_weight: Optional[float] = field(
        default=None, metadata={"help": "re-score translations by log P(y|x) + this · log P(y) + ..."}
    )
    dual_inference_length_weight: Optional[float] = field(
        default=None, metadata={"help": "re-score translations by log P(y|x) + this · length of y in tokens + ..."}
    )
    cpu: bool = II("common.cpu")
    save_dir: str = II("checkpoint.save_dir")
    restore_file: str = II("checkpoint.restore_file")
    finetune_from_model: Optional[str] = II("checkpoint.finetune_from_model")
    results_path: Optional[str] = II("common_eval.results_path")
    gen_subset: str = II("dataset.gen_subset")
    path: Optional[str] = II("common_eval.path")
    quiet: bool = II("common_eval.quiet")


@register_task("dual_translation", dataclass=DualTranslationConfig)
class DualTranslationTask(TranslationTask):
    """Train and use two translation models as a pair.

    The task is made of two of fairseq's own translation tasks, one a direction: each builds its model, its validation
    BLEU and its generator as it would alone, so an arch never learns that it is one of a pair.
    """

    cfg: DualTranslationConfig

    def __init__(self, cfg: DualTranslationConfig, src_dict, tgt_dict) -> None:
        # fairseq makes the batches once, by the epoch that a process started in; made anew every epoch, they depend on
        # seed and epoch only, and a resumed run sees those of an unbroken one
        with open_dict(cfg) if OmegaConf.is_config(cfg) else nullcontext():
            cfg.rebuild_batches = True
        super().__init__(cfg, src_dict, tgt_dict)
        self.directions = (
            direction_name(cfg.source_lang, cfg.target_lang),
            direction_name(cfg.target_lang, cfg.source_lang),
        )
        reverse_cfg = copy.deepcopy(cfg)
        reverse_cfg.source_lang, reverse_cfg.target_lang = cfg.target_lang, cfg.source_lang
        self.sides = dict(
            zip(
                self.directions,
                (
                    TranslationTask(_with_detokenizer(copy.deepcopy(cfg)), src_dict, tgt_dict),
                    TranslationTask(_with_detokenizer(reverse_cfg), tgt_dict, src_dict),
                ),
                strict=True,
            )
        )
        self.dual_inference = _dual_inference_weights(cfg)
        self._input_numbers = InputNumbers()
        self._component_output: TextIO = sys.stdout
        self.gone_language_models: list[str] = []  # recorded in the checkpoint, but not there
        self.dual_inference_lms: dict[str, FrozenLanguageModel] = {}  # by file
        self.from_checkpoint = False  # built to look at a finished checkpoint, by the checkpoint's own options
        self._trained = self.state_dict()
        self._recorded: dict[str, Any] = {}  # what a checkpoint that was read says of itself
        self._language_models: tuple[FrozenLanguageModel, FrozenLanguageModel] | None = None
        self._score_cache: ScoreCache | None = None
        self._lm_limit = math.inf  # the longest sentence that both language models score

    @classmethod
    def add_args(cls, parser) -> None:
        super().add_args(parser)
        # Checked while the options are read: fairseq stumbles over the options of some other archs before any task is
        # set up. (argparse converts the default as well, which in fairseq is an arch of no importance.)
        for action in parser._actions:
            if "--arch" in action.option_strings:
                action.type = lambda name, default=action.default: name if name == default else pair_arch(name)

    @classmethod
    def setup_task(cls, cfg: DualTranslationConfig, **kwargs):
        """Find the languages, load both dictionaries.

        Raises:
            UserError: the data directory or a language is not there.
        """
        directory = utils.split_paths(cfg.data)[0]
        if not os.path.isdir(directory):
            raise UserError(f"{directory}: there is no such data directory; make one with scripts/preprocess.sh")
        if cfg.source_lang is None or cfg.target_lang is None:
            cfg.source_lang, cfg.target_lang = data_utils.infer_language_pair(directory)
        source, target = cfg.source_lang, cfg.target_lang
        if source is None or target is None:
            raise UserError(f"{directory}: holds no binarized pair; give the languages with -s and -t")
        if source == target:
            raise UserError(f"-s {source} -t {target}: a pair needs two languages")
        for language in (source, target):
            if "." in language:  # state-dict keys are dotted paths
                raise UserError(f"language code '{language}': must not contain a dot")
            if not os.path.isfile(os.path.join(directory, f"dict.{language}.txt")):
                raise UserError(
                    f"{directory}: has no dict.{language}.txt; is '{language}' one of its languages "
                    "(-s/-t), and was it made by fairseq-preprocess?"
                )
        if cfg.num_batch_buckets > 0:
            raise UserError("--num-batch-buckets: not for a pair, whose sentences are padded once a direction")
        if cfg.left_pad_target:
            raise UserError("--left-pad-target: not for a pair, since language models read a target from its beginning")
        task = super().setup_task(cfg, **kwargs)
        task.from_checkpoint = kwargs.get("from_checkpoint", False)
        return task

    # --- which way a run was trained

    @property
    def trained_directions(self) -> tuple[str, str]:
        """Both directions, the one first that was source→target in training and that ``--dual-lambda`` belongs to.

        ``fairseq-validate`` takes λ and the language models from the checkpoint but -s and -t from the command line, so
        a pair may be looked at the other way round than it was trained.
        """
        return self.directions if self._trained["source_lang"] == self.cfg.source_lang else self.directions[::-1]

    def state_dict(self) -> dict[str, Any]:
        return {name: getattr(self.cfg, name) for name in ("source_lang", "src_lm", "tgt_lm")}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._recorded = state_dict
        if self.from_checkpoint:  # a resumed run goes by its own command line
            self._trained |= state_dict

    # --- data

    def load_dataset(self, split: str, epoch: int = 1, combine: bool = False, **kwargs) -> None:
        """Load a split; with both sides present its batches carry both directions."""
        paths = utils.split_paths(self.cfg.data)
        directory = paths[(epoch - 1) % len(paths)] if split == self.cfg.train_subset else paths[0]
        try:
            super().load_dataset(split, epoch, combine, **kwargs)
            dataset = self.datasets[split]
            if len(dataset) == 0:
                raise ValueError(f"{directory}: split '{split}' is empty")
        except (FileNotFoundError, AssertionError, ValueError):
            self._explain_split(directory, split)
            raise
        if dataset.tgt is None:
            return  # a source side alone can still be translated
        self.datasets[split] = DualLanguagePairDataset(
            dataset, keep_remainder=split != self.cfg.train_subset, lm_scores=self._cached_scores(dataset, split)
        )

    def _explain_split(self, directory: str, split: str) -> None:
        """Say why a split could not be loaded: it is not there, is empty, or its sides do not correspond.

        Only after a failure, since opening a side reads all of it.

        Raises:
            UserError: one of these.
        """
        mend = "make it again with scripts/preprocess.sh or fairseq-preprocess"
        for prefix in (f"{split}.{direction}." for direction in self.directions):
            files = {
                lang: os.path.join(directory, prefix + lang) for lang in (self.cfg.source_lang, self.cfg.target_lang)
            }
            if not indexed_dataset.dataset_exists(files[self.cfg.source_lang], impl=self.cfg.dataset_impl):
                continue
            sizes = {}
            for (language, path), dictionary in zip(files.items(), (self.src_dict, self.tgt_dict), strict=True):
                try:
                    sides = data_utils.load_indexed_dataset(path, dictionary, self.cfg.dataset_impl)
                except ValueError:  # an empty file cannot be mapped into memory
                    sides = []
                if sides is not None:
                    sizes[language] = len(sides)
            if 0 in sizes.values():
                raise UserError(f"{directory}: split '{split}' is empty; {mend}")
            if len(set(sizes.values())) > 1:
                counts = " and ".join(f"{size} {language}" for language, size in sizes.items())
                raise UserError(f"{directory}: split '{split}' has {counts} sentences; {mend}")
            return
        raise UserError(f"{directory}: has no binarized split '{split}' of {' or '.join(self.directions)}; {mend}")

    def max_positions(self) -> tuple[int, int]:
        """Every sentence is a source once, a target once and scored by its LM: the smallest of the limits."""
        limits = [self.cfg.max_source_positions, self.cfg.max_target_positions]
        limit = int(min(*limits, self._lm_limit))
        return (limit, limit)

    # --- models

    def build_model(self, cfg, from_checkpoint: bool = False) -> DualModel:
        """Build one model of ``--arch`` a direction, warm-started where a checkpoint is given, else with word vectors.

        Raises:
            UserError: the arch is not an autoregressive encoder–decoder, or a warm-start checkpoint or a file of word
                vectors does not fit.
        """
        pair_arch(arch_name(cfg))
        vectors = [] if from_checkpoint else self._vector_files()
        check_options(vectors, cfg, ARCH_MODEL_REGISTRY.get(arch_name(cfg)))
        configs = dict(zip(self.directions, (cfg, _reversed_model_config(cfg)), strict=True))
        models = {}
        for direction, side in self.sides.items():
            side_cfg = configs[direction]
            if from_checkpoint:
                forget_word_vectors(side_cfg)
            models[direction] = side.build_model(side_cfg, from_checkpoint)
            if not isinstance(models[direction], FairseqEncoderDecoderModel):
                raise UserError(f"--arch {arch_name(cfg)}: is not an encoder–decoder model")
        restored = os.path.exists(os.path.join(self.cfg.save_dir, self.cfg.restore_file))
        if not from_checkpoint and not restored:  # a run that goes on has its weights already
            afresh = {} if self.cfg.finetune_from_model else dict(models)
            for direction, option, path in (
                (self.directions[0], "--init-src2tgt", self.cfg.init_src2tgt),
                (self.directions[1], "--init-tgt2src", self.cfg.init_tgt2src),
            ):
                if path:
                    self._warm_start(models[direction], configs[direction], direction, path, option)
                    afresh.pop(direction, None)
            languages = {d: (side.cfg.source_lang, side.cfg.target_lang) for d, side in self.sides.items()}
            start_from_vectors(afresh, languages, vectors)
        return DualModel(models)

    def _vector_files(self) -> list[VectorFile]:
        """The files of word vectors that are given."""
        given = (
            ("--src-embed-path", self.cfg.src_embed_path, self.cfg.source_lang, self.source_dictionary),
            ("--tgt-embed-path", self.cfg.tgt_embed_path, self.cfg.target_lang, self.target_dictionary),
        )
        joint = self.source_dictionary == self.target_dictionary
        return [VectorFile(option, path, lang, dictionary, joint) for option, path, lang, dictionary in given if path]

    def _warm_start(self, model: FairseqEncoderDecoderModel, model_cfg, direction: str, path: str, option: str) -> None:
        """Start one direction from a plain translation checkpoint, or from that direction of a pair."""
        state = load_state(path, option)
        side, theirs = self.sides[direction], state["cfg"].task
        weights = of_direction(state["model"], direction)
        if not weights and any(key.startswith("models.") for key in state["model"]):
            raise UserError(f"{option} {path}: holds a pair of other languages, without {direction}")
        if not weights:
            weights = state["model"]
            source, target = getattr(theirs, "source_lang", None), getattr(theirs, "target_lang", None)
            if source and target and direction_name(source, target) != direction:
                raise UserError(f"{option} {path}: translates {direction_name(source, target)}, not {direction}")
        for language, dictionary in (
            (side.cfg.source_lang, side.source_dictionary),
            (side.cfg.target_lang, side.target_dictionary),
        ):
            candidates = (d / f"dict.{language}.txt" for d in [Path(path).parent, *data_directories(theirs)])
            if check_dictionary(dictionary, language, candidates, path, option) is None:
                logger.warning("%s %s: its dict.%s.txt was not found and not compared", option, path, language)
        check_weightless_options(model_cfg, state["cfg"].model, path, option)
        load_weights(model, weights, state["cfg"].model, path, option, f"the model of {direction}")
        logger.info("%s: started from %s", direction, path)

    def language_models(self) -> tuple[FrozenLanguageModel, FrozenLanguageModel]:
        """The frozen LMs of the source and of the target language, loaded at the first call.

        Raises:
            UserError: one is not given, or does not fit its dictionary.
        """
        if self._language_models is None:
            (source_option, source_path), (target_option, target_path) = self._language_model_files()
            source_lm = load_language_model(source_path, self.source_dictionary, self.cfg.source_lang, source_option)
            if target_path == source_path and self.source_dictionary == self.target_dictionary:
                target_lm = source_lm  # one file may serve both languages of a joint dictionary
            else:
                target_lm = load_language_model(
                    target_path, self.target_dictionary, self.cfg.target_lang, target_option
                )
            self._language_models = (source_lm, target_lm)
            self._lm_limit = min(source_lm.max_positions, target_lm.max_positions)
        return self._language_models

    def prepare_language_models(self) -> None:
        """See before any training that λ > 0 has what it needs. With a warm ``--lm-score-cache`` no LM is loaded.

        Raises:
            UserError: as :meth:`language_models`, or the cache directory cannot be used.
        """
        if self.cfg.lm_score_cache:
            self._language_model_files()
            self._score_cache = ScoreCache(self.cfg.lm_score_cache, self.cfg.cpu)
        else:
            self.language_models()

    def _language_model_files(self) -> list[tuple[str, str]]:
        """(option, file) of the source and of the target language's LM."""
        given = [("--src-lm", self.cfg.src_lm or ""), ("--tgt-lm", self.cfg.tgt_lm or "")]
        missing = [option for option, path in given if not path]
        if missing:
            raise UserError(
                f"{' and '.join(missing)} missing: λ > 0 needs a language model of each language; give both, or "
                "--dual-lambda 0 to train the pair without them"
            )
        as_trained = (self.cfg.src_lm, self.cfg.tgt_lm) == (self._trained["src_lm"], self._trained["tgt_lm"])
        if as_trained and self.trained_directions != self.directions:
            given.reverse()  # the checkpoint's own, seen from the other side
        for option, path in given:
            if not os.path.isfile(path):
                raise UserError(f"{option} {path}: there is no such file")
        return given

    def begin_epoch(self, epoch: int, model) -> None:
        super().begin_epoch(epoch, model)
        if self._score_cache is not None:
            self._language_models = None  # every split is scored by now, so no model is needed in memory

    def _cached_scores(self, dataset, split: str) -> tuple[np.ndarray, np.ndarray] | None:
        """log P(x) and log P(y) of every pair of a split, two (N,) in nats, where a cache is in use."""
        if self._score_cache is None:
            return None
        sides = (
            (dataset.src, dataset.src_sizes, self.source_dictionary, self.cfg.source_lang),
            (dataset.tgt, dataset.tgt_sizes, self.target_dictionary, self.cfg.target_lang),
        )
        scores = []
        for i, ((_, path), (sentences, sizes, dictionary, language)) in enumerate(
            zip(self._language_model_files(), sides, strict=True)
        ):

            def load(index: int = i) -> FrozenLanguageModel:
                return self.language_models()[index]

            name = f"{split}.{language}"
            scores.append(self._score_cache.scores(sentences, sizes, dictionary, path, load, name))
        self._lm_limit = min(self._lm_limit, *(side.max_positions for side in scores))
        return scores[0].log_probs, scores[1].log_probs

    def build_criterion(self, cfg, from_checkpoint: bool = False):
        """Build the criterion, which loads and checks the language models before any training.

        Raises:
            UserError: the criterion is not one for a pair.
        """
        name = getattr(cfg, "_name", None) or getattr(cfg, "criterion", None)
        if name != "dual_cross_entropy":
            raise UserError(f"--criterion {name}: --task dual_translation trains with --criterion dual_cross_entropy")
        return super().build_criterion(cfg, from_checkpoint)

    # --- generation

    def build_generator(self, models, args, **kwargs):
        """A generator of source→target: of a pair, that direction's model is taken, or all of it for dual inference.

        Raises:
            UserError: dual inference asks for a language model that is not given.
        """
        generator = super().build_generator(self._of_direction(models), args, **kwargs)
        if self.dual_inference is None:
            return generator
        self._printed = getattr(args, "nbest", 1)
        if self.cfg.results_path and not self.from_checkpoint:
            # fairseq tells nobody the file that it prints to
            path = os.path.join(self.cfg.results_path, f"components-{self.cfg.gen_subset}.txt")
            self._component_output = open(path, "w", buffering=1, encoding="utf-8")  # noqa: SIM115 (until the end)
        return DualInferenceGenerator(
            generator,
            [model.models[self.directions[1]] for model in models],
            self._dual_inference_language_models(self.dual_inference),
            self.source_dictionary,
            self.cfg.left_pad_source,
            self.dual_inference,
            lenpen=0.0 if getattr(args, "unnormalized", False) else getattr(args, "lenpen", 1.0),
        )

    def _dual_inference_language_models(
        self, weights: Weights
    ) -> tuple[FrozenLanguageModel | None, FrozenLanguageModel | None]:
        """The LMs of the source and of the target language: those given, else those that the pair was trained with."""
        recorded = [self._recorded.get("src_lm"), self._recorded.get("tgt_lm")]
        if self._recorded.get("source_lang") != self.cfg.source_lang:
            recorded.reverse()
        checkpoint = utils.split_paths(self.cfg.path)[0] if self.cfg.path else None
        lms: list[FrozenLanguageModel | None] = []
        for language, dictionary, option, given, known, weight in (
            (self.cfg.source_lang, self.source_dictionary, "--src-lm", self.cfg.src_lm, recorded[0], weights.source_lm),
            (self.cfg.target_lang, self.target_dictionary, "--tgt-lm", self.cfg.tgt_lm, recorded[1], weights.lm),
        ):
            # with plain weights all components are wanted, to tune on; else those that count
            path = given or find_language_model(language, known, checkpoint) if weight or weights.plain else None
            if not path and weight:
                raise UserError(
                    f"{option} missing: dual inference with these weights needs a language model of {language}"
                )
            lm = self.dual_inference_lms.get(path) if path else None
            if path and (lm is None or lm.dictionary != dictionary):
                lm = self.dual_inference_lms[path] = load_language_model(path, dictionary, language, option)
            lms.append(lm)
        return (lms[0], lms[1])

    def build_dataset_for_inference(self, src_tokens, src_lengths, constraints=None):
        if self.dual_inference is not None:
            pad = self.source_dictionary.pad()
            self._input_numbers.expect(row[row.ne(pad)] for row in src_tokens)
        return super().build_dataset_for_inference(src_tokens, src_lengths, constraints=constraints)

    def inference_step(self, generator, models, sample, prefix_tokens=None, constraints=None):
        hypotheses = super().inference_step(generator, self._of_direction(models), sample, prefix_tokens, constraints)
        if isinstance(generator, DualInferenceGenerator) and not self.from_checkpoint and not self.cfg.quiet:
            self._print_components(sample, hypotheses)
        return hypotheses

    def _print_components(self, sample, hypotheses) -> None:
        """Print the components of a batch's hypotheses, in the order of fairseq's H- lines, before these come.

        With ``--results-path`` they go to ``components-<split>.txt`` there.
        """
        if "id" in sample:
            numbers = sample["id"].tolist()
        else:
            pad = self.source_dictionary.pad()
            numbers = [self._input_numbers.take(row[row.ne(pad)]) for row in sample["net_input"]["src_tokens"]]
        for number, of_sentence in zip(numbers, hypotheses, strict=True):
            for hypothesis in of_sentence[: self._printed]:
                print(component_line(number, hypothesis["components"]), file=self._component_output)

    def _of_direction(self, models) -> list:
        return [m.models[self.directions[0]] if isinstance(m, DualModel) else m for m in models]

    # --- validation

    def valid_step(self, sample, model, criterion):
        model.eval()
        with torch.no_grad():
            loss, sample_size, logging_output = criterion(model, sample)
        if self.cfg.eval_bleu:
            for (direction, side), batch in zip(self.sides.items(), (sample, sample["reverse"]), strict=True):
                bleu = side._inference_with_bleu(side.sequence_generator, batch, model.models[direction])
                logging_output.update(_bleu_counts(bleu, direction))
        return loss, sample_size, logging_output

    def reduce_metrics(self, logging_outputs, criterion) -> None:
        super(TranslationTask, self).reduce_metrics(logging_outputs, criterion)
        if not any(f"_bleu_sys_len_{self.directions[0]}" in log for log in logging_outputs):
            return
        for direction in self.directions:
            for key in _bleu_keys(direction):
                metrics.log_scalar(key, int(sum(log.get(key, 0) for log in logging_outputs)))
            metrics.log_derived(f"bleu_{direction}", lambda meters, d=direction: _bleu_score(meters, d))
        metrics.log_derived(
            "bleu", lambda meters: round(sum(_bleu_score(meters, d) for d in self.directions) / len(self.directions), 2)
        )


def _dual_inference_weights(cfg: DualTranslationConfig) -> Weights | None:
    return weights_of_options(
        cfg.dual_inference_alpha,
        cfg.dual_inference_reverse_weight,
        cfg.dual_inference_lm_weight,
        cfg.dual_inference_length_weight,
    )


# Role-named options that follow the language, so that they change places in the reverse direction.
_LANGUAGE_OPTIONS = (
    ("encoder_embed_path", "decoder_embed_path"),
    ("encoder_freeze_embed", "decoder_freeze_embed"),
)


def arch_name(cfg) -> str:
    return getattr(cfg, "_name", None) or getattr(cfg, "arch", None) or "?"


def pair_arch(name: str) -> str:
    """An arch name, if a pair can be made of it.

    Raises:
        UserError: the arch has no P(target | source) of its own.
    """
    arch = ARCH_MODEL_REGISTRY.get(name)
    if arch is not None and not issubclass(arch, FairseqEncoderDecoderModel):
        raise UserError(f"--arch {name}: is not an encoder–decoder model, and a pair needs two; try --arch transformer")
    if arch is not None and issubclass(arch, FairseqNATModel):
        raise UserError(
            f"--arch {name}: is not autoregressive, so it has no log P(y|x) for the duality gap; try --arch transformer"
        )
    return name


def _reversed_model_config(cfg):
    """The model options of the reverse direction: word vectors named by role change places with the languages."""
    reverse = copy.deepcopy(cfg)
    if getattr(cfg, "share_all_embeddings", False):
        return reverse  # one table for both roles
    for first, second in _LANGUAGE_OPTIONS:
        if hasattr(cfg, first) and hasattr(cfg, second):
            set_options(reverse, {first: getattr(cfg, second), second: getattr(cfg, first)})
    return reverse


def _with_detokenizer(cfg: DualTranslationConfig) -> DualTranslationConfig:
    """Detokenize validation output for its own language (fairseq's default is English for both)."""
    args = _detokenizer_options(cfg)
    cfg.eval_bleu_detok_args = json.dumps({"source_lang": cfg.source_lang, "target_lang": cfg.target_lang, **args})
    return cfg


def _detokenizer_options(cfg: DualTranslationConfig) -> dict[str, Any]:
    """Raises: UserError: ``--eval-bleu-detok-args`` is no JSON."""
    try:
        return json.loads(cfg.eval_bleu_detok_args or "{}")
    except json.JSONDecodeError as error:
        raise UserError(f"--eval-bleu-detok-args {cfg.eval_bleu_detok_args}: is no JSON ({error})") from error


def _bleu_keys(direction: str) -> list[str]:
    counts = [f"_bleu_{kind}_{n}_{direction}" for kind in ("counts", "totals") for n in range(EVAL_BLEU_ORDER)]
    return [*counts, f"_bleu_sys_len_{direction}", f"_bleu_ref_len_{direction}"]


def _bleu_counts(bleu, direction: str) -> dict[str, int]:
    """What has to be added up over batches and processes for a corpus BLEU, entry by entry."""
    return dict(zip(_bleu_keys(direction), [*bleu.counts, *bleu.totals, bleu.sys_len, bleu.ref_len], strict=True))


def _bleu_score(meters, direction: str) -> float:
    *counts, sys_len, ref_len = (int(meters[key].sum) for key in _bleu_keys(direction))
    bleu = BLEU.compute_bleu(
        correct=counts[:EVAL_BLEU_ORDER],
        total=counts[EVAL_BLEU_ORDER:],
        sys_len=sys_len,
        ref_len=ref_len,
        smooth_method="exp",
    )
    return round(bleu.score, 2)
