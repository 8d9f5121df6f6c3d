"""BLEU of both directions on validation data, like fairseq's ``--eval-bleu`` for a single model.

If the target side is labels or tags, accuracy replaces BLEU.

Each direction translates a batch and counts its n-grams. The counts are logged under the direction's name and added up
over batches and processes; the sums give the scores of the whole corpus.
"""

from __future__ import annotations

import json
import logging
from argparse import Namespace
from collections.abc import Mapping, Sequence
from typing import Any

from fairseq import utils
from fairseq.data.encoders import TOKENIZER_REGISTRY
from fairseq.dataclass.configs import GenerationConfig
from fairseq.logging import metrics
from fairseq.tasks.translation import TranslationConfig, TranslationTask
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from torch import Tensor

from ..common import bleu
from ..common.errors import UserError
from ..common.languages import language_of
from ..common.options import flag
from ..common.records import check_shape, parse_json
from ..compat.option_values import check_option_values

logger = logging.getLogger(__name__)

# The settings of --eval-bleu-by-language, by fairseq's names.
_OWN = {"eval_bleu_remove_bpe?": (None, str), "eval_bleu_detok?": str, "eval_tokenized_bleu?": bool}
_NAMES = [name.removesuffix("?") for name in _OWN]
# sacreBLEU's 13a would split <unk>; unknown words never match
_UNKNOWN = {"hypothesis": "UNKNOWNTOKENINHYP", "reference": "UNKNOWNTOKENINREF"}


def validate_as_target(cfg: Any) -> None:
    """Make validation restore text by the rules of its own target language; fairseq has only English rules.

    Raises:
        UserError: ``--eval-bleu-detok-args`` or ``--eval-bleu-by-language`` is not a record, or has other content.
    """
    args = _record("eval_bleu_detok_args", cfg.eval_bleu_detok_args)
    settings = _record("eval_bleu_by_language", cfg.eval_bleu_by_language, {str: _OWN}).get(cfg.target_lang, {})
    for name, value in settings.items():
        if name not in _NAMES:
            raise UserError(f"--eval-bleu-by-language: {name} is not one of {', '.join(_NAMES)}")
        setattr(cfg, name, value)
    languages = {"source_lang": language_of(cfg.source_lang), "target_lang": language_of(cfg.target_lang)}
    cfg.eval_bleu_detok_args = json.dumps({**languages, **args})


def check_search(cfg: TranslationConfig) -> None:
    """Check the options for translation and detokenization in validation.

    Raises:
        UserError: there is no such tokenizer; or an option in ``--eval-bleu-args`` is unknown to fairseq-generate, or
            has a wrong value.
    """
    if cfg.eval_bleu_detok not in TOKENIZER_REGISTRY:
        raise UserError(f"--eval-bleu-detok {cfg.eval_bleu_detok}: choose one of {', '.join(TOKENIZER_REGISTRY)}")
    args = _record("eval_bleu_args", cfg.eval_bleu_args)
    try:
        merged = OmegaConf.merge(OmegaConf.structured(GenerationConfig), args)
    except OmegaConfBaseException as error:
        raise UserError(f"--eval-bleu-args {cfg.eval_bleu_args[:60]}: {str(error).splitlines()[0]}") from error
    options: Any = OmegaConf.to_container(merged, enum_to_str=True)
    try:
        check_option_values(Namespace(**options))
    except UserError as error:
        raise UserError(f"--eval-bleu-args: {error}") from error
    cfg.eval_bleu_args = json.dumps({name: options[name] for name in args})


def _record(name: str, text: str | None, shape: Any = None) -> dict[str, Any]:
    try:
        args = parse_json(text or "{}")
        check_shape(args, shape or {})
    except ValueError as error:
        raise UserError(f"{flag(name)} {(text or '')[:60]}: {error}; give a JSON record such as '{{}}'") from error
    return args


def validation_metric(cfg: Any, accuracy: bool = False) -> bleu.BLEU:
    """sacreBLEU's metric for the target language, or with ``--sacrebleu-tokenize``; or accuracy.

    Raises:
        UserError: there is no such tokenizer, or its package is not installed.
    """
    if accuracy:
        return bleu.Accuracy()
    choice = (cfg.target_lang, cfg.eval_tokenized_bleu, cfg.sacrebleu_tokenize)
    metric = bleu.bleu_metric(*choice)
    if missing := bleu.missing_tokenizer(*choice):
        logger.warning("%s", missing)
    logger.info("validation BLEU into %s: %s", cfg.target_lang, bleu.signature_of(metric))
    return metric


def validation_counts(
    side: TranslationTask, metric: bleu.BLEU, sample: dict[str, Any], model: Any, direction: str
) -> dict[str, int]:
    """Translate a batch, and return counts to be added up over batches and processes.

    Args:
        side: the task of the direction.
        metric: of its target language.
        sample: the batch.
        model: the direction's.
        direction: the name.
    """

    def text(tokens: Tensor, kind: str) -> str:
        cfg, tokens = side.cfg, tokens.int().cpu()
        words = side.tgt_dict.string(tokens, cfg.eval_bleu_remove_bpe, unk_string=_UNKNOWN[kind])
        return side.tokenizer.decode(words) if side.tokenizer else words

    best = [hypotheses[0] for hypotheses in side.inference_step(side.sequence_generator, [model], sample)]
    pad = side.tgt_dict.pad()
    hypotheses = [text(hypothesis["tokens"], "hypothesis") for hypothesis in best]
    references = [text(utils.strip_pad(row, pad), "reference") for row in sample["target"]]
    if side.cfg.eval_bleu_print_samples:
        logger.info("example hypothesis: %s", hypotheses[0])
        logger.info("example reference: %s", references[0])
    counts = bleu.bleu_counts(metric.corpus_score(hypotheses, [references]))
    cut_off = sum(hypothesis["cut_off"] for hypothesis in best)
    return {**dict(zip(_keys(direction, metric), counts, strict=True)), f"cut_off_{direction}": cut_off}


def log_bleu(logging_outputs: Sequence[dict[str, Any]], of_directions: Mapping[str, bleu.BLEU]) -> None:
    """Log ``bleu_<direction>`` of each direction and their mean ``bleu``, if there are counts.

    A direction into labels or tags has ``accuracy_<direction>`` and ``accuracy``. ``cut_off_<direction>`` is the number
    of translations that were cut off at the length limit.

    Args:
        logging_outputs: of the criterion.
        of_directions: direction → its metric.
    """
    if not any(f"cut_off_{direction}" in log for direction in of_directions for log in logging_outputs):
        return
    by_name: dict[str, list[list[str]]] = {}
    for direction, metric in of_directions.items():
        keys, name = _keys(direction, metric), bleu.name_of(metric)
        by_name.setdefault(name, []).append(keys)
        for key in keys:
            metrics.log_scalar(key, int(sum(log.get(key, 0) for log in logging_outputs)))
        metrics.log_derived(f"{name}_{direction}", lambda meters, keys=keys: _score(meters, keys))
    for name, group in by_name.items():
        metrics.log_derived(
            name, lambda meters, group=group: round(sum(_score(meters, keys) for keys in group) / len(group), 2)
        )
    for direction in of_directions:
        key = f"cut_off_{direction}"
        metrics.log_scalar_sum(key, int(sum(log.get(key, 0) for log in logging_outputs)))


def _keys(direction: str, metric: bleu.BLEU) -> list[str]:
    orders = range(metric.max_ngram_order)
    counts = [f"_bleu_{kind}_{n}_{direction}" for kind in ("counts", "totals") for n in orders]
    return [*counts, f"_bleu_sys_len_{direction}", f"_bleu_ref_len_{direction}"]


def _score(meters: Any, keys: Sequence[str]) -> float:
    return round(bleu.bleu_of_counts([int(meters[key].sum) for key in keys]), 2)
