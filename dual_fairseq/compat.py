"""What today's PyTorch and torchrun, and runs that last days, need of fairseq 0.12, each with its reason."""

from __future__ import annotations

import argparse
import difflib
import logging
import os
import re
import shutil
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from .quiet import silence_known_noise

# before fairseq is imported, where that has not happened yet
silence_known_noise()

import fairseq.distributed.utils as distributed_utils  # noqa: E402
import fairseq.models.distributed_fairseq_model as distributed_fairseq_model  # noqa: E402
import numpy as np  # noqa: E402
import torch  # noqa: E402
from fairseq import checkpoint_utils  # noqa: E402
from fairseq import options as fairseq_options  # noqa: E402
from fairseq import trainer as fairseq_trainer  # noqa: E402
from fairseq.file_io import PathManager  # noqa: E402
from fairseq.models import ARCH_MODEL_REGISTRY  # noqa: E402
from fairseq.nan_detector import NanDetector  # noqa: E402
from sacrebleu.tokenizers.tokenizer_13a import Tokenizer13a  # noqa: E402
from sacrebleu.tokenizers.tokenizer_re import TokenizerRegexp  # noqa: E402

from .errors import UserError  # noqa: E402

logger = logging.getLogger(__name__)

# PyTorch >= 2.6 unpickles checkpoints with ``weights_only=True`` and refuses every class it was not told of. fairseq
# stores the options of a run as an ``argparse.Namespace``, and its ``translation`` task (with ``--eval-bleu``) n-gram
# counts as numpy arrays. Allowing these plain records keeps fairseq checkpoints loadable and still keeps a hostile
# checkpoint from running code.
torch.serialization.add_safe_globals(
    [
        argparse.Namespace,
        np.ndarray,
        np.dtype,
        type(np.dtype(np.int64)),
        type(np.dtype(np.float64)),
        np.core.multiarray._reconstruct,  # type: ignore[attr-defined]
        np.core.multiarray.scalar,  # type: ignore[attr-defined]
    ]
)


# fairseq asks for the environment that torchrun sets only when it sees several GPUs on this machine. With none, or with
# one on each of several machines, every process would train a whole model of its own, in silence, and write the same
# checkpoints.
_infer_init_method = distributed_utils.infer_init_method


def infer_init_method(cfg, force_distributed: bool = False) -> None:
    """Join the processes that torchrun started; fairseq's own inference for every other launcher."""
    world_size = int(os.environ.get("WORLD_SIZE", 1))
    by_torchrun = {"MASTER_ADDR", "MASTER_PORT", "RANK", "LOCAL_RANK"} <= os.environ.keys()
    if cfg.distributed_init_method is None and by_torchrun and world_size > 1:
        cfg.distributed_init_method = "env://"
        cfg.distributed_world_size = world_size
        cfg.distributed_rank = int(os.environ["RANK"])
        cfg.device_id = int(os.environ["LOCAL_RANK"]) if torch.cuda.is_available() else 0
        cfg.distributed_no_spawn = True
    else:
        _infer_init_method(cfg, force_distributed)


distributed_utils.infer_init_method = infer_init_method


class _DistributedDataParallel(torch.nn.parallel.DistributedDataParallel):
    """fairseq names a GPU for every module it wraps; PyTorch refuses that for a module on the CPU."""

    def __init__(self, module: torch.nn.Module, device_ids=None, output_device=None, **options) -> None:
        if next(module.parameters()).device.type == "cpu":
            device_ids = output_device = None
        super().__init__(module, device_ids=device_ids, output_device=output_device, **options)


distributed_fairseq_model.DistributedDataParallel = _DistributedDataParallel


# A process that waits in vain for a hung one is ended by ``--heartbeat-timeout``. fairseq sends it SIGINT for that, but
# Python handles a signal when the collective that it waits in has returned.
class _DistributedTimeoutWrapper(distributed_fairseq_model.DistributedTimeoutWrapper):
    def __init__(self, module: torch.nn.Module, timeout: int, signal: int = signal.SIGKILL) -> None:
        super().__init__(module, timeout, signal)


distributed_fairseq_model.DistributedTimeoutWrapper = _DistributedTimeoutWrapper


# When several processes resume, the first reads the checkpoint (with ``weights_only``) and sends it to the others,
# where fairseq unpickles it by ``torch.load`` again; there the configuration's own classes, which never come from a
# file, would be refused. PyTorch's own way of sending objects between the processes of a run serves.
def _broadcast_object_slow(obj, src_rank: int, group, dist_device: torch.device):
    box = [obj]
    torch.distributed.broadcast_object_list(box, src=src_rank, group=group, device=dist_device)
    return box[0]


distributed_utils._broadcast_object_slow = _broadcast_object_slow


# --- checkpoints are written whole or not at all

# fairseq saves a checkpoint under another name and renames it, but makes checkpoint_best.pt and checkpoint_last.pt by
# copying over the old ones in place: killed right then, a run is left with half a checkpoint and without the old one.
_ATTEMPTS, _PAUSE = 3, 2.5  # fairseq's own, for file systems of the network that fail for a moment

_copy_file = PathManager.copy
_persistent_save = checkpoint_utils.torch_persistent_save


def copy(src_path: str, dst_path: str, overwrite: bool = False) -> bool:
    """Copy a file so that the destination is the old file or the new one at any moment."""
    if not PathManager.supports_rename(dst_path):
        return _copy_file(src_path, dst_path, overwrite=overwrite)
    if not overwrite and os.path.exists(dst_path):
        return False

    def write(file: Any) -> None:
        with open(src_path, "rb") as source:
            shutil.copyfileobj(source, file, 1 << 24)

    _write(dst_path, write)
    return True


def torch_persistent_save(obj: Any, filename: str, async_write: bool = False) -> None:
    """Save a checkpoint so that the file is the old one or the new one at any moment.

    Raises:
        UserError: it cannot be written.
    """
    if async_write or not PathManager.supports_rename(filename):
        _persistent_save(obj, filename, async_write=async_write)
    else:
        _write(filename, lambda file: torch.save(obj, file))


def _write(path: str, write: Callable[[Any], Any]) -> None:
    unfinished = f"{path}.tmp"
    for attempt in range(1, _ATTEMPTS + 1):
        try:
            with open(unfinished, "wb") as file:
                write(file)
                file.flush()
                os.fsync(file.fileno())
            os.replace(unfinished, path)
            return
        except (OSError, RuntimeError) as error:  # PyTorch's writer raises a RuntimeError after the file's OSError
            reason = error if isinstance(error, OSError) else error.__context__
            if not isinstance(reason, OSError):
                raise
            Path(unfinished).unlink(missing_ok=True)
            if attempt == _ATTEMPTS:
                kept = "the old one is whole" if os.path.exists(path) else "none is there yet"
                raise UserError(
                    f"{path}: this checkpoint cannot be written ({reason.strerror}); {kept}: make room or mend the "
                    "folder's permissions, and the same command goes on"
                ) from error
            logger.warning("%s: %s; trying again", path, reason)
            time.sleep(_PAUSE)


PathManager.copy = staticmethod(copy)
checkpoint_utils.torch_persistent_save = torch_persistent_save


# --- stopping

# fairseq-train answers Ctrl-C with a traceback and SIGTERM with nothing. This function it calls once, before anything
# else, in the process that writes checkpoints.
_verify_checkpoint_directory = checkpoint_utils.verify_checkpoint_directory


def verify_checkpoint_directory(save_dir: str) -> None:
    """See that checkpoints can be written, and say on Ctrl-C and SIGTERM where the last one is.

    Raises:
        UserError: the directory cannot be made or written to.
    """
    try:
        _verify_checkpoint_directory(save_dir)
    except OSError as error:
        raise UserError(
            f"--save-dir {save_dir}: cannot be written ({error.strerror}); mend that or choose another"
        ) from error
    if threading.current_thread() is not threading.main_thread():
        return
    for number, usual in ((signal.SIGINT, signal.default_int_handler), (signal.SIGTERM, signal.SIG_DFL)):
        if signal.getsignal(number) == usual:  # whoever embeds fairseq keeps handlers of their own
            signal.signal(number, _stopper(save_dir, usual))


def _stopper(save_dir: str, usual: Any) -> Callable[[int, Any], None]:
    owner = os.getpid()

    def stop(number: int, frame: Any) -> None:
        signal.signal(number, usual)  # a second one does not wait for anything
        if os.getpid() != owner:  # a data loader's worker, which PyTorch looks after
            if number == signal.SIGINT:
                raise KeyboardInterrupt
            os.kill(os.getpid(), number)
            return
        last = os.path.join(save_dir, "checkpoint_last.pt")
        if os.path.isfile(last):
            written = time.strftime("%F %T", time.localtime(os.path.getmtime(last)))
            where = f"the same command goes on from {last}, written {written}"
        else:
            where = (
                f"{save_dir} has no checkpoint_last.pt, so the same command begins anew (--save-interval-updates N "
                "writes one every N updates)"
            )
        sys.stdout.flush()
        print(f"dual_fairseq: stopped by {signal.Signals(number).name}: {where}", file=sys.stderr, flush=True)
        raise SystemExit(128 + number)

    return stop


_call_main = distributed_utils.call_main


def call_main(cfg, main, **kwargs):
    """As fairseq's, which runs a command; the handlers of signals are afterwards what they were before.

    fairseq takes --bf16 for a wish for a TPU, and ends where PyTorch/XLA is not installed; here it is used on the GPU.
    """
    if cfg.common.bf16 and torch.cuda.is_available():
        cfg.common.tpu = cfg.distributed_training.tpu = False
    if threading.current_thread() is not threading.main_thread():
        return _call_main(cfg, main, **kwargs)
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        return _call_main(cfg, main, **kwargs)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


checkpoint_utils.verify_checkpoint_directory = verify_checkpoint_directory
distributed_utils.call_main = call_main


# --- bad checkpoints end in one line

_load_checkpoint = checkpoint_utils.load_checkpoint
_load_checkpoint_to_cpu = checkpoint_utils.load_checkpoint_to_cpu
_load_model_ensemble_and_task = checkpoint_utils.load_model_ensemble_and_task
_trainer_load_checkpoint = fairseq_trainer.Trainer.load_checkpoint


class UnreadableCheckpoint(ValueError):
    """The file is no checkpoint, is damaged, or asks for what a checkpoint has no need of; the message says which."""


def load_checkpoint_to_cpu(path: str, *args: Any, **kwargs: Any) -> dict[str, Any]:
    """As fairseq's.

    Raises:
        UnreadableCheckpoint: nothing can be made of the file's content.
    """
    try:
        return _load_checkpoint_to_cpu(path, *args, **kwargs)
    except OSError:
        raise
    except Exception as error:  # torch.load raises whatever the bytes make it raise
        text = str(error)
        wanted = re.search(r"(?:GLOBAL|global|class:?) `?([\w.]+\.[\w.]+)", text)
        if "eights only load failed" in text:  # PyTorch goes on to say how to let the file run its code
            what = f"asks for {wanted[1]}" if wanted else "is no list of tensors and plain values"
            reason = f"it {what}; a file that could run code is not loaded"
        else:
            reason = text.strip().splitlines()[0] if text.strip() else type(error).__name__
        raise UnreadableCheckpoint(reason) from error


def _refuse_unreadable(path: str, error: UnreadableCheckpoint) -> UserError:
    return UserError(
        f"{path}: cannot be read as a fairseq checkpoint (truncated, or not made by fairseq-train?): {error}"
    )


def _refuse_misfit(path: str, error: BaseException, of: str) -> UserError | None:
    """Why weights do not fit, if it is that which went wrong."""
    cause: BaseException | None = error
    while cause is not None and "Error(s) in loading state_dict" not in str(cause):
        cause = cause.__cause__ or cause.__context__
    if cause is None:
        return None
    details = [line.strip() for line in str(cause).splitlines()[1:] if line.strip()]
    if re.search(r'Unexpected key\(s\)[^:]*: "models\.', str(cause)):
        return UserError(f"{path}: holds a pair of models, not a single one: use it with --task dual_translation")
    return UserError(f"{path}: does not fit {of}: {details[0][:200] if details else cause}")


def load_model_ensemble_and_task(
    filenames: list[str], arg_overrides=None, task=None, strict=True, suffix="", num_shards=1, state=None
):
    """As fairseq's; a missing, unreadable or unfit checkpoint (``--path``) is a :class:`UserError`."""
    given = (arg_overrides, task, strict, suffix, num_shards, state)
    if state is not None:  # read by the caller, who knows what went wrong
        return _load_model_ensemble_and_task(filenames, *given)
    if not suffix and num_shards == 1:
        for path in filenames:
            if not PathManager.exists(path):
                raise UserError(f"--path {path}: there is no such file")
    names = os.pathsep.join(map(str, filenames))
    try:
        return _load_model_ensemble_and_task(filenames, *given)
    except UnreadableCheckpoint as error:
        raise _refuse_unreadable(f"--path {names}", error) from error
    except RuntimeError as error:
        refusal = _refuse_misfit(f"--path {names}", error, "the data's dictionaries")
        if refusal is None:
            raise
        raise refusal from error


def load_checkpoint(cfg, trainer, **passthrough_args):
    """As fairseq's; a mistyped ``--restore-file`` or ``--finetune-from-model`` is a :class:`UserError`.

    (fairseq trains from scratch without the first. One in the run's own folder may still have to be made.)
    """
    restore, finetune = cfg.restore_file, cfg.finetune_from_model
    own = os.path.abspath(os.path.dirname(restore)) == os.path.abspath(cfg.save_dir)
    for option, path, wanted in (
        ("--restore-file", restore, restore != "checkpoint_last.pt" and not own and not trainer.checkpoint_suffix),
        ("--finetune-from-model", finetune, finetune is not None),
    ):
        if wanted and not PathManager.exists(path):
            raise UserError(f"{option} {path}: there is no such file")
    last = os.path.join(cfg.save_dir, f"checkpoint_last{trainer.checkpoint_suffix}.pt")
    from_another = finetune is not None and not PathManager.exists(last)
    extra_state, epoch_itr = _load_checkpoint(cfg, trainer, **passthrough_args)
    counter = _early_stopping()
    # of a model to start from fairseq does not take the best score over, and this neither
    if counter is not None and not (from_another or cfg.reset_meters or cfg.reset_optimizer):
        vars(counter).update((extra_state or {}).get(_PATIENCE, {}))
    return extra_state, epoch_itr


# fairseq forgets how long a run has not improved when it is stopped: with --patience it would go on for longer than if
# it had not been.
_PATIENCE = "dual_fairseq_patience"
_trainer_save_checkpoint = fairseq_trainer.Trainer.save_checkpoint


def _early_stopping() -> Any:
    """fairseq-train's function, which keeps its count in attributes of its own, however the command was started."""
    found = (getattr(sys.modules.get(name), "should_stop_early", None) for name in ("__main__", "fairseq_cli.train"))
    return next((function for function in found if function is not None), None)


def trainer_save_checkpoint(self, filename: str, extra_state: dict[str, Any]):
    """As fairseq's, with the count of validations without improvement."""
    counter = _early_stopping()
    if hasattr(counter, "num_runs"):
        extra_state = {**extra_state, _PATIENCE: {"best": counter.best, "num_runs": counter.num_runs}}
    return _trainer_save_checkpoint(self, filename, extra_state)


fairseq_trainer.Trainer.save_checkpoint = trainer_save_checkpoint


def trainer_load_checkpoint(self, filename: str, *args: Any, **kwargs: Any):
    """As fairseq's; a checkpoint to go on from that is unreadable or does not fit is a :class:`UserError`."""
    try:
        return _trainer_load_checkpoint(self, filename, *args, **kwargs)
    except UnreadableCheckpoint as error:
        raise _refuse_unreadable(filename, error) from error
    except Exception as error:
        refusal = _refuse_misfit(filename, error, "this model (another --arch, size or dictionary?)")
        if refusal is None:
            raise
        raise refusal from error


checkpoint_utils.load_checkpoint_to_cpu = load_checkpoint_to_cpu
checkpoint_utils.load_model_ensemble_and_task = load_model_ensemble_and_task
checkpoint_utils.load_checkpoint = load_checkpoint
fairseq_trainer.Trainer.load_checkpoint = trainer_load_checkpoint


# --- a mistyped arch

# argparse answers with the names of all archs there are, which is three screens.
_add_model_args = fairseq_options.add_model_args


def add_model_args(parser: argparse.ArgumentParser):
    """As fairseq's; an arch that there is not ends in one line."""
    group = _add_model_args(parser)
    for action in group._group_actions:
        if "--arch" in action.option_strings and action.choices is not None:
            action.type = _known_arch
    return group


def _known_arch(name: str) -> str:
    if name not in ARCH_MODEL_REGISTRY:
        close = difflib.get_close_matches(name, ARCH_MODEL_REGISTRY, n=3)
        raise UserError(
            f"--arch {name}: there is no such arch; "
            + (f"did you mean {' or '.join(close)}?" if close else "try transformer or rnnsearch")
        )
    return name


fairseq_options.add_model_args = add_model_args


# --- where a NaN comes from


class _NanDetector(NanDetector):
    """Looks for the module that first gives a NaN, when gradients are not finite.

    PyTorch's backward hooks cannot be put on a module that returns a dictionary, as fairseq's encoders do: the search
    itself would fail. The modules inside of those return tensors.
    """

    backward: bool

    def add_hooks(self, module: torch.nn.Module) -> None:
        asked, has_parts = self.backward, next(module.children(), None) is not None
        self.backward = asked and not has_parts
        super().add_hooks(module)
        self.backward = asked


fairseq_trainer.NanDetector = _NanDetector


# --- memory

# sacreBLEU keeps the last 65,536 lines that it tokenised in each of two caches. Those of a validation serve nobody
# after it, and --eval-bleu has new ones every time: about 60 MB of short sentences in the long run.
_begin_valid_epoch = fairseq_trainer.Trainer.begin_valid_epoch


def begin_valid_epoch(self, epoch: int) -> None:
    """As fairseq's, called before every validation."""
    for tokenizer in (Tokenizer13a, TokenizerRegexp):
        if forget := getattr(tokenizer.__call__, "cache_clear", None):
            forget()
    _begin_valid_epoch(self, epoch)


fairseq_trainer.Trainer.begin_valid_epoch = begin_valid_epoch
