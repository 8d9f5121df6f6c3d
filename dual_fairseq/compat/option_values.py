"""An impossible value of a fairseq option gives a one-line error, before any work."""

from __future__ import annotations

import argparse
import math
from importlib.util import find_spec
from typing import Any

import torch
from fairseq import options as fairseq_options
from fairseq.criterions import CRITERION_DATACLASS_REGISTRY
from fairseq.data.data_utils import post_process
from fairseq.models import ARCH_MODEL_REGISTRY
from fairseq.tasks import TASK_DATACLASS_REGISTRY

from ..common.arguments import did_you_mean
from ..common.errors import UserError
from ..common.literals import NoLiteral, literal
from ..common.options import flag
from .checkpoint_options import MODEL_UNDECLARED, declared_options
from .commands import one_line

# fairseq accepts any number here. A wrong number leads to a traceback, or to a run that does nothing forever.
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
    "distributed_world_size": 1,
    "lr": 0,
    "warmup_updates": 0,
    "weight_decay": 0,
    "adam_eps": 0,
    "max_source_positions": 1,
    "max_target_positions": 1,
    "quant_noise_pq_block_size": 1,
    "tokens_per_sample": 1,
}
_BELOW = {"seed": 2**31}  # fairseq adds the number of the epoch, and numpy accepts 32 bits
# Not allowed with --finetune-from-model.
_NOT_TOO = ("reset_optimizer", "reset_lr_scheduler", "reset_meters", "reset_dataloader")
# Text that fairseq evaluates when it builds the optimizer.
_TWO_NUMBERS = {
    "adam_betas": "(0.9, 0.98)",
    "adamax_betas": "(0.9, 0.999)",
    "lamb_betas": "(0.9, 0.999)",
    "adafactor_eps": "(1e-30, 1e-3)",
}
# Options that --model-overrides cannot change: the command line sets them, or the weights depend on them.
_FIXED = ("_name", "arch", "criterion", "data", "source_lang", "target_lang", "task")
_SHARES = ("dropout", "ema_decay", "layerdrop", "quant_noise_pq", "quant_noise_scalar")
_PACKAGES = {"use_plasma_view": "pyarrow", "write_checkpoints_asynchronously": "iopath", "tpu": "torch_xla"}
_parse_args_and_arch = fairseq_options.parse_args_and_arch


def check_option_values(args: argparse.Namespace) -> None:
    """Check the options of a fairseq command; some may be absent.

    Raises:
        UserError: an option has an impossible value.
    """

    def get(name: str, default: Any = None) -> Any:
        return getattr(args, name, default)

    for name, least in _AT_LEAST.items():
        value = get(name)
        for number in value if isinstance(value, list) else [] if value is None else [value]:
            try:
                as_float = float(number)  # --batch-size-valid is text
            except (TypeError, ValueError):
                continue  # the name of another option, whose value fairseq then uses
            if math.isnan(as_float) or as_float < least or as_float >= _BELOW.get(name, math.inf):
                most = f" and below {_BELOW[name]:,}" if name in _BELOW else ""
                raise UserError(f"{flag(name)} {number}: give a number of at least {least}{most}")
    for name, value in vars(args).items():
        if isinstance(value, float) and math.isnan(value):
            raise UserError(f"{flag(name)} nan: give a number")
        if name.endswith(_SHARES) and isinstance(value, float) and not 0 <= value <= 1:
            raise UserError(f"{flag(name)} {value}: give a number from 0 to 1")
    for name, example in _TWO_NUMBERS.items():
        _check_two_numbers(name, get(name), example)
    for name in ("lr", "update_freq"):
        if get(name) == []:
            raise UserError(f"{flag(name)}: is empty; give one number, or one for each epoch")
    for name, package in _PACKAGES.items():
        if get(name) and not get("bf16") and find_spec(package) is None:  # fairseq sets --tpu for --bf16
            raise UserError(f"{flag(name)}: {package} is not installed; install it or leave the option out")
    if get("profile") and not torch.cuda.is_available():
        raise UserError("--profile: needs a GPU; leave it out")
    if get("keep_interval_updates_pattern") == 0:
        raise UserError("--keep-interval-updates-pattern 0: give a number of at least 1")
    for name in ("post_process", "eval_bleu_remove_bpe"):
        try:
            post_process("", get(name) or "none")
        except NotImplementedError:
            raise UserError(f"{flag(name)} {get(name)}: is not a known segmentation") from None
    _dictionary("optimizer_overrides", get("optimizer_overrides"))
    read_overrides(get("model_overrides"))
    if get("finetune_from_model"):
        if resets := [flag(other) for other in _NOT_TOO if get(other)]:
            raise UserError(f"--finetune-from-model: takes only the weights; leave out {' and '.join(resets)}")
        if get("restore_file", "checkpoint_last.pt") != "checkpoint_last.pt":
            raise UserError("--finetune-from-model, --restore-file: give one of them")
    if get("shard_id", 0) >= get("num_shards", 1):
        raise UserError(f"--shard-id {args.shard_id}: must be below --num-shards {args.num_shards}")
    if get("nbest", 1) > get("beam", math.inf):
        raise UserError(f"--nbest {args.nbest}: needs --beam {args.nbest} or more, not {args.beam}")
    if get("sampling") and get("nbest", 1) != get("beam", 1):
        raise UserError(f"--sampling: needs --nbest {args.beam}, the same as --beam, not {args.nbest}")
    if (groups := get("diverse_beam_groups", 0)) > 0 and get("beam", 0) % groups:
        raise UserError(f"--diverse-beam-groups {groups}: does not divide --beam {args.beam}")
    if get("constraints") and not hasattr(args, "buffer_size"):
        raise UserError(
            "--constraints: works only with fairseq-interactive; write them after the sentence, on its line, after tabs"
        )
    if not get("temperature", 1.0) > 0:
        raise UserError(f"--temperature {args.temperature}: give a number above 0")


def _check_two_numbers(name: str, given: Any, example: str) -> None:
    if given is None:
        return
    try:
        value = literal(given) if isinstance(given, str) else given
        if not (len(value) == 2 and all(0 <= number < 1 for number in value)):
            raise NoLiteral
    except (NoLiteral, TypeError):
        raise UserError(f'{flag(name)} {given}: give two numbers from 0 to below 1, such as "{example}"') from None


def read_overrides(text: Any) -> dict[str, Any]:
    """The value of ``--model-overrides``.

    Args:
        text: the option's text; None if it was not given.

    Raises:
        UserError: the text is no dictionary, or changes an option that it cannot change.
    """
    overrides = _dictionary("model_overrides", text)
    overridable = _overridable() if overrides else set()
    for name, value in overrides.items():
        if name in _FIXED:
            raise UserError(f"--model-overrides: cannot change {name}; leave it out")
        if name not in overridable and not isinstance(value, dict):
            hint = did_you_mean(name, overridable)
            raise UserError(f"--model-overrides: no model, task or criterion has an option {name}{hint}")
    return overrides


def _dictionary(name: str, text: Any) -> dict[str, Any]:
    """The dictionary that a text describes.

    Raises:
        UserError: the text is no dictionary.
    """
    try:
        value = {} if text is None else literal(text)
        if not (isinstance(value, dict) and all(isinstance(key, str) for key in value)):
            raise NoLiteral
    except (NoLiteral, TypeError):
        raise UserError(f"{flag(name)} {str(text)[:60]}: give a dictionary such as \"{{'dropout': 0.1}}\"") from None
    return value


def _overridable() -> set[str]:
    """The options of all archs, and of all tasks and criterions (fairseq-validate takes these from the checkpoint)."""
    models = [declared_options(arch) for arch in {kind: name for name, kind in ARCH_MODEL_REGISTRY.items()}.values()]
    records = [*TASK_DATACLASS_REGISTRY.values(), *CRITERION_DATACLASS_REGISTRY.values()]
    declared = (kind.__dataclass_fields__ for kind in records)
    return {*MODEL_UNDECLARED, *(name for options in (*models, *declared) for name in options)}


def parse_args_and_arch(*args: Any, **kwargs: Any) -> Any:
    """Like fairseq's function, which reads the command line of every command.

    Raises:
        UserError: an option has an impossible value.
    """
    try:
        with one_line(argparse.Namespace()):
            parsed = _parse_args_and_arch(*args, **kwargs)
    except RuntimeError as error:
        if str(error):
            raise
        raise UserError("--arch: is missing; name one, for example --arch transformer") from error
    check_option_values(parsed if isinstance(parsed, argparse.Namespace) else parsed[0])
    return parsed


fairseq_options.parse_args_and_arch = parse_args_and_arch
