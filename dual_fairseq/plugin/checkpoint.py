"""Reading other people's fairseq checkpoints and dictionaries: every failure is one line that names the file."""

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

from ..common.errors import UserError
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
        UserError: it is missing, unreadable, or no fairseq model checkpoint.
    """
    if not os.path.isfile(path):
        raise UserError(f"{option} {path}: there is no such file")
    try:
        state = checkpoint_utils.load_checkpoint_to_cpu(path)
    except Exception as error:  # torch.load raises whatever the bytes make it raise
        raise unreadable(f"{option} {path}", error) from error
    if state.get("cfg") is None or not state.get("model"):
        raise UserError(f"{option} {path}: is not a fairseq model checkpoint (no model or no configuration in it)")
    return state


def load_weights(model: Any, weights: dict[str, Tensor], model_cfg: Any, path: str, option: str, what: str) -> None:
    """Copy all of ``weights`` into ``model``.

    Raises:
        UserError: a parameter is missing, unexpected, or of another shape.
    """
    try:
        model.load_state_dict(weights, strict=True, model_cfg=model_cfg)
    except RuntimeError as error:
        details = [line.strip() for line in str(error).splitlines()[1:] if line.strip()]
        raise UserError(
            f"{option} {path}: does not fit {what} (another --arch, size or dictionary?): "
            f"{details[0] if details else error}"
        ) from error


# Options of an arch that may differ between a checkpoint and the model that takes its weights: they act in training, or
# before it, or they bound lengths; a finished model computes the same with all of their values. Options that prune
# (..._layers_to_keep) are there to change a model. Every other option that an arch declares must be the same.
MAY_DIFFER = re.compile(
    r"drop|quant_noise_pq|activations$|min_params_to_wrap|^pretrained|embed_path$|freeze_embed$|^init_|layers_to_keep$|"
    r"^export$|^max_(source|target)_positions$"
)


def check_model_options(mine: Any, theirs: Any, path: str, option: str) -> None:
    """Refuse a checkpoint whose weights may fit but whose model computes something else with them.

    Args:
        mine, theirs: model configurations.
        path, option: the checkpoint and the option that named it, for the message.

    Raises:
        UserError: the archs are not of one kind, or an option differs that is not in :data:`MAY_DIFFER`.
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
    """What an arch declares and :data:`MAY_DIFFER` leaves, in one form, however it was written."""
    arch = arch_name(model_cfg)
    names = [n for n in declared_options(arch) if hasattr(model_cfg, n) and not MAY_DIFFER.search(n)]
    values = {name: getattr(model_cfg, name) for name in names}
    values = {n: OmegaConf.to_container(v) if OmegaConf.is_config(v) else v for n, v in values.items()}
    taken = model_options(arch, values)
    return {name: _in_one_form(taken[name]) for name in names}


def _in_one_form(value: Any) -> Any:
    if isinstance(value, str):
        try:
            return _in_one_form(literal(value))
        except NoLiteral:
            return value
    return [_in_one_form(item) for item in value] if isinstance(value, list | tuple) else value


def pair_languages(state: dict[str, Any], path: str) -> tuple[str, str]:
    """Source and target language of a pair's checkpoint, as it was trained.

    Raises:
        UserError: it is no pair, or does not name two languages.
    """
    task = state["cfg"].task
    name = getattr(task, "_name", None) or getattr(task, "task", None)
    if name != "dual_translation":
        raise UserError(f"{path}: is a checkpoint of --task {name}, not of a pair (--task dual_translation)")
    source, target = getattr(task, "source_lang", None), getattr(task, "target_lang", None)
    if not source or not target or source == target:
        raise UserError(f"{path}: is damaged: its languages are {source} and {target}, not two")
    return source, target


def set_options(cfg: Any, values: dict[str, Any]) -> None:
    """Set those of ``values`` that a configuration (a Namespace, a dataclass or an OmegaConf node) has."""
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
    candidates: Iterable[Path],
    path: str,
    option: str,
) -> bool:
    """Compare the dictionary that a checkpoint was trained with to the pair's own, symbol by symbol.

    Two dictionaries of equal length and another order give silent nonsense; nothing but the symbols can tell. A
    checkpoint of a pair has a digest of them, which decides; for any other its dictionary's file is looked for.

    Args:
        expected: the pair's dictionary of ``language``.
        task_state: of the checkpoint.
        candidates: where the checkpoint's dictionary may lie; the first that exists counts.
        path, option: the checkpoint and the option that named it, for the message.

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
    found = next((candidate for candidate in candidates if candidate.is_file()), None)
    if found is None:
        return False
    theirs = Dictionary.load(str(found))
    if len(theirs) != len(expected):
        raise UserError(
            f"{option} {path}: was trained with {found} ({len(theirs)} symbols), but the data's dictionary of "
            f"{language} has {len(expected)}; train it again on data binarized with the data's dict.{language}.txt"
        )
    for index, (mine, other) in enumerate(zip(expected.symbols, theirs.symbols, strict=True)):
        if mine != other:
            raise UserError(
                f"{option} {path}: its dictionary {found} is not the data's dict.{language}.txt: symbol {index} is "
                f"'{other}' there and '{mine}' here; train it again on data binarized with the data's dictionary"
            )
    return True


def check_dictionaries(
    dictionaries: Mapping[str, Dictionary], state: Mapping | None, folders: list[Path], path: str, option: str
) -> None:
    """:func:`check_dictionary` of both languages of a pair, by what its task has recorded in the checkpoint."""
    for language, dictionary in dictionaries.items():
        candidates = (folder / f"dict.{language}.txt" for folder in folders)
        check_dictionary(dictionary, language, state, candidates, path, option)
    if not (state or {}).get("dictionaries"):  # a file that was compared may be the data's own
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
        state: its content.
        model_cfg: the options of the run's model.
        directions: of the run, source→target first.
        dictionaries: of the run, source first.
        keeps_optimizer: whether the optimizer's state is taken over, too.

    Raises:
        UserError: the weights would fit, but the model would compute something else with them.
    """
    if any(not key.startswith(tuple(f"models.{d}." for d in directions)) for key in state["model"]):
        return  # no pair of these languages, which the model says when it takes the weights
    option, trained_on = "the checkpoint", state["cfg"].task
    check_dictionaries(dictionaries, state.get("task_state"), data_directories(trained_on), path, option)
    check_model_options(model_cfg, state["cfg"].model, path, option)
    source = (state.get("task_state") or {}).get("source_lang") or getattr(trained_on, "source_lang", None)
    if keeps_optimizer and state.get("last_optimizer_state") and source not in (None, next(iter(dictionaries))):
        raise UserError(
            f"{option} {path}: was trained with -s {source} -t {next(iter(dictionaries))}, by which the optimizer's "
            "state is ordered; give the languages in that order, or --reset-optimizer"
        )


def data_directories(task_cfg: Any) -> list[Path]:
    """The data directories recorded in a checkpoint's task configuration (they may be gone)."""
    data = getattr(task_cfg, "data", None)
    return [Path(p) for p in utils.split_paths(data)] if data else []
