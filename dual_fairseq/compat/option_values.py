"""A value that an option of fairseq cannot have ends in one line, before any work."""

from __future__ import annotations

import argparse
import ast
import math
from typing import Any

from fairseq import options as fairseq_options

from ..common.errors import UserError
from ..common.options import flag

# fairseq takes any number here. What follows is a traceback, or a run that does nothing without end.
_AT_LEAST = {
    "log_interval": 1,
    "seed": 0,
    "save_interval": 1,
    "save_interval_updates": 0,
    "batch_size": 1,
    "batch_size_valid": 1,
    "max_tokens": 1,
    "max_tokens_valid": 1,
    "num_shards": 1,
    "num_workers": 0,
    "required_batch_size_multiple": 1,
    "shard_id": 0,
    "validate_interval": 1,
    "validate_interval_updates": 0,
    "beam": 1,
    "max_len_b": 0,
    "min_len": 0,
    "nbest": 1,
    "prefix_size": 0,
    "buffer_size": 0,
    "clip_norm": 0,
    "max_epoch": 0,
    "max_update": 0,
    "update_freq": 1,
}
_BELOW = {"seed": 2**31}  # fairseq adds the number of the epoch, and numpy takes 32 bits
# with --finetune-from-model
_NOT_TOO = ("reset_optimizer", "reset_lr_scheduler", "reset_meters", "reset_dataloader")
_parse_args_and_arch = fairseq_options.parse_args_and_arch


def check_option_values(args: argparse.Namespace) -> None:
    """Look at the options of a fairseq command, of which it may lack some.

    Raises:
        UserError: one has a value that it cannot have.
    """

    def get(name: str, default: Any = None) -> Any:
        return getattr(args, name, default)

    for name, least in _AT_LEAST.items():
        value = get(name)
        for number in value if isinstance(value, list) else [] if value is None else [value]:
            try:
                found = float(number)  # --batch-size-valid is text
            except (TypeError, ValueError):
                continue  # the name of another option, by which fairseq says "as that one"
            if math.isnan(found) or found < least or found >= _BELOW.get(name, math.inf):
                most = f" and below {_BELOW[name]:,}" if name in _BELOW else ""
                raise UserError(f"{flag(name)} {number}: give a number of at least {least}{most}")
    for name, value in vars(args).items():
        if name.endswith("dropout") and isinstance(value, float) and not 0 <= value <= 1:
            raise UserError(f"{flag(name)} {value}: give a number from 0 to 1")
    for name in ("lr", "update_freq"):
        if get(name) == []:
            raise UserError(f"{flag(name)}: holds no number; give one, or one for each epoch")
    for name in ("optimizer_overrides", "model_overrides"):
        _check_dictionary(name, get(name))
    if get("finetune_from_model"):
        if given := [flag(other) for other in _NOT_TOO if get(other)]:
            raise UserError(f"--finetune-from-model: takes the weights alone; leave out {' and '.join(given)}")
        if get("restore_file", "checkpoint_last.pt") != "checkpoint_last.pt":
            raise UserError("--finetune-from-model, --restore-file: give one of them")
    if get("shard_id", 0) >= get("num_shards", 1):
        raise UserError(f"--shard-id {args.shard_id}: is none of --num-shards {args.num_shards}, from 0 on")
    if get("nbest", 1) > get("beam", math.inf):
        raise UserError(f"--nbest {args.nbest}: needs --beam {args.nbest} or more, not {args.beam}")
    if not get("temperature", 1.0) > 0:
        raise UserError(f"--temperature {args.temperature}: give a number above 0")


def _check_dictionary(name: str, text: Any) -> None:
    try:
        if not isinstance(ast.literal_eval(text) if isinstance(text, str) else {}, dict):
            raise ValueError
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        raise UserError(f"{flag(name)} {text[:60]}: give a dictionary, as \"{{'dropout': 0.1}}\"") from None


def parse_args_and_arch(*args: Any, **kwargs: Any) -> Any:
    """As fairseq's, which reads the command line of each of its commands.

    Raises:
        UserError: an option has a value that it cannot have.
    """
    try:
        found = _parse_args_and_arch(*args, **kwargs)
    except RuntimeError as error:
        if str(error):
            raise
        raise UserError("--arch: is missing; name one, as --arch transformer") from error
    check_option_values(found if isinstance(found, argparse.Namespace) else found[0])
    return found


fairseq_options.parse_args_and_arch = parse_args_and_arch
