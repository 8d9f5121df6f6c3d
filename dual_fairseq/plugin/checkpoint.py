"""Reading other people's fairseq checkpoints and dictionaries: every failure is one line that names the file."""

from __future__ import annotations

import os
from collections.abc import Iterable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from fairseq import checkpoint_utils, utils
from fairseq.data import Dictionary
from omegaconf import OmegaConf, open_dict
from torch import Tensor

from ..common.errors import UserError


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
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise UserError(
            f"{option} {path}: cannot be read as a fairseq checkpoint (truncated, or not made by fairseq-train?): "
            f"{reason}"
        ) from error
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


# Options that change what a model computes but have no weights by which a mismatch would show.
_WEIGHTLESS_OPTIONS = (
    "encoder_attention_heads",
    "decoder_attention_heads",
    "activation_fn",
    "encoder_normalize_before",
    "decoder_normalize_before",
    "no_token_positional_embeddings",
    "no_scale_embedding",
    "readout",
)


def check_weightless_options(mine: Any, theirs: Any, path: str, option: str) -> None:
    """Refuse a checkpoint whose weights fit but whose model computes something else with them.

    Args:
        mine, theirs: model configurations.
        path, option: the checkpoint and the option that named it, for the message.

    Raises:
        UserError: the models differ.
    """
    for name in _WEIGHTLESS_OPTIONS:
        here, there = getattr(mine, name, None), getattr(theirs, name, None)
        if here is not None and there is not None and here != there:
            flag = "--" + name.replace("_", "-")
            raise UserError(f"{option} {path}: was trained with {flag} {there}, not {here}; give the same options")


def set_options(cfg: Any, values: dict[str, Any]) -> None:
    """Set those of ``values`` that a configuration (a Namespace, a dataclass or an OmegaConf node) has."""
    with open_dict(cfg) if OmegaConf.is_config(cfg) else nullcontext():
        for name, value in values.items():
            if hasattr(cfg, name):
                setattr(cfg, name, value)


def check_dictionary(
    expected: Dictionary, language: str, candidates: Iterable[Path], path: str, option: str
) -> Path | None:
    """Compare the dictionary that a checkpoint was trained with to the pair's own, symbol by symbol.

    Two dictionaries of equal length and another order give silent nonsense; nothing but the symbols can tell.

    Args:
        expected: the pair's dictionary of ``language``.
        candidates: where the checkpoint's dictionary may lie; the first that exists counts.
        path, option: the checkpoint and the option that named it, for the message.

    Returns:
        The file compared with, or None when none of the candidates exists.

    Raises:
        UserError: the dictionaries differ.
    """
    found = next((candidate for candidate in candidates if candidate.is_file()), None)
    if found is None:
        return None
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
    return found


def data_directories(task_cfg: Any) -> list[Path]:
    """The data directories recorded in a checkpoint's task configuration (they may be gone)."""
    data = getattr(task_cfg, "data", None)
    return [Path(p) for p in utils.split_paths(data)] if data else []
