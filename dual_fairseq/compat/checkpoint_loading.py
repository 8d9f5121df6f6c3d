"""A checkpoint runs no code, and a bad checkpoint gives a one-line error."""

from __future__ import annotations

import argparse
import os
import re
from numbers import Real
from typing import Any

import torch
from fairseq import checkpoint_utils
from fairseq import trainer as fairseq_trainer
from fairseq.dataclass.utils import overwrite_args_by_name
from fairseq.file_io import PathManager

from ..common.archives import check_archive
from ..common.errors import UserError, first_detail, first_line
from ..common.records import check_shape
from . import numpy_records  # noqa: F401
from .checkpoint_options import RefusedOption, model_options, take_options
from .processes import end_those_who_wait
from .training_state import UnfitState

# PyTorch >= 2.6 unpickles checkpoints with ``weights_only=True`` and refuses every class that is not on its list.
# fairseq stores the options of a run as an ``argparse.Namespace``. numpy_records adds stand-ins for numpy's classes.
torch.serialization.add_safe_globals([argparse.Namespace])

_RESET = "please reset the optimizer (--reset-optimizer)"  # fairseq's assertion
_NUMBER = (None, torch.Tensor, Real)  # a tensor in runs of several processes
_COUNT = range(2**31)
_MOST_NAMES = 64  # most names of a weight, on average: layers may share weights
_WEIGHTS = {str: torch.Tensor}
# The parts of a checkpoint, besides its options, that fairseq and this package read without a check.
_SHAPE = {
    "model": (None, _WEIGHTS),
    "criterion?": (None, {}),
    "optimizer_history": [
        {"criterion_name?": str, "optimizer_name": str, "lr_scheduler_state?": (None, {}), "num_updates": _COUNT}
    ],
    "last_optimizer_state?": (None, {}),
    "extra_state": {
        "train_iterator": {"epoch": _COUNT, "iterations_in_epoch?": _COUNT, "shuffle?": bool, "version?": _COUNT},
        "best?": _NUMBER,
        "previous_training_time?": _NUMBER,
        "metrics?": (None, list, {}),
        "ema?": _WEIGHTS,
        "ema_fp32_params?": _WEIGHTS,
        "dual_fairseq_patience?": {"best": _NUMBER, "num_runs": _COUNT},
    },
    "task_state?": (None, {}),
}

_load_checkpoint = checkpoint_utils.load_checkpoint
_load_model_ensemble_and_task = checkpoint_utils.load_model_ensemble_and_task
_trainer_load_checkpoint = fairseq_trainer.Trainer.load_checkpoint


class UnreadableCheckpoint(ValueError):
    """The file is no checkpoint, is damaged, or asks for something no checkpoint needs; the message says which."""


def load_checkpoint_to_cpu(
    path: str, arg_overrides: dict[str, Any] | None = None, load_on_all_ranks: bool = False
) -> dict[str, Any]:
    """Like fairseq's function, but keeps only options that may come from a file. Every checkpoint is loaded here.

    Raises:
        UnreadableCheckpoint: the file's content cannot be used, or is refused.
    """
    try:
        with open(PathManager.get_local_path(path), "rb") as file:
            check_archive(file)
            state = torch.load(file, map_location="cpu", weights_only=True)
        _check_tensors(state, set())
        _check_sharing(state)
        state = take_options(state)
        if arg_overrides is not None and state.get("cfg") is not None:
            check_overrides(path, state["cfg"].model._name, arg_overrides)
            overwrite_args_by_name(state["cfg"], arg_overrides)
        state = checkpoint_utils._upgrade_state_dict(state)
        check_shape(state, _SHAPE)
    except OSError:
        raise
    except RefusedOption as error:
        raise UnreadableCheckpoint(f"its options are refused: {error}") from error
    except Exception as error:  # torch.load can raise any exception on bad bytes
        text = str(error)
        refused = re.search(r"(?:GLOBAL|global|class:?) `?([\w.]+\.[\w.]+)", text)
        if "eights only load failed" in text:  # PyTorch's message also says how to let the file run code
            problem = f"asks for {refused[1]}" if refused else "is not a list of tensors and plain values"
            reason = f"it {problem}; a file that could run code is not loaded"
        else:
            reason = f"it has no {first_line(error)}" if isinstance(error, KeyError) else first_line(error)
        raise UnreadableCheckpoint(reason) from error
    for name, weights in (state["model"] or {}).items():
        if weights.is_floating_point() and not weights.isfinite().all():
            raise UserError(
                f"{path}: holds weights that are not finite ({name}), since its training diverged or it was changed; "
                "take an earlier checkpoint"
            )
    return state


def check_overrides(path: str, arch: str, overrides: dict[str, Any]) -> None:
    """Raises UserError if a model's option gets an impossible value."""
    try:
        model_options(arch, overrides)
    except RefusedOption as error:
        raise UserError(f"{path}: cannot take the option {error}") from error


def _check_tensors(value: Any, seen: set[int]) -> None:
    """Refuse a tensor that is not plain, or has more numbers than the file holds for it.

    Raises:
        ValueError: the value, or a record or list in it, has such a tensor.
    """
    if isinstance(value, torch.Tensor):
        plain = value.layout == torch.strided and value.device.type == "cpu"
        if not plain or value.is_quantized or value.is_complex():
            raise ValueError("it has a tensor of an odd kind")
        if value.numel() * value.element_size() > value.untyped_storage().nbytes():
            raise ValueError("it has a tensor of more numbers than the file has of it")
    elif isinstance(value, dict | list | tuple) and id(value) not in seen:  # lists may hold each other many times
        seen.add(id(value))
        for item in value.values() if isinstance(value, dict) else value:
            _check_tensors(item, seen)


def _check_sharing(state: dict[str, Any]) -> None:
    """Refuse one tensor under very many names: averaging or exporting may copy it for each name.

    Raises:
        ValueError: a tensor has too many names.
    """
    weights = [item for item in dict(state.get("model") or {}).values() if isinstance(item, torch.Tensor)]
    stored = {tensor.untyped_storage().data_ptr(): tensor.untyped_storage().nbytes() for tensor in weights}
    if sum(tensor.nbytes for tensor in weights) > _MOST_NAMES * sum(stored.values()):
        raise ValueError("its weights are far more than the file has of them")


def unreadable(path: str, error: Exception) -> UserError:
    """The error for a file that is no checkpoint, or only a part of a checkpoint."""
    return UserError(
        f"{path}: cannot be read as a fairseq checkpoint (truncated, or not made by fairseq-train?): "
        f"{first_line(error)}"
    )


def _refuse_misfit(path: str, error: BaseException, of: str) -> UserError | None:
    """The error that says why weights do not fit; None if something else went wrong."""
    cause: BaseException | None = error
    while cause is not None and "Error(s) in loading state_dict" not in str(cause):
        cause = cause.__cause__ or cause.__context__
    if cause is None:
        return None
    if re.search(r'Unexpected key\(s\)[^:]*: "models\.', str(cause)):
        return UserError(f"{path}: holds a pair of models, not a single one: use it with --task dual_translation")
    return UserError(f"{path}: does not fit {of}: {first_detail(cause)}")


def load_model_ensemble_and_task(
    filenames: list[str], arg_overrides=None, task=None, strict=True, suffix="", num_shards=1, state=None
):
    """Like fairseq's function; a missing, unreadable or unfit checkpoint (``--path``) raises :class:`UserError`."""
    arguments = (arg_overrides, task, strict, suffix, num_shards, state)
    if state is not None:  # the caller has read it, and reports errors
        return _load_model_ensemble_and_task(filenames, *arguments)
    if not suffix and num_shards == 1:
        for path in filenames:
            if not PathManager.exists(path):
                raise UserError(f"--path {path}: there is no such file")
    names = os.pathsep.join(map(str, filenames))
    try:
        return _load_model_ensemble_and_task(filenames, *arguments)
    except UnreadableCheckpoint as error:
        raise unreadable(f"--path {names}", error) from error
    except RuntimeError as error:
        target = "the data's dictionaries" + (" with these --model-overrides" if arg_overrides else "")
        refusal = _refuse_misfit(f"--path {names}", error, target)
        if refusal is None:
            raise
        raise refusal from error
    except AttributeError as error:
        if error.name != "supported_targets":  # fairseq's language modeling reads it
            raise
        raise UserError(f"--path {names}: is not a language model") from error


def load_checkpoint(cfg, trainer, **passthrough_args):
    """Like fairseq's function; a mistyped ``--restore-file`` or ``--finetune-from-model`` raises :class:`UserError`.

    (Without the restore file, fairseq trains from scratch. In the run's own folder, the file may not exist yet.)
    """
    restore, finetune = cfg.restore_file, cfg.finetune_from_model
    own = os.path.abspath(os.path.dirname(restore)) == os.path.abspath(cfg.save_dir)
    for option, path, must_exist in (
        ("--restore-file", restore, restore != "checkpoint_last.pt" and not own and not trainer.checkpoint_suffix),
        ("--finetune-from-model", finetune, finetune is not None),
    ):
        if must_exist and not PathManager.exists(path):
            raise UserError(f"{option} {path}: there is no such file")
    try:
        return _load_checkpoint(cfg, trainer, **passthrough_args)
    except RuntimeError as error:
        if "dataloader mismatch" not in str(error):
            raise
        raise UserError(
            f"{restored_file(cfg.save_dir, restore)}: its position in the epoch is after the last batch of this data; "
            "give the data and --max-tokens that it was trained with, or --reset-dataloader to begin an epoch"
        ) from error


def restored_file(save_dir: str, restore_file: str) -> str:
    """The checkpoint from which a run continues, by fairseq's rule."""
    return os.path.join(save_dir, restore_file) if restore_file == "checkpoint_last.pt" else restore_file


def trainer_load_checkpoint(self, filename: str, reset_optimizer: bool = False, *args: Any, **kwargs: Any):
    """Like fairseq's method; an unreadable or unfit checkpoint raises :class:`UserError`.

    A task can check the whole checkpoint before any part is used, by a method
    ``check_checkpoint(state, path, model_cfg, keeps_optimizer)``. If one process reads for all, an error ends all.
    """

    def load_and_check(path: str, load_on_all_ranks: bool = False) -> dict[str, Any]:
        try:
            state = load_checkpoint_to_cpu(path)
            if hasattr(self.task, "check_checkpoint"):
                self.task.check_checkpoint(state, path, self.cfg.model, not reset_optimizer)
            if self.cfg.ema.store_ema:  # fairseq intends this, but no longer has the weights then
                state["extra_state"].setdefault("ema", dict(state["model"]))
        except BaseException:
            if self.data_parallel_world_size > 1 and not load_on_all_ranks:
                end_those_who_wait(self.data_parallel_process_group, self.device)
            raise
        return state

    checkpoint_utils.load_checkpoint_to_cpu = load_and_check  # the trainer reads the file in the middle of its method
    try:
        return _trainer_load_checkpoint(self, filename, reset_optimizer, *args, **kwargs)
    except UnreadableCheckpoint as error:
        raise unreadable(filename, error) from error
    except AssertionError as error:
        if _RESET not in str(error):
            raise
        recorded, _, current = str(error).rpartition(". ")[2].partition(" vs ")
        raise UserError(
            f"{filename}: was trained with another --optimizer or --criterion ({recorded}, not {current}); give the "
            "same, or --reset-optimizer to begin with a new state of it"
        ) from error
    except UnfitState as error:
        raise UserError(
            f"{filename}: its training cannot continue with these options ({error}), or it is damaged; give the "
            "options that it was trained with, or --reset-optimizer --reset-lr-scheduler --reset-meters"
        ) from error
    except Exception as error:
        refusal = _refuse_misfit(filename, error, "this model (another --arch, size or dictionary?)")
        if refusal is None:
            raise
        raise refusal from error
    finally:
        checkpoint_utils.load_checkpoint_to_cpu = load_checkpoint_to_cpu


checkpoint_utils.load_checkpoint_to_cpu = load_checkpoint_to_cpu
checkpoint_utils.load_model_ensemble_and_task = load_model_ensemble_and_task
checkpoint_utils.load_checkpoint = load_checkpoint
fairseq_trainer.Trainer.load_checkpoint = trainer_load_checkpoint
