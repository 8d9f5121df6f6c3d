"""A value that an option of fairseq cannot have ends in one line, before any work."""

from __future__ import annotations

import ast
import math
from typing import Any

import fairseq.distributed.utils as distributed_utils
from omegaconf import OmegaConf

from ..common.errors import UserError

# fairseq takes any number here. What follows is a traceback, or a run that does nothing without end.
_AT_LEAST = {
    "common.log_interval": 1,
    "common.seed": 0,
    "checkpoint.save_interval": 1,
    "checkpoint.save_interval_updates": 0,
    "dataset.batch_size": 1,
    "dataset.batch_size_valid": 1,
    "dataset.max_tokens": 1,
    "dataset.max_tokens_valid": 1,
    "dataset.num_shards": 1,
    "dataset.num_workers": 0,
    "dataset.required_batch_size_multiple": 1,
    "dataset.shard_id": 0,
    "dataset.validate_interval": 1,
    "dataset.validate_interval_updates": 0,
    "generation.beam": 1,
    "generation.max_len_b": 0,
    "generation.min_len": 0,
    "generation.nbest": 1,
    "generation.prefix_size": 0,
    "interactive.buffer_size": 0,
    "optimization.clip_norm": 0,
    "optimization.max_epoch": 0,
    "optimization.max_update": 0,
    "optimization.update_freq": 1,
}
_BELOW = {"common.seed": 2**31}  # fairseq adds the number of the epoch, and numpy takes 32 bits
_ONE_OF = {  # options that may not be given together with another
    "checkpoint.finetune_from_model": (
        "checkpoint.reset_optimizer", "checkpoint.reset_lr_scheduler", "checkpoint.reset_meters",
        "checkpoint.reset_dataloader",
    )
}  # fmt: skip
_call_main = distributed_utils.call_main


def check_option_values(cfg: Any) -> None:
    """Look at the options of a fairseq command.

    Raises:
        UserError: one has a value that it cannot have.
    """
    for name, least in _AT_LEAST.items():
        value = OmegaConf.select(cfg, name)
        values = value if OmegaConf.is_list(value) else [] if value is None else [value]
        for number in values:
            if math.isnan(number) or number < least or number >= _BELOW.get(name, math.inf):
                most = f" and below {_BELOW[name]:,}" if name in _BELOW else ""
                raise UserError(f"{_flag(name)} {number}: give a number of at least {least}{most}")
    for name in ("optimization.lr", "optimization.update_freq"):
        if OmegaConf.is_list(values := OmegaConf.select(cfg, name)) and not values:
            raise UserError(f"{_flag(name)}: holds no number; give one, or one for each epoch")
    for name in ("checkpoint.optimizer_overrides", "common_eval.model_overrides"):
        _check_dictionary(name, OmegaConf.select(cfg, name))
    for name, others in _ONE_OF.items():
        given = [_flag(other) for other in others if OmegaConf.select(cfg, name) and OmegaConf.select(cfg, other)]
        if given:
            raise UserError(f"{_flag(name)}: takes the weights alone; leave out {' and '.join(given)}")
    checkpoint, dataset, generation = cfg.checkpoint, cfg.dataset, cfg.generation
    if checkpoint.finetune_from_model and checkpoint.restore_file != "checkpoint_last.pt":
        raise UserError("--finetune-from-model, --restore-file: give one of them")
    if dataset.shard_id >= dataset.num_shards:
        raise UserError(f"--shard-id {dataset.shard_id}: is none of --num-shards {dataset.num_shards}, from 0 on")
    if generation.nbest > generation.beam:
        raise UserError(f"--nbest {generation.nbest}: needs --beam {generation.nbest} or more, not {generation.beam}")
    if not generation.temperature > 0:
        raise UserError(f"--temperature {generation.temperature}: give a number above 0")


def _check_dictionary(name: str, text: Any) -> None:
    try:
        if not isinstance(ast.literal_eval(text) if isinstance(text, str) else {}, dict):
            raise ValueError
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        raise UserError(f"{_flag(name)} {text[:60]}: give a dictionary, as \"{{'dropout': 0.1}}\"") from None


def _flag(name: str) -> str:
    return "--" + name.partition(".")[2].replace("_", "-")


def call_main(cfg: Any, main: Any, **kwargs: Any) -> Any:
    """As fairseq's, which runs a command, for options that it can work with.

    Raises:
        UserError: an option has a value that it cannot have.
    """
    check_option_values(cfg)
    return _call_main(cfg, main, **kwargs)


distributed_utils.call_main = call_main
