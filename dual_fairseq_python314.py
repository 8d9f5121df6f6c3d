"""Repairs fairseq 0.12 for Python 3.14 during its import, for all of its commands and before any ``--user-dir``.

fairseq reads its dataclass options by the text of their types, and ``Optional[int]`` is now ``int | None``. It does
this for its own classes during its import, so a plugin comes too late. fairseq imports torch first, and PyTorch calls
:func:`prepare` at the end of ``import torch`` (entry point ``torch.backends`` in pyproject.toml;
``TORCH_DEVICE_BACKEND_AUTOLOAD=0`` turns it off). The module is separate because ``dual_fairseq`` imports fairseq.
"""

from __future__ import annotations

import importlib.util
import sys
import typing
from importlib.machinery import ModuleSpec
from types import ModuleType, NoneType

REPAIRED = "fairseq.dataclass.utils"


def prepare() -> None:
    """Prepare the repair of fairseq at its import, if this Python needs it."""
    if sys.version_info >= (3, 14) and REPAIRED not in sys.modules:
        sys.meta_path.insert(0, _Finder())


class _Finder:
    def find_spec(self, name: str, path: object = None, target: ModuleType | None = None) -> ModuleSpec | None:
        if name != REPAIRED:
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        if spec is not None and spec.loader is not None:
            execute = spec.loader.exec_module

            def exec_module(module: ModuleType) -> None:
                execute(module)
                module.interpret_dc_type = interpret_dc_type  # type: ignore[attr-defined]

            spec.loader.exec_module = exec_module  # type: ignore[method-assign]
        return spec


def interpret_dc_type(field_type: typing.Any) -> typing.Any:
    """Like fairseq's: the type of a dataclass field, ``int`` for ``Optional[int]``.

    Raises:
        RuntimeError: the field's type is a string.
    """
    if isinstance(field_type, str):
        raise RuntimeError("field should be a type")
    if field_type == typing.Any:
        return str
    parts = typing.get_args(field_type)
    return parts[0] if typing.get_origin(field_type) is typing.Union and parts[-1] is NoneType else field_type
