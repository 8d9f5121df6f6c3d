"""dual-fairseq: dual supervised learning (Xia et al., ICML 2017) as a fairseq plugin.

``fairseq-train DATA --user-dir dual_fairseq --task dual_translation --criterion dual_cross_entropy ...``
"""

import importlib.util
import sys
from typing import Any

if importlib.util.find_spec("fairseq") is None:
    _missing = (
        f"fairseq is not installed for {sys.executable}: run 'make setup' in the checkout and use its "
        ".venv/bin/python, or activate the environment that has it"
    )
    if sys.argv[:1] == ["-m"]:  # a command, python -m dual_fairseq.something
        sys.exit(f"dual_fairseq: error: {_missing}")
    raise ModuleNotFoundError(_missing, name="fairseq")

# registers what fairseq is to know by name
from . import compat, criterion, optim, recurrent, running_text, task  # noqa: F401

__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    if name == "DualTranslator":  # not before it is asked for: fairseq's commands have no use for it
        from .translator import DualTranslator

        return DualTranslator
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
