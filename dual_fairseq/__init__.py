"""dual-fairseq: dual supervised learning (Xia et al., ICML 2017) as a fairseq plugin.

``fairseq-train DATA --user-dir dual_fairseq --task dual_translation --criterion dual_cross_entropy ...``
"""

import importlib.util
import sys
from pathlib import PurePath
from typing import Any

__version__ = "0.1.0"


def register() -> None:
    """Register the plugin with fairseq: task, criterion, optimizer, archs, running text.

    Raises:
        ModuleNotFoundError: fairseq is not installed.
    """
    if importlib.util.find_spec("fairseq") is None:
        raise ModuleNotFoundError(
            f"fairseq is not installed for {sys.executable}: run 'make setup' in the checkout and use its "
            ".venv/bin/python, or activate the environment that has it",
            name="fairseq",
        )
    from . import (
        compat,  # noqa: F401  (first: it prepares fairseq)
        recurrent,  # noqa: F401
    )
    from .plugin import criterion, label_model, optim, task  # noqa: F401


def __getattr__(name: str) -> Any:
    if name == "DualTranslator":  # fairseq's commands do not need it
        from .pair.translator import DualTranslator

        return DualTranslator
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


# fairseq imports the package for --user-dir and expects the registration. The command line loads fairseq and torch only
# for commands that need them, and registers then; --help needs neither.
if PurePath(sys.argv[0] if sys.argv else "").stem not in ("-m", "dual-fairseq"):
    register()
