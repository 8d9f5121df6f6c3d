"""``dual_translation``: both directions of a language pair from one binarized directory and in one checkpoint."""

import copy
import logging
import os
from contextlib import nullcontext
from functools import partial
from typing import Any

from fairseq import utils
from fairseq.models import ARCH_MODEL_REGISTRY, FairseqEncoderDecoderModel
from fairseq.tasks import register_task
from fairseq.tasks.translation import TranslationTask
from omegaconf import OmegaConf, open_dict

from ..common.errors import UserError
from ..compat.checkpoint_loading import restored_file
from .binarized import explain_split, languages_of
from .checkpoint import check_dictionaries, check_resumed, dictionary_digests
from .dataset import DualLanguagePairDataset
from .dual_inference import DualInferenceGenerator, check_pure
from .extra_lines import LinePrinter
from .generator import CutOff, DirectionTask
from .model import DualModel, arch_name, built, direction_name, pair_arch
from .priors import Priors
from .ranking import weights_of_options
from .task_options import DualTranslationConfig
from .validation_bleu import check_search, log_bleu, validate_as_target, validation_counts, validation_metric
from .warm_start import warm_start
from .word_vectors import check_options, reversed_model_options, start_from_vectors, vector_files

logger = logging.getLogger(__name__)


@register_task("dual_translation", dataclass=DualTranslationConfig)
class DualTranslationTask(DirectionTask):
    """Train and use two translation models as a pair.

    The task has two of fairseq's own translation tasks, one per direction. Each builds its model, its validation BLEU
    and its generator as it would alone, so an arch does not notice that it is part of a pair.

    All methods are fairseq's hooks, except :attr:`trained_directions`, which the criterion reads, and
    :meth:`check_checkpoint`.
    """

    cfg: DualTranslationConfig

    def __init__(self, cfg: DualTranslationConfig, src_dict, tgt_dict) -> None:
        # fairseq makes the batches once, for the epoch in which a process starts. Made again every epoch, they depend
        # only on seed and epoch, so a resumed run has the batches of an uninterrupted run
        with open_dict(cfg) if OmegaConf.is_config(cfg) else nullcontext():
            cfg.rebuild_batches = True
        super().__init__(cfg, src_dict, tgt_dict)
        self.sides: dict[str, DirectionTask] = {}
        for source, target, dictionaries in (
            (cfg.source_lang, cfg.target_lang, (src_dict, tgt_dict)),
            (cfg.target_lang, cfg.source_lang, (tgt_dict, src_dict)),
        ):
            side_cfg = copy.deepcopy(cfg)
            side_cfg.source_lang, side_cfg.target_lang = source, target
            validate_as_target(side_cfg)
            check_search(side_cfg)
            self.sides[direction_name(source, target)] = DirectionTask(side_cfg, *dictionaries)
        # many sentences have the same label or tags, so only the direction into them can be right or wrong
        annotations = {d: side for d, side in self.sides.items() if side.labels or side.tags}
        measured = annotations or self.sides
        self._bleu = {d: validation_metric(side.cfg, d in annotations) for d, side in measured.items() if cfg.eval_bleu}
        self.directions = tuple(self.sides)
        self.priors = Priors(cfg, (src_dict, tgt_dict))
        self.dual_inference = weights_of_options(
            cfg.dual_inference_alpha,
            cfg.dual_inference_reverse_weight,
            cfg.dual_inference_lm_weight,
            cfg.dual_inference_length_weight,
        )
        self.gone_language_models: list[str] = []  # recorded in the checkpoint, but missing
        self.from_checkpoint = False  # built from a finished checkpoint, with its own options
        self._lines = LinePrinter(src_dict)
        self._cut_off = CutOff()

    @property
    def trained_directions(self) -> tuple[str, ...]:
        """Both directions; the first was source→target in training, and ``--dual-lambda`` belongs to it."""
        return self.directions if self.priors.as_trained else self.directions[::-1]

    # --- fairseq's hooks: set-up

    @classmethod
    def add_args(cls, parser) -> None:
        super().add_args(parser)
        # Checked while the options are read: fairseq fails on the options of some other archs before any task is set
        # up. (argparse also converts the default, which is an unimportant arch in fairseq.)
        for action in parser._actions:
            if "--arch" in action.option_strings:
                action.type = lambda name, default=action.default: name if name == default else pair_arch(name)

    @classmethod
    def setup_task(cls, cfg: DualTranslationConfig, **kwargs):
        """Find the languages and load both dictionaries.

        Raises:
            UserError: the data directory or a language is missing, or an option is not for a pair.
        """
        directory = utils.split_paths(cfg.data)[0]
        cfg.source_lang, cfg.target_lang = languages_of(directory, cfg.source_lang, cfg.target_lang)
        if cfg.num_batch_buckets > 0:
            raise UserError(
                "--num-batch-buckets: not for a pair, whose sentences are padded for each direction; leave it out"
            )
        if cfg.left_pad_target:
            raise UserError("--left-pad-target: not for a pair, since language models read a target from its beginning")
        task = super().setup_task(cfg, **kwargs)
        task.from_checkpoint = kwargs.get("from_checkpoint", False)
        return task

    def state_dict(self) -> dict[str, Any]:
        return {**self.priors.options(), "dictionaries": dictionary_digests(self.dictionaries)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """fairseq calls this before it builds a model to use; a resumed run uses :meth:`check_checkpoint`.

        Raises:
            UserError: the pair was trained with other dictionaries.
        """
        option, path = ("--path", self.cfg.path) if self.cfg.path else ("the", "checkpoint")
        check_dictionaries(self.dictionaries, state_dict, [], path, option)
        self.priors.recorded = state_dict
        if self.from_checkpoint:  # a resumed run follows its own command line
            self.priors.trained |= state_dict

    def check_checkpoint(self, state: dict[str, Any], path: str, model_cfg: Any, keeps_optimizer: bool) -> None:
        """:func:`~.checkpoint.check_resumed`; ``compat/checkpoint_loading`` calls this."""
        check_resumed(state, path, model_cfg, self.directions, self.dictionaries, keeps_optimizer)

    # --- fairseq's hooks: data

    def load_dataset(self, split: str, epoch: int = 1, combine: bool = False, **kwargs) -> None:
        """Load a split; if it has both sides, its batches carry both directions."""
        paths = utils.split_paths(self.cfg.data)
        directory = paths[(epoch - 1) % len(paths)] if split == self.cfg.train_subset else paths[0]
        try:
            super().load_dataset(split, epoch, combine, **kwargs)
            dataset = self.datasets[split]
            if len(dataset) == 0:
                raise ValueError(f"{directory}: split '{split}' is empty")
        except (FileNotFoundError, AssertionError, ValueError):
            explain_split(directory, split, self.dictionaries, self.cfg.dataset_impl)
            raise
        # only fairseq-generate and fairseq-validate give the checkpoint's task
        keep_remainder = split != self.cfg.train_subset or "task_cfg" in kwargs
        # a source side alone can still be translated
        scores = self.priors.cached_scores(dataset, split) if dataset.tgt is not None else None
        self.datasets[split] = DualLanguagePairDataset(dataset, keep_remainder, scores)

    def max_positions(self) -> tuple[int, int]:
        """The smallest limit: every sentence is a source, a target, and scored by its LM."""
        limit = int(min(self.cfg.max_source_positions, self.cfg.max_target_positions, self.priors.limit))
        return (limit, limit)

    # --- fairseq's hooks: training

    def build_model(self, cfg, from_checkpoint: bool = False) -> DualModel:
        """Build a model of ``--arch`` per direction, warm-started if a checkpoint is named, else with word vectors.

        Raises:
            UserError: the arch is not an autoregressive encoder–decoder, or a warm-start checkpoint or a file of word
                vectors does not fit.
        """
        name = pair_arch(arch_name(cfg))
        vectors = [] if from_checkpoint else vector_files(self.cfg, self.src_dict, self.tgt_dict)
        check_options(vectors, cfg, ARCH_MODEL_REGISTRY.get(name))
        configs = dict(zip(self.directions, (cfg, reversed_model_options(cfg)), strict=True))
        models: dict[str, FairseqEncoderDecoderModel] = {}
        for direction, side in self.sides.items():
            models[direction] = built(name, partial(side.build_model, configs[direction], from_checkpoint))
        restored = restored_file(self.cfg.save_dir, self.cfg.restore_file)
        if not from_checkpoint and not os.path.exists(restored):  # a resumed run has its weights already
            afresh = {} if self.cfg.finetune_from_model else dict(models)
            init = (("--init-src2tgt", self.cfg.init_src2tgt), ("--init-tgt2src", self.cfg.init_tgt2src))
            for (direction, side), (option, path) in zip(self.sides.items(), init, strict=True):
                if path:
                    warm_start(models[direction], configs[direction], side, path, option)
                    afresh.pop(direction, None)
            languages = {d: (side.cfg.source_lang, side.cfg.target_lang) for d, side in self.sides.items()}
            start_from_vectors(afresh, languages, vectors)
        return DualModel(models)

    def build_criterion(self, cfg, from_checkpoint: bool = False):
        """Build the criterion, which loads and checks the language models before any training.

        Raises:
            UserError: the criterion is not for a pair, or the metric cannot find the best checkpoint.
        """
        name = getattr(cfg, "_name", None) or getattr(cfg, "criterion", None)
        if name != "dual_cross_entropy":
            raise UserError(f"--criterion {name}: --task dual_translation trains with --criterion dual_cross_entropy")
        metric = self.cfg.best_checkpoint_metric
        if not from_checkpoint and (cfg.dual_start_update or cfg.dual_ramp_updates):
            if metric.startswith(("gap_", "neg_weight", "dual_lambda")):
                raise UserError(
                    f"--best-checkpoint-metric {metric}: its values cannot be compared before λ has its final value "
                    "(--dual-start-update, --dual-ramp-updates); give bleu or nll_loss"
                )
            if metric == "loss":
                logger.warning(
                    "--best-checkpoint-metric loss grows with λ (--dual-start-update, --dual-ramp-updates), so early "
                    "checkpoints look better; give bleu or nll_loss"
                )
        return super().build_criterion(cfg, from_checkpoint)

    def begin_epoch(self, epoch: int, model) -> None:
        super().begin_epoch(epoch, model)
        self.priors.forget_models()

    # --- fairseq's hooks: validation

    def valid_step(self, sample, model, criterion):
        loss, sample_size, logging_output = super(TranslationTask, self).valid_step(sample, model, criterion)
        batches = dict(zip(self.directions, (sample, sample["reverse"]), strict=True))
        for direction, metric in self._bleu.items():
            side, batch = self.sides[direction], batches[direction]
            logging_output.update(validation_counts(side, metric, batch, model.models[direction], direction))
        return loss, sample_size, logging_output

    def reduce_metrics(self, logging_outputs, criterion) -> None:
        super(TranslationTask, self).reduce_metrics(logging_outputs, criterion)
        log_bleu(logging_outputs, self._bleu)

    # --- fairseq's hooks: generation

    def build_generator(self, models, args, seq_gen_cls=None, extra_gen_cls_kwargs=None, **kwargs):
        """A generator of source→target, with this direction's model of a pair, or the whole pair for dual inference.

        Raises:
            UserError: dual inference needs a language model that is missing, or the beam's scores would not be
                log P(y|x).
        """
        models_of_direction = self._of_direction(models)
        generator = super().build_generator(models_of_direction, args, seq_gen_cls, extra_gen_cls_kwargs, **kwargs)
        file = None
        if self.cfg.results_path and not self.from_checkpoint:  # fairseq does not pass on the file that it prints to
            file = os.path.join(self.cfg.results_path, f"components-{self.cfg.gen_subset}.txt")
        self._lines.set_up(getattr(args, "nbest", 1), file)
        if self.dual_inference is None:
            return generator
        check_pure(args)
        return DualInferenceGenerator(
            generator,
            [model.models[self.directions[1]] for model in models],
            self.priors.inference_models(self.dual_inference),
            self.source_dictionary,
            self.cfg.left_pad_source,
            self.dual_inference,
            lenpen=0.0 if getattr(args, "unnormalized", False) else getattr(args, "lenpen", 1.0),
        )

    def build_dataset_for_inference(self, src_tokens, src_lengths, constraints=None):
        if not self.cfg.quiet:
            self._lines.expect(src_tokens)
        return super().build_dataset_for_inference(src_tokens, src_lengths, constraints=constraints)

    def inference_step(self, generator, models, sample, prefix_tokens=None, constraints=None):
        hypotheses = super().inference_step(generator, self._of_direction(models), sample, prefix_tokens, constraints)
        if not self.from_checkpoint:
            self._cut_off.count(hypotheses)
            if not self.cfg.quiet:
                self._lines.print(sample, hypotheses)
        return hypotheses

    def _of_direction(self, models) -> list:
        return [m.models[self.directions[0]] if isinstance(m, DualModel) else m for m in models]
