"""Several processes, started by torchrun, on machines with any number of GPUs."""

from __future__ import annotations

import os
import signal

import fairseq.distributed.utils as distributed_utils
import fairseq.models.distributed_fairseq_model as distributed_fairseq_model
import torch

# fairseq reads torchrun's environment variables only if this machine has several GPUs. Without a GPU, or with one GPU
# on each of several machines, every process would silently train its own whole model, and all would write the same
# checkpoints.
_infer_init_method = distributed_utils.infer_init_method


def torchrun_processes() -> int:
    """The number of processes that torchrun started, including this one; 1 without torchrun."""
    by_torchrun = {"MASTER_ADDR", "MASTER_PORT", "RANK", "LOCAL_RANK"} <= os.environ.keys()
    return int(os.environ.get("WORLD_SIZE", 1)) if by_torchrun else 1


def infer_init_method(cfg, force_distributed: bool = False) -> None:
    """Join the processes that torchrun started; for every other launcher, use fairseq's function."""
    world_size = torchrun_processes()
    if cfg.distributed_init_method is None and world_size > 1:
        cfg.distributed_init_method = "env://"
        cfg.distributed_world_size = world_size
        cfg.distributed_rank = int(os.environ["RANK"])
        cfg.device_id = int(os.environ["LOCAL_RANK"]) if torch.cuda.is_available() else 0
        cfg.distributed_no_spawn = True
    else:
        _infer_init_method(cfg, force_distributed)


distributed_utils.infer_init_method = infer_init_method


class _DistributedDataParallel(torch.nn.parallel.DistributedDataParallel):
    """fairseq names a GPU for every module it wraps; PyTorch refuses a GPU for a module on the CPU."""

    def __init__(self, module: torch.nn.Module, device_ids=None, output_device=None, **options) -> None:
        if next(module.parameters()).device.type == "cpu":
            device_ids = output_device = None
        super().__init__(module, device_ids=device_ids, output_device=output_device, **options)


distributed_fairseq_model.DistributedDataParallel = _DistributedDataParallel


# ``--heartbeat-timeout`` ends a process that waits for a hung process. fairseq sends SIGINT to the waiting process, but
# Python handles a signal only after the collective operation has returned.
class _DistributedTimeoutWrapper(distributed_fairseq_model.DistributedTimeoutWrapper):
    def __init__(self, module: torch.nn.Module, timeout: int, signal: int = signal.SIGKILL) -> None:
        super().__init__(module, timeout, signal)


distributed_fairseq_model.DistributedTimeoutWrapper = _DistributedTimeoutWrapper


# When several processes resume, the first reads the checkpoint (with ``weights_only``) and sends it to the others.
# fairseq unpickles it there with ``torch.load``, which would refuse the configuration's own classes; these never come
# from a file. So PyTorch's own function sends objects between the processes of a run.
def _broadcast_object_slow(obj, src_rank: int, group, dist_device: torch.device):
    box = [obj]
    torch.distributed.broadcast_object_list(box, src=src_rank, group=group, device=dist_device)
    if box[0] == _NOTHING_COMES and torch.distributed.get_rank(group) != src_rank:
        raise SystemExit(1)
    return box[0]


_NOTHING_COMES = "dual_fairseq: the sender has refused its checkpoint"


def end_those_who_wait(group, dist_device: torch.device) -> None:
    """End the other processes of a group, which wait for an object from the first; the first reports why."""
    _broadcast_object_slow(_NOTHING_COMES, 0, group, dist_device)


distributed_utils._broadcast_object_slow = _broadcast_object_slow
