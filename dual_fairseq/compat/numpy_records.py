"""Our own functions make the numpy arrays and numbers of a checkpoint.

numpy's functions trust their input. If a file calls them, ``numpy.ndarray`` takes any bytes as pointers to objects and
reads memory outside a buffer, and ``dtype.__setstate__`` changes a type for the whole process. fairseq's
``translation`` task keeps n-gram counts as numpy arrays (with ``--eval-bleu``), and these have plain types.
"""

from __future__ import annotations

import math
import re
from typing import Any

import numpy as np
import torch

_PLAIN = re.compile("[biuf][1248]")


class RefusedRecord(ValueError):
    """The record of an array in a file does not describe plain numbers."""


class _Type:
    """Stands for ``numpy.dtype``; ``value`` is the type, in either byte order."""

    def __init__(self, code: Any, align: Any = False, copy: Any = False) -> None:
        if not (isinstance(code, str) and _PLAIN.fullmatch(code)):
            raise RefusedRecord("it has an array that is not of plain numbers")
        self.value = np.dtype(code)

    def __setstate__(self, state: Any) -> None:
        order = state[1] if isinstance(state, tuple) and len(state) > 1 else None
        if order not in ("<", ">", "|"):  # "|" if a number is one byte
            raise RefusedRecord("it has an array of no known byte order")
        self.value = np.dtype(order + self.value.str[1:])


class _Array(np.ndarray):
    """Stands for ``numpy.ndarray``; it is pickled as a plain array again."""

    def __new__(cls, *args: Any, **kwargs: Any) -> _Array:
        raise RefusedRecord("it makes an array by itself")

    def __setstate__(self, state: Any) -> None:
        _, shape, kind, by_columns, content = state
        sizes = isinstance(shape, tuple) and all(type(size) is int and 0 <= size < 2**40 for size in shape)
        if not (sizes and isinstance(kind, _Type) and isinstance(content, bytes)):
            raise RefusedRecord("it has an array that is not of plain numbers")
        if len(content) != math.prod(shape) * kind.value.itemsize:
            raise RefusedRecord("it has an array of another size than its content")
        plain: Any = (1, shape, kind.value, bool(by_columns), content)  # its type depends on numpy's version
        super().__setstate__(plain)

    def __reduce__(self) -> Any:
        return np.array(self, subok=False).__reduce__()


def _reconstruct(kind: Any, shape: Any, code: Any) -> _Array:
    return np.ndarray.__new__(_Array, (0,), np.int8)


def _scalar(kind: Any, content: Any) -> Any:
    if not (isinstance(kind, _Type) and isinstance(content, bytes) and len(content) == kind.value.itemsize):
        raise RefusedRecord("it has a number that is not plain")
    return np.frombuffer(content, kind.value)[0]


torch.serialization.add_safe_globals([(_Array, "numpy.ndarray"), (_Type, "numpy.dtype")])
for _module in ("numpy.core.multiarray", "numpy._core.multiarray"):  # the names in numpy 1 and numpy 2
    torch.serialization.add_safe_globals([(_reconstruct, f"{_module}._reconstruct"), (_scalar, f"{_module}.scalar")])
