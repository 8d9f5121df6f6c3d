"""``dual-fairseq average``: the mean of the weights of several checkpoints."""

from __future__ import annotations

import argparse
import os
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..common.errors import UserError
from ..common.files import check_output
from ..common.folders import StageFolder
from ..common.progress import Progress
from ..compat.checkpoint_options import taken_options
from ..plugin.checkpoint import check_model_options, load_state
from ..plugin.finished import plain, plain_namespace, write_checkpoint


def average(inputs: Sequence[str | os.PathLike[str]]) -> dict[str, Any]:
    """A checkpoint with the mean of the inputs' weights and everything else from the first input.

    Sums are float64 (integers: int64). 16-bit weights become 32-bit; integer means are rounded down.

    Raises:
        UserError: an input is unreadable, or its weights or model options differ from the first input's.
    """
    result: dict[str, Any] = {}
    sums: OrderedDict[str, Tensor] = OrderedDict()
    dtypes: dict[str, torch.dtype] = {}
    with Progress("average", len(inputs), "files") as progress:
        for path in [os.fspath(p) for p in inputs]:
            state = load_state(path, "--inputs")
            progress.update(1)
            weights = state["model"]
            if not result:
                result = state
                dtypes = {key: tensor.dtype for key, tensor in weights.items()}
                sums = OrderedDict((key, _widened(tensor)) for key, tensor in weights.items())
                continue
            for key in (*weights, *sums):
                if key not in weights or key not in sums or weights[key].shape != sums[key].shape:
                    fault = "have another shape" if key in weights and key in sums else "are in only one of them"
                    raise UserError(f"--inputs {path}: is not the same model as {inputs[0]}: the weights {key} {fault}")
            check_model_options(result["cfg"].model, state["cfg"].model, path, "--inputs")
            for key in sums:
                sums[key] += weights[key]  # in place, in the wide type
    count = len(inputs)
    result["model"] = OrderedDict((key, _narrowed(total, count, dtypes[key])) for key, total in sums.items())
    # options in built-in types, so that stock fairseq reads averages of exported files
    options = {name: plain(value, name) for name, value in taken_options(result["cfg"]).items()}
    return {**result, "args": plain_namespace(options), "cfg": None}


def _widened(tensor: Tensor) -> Tensor:
    return tensor.to(torch.float64 if tensor.is_floating_point() else torch.int64, copy=True)


def _narrowed(total: Tensor, count: int, dtype: torch.dtype) -> Tensor:
    if total.is_floating_point():
        return (total / count).to(torch.float32 if dtype in (torch.half, torch.bfloat16) else dtype)
    return torch.div(total, count, rounding_mode="floor").to(dtype)


def newest(folder: str, count: int, by_update: bool, upper_bound: int | None = None) -> list[str]:
    """The newest ``count`` checkpoints of a run, the newest first.

    Args:
        folder: the run's folder.
        count: the number of checkpoints.
        by_update: ``checkpoint_<epoch>_<update>.pt`` instead of ``checkpoint<epoch>.pt``.
        upper_bound: the last epoch or update to take.

    Raises:
        UserError: there are fewer checkpoints.
    """
    if not os.path.isdir(folder):
        raise UserError(f"--inputs {folder}: there is no such folder")
    checkpoints = [
        os.fspath(file)
        for number, file in StageFolder(Path(folder)).checkpoints(by_update)
        if upper_bound is None or number <= upper_bound
    ]
    if len(checkpoints) < count:
        kind = "checkpoint_EPOCH_UPDATE.pt" if by_update else "checkpointEPOCH.pt"
        raise UserError(
            f"--inputs {folder}: has {len(checkpoints)} checkpoints {kind}, not {count}; fairseq-train keeps some "
            "with --save-interval-updates 500 --keep-interval-updates N, or without --no-epoch-checkpoints"
        )
    return checkpoints[:count]


def run(options: argparse.Namespace) -> None:
    """Average the checkpoints of the options of ``dual-fairseq average``.

    Raises:
        UserError: a checkpoint is wrong, or the mean cannot be written.
    """
    inputs, count = options.inputs, options.num_epoch_checkpoints or options.num_update_checkpoints
    if count is not None:
        by_update = options.num_update_checkpoints is not None
        inputs = newest(inputs[0], count, by_update, options.checkpoint_upper_bound)
    elif folder := next((path for path in inputs if os.path.isdir(path)), None):
        raise UserError(
            f"--inputs {folder}: is a folder; choose its checkpoints (--num-epoch-checkpoints N or "
            "--num-update-checkpoints N), or name them"
        )
    check_output(options.output, inputs)
    for path in inputs:
        print(f"averaging {path}")
    write_checkpoint(average(inputs), options.output)
    print(f"wrote {options.output}")
