"""Start one direction of a pair from a plain translation checkpoint, or from that direction of another pair."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from fairseq.models import FairseqEncoderDecoderModel
from fairseq.tasks.translation import TranslationTask

from ..common.errors import UserError
from .checkpoint import check_dictionary, check_model_options, data_directories, load_state, load_weights
from .model import direction_name, of_direction

logger = logging.getLogger(__name__)


def warm_start(
    model: FairseqEncoderDecoderModel, model_cfg: Any, side: TranslationTask, path: str, option: str
) -> None:
    """Copy a checkpoint's weights into the model of one direction.

    Args:
        model, model_cfg: the model and its options.
        side: the task of its direction.
        path, option: the checkpoint and the option that named it.

    Raises:
        UserError: the checkpoint cannot be read, or its languages, dictionaries or model differ.
    """
    source, target = side.cfg.source_lang, side.cfg.target_lang
    direction = direction_name(source, target)
    state = load_state(path, option)
    task_cfg = state["cfg"].task
    weights = of_direction(state["model"], direction)
    if not weights and any(key.startswith("models.") for key in state["model"]):
        raise UserError(f"{option} {path}: holds a pair of other languages, without {direction}")
    if not weights:
        weights = state["model"]
        from_lang, to_lang = getattr(task_cfg, "source_lang", None), getattr(task_cfg, "target_lang", None)
        if from_lang and to_lang and (from_lang, to_lang) != (source, target):
            raise UserError(f"{option} {path}: translates {direction_name(from_lang, to_lang)}, not {direction}")
    for language, dictionary in side.dictionaries.items():
        folders = [Path(path).parent, *data_directories(task_cfg)]
        if not check_dictionary(dictionary, language, state.get("task_state"), folders, path, option):
            logger.warning("%s %s: its dict.%s.txt was not found and not compared", option, path, language)
    check_model_options(model_cfg, state["cfg"].model, path, option)
    load_weights(model, weights, state["cfg"].model, path, option, f"the model of {direction}")
    logger.info("%s: started from %s", direction, path)
