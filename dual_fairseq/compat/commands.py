"""Errors of fairseq's commands about options, files and packages are one line, not a traceback."""

from __future__ import annotations

import re
from argparse import Namespace
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import fairseq.distributed.utils as distributed_utils
import fairseq.utils as fairseq_utils
import torch
from fairseq.dataclass import utils as dataclass_utils
from hydra.core.config_store import ConfigStore
from hydra.errors import HydraException
from omegaconf import OmegaConf
from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException

from ..common.errors import UserError, first_line
from ..common.memory import enough_memory
from ..common.options import flag
from .no_eval import fairseq_modules
from .processes import torchrun_processes

# Modules in which fairseq checks its options. An error that is raised elsewhere may be a fault of its code or of ours.
_LOOKS_AT_OPTIONS = re.compile(
    r"fairseq_cli\.\w+$|fairseq\.(options|distributed\.utils|sequence_generator|tasks\.fairseq_task)$"
)
_NEEDS_GPU = re.compile("Torch not compiled with CUDA|No CUDA GPUs are available|no NVIDIA driver")
_call_main = distributed_utils.call_main
_convert = dataclass_utils.convert_namespace_to_omegaconf
_import_user_module = fairseq_utils.import_user_module
_eval_str_list = dataclass_utils.eval_str_list
# Each composition of options copies this singleton, but only reads it; the copy took a quarter of the time.
ConfigStore.__deepcopy__ = lambda self, memo: self  # type: ignore[attr-defined]


@contextmanager
def one_line(options: Any) -> Iterator[None]:
    """Turns each error that the user can fix into a UserError.

    Args:
        options: the command's options, to name the option that holds the name of a file.

    Raises:
        UserError: a file cannot be read or written, memory does not suffice, or fairseq refuses the options.
    """
    try:
        with enough_memory():
            yield
    except OSError as error:
        if error.errno is None and _raised_by(error).startswith("fairseq"):  # in fairseq's own words
            raise UserError(first_line(error)) from error
        if error.filename is None:
            raise
        flags = [flag(name) for name, value in _flat(options) if value == error.filename]
        raise UserError(f"{' or '.join(flags)} {error.filename}: {error.strerror or error}".lstrip()) from error
    except MissingMandatoryValue as error:
        raise UserError(f"{flag(str(error.key))}: is missing") from error
    except (AssertionError, ImportError, RuntimeError, ValueError) as error:
        if _NEEDS_GPU.search(str(error)):
            raise UserError(f"one of these options needs a GPU ({first_line(error)})") from error
        module = _raised_by(error)
        package = isinstance(error, ImportError) and module.startswith("fairseq.")
        if not (str(error) and (package or _LOOKS_AT_OPTIONS.match(module))):
            raise
        raise UserError(first_line(error)) from error


def _raised_by(error: BaseException) -> str:
    """The name of the module in which an error was raised."""
    frame = error.__traceback__
    while frame is not None and frame.tb_next is not None:
        frame = frame.tb_next
    return "" if frame is None else str(frame.tb_frame.f_globals.get("__name__"))


def _flat(options: Any) -> list[tuple[str, Any]]:
    """Names and values of the options of all sections."""
    if not OmegaConf.is_config(options):
        return list(vars(options).items())
    sections: Any = OmegaConf.to_container(options, resolve=False)
    return [item for section in sections.values() if isinstance(section, dict) for item in section.items()]


def convert_namespace_to_omegaconf(args: Namespace) -> Any:
    """Like fairseq's function, which runs between the command line and the work.

    Raises:
        UserError: an option has an impossible value.
    """
    try:
        return _convert(args)
    except (HydraException, OmegaConfBaseException) as error:
        match = re.search(r"override (?:\w+\.)*(\w+)=(.*)", str(error))
        option = f"{flag(match[1])} {match[2]}" if match else "one of the options"
        reason = first_line(error.__cause__ or error)
        raise UserError(f"{option}: this value is not possible; give another value ({reason})") from error


def call_main(cfg: Any, main: Any, **kwargs: Any) -> Any:
    """Like fairseq's function, which runs a command.

    Raises:
        UserError: an error that the user can fix; fairseq would start no process on a machine without a GPU.
    """
    launch = cfg.distributed_training
    if launch.distributed_init_method is not None and not launch.distributed_no_spawn and not torch.cuda.is_available():
        raise UserError("--distributed-init-method: starts one process per GPU, but there is no GPU; use torchrun")
    with one_line(cfg):
        return _call_main(cfg, main, **kwargs)


def guarded(main: Callable[[Namespace], Any]) -> Callable[[Namespace], Any]:
    """Guards ``main`` of fairseq-generate, which does not use :func:`call_main`.

    The command translates the part of the sentences that ``--num-shards`` and ``--shard-id`` name, as their help says.
    """

    def run(args: Namespace) -> Any:
        if torchrun_processes() > 1:
            raise UserError(
                "fairseq-generate: under torchrun each process would translate all sentences; start the processes "
                "without it, each with --num-shards N and a --shard-id from 0 to N - 1"
            )
        if getattr(args, "num_shards", 1) > 1:
            args.distributed_world_size, args.distributed_rank = args.num_shards, args.shard_id
        with one_line(args):
            try:
                return main(args)
            except ZeroDivisionError as error:
                if _raised_by(error) != "fairseq_cli.generate":
                    raise
                raise UserError("fairseq-generate: no sentence is left to translate") from error

    return run


def eval_str_list(x: Any, x_type: Any = float) -> list[Any] | None:
    """Like fairseq's function, which argparse calls for list options; on a ValueError, argparse names the option."""
    try:
        return _eval_str_list(x, x_type)
    except (SyntaxError, MemoryError, RecursionError) as error:
        raise ValueError from error


def import_user_module(args: Any) -> None:
    """Like fairseq's function for ``--user-dir``, if this package is already loaded."""
    try:
        _import_user_module(args)
    except FileNotFoundError as error:
        raise UserError(f"--user-dir {error}: there is no such folder") from error


dataclass_utils.eval_str_list = eval_str_list
distributed_utils.call_main = call_main
fairseq_utils.import_user_module = import_user_module
for _module in fairseq_modules():
    if getattr(_module, "convert_namespace_to_omegaconf", None) is _convert:
        _module.convert_namespace_to_omegaconf = convert_namespace_to_omegaconf  # type: ignore[attr-defined]
    if _module.__spec__ is not None and _module.__spec__.name == "fairseq_cli.generate":
        _module.main = guarded(_module.main)  # type: ignore[attr-defined]
