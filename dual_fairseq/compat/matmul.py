"""Training on AMD CPUs with AVX-512 in two thirds of the time or less.

PyTorch multiplies float32 matrices with MKL, which does not use AVX-512 on these CPUs. oneDNN does, and takes half the
time. PyTorch uses it if the precision of float32 products is "medium". This setting also permits bfloat16, so a test
product has to show that nothing is lost.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import torch
from fairseq.tasks.fairseq_task import FairseqTask
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

LONGEST = 128  # tokens; attention keeps its weights here, which grow with the square of the length
fairseq_train_step = FairseqTask.train_step


@cache
def gains() -> bool:
    """Whether oneDNN's products are as exact as MKL's on this machine, and faster."""
    cpu = Path("/proc/cpuinfo")
    if (
        torch.cuda.is_available()  # its products would change, too
        or torch.backends.cpu.get_cpu_capability() != "AVX512"
        or not (torch.backends.mkl.is_available() and torch.backends.mkldnn.is_available())
        or not (cpu.is_file() and "AuthenticAMD" in cpu.read_text(encoding="utf-8", errors="replace"))
    ):
        return False
    # oneDNN keeps 1,024 programs by default, one for each shape: 1.5 GB and no faster
    os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "64")
    a = torch.linspace(1, 2, 64 * 64).view(64, 64)
    with _precision("medium"):
        return is_exact(a @ a, a)


def is_exact(product: Tensor, a: Tensor) -> bool:
    """Whether ``product`` is the square of the matrix ``a``, within float32's rounding."""
    exact = a.double() @ a.double()
    return bool(((product - exact).abs() <= 1e-5 * exact.abs()).all())  # bfloat16 has 3 digits


@contextmanager
def products(longest: int) -> Iterator[None]:
    """In this context, matrix products use oneDNN where it gains and the user has not set a precision.

    Args:
        longest: the length of the batch's sentences, in tokens; nothing changes if it is above ``LONGEST``.
    """
    if longest > LONGEST or not gains() or not _precision_is_default():
        yield
        return
    # attention in small blocks is slow with oneDNN
    with _precision("medium"), sdpa_kernel(SDPBackend.MATH):
        yield


def _precision_is_default() -> bool:
    try:
        return torch.get_float32_matmul_precision() == "highest"
    except RuntimeError:  # the user has set it through torch.backends
        return False


@contextmanager
def _precision(name: str) -> Iterator[None]:
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(name)
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


def train_step(self: FairseqTask, sample: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
    """Like fairseq's method."""
    inputs = sample.get("net_input", {})
    lengths = [tokens.size(1) for tokens in inputs.values() if isinstance(tokens, Tensor) and tokens.dim() == 2]
    with products(max(lengths, default=LONGEST + 1)):
        return fairseq_train_step(self, sample, *args, **kwargs)


FairseqTask.train_step = train_step
