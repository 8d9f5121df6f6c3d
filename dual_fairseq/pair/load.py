"""A trained pair, loaded for use from Python."""

from __future__ import annotations

import os
from dataclasses import fields
from pathlib import Path
from typing import Any

import torch
from fairseq import checkpoint_utils, tasks
from fairseq.dataclass.utils import overwrite_args_by_name

from ..common.errors import UserError
from ..common.folders import RunFolder, find_checkpoint
from ..compat.checkpoint_loading import check_overrides
from ..plugin.checkpoint import check_dictionary, data_directories, load_state, pair_languages
from ..plugin.generator import DirectionTask
from ..plugin.language_model import find_language_model
from ..plugin.model import DualModel, arch_name
from ..plugin.task import DualTranslationTask
from ..plugin.task_options import DualTranslationConfig


def load_pair(
    checkpoint: str | os.PathLike[str],
    data: str | os.PathLike[str] | None = None,
    source: str | None = None,
    target: str | None = None,
    device: str | torch.device | None = None,
    overrides: dict[str, Any] | None = None,
    state: dict[str, Any] | None = None,
) -> tuple[DualModel, DualTranslationTask]:
    """Load a pair's checkpoint, in evaluation mode.

    Args:
        checkpoint: from ``fairseq-train --task dual_translation``, or a folder, see
            :func:`~dual_fairseq.common.folders.find_checkpoint`.
        data: a folder with ``dict.<lang>.txt`` of both languages; default: the folder in the checkpoint's record.
        source, target: the languages of the task; default: as in training.
        device: where to put the models; default: a GPU if there is one.
        overrides: new values of fairseq's model and task options, e.g. ``{"src_lm": "lm.de.pt"}``.
        state: the checkpoint's content, if it has already been read; its ``cfg`` is changed.

    ``task.cfg.src_lm`` and ``tgt_lm`` become the language models of the pair's training or of its run's folder, or None
    if these no longer exist.

    Returns:
        (pair, task): ``pair.models["de-en"]`` is a plain fairseq model.

    Raises:
        UserError: the checkpoint is missing, unreadable or not a pair; the dictionaries are missing or not those of the
            training; or a language is not the pair's.
    """
    path = os.fspath(checkpoint)
    if os.path.isdir(path):
        path = str(find_checkpoint(path))
    if state is None:
        state = load_state(path, "checkpoint")
    changes = dict(overrides or {})
    recorded = pair_languages(state, path)
    for language in (source, target):
        if language not in (None, *recorded):
            raise UserError(f"{path}: is a pair of {recorded[0]} and {recorded[1]}, not of '{language}'")
    source = source or next(language for language in recorded if language != target)
    target = target or next(language for language in recorded if language != source)
    changes["source_lang"], changes["target_lang"] = source, target
    lms = dict(zip(recorded, (getattr(state["cfg"].task, n, None) for n in ("src_lm", "tgt_lm")), strict=True))
    for option, language in (("src_lm", source), ("tgt_lm", target)):
        changes.setdefault(option, find_language_model(language, lms[language], path))
    kept = RunFolder.of(path).text  # a run's copy of its dictionaries
    folder = Path(data) if data is not None else next(iter(data_directories(state["cfg"].task)), kept)
    if data is None and not folder.is_dir() and kept.is_dir():
        folder = kept
    if not folder.is_dir():
        raise UserError(f"{path}: the folder of its dictionaries, {folder}, is missing; name their new folder (--data)")
    known = {field.name for field in fields(DualTranslationConfig)}
    if unknown := [name for name in changes if name not in known and name not in state["cfg"].model]:
        raise UserError(f"{path}: {', '.join(unknown)}: is not an option of --task dual_translation or of this model")
    pair, task = model_of_state(path, state, folder, changes, device)
    task.gone_language_models = [lm for lm in lms.values() if lm and lm not in (task.cfg.src_lm, task.cfg.tgt_lm)]
    return pair, task


def load_model(
    checkpoint: str | os.PathLike[str],
    data: str | os.PathLike[str],
    source: str | None = None,
    target: str | None = None,
    device: str | torch.device | None = None,
    overrides: dict[str, Any] | None = None,
) -> tuple[Any, DirectionTask]:
    """Load a pair like :func:`load_pair`, or an exported single model of ``--task translation``.

    Raises:
        UserError: the checkpoint, its dictionaries or a language do not fit.
    """
    path = os.fspath(checkpoint)
    state = load_state(path, "checkpoint")
    cfg = state["cfg"].task
    if cfg._name != "translation":
        return load_pair(path, data, source, target, device, overrides, state)
    for option, wanted, trained in (("-s", source, cfg.source_lang), ("-t", target, cfg.target_lang)):
        if wanted not in (None, trained):
            raise UserError(f"{option} {wanted}: {path} translates {cfg.source_lang} to {cfg.target_lang}")
    model, task = model_of_state(path, state, Path(data), overrides or {}, device)
    return model, DirectionTask(task.cfg, task.source_dictionary, task.target_dictionary)


def model_of_state(
    path: str,
    state: dict[str, Any],
    data: Path,
    overrides: dict[str, Any],
    device: str | torch.device | None = None,
) -> tuple[Any, Any]:
    """The model of a checkpoint's content, in evaluation mode, and its task.

    Args:
        path, state: the checkpoint; ``state["cfg"]`` is changed.
        data: the folder of the dictionaries.
        overrides: new values of fairseq's model and task options that the checkpoint knows.
        device: where to put the model; default: a GPU if there is one.

    Raises:
        UserError: the dictionaries are not those of the model's training, or the model cannot take an override.
    """
    stage = Path(os.path.abspath(path)).parent
    folders = [stage, stage.parent / "text", *data_directories(state["cfg"].task)]
    model = state["cfg"].model
    check_overrides(path, arch_name(model), {name: value for name, value in overrides.items() if name in model})
    overwrite_args_by_name(state["cfg"], {**overrides, "data": os.fspath(data)})
    task = tasks.setup_task(state["cfg"].task, from_checkpoint=True)
    sides = ((task.cfg.source_lang, task.source_dictionary), (task.cfg.target_lang, task.target_dictionary))
    for language, dictionary in sides:
        check_dictionary(dictionary, language, state.get("task_state"), folders, path, "checkpoint")
    try:
        models, _, _ = checkpoint_utils.load_model_ensemble_and_task([path], task=task, state=state)
    except MemoryError:
        raise
    except Exception as error:  # the kind depends on the model's options
        raise UserError(f"{path}: does not fit the dictionaries in {data}; give the data it was trained on") from error
    if device is None:
        device = "cuda" if torch.cuda.is_available() else "cpu"
    return models[0].eval().to(device), task
