"""Writes finished checkpoints, which no training continues: plain options, weights, dictionaries' digests."""

from __future__ import annotations

import enum
import os
from collections import OrderedDict
from pathlib import Path
from typing import Any

import torch
from fairseq.tasks.translation import TranslationConfig
from omegaconf import OmegaConf
from torch import Tensor

from ..common.errors import UserError
from ..common.files import whole_file
from ..common.options import flag
from ..compat.checkpoint_options import declared_options
from .model import arch_name


def finished_state(
    weights: dict[str, Tensor],
    *,
    args: OrderedDict[str, Any] | None = None,
    cfg: Any = None,
    criterion: str = "",
    optimizer: str = "",
    updates: int = 0,
    task_state: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """The content of a checkpoint, with built-in types and tensors only.

    Args:
        weights: of the model.
        args: the options as :func:`plain_namespace`, which all programs read ...
        cfg: ... or as a nested dictionary, which fairseq reads.
        criterion, optimizer: names of their classes; fairseq wants an entry.
        updates: of the training.
        task_state: of the task.
    """
    history = {
        "criterion_name": criterion, "optimizer_name": optimizer, "lr_scheduler_state": {}, "num_updates": updates,
    }  # fmt: skip
    return {
        "args": args,
        "cfg": cfg,
        "model": weights,
        "criterion": None,
        "optimizer_history": [history],
        "task_state": task_state or {},
        "extra_state": {"train_iterator": {"epoch": 1, "iterations_in_epoch": 0}},
        "last_optimizer_state": None,
    }


def plain_namespace(options: dict[str, Any]) -> OrderedDict[str, Any]:
    """Options that can be read, set and deleted as attributes, like those of fairseq's ``argparse.Namespace``.

    PyTorch's ``weights_only`` refuses to unpickle a ``Namespace``. It always accepts an ``OrderedDict`` together with
    the instance's attributes, because ``Module.state_dict()`` stores its ``_metadata`` there. fairseq and CTranslate2
    use only the attributes of a Namespace.
    """
    namespace = OrderedDict(options)
    vars(namespace).update(options)
    return namespace


def arch_options(model_cfg: Any) -> dict[str, Any]:
    """The options that an arch declares, from a checkpoint, which records the options of the whole run.

    Args:
        model_cfg: ``cfg.model`` of a checkpoint.
    """
    names = declared_options(arch_name(model_cfg))
    return {name: plain(getattr(model_cfg, name), name) for name in names if hasattr(model_cfg, name)}


# Options of the data and of validation are not part of a model.
_RUN_OPTIONS = ("data", "train_subset", "dataset_impl", "num_batch_buckets")


def translation_options(task_cfg: Any) -> dict[str, Any]:
    """The options of fairseq's ``translation`` task in a checkpoint that belong to the model, not to the run."""
    names = (n for n in TranslationConfig.__dataclass_fields__ if not n.startswith(("_", "eval_")))
    kept = (n for n in names if n not in _RUN_OPTIONS and hasattr(task_cfg, n))
    return {name: plain(getattr(task_cfg, name), name) for name in kept}


def plain(value: Any, name: str) -> Any:
    """An option's value in built-in types.

    Raises:
        UserError: the value has no such form.
    """
    if OmegaConf.is_config(value):
        value = OmegaConf.to_container(value, resolve=True, enum_to_str=True)
    if isinstance(value, enum.Enum):
        return plain(value.value, name)
    if value is None or type(value) in (bool, int, float, str):
        return value
    if isinstance(value, list | tuple):
        return [plain(item, name) for item in value]
    if isinstance(value, dict):
        return {plain(key, name): plain(item, name) for key, item in value.items()}
    raise UserError(f"{flag(name)}: a {type(value).__name__} cannot be written as plain values")


def write_checkpoint(state: dict[str, Any], path: str | os.PathLike[str]) -> None:
    """Write a checkpoint, whole or not at all, and make its folder.

    Raises:
        UserError: the checkpoint cannot be written.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(path) as file:
        torch.save(state, file)
