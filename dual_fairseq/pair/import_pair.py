"""``dual-fairseq import``: makes a pair's checkpoint from two plain fairseq models, one for each direction."""

from __future__ import annotations

import copy
import os
from pathlib import Path
from typing import Any

from fairseq import options as fairseq_options
from fairseq.dataclass.utils import convert_namespace_to_omegaconf
from fairseq.models import ARCH_MODEL_REGISTRY
from omegaconf import OmegaConf

from ..common.errors import UserError
from ..common.files import check_output
from ..common.options import flag
from ..plugin.checkpoint import MAY_DIFFER, check_dictionary, data_directories, load_state, load_weights, task_name
from ..plugin.finished import arch_options, finished_state, translation_options, write_checkpoint
from ..plugin.model import arch_name, direction_name, pair_arch
from ..plugin.task import DualTranslationTask

_OPTIONS = ("--src2tgt", "--tgt2src")


def import_pair(
    src2tgt: str | os.PathLike[str], tgt2src: str | os.PathLike[str], data: str | os.PathLike[str]
) -> tuple[dict[str, Any], list[str]]:
    """The state of a pair's checkpoint, from two single models.

    Args:
        src2tgt, tgt2src: plain fairseq ``translation`` checkpoints of opposite directions.
        data: the folder with both dictionaries and the binarized data for the pair.

    Returns:
        The checkpoint, with no optimizer state and λ = 0, and remarks for the user.

    Raises:
        UserError: a file is unreadable or not a translation model; or directions, archs, options, sizes or
            dictionaries do not match.
    """
    paths, folder = (os.fspath(src2tgt), os.fspath(tgt2src)), os.fspath(data)
    states = [load_state(path, option) for path, option in zip(paths, _OPTIONS, strict=True)]
    (source, target), reverse = (_languages(*item) for item in zip(states, paths, _OPTIONS, strict=True))
    if reverse != (target, source):
        raise UserError(
            f"--tgt2src {paths[1]}: translates {direction_name(*reverse)}; the reverse of --src2tgt "
            f"({direction_name(source, target)}) is needed"
        )
    remarks = _compare(states[0]["cfg"], states[1]["cfg"], paths[1])
    cfg = _pair_config(states[0]["cfg"], source, target, folder)

    task = DualTranslationTask.setup_task(copy.deepcopy(cfg.task), from_checkpoint=True)
    pair = task.build_model(copy.deepcopy(cfg.model), from_checkpoint=True)
    for direction, state, path, option in zip(task.directions, states, paths, _OPTIONS, strict=True):
        folders = [Path(path).parent, *data_directories(state["cfg"].task)]
        for language, dictionary in task.dictionaries.items():
            if not check_dictionary(dictionary, language, state.get("task_state"), folders, path, option):
                remarks.append(f"{option} {path}: its dict.{language}.txt was not found and not compared")
        model_cfg = copy.deepcopy(state["cfg"].model)  # pruning changes it
        label = f"the model of {direction} over the dictionaries in {folder}"
        load_weights(pair.models[direction], state["model"], model_cfg, path, option, label)
    state = finished_state(
        pair.state_dict(),
        cfg=OmegaConf.to_container(cfg, resolve=True, enum_to_str=True),
        criterion="DualCrossEntropyCriterion",
        optimizer=str(states[0]["optimizer_history"][-1]["optimizer_name"]),
        task_state=task.state_dict(),
    )
    return state, remarks


def _languages(state: dict[str, Any], path: str, option: str) -> tuple[str, str]:
    """Raises UserError if the checkpoint is not a single model of fairseq's ``translation`` task."""
    if any(key.startswith("models.") for key in state["model"]):
        raise UserError(f"{option} {path}: holds a pair; write one direction with dual-fairseq export")
    task = state["cfg"].task
    if (name := task_name(state)) != "translation":
        raise UserError(
            f"{option} {path}: is a checkpoint of --task {name}; a pair needs two checkpoints of --task translation"
        )
    if not (task.source_lang and task.target_lang):
        raise UserError(f"{option} {path}: does not say which languages it translates")
    pair_arch(arch_name(state["cfg"].model))
    return task.source_lang, task.target_lang


def _compare(cfg: Any, reverse_cfg: Any, path: str) -> list[str]:
    """Check that both models were built with the same options.

    Returns:
        Remarks on harmless differences.

    Raises:
        UserError: options that change a model's results differ.
    """
    names = [arch_name(c.model) for c in (cfg, reverse_cfg)]
    if ARCH_MODEL_REGISTRY.get(names[0]) is not ARCH_MODEL_REGISTRY.get(names[1]):
        raise UserError(f"--tgt2src {path}: has --arch {names[1]}, but --src2tgt has --arch {names[0]}")
    forward = {**arch_options(cfg.model), **translation_options(cfg.task)}
    reverse = {**arch_options(reverse_cfg.model), **translation_options(reverse_cfg.task)}
    remarks = []
    for name in forward:
        if name in ("source_lang", "target_lang") or forward[name] == reverse.get(name, forward[name]):
            continue
        values = f"{flag(name)} {reverse[name]}, and --src2tgt with {forward[name]}"
        if not MAY_DIFFER.search(name):
            raise UserError(f"--tgt2src {path}: was trained with {values}; a pair needs the same options")
        remarks.append(f"--tgt2src {path}: was trained with {values}, which the pair records")
    return remarks


def _pair_config(cfg: Any, source: str, target: str, data: str) -> Any:
    """The configuration of ``fairseq-train --task dual_translation`` with the model options of ``cfg``, and λ = 0."""
    smoothing = float(getattr(cfg.criterion, "label_smoothing", None) or 0.0)
    command = [
        *(data, "--task", "dual_translation", "--source-lang", source, "--target-lang", target),
        *("--arch", arch_name(cfg.model), "--criterion", "dual_cross_entropy"),
        *("--dual-lambda", "0", "--label-smoothing", str(smoothing)),
    ]
    args = fairseq_options.parse_args_and_arch(fairseq_options.get_training_parser(), command)
    vars(args).update({**arch_options(cfg.model), **translation_options(cfg.task)})
    return convert_namespace_to_omegaconf(args)


def write_pair(output: Path, src2tgt: str, tgt2src: str, data: str) -> list[str]:
    """Write the checkpoint of :func:`import_pair`; returns its remarks.

    Raises:
        UserError: see :func:`import_pair`; or the checkpoint cannot be written.
    """
    check_output(output, [src2tgt, tgt2src])
    state, remarks = import_pair(src2tgt, tgt2src, data)
    write_checkpoint(state, output)
    return remarks
