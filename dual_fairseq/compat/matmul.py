"""Training on AMD CPUs with AVX-512 in two thirds of the time or less.

PyTorch multiplies float32 matrices with MKL, which does not use AVX-512 on these CPUs. oneDNN does, and took half the
time where it was measured. PyTorch uses it if the precision of its products is "bf16". This setting permits products in
bfloat16; test products show whether the CPU makes use of that.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from threading import Lock
from typing import Any

import torch
from fairseq.tasks.fairseq_task import FairseqTask
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

LONGEST = 128  # tokens; attention keeps its weights here, which grow with the square of the length
fairseq_train_step = FairseqTask.train_step
_lock = Lock()  # the setting is one of the whole process


@cache
def gains() -> bool:
    """Whether this machine has such a CPU, and oneDNN's products are as exact there as MKL's."""
    cpu = Path("/proc/cpuinfo")
    if (
        not hasattr(_setting(), "fp32_precision")  # torch < 2.9
        or torch.backends.cpu.get_cpu_capability() != "AVX512"
        or not (torch.backends.mkl.is_available() and torch.backends.mkldnn.is_available())
        or not (cpu.is_file() and "AuthenticAMD" in cpu.read_text(encoding="utf-8", errors="replace"))
    ):
        return False
    # oneDNN keeps 1,024 programs by default, one for each shape: 1.5 GB and no faster
    os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "64")
    a = torch.linspace(1, 2, 64 * 64).view(64, 64)
    _setting().fp32_precision = "bf16"
    try:
        made = (a @ a, a), (torch.addmm(a[0] * 0, a, a.t()), a.t()), ((a[None] @ a)[0], a)
        return all(is_exact(product, a, b) for product, b in made)
    finally:
        _setting().fp32_precision = "none"


def is_exact(product: Tensor, a: Tensor, b: Tensor) -> bool:
    """Whether ``product`` is that of the matrices ``a`` and ``b``, within float32's rounding."""
    exact = a.double() @ b.double()
    return bool(((product - exact).abs() <= 1e-5 * exact.abs()).all())  # bfloat16 has 3 digits


@contextmanager
def products(sample: Any) -> Iterator[None]:
    """In this context, float32 matrix products use oneDNN where that gains.

    Nothing changes if the user has set a precision, if the batch has a sentence of more than ``LONGEST`` tokens, or if
    it is not on the CPU.

    Args:
        sample: a batch of any task.
    """
    inputs = sample.get("net_input", {}) if isinstance(sample, dict) else {}
    tokens = [value for value in inputs.values() if isinstance(value, Tensor) and value.dim() == 2]
    short = tokens and max(value.size(1) for value in tokens) <= LONGEST and tokens[0].device.type == "cpu"
    with _lock:
        mine = bool(short) and getattr(_setting(), "fp32_precision", "") == "none" and gains()
        if mine:
            _setting().fp32_precision = "bf16"
    if not mine:
        yield
        return
    try:
        with sdpa_kernel(SDPBackend.MATH):  # attention in small blocks is slow with oneDNN
            yield
    finally:
        _setting().fp32_precision = "none"


def _setting() -> Any:
    """PyTorch's settings of oneDNN's matrix products."""
    return getattr(torch.backends.mkldnn, "matmul", None)


def train_step(self: FairseqTask, sample: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
    """Like fairseq's method."""
    with products(sample):
        return fairseq_train_step(self, sample, *args, **kwargs)


FairseqTask.train_step = train_step
