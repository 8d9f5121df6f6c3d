"""dual-fairseq: dual supervised learning (Xia et al., ICML 2017) as a fairseq plugin.

``fairseq-train DATA --user-dir dual_fairseq --task dual_translation --criterion dual_cross_entropy ...``
"""

from typing import Any

from . import compat, criterion, optim, task  # noqa: F401  (registers the task, the criterion and the optimizer)

__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    if name == "DualTranslator":  # not before it is asked for: fairseq's commands have no use for it
        from .translator import DualTranslator

        return DualTranslator
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
