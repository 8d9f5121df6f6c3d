"""Reads other people's fairseq checkpoints and dictionaries; every failure is one line that names the file."""

from __future__ import annotations

import hashlib
import logging
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from fairseq import checkpoint_utils, utils
from fairseq.data import Dictionary
from fairseq.models import ARCH_MODEL_REGISTRY
from omegaconf import OmegaConf, open_dict
from torch import Tensor

from ..common.errors import UserError, first_detail
from ..common.literals import NoLiteral, literal
from ..common.options import flag
from ..compat.checkpoint_loading import unreadable
from ..compat.checkpoint_options import declared_options, model_options
from .model import arch_name

logger = logging.getLogger(__name__)


def load_state(path: str, option: str) -> dict[str, Any]:
    """Read a fairseq checkpoint on the CPU, with ``cfg`` as fairseq's nested configuration.

    Args:
        path: the checkpoint file.
        option: the command-line option that named it, for the message.

    Raises:
        UserError: it is missing, unreadable, or not a fairseq model checkpoint.
    """
    if not os.path.isfile(path):
        raise UserError(f"{option} {path}: there is no such file")
    try:
        state = checkpoint_utils.load_checkpoint_to_cpu(path)
    except Exception as error:  # torch.load may raise anything
        raise unreadable(f"{option} {path}", error) from error
    if state.get("cfg") is None or not state.get("model"):
        raise UserError(f"{option} {path}: is not a fairseq model checkpoint (no model or no configuration in it)")
    return state


def load_weights(model: Any, weights: dict[str, Tensor], model_cfg: Any, path: str, option: str, what: str) -> None:
    """Copy all of ``weights`` into ``model``.

    Raises:
        UserError: a parameter is missing, unexpected, or has another shape.
    """
    try:
        model.load_state_dict(weights, strict=True, model_cfg=model_cfg)
    except RuntimeError as error:
        raise UserError(
            f"{option} {path}: does not fit {what} (another --arch, size or dictionary?): {first_detail(error)}"
        ) from error


# Options of an arch that may differ between a checkpoint and the model that loads its weights: they act in or before
# training, or they limit lengths; a finished model computes the same with any value. Options that prune
# (..._layers_to_keep) change a model on purpose. Every other option that an arch declares must be the same.
MAY_DIFFER = re.compile(
    r"drop|quant_noise_pq|activations$|min_params_to_wrap|^pretrained|embed_path$|freeze_embed$|^init_|layers_to_keep$|"
    r"^export$|^max_(source|target)_positions$"
)


def check_model_options(mine: Any, theirs: Any, path: str, option: str) -> None:
    """Refuse a checkpoint whose weights may fit but whose model computes something else.

    Args:
        mine, theirs: model configurations.
        path, option: the checkpoint and the option that named it, for the message.

    Raises:
        UserError: the archs are of different kinds, or an option outside :data:`MAY_DIFFER` differs.
    """
    archs = [ARCH_MODEL_REGISTRY[arch_name(cfg)] for cfg in (mine, theirs)]
    if not (issubclass(archs[0], archs[1]) or issubclass(archs[1], archs[0])):
        raise UserError(
            f"{option} {path}: does not fit this model: it was trained with --arch {arch_name(theirs)}, not "
            f"{arch_name(mine)}; give the same"
        )
    here, there = _compared_options(mine), _compared_options(theirs)
    for name in sorted(here.keys() & there.keys()):
        if here[name] != there[name]:
            raise UserError(
                f"{option} {path}: was trained with {flag(name)} {there[name]}, not {here[name]}; give the same options"
            )


def _compared_options(model_cfg: Any) -> dict[str, Any]:
    """The options of an arch except :data:`MAY_DIFFER`; equal values get the same form."""
    arch = arch_name(model_cfg)
    names = [n for n in declared_options(arch) if hasattr(model_cfg, n) and not MAY_DIFFER.search(n)]
    values = {name: getattr(model_cfg, name) for name in names}
    values = {n: OmegaConf.to_container(v) if OmegaConf.is_config(v) else v for n, v in values.items()}
    converted = model_options(arch, values)
    return {name: _in_one_form(converted[name]) for name in names}


def _in_one_form(value: Any) -> Any:
    if isinstance(value, str):
        try:
            return _in_one_form(literal(value))
        except NoLiteral:
            return value
    return [_in_one_form(item) for item in value] if isinstance(value, list | tuple) else value


def task_name(state: dict[str, Any]) -> str | None:
    """The task that a checkpoint was trained for."""
    return getattr(state["cfg"].task, "_name", None)


def pair_languages(state: dict[str, Any], path: str) -> tuple[str, str]:
    """Source and target language of a pair's checkpoint, as it was trained.

    Raises:
        UserError: it is not a pair, or does not name two languages.
    """
    task = state["cfg"].task
    if (name := task_name(state)) != "dual_translation":
        raise UserError(f"{path}: is a checkpoint of --task {name}, not of a pair (--task dual_translation)")
    source, target = getattr(task, "source_lang", None), getattr(task, "target_lang", None)
    if not source or not target or source == target:
        raise UserError(f"{path}: is damaged: its languages are {source} and {target}, not two")
    return source, target


def set_options(cfg: Any, values: dict[str, Any]) -> None:
    """Set the ``values`` that a configuration (a Namespace, a dataclass or an OmegaConf node) has."""
    with open_dict(cfg) if OmegaConf.is_config(cfg) else nullcontext():
        for name, value in values.items():
            if hasattr(cfg, name):
                setattr(cfg, name, value)


def dictionary_digests(dictionaries: Mapping[str, Dictionary]) -> dict[str, str]:
    """Language → a digest of its dictionary's symbols and their order, for the state of a pair's task."""
    return {
        language: hashlib.sha256("\n".join(dictionary.symbols).encode("utf-8", "surrogateescape")).hexdigest()
        for language, dictionary in dictionaries.items()
    }


def check_dictionary(
    expected: Dictionary,
    language: str,
    task_state: Mapping[str, Any] | None,
    folders: Iterable[Path],
    path: str,
    option: str,
    name: str | None = None,
) -> bool:
    """Compare a checkpoint's dictionary with the pair's own, symbol by symbol.

    Dictionaries of equal length but different order give wrong results without an error; only the symbols show it. A
    pair's checkpoint has a digest of the symbols, which decides. For other checkpoints, their file is searched.

    Args:
        expected: the pair's dictionary of ``language``.
        task_state: the checkpoint's.
        folders: may hold the file of the checkpoint's dictionary; the first file that exists is used.
        path, option: the checkpoint and the option that named it, for the message.
        name: the file's name (default: ``dict.<language>.txt``).

    Returns:
        Whether there was a digest or a file to compare with.

    Raises:
        UserError: the dictionaries differ.
    """
    digest = ((task_state or {}).get("dictionaries") or {}).get(language)
    if digest is not None:
        if digest != dictionary_digests({language: expected})[language]:
            raise UserError(
                f"{option} {path}: was trained with another dictionary of {language} than the data's "
                f"dict.{language}.txt; give the data that it was trained on, or data binarized with its dictionaries"
            )
        return True
    candidates = (folder / (name or f"dict.{language}.txt") for folder in folders)
    file = next((candidate for candidate in candidates if candidate.is_file()), None)
    if file is None:
        return False
    actual = Dictionary.load(str(file))
    if len(actual) != len(expected):
        raise UserError(
            f"{option} {path}: was trained with {file} ({len(actual)} symbols), but the data's dictionary of "
            f"{language} has {len(expected)}; train it again on data binarized with the data's dict.{language}.txt"
        )
    for index, (own_symbol, symbol) in enumerate(zip(expected.symbols, actual.symbols, strict=True)):
        if own_symbol != symbol:
            raise UserError(
                f"{option} {path}: its dictionary {file} is not the data's dict.{language}.txt: symbol {index} is "
                f"'{symbol}' there and '{own_symbol}' here; train it again on data binarized with the data's dictionary"
            )
    return True


def check_dictionaries(
    dictionaries: Mapping[str, Dictionary], state: Mapping | None, folders: list[Path], path: str, option: str
) -> None:
    """:func:`check_dictionary` for both languages of a pair, with the task's state in the checkpoint."""
    for language, dictionary in dictionaries.items():
        check_dictionary(dictionary, language, state, folders, path, option)
    if not (state or {}).get("dictionaries"):  # a compared file may be the data's own
        logger.warning(
            "%s %s: does not say which dictionaries it was trained with (an earlier version wrote it), so they are not "
            "compared with the data's",
            option, path,
        )  # fmt: skip


def check_resumed(
    state: dict[str, Any], path: str, model_cfg: Any, directions: Sequence[str], dictionaries: Mapping[str, Dictionary],
    keeps_optimizer: bool,
) -> None:  # fmt: skip
    """Check a pair's checkpoint before a run takes over its weights.

    Args:
        state: the checkpoint.
        model_cfg: the options of the run's model.
        directions: of the run, source→target first.
        dictionaries: of the run, source first.
        keeps_optimizer: whether the run also takes over the optimizer's state.

    Raises:
        UserError: the weights would fit, but the model would compute something else with them.
    """
    if any(not key.startswith(tuple(f"models.{d}." for d in directions)) for key in state["model"]):
        return  # not a pair of these languages; the model reports this when it loads the weights
    option, task_cfg = "the checkpoint", state["cfg"].task
    check_dictionaries(dictionaries, state.get("task_state"), data_directories(task_cfg), path, option)
    check_model_options(model_cfg, state["cfg"].model, path, option)
    source = (state.get("task_state") or {}).get("source_lang") or getattr(task_cfg, "source_lang", None)
    if keeps_optimizer and state.get("last_optimizer_state") and source not in (None, next(iter(dictionaries))):
        raise UserError(
            f"{option} {path}: was trained with -s {source} -t {next(iter(dictionaries))}, by which the optimizer's "
            "state is ordered; give the languages in that order, or --reset-optimizer"
        )


def data_directories(task_cfg: Any) -> list[Path]:
    """The data directories recorded in a checkpoint's task configuration (they may be gone)."""
    data = getattr(task_cfg, "data", None)
    return [Path(p) for p in utils.split_paths(data)] if data else []
