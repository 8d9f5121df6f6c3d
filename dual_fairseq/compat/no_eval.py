"""No text from a file or a command line is evaluated as Python.

fairseq evaluates some options of models, optimizers and commands. All these options are plain values.
"""

from __future__ import annotations

import importlib
import sys
from types import ModuleType
from typing import Any

from ..common.errors import UserError
from ..common.literals import NoLiteral, literal


def evaluate(text: str) -> Any:
    """The plain value that a text describes, in place of fairseq's ``eval``.

    Raises:
        UserError: the text is more than a plain value.
    """
    try:
        return literal(text)
    except NoLiteral as error:
        raise UserError(f"{text[:60]}: {error}") from error


def fairseq_modules() -> list[ModuleType]:
    """The loaded modules of fairseq; the running command may be among them twice."""
    modules = []
    for name, module in list(sys.modules.items()):
        name = module.__spec__.name if name == "__main__" and module.__spec__ else name
        if name.partition(".")[0] in ("fairseq", "fairseq_cli"):
            modules.append(module)
    return modules


for _command in ("fairseq_cli.generate", "fairseq_cli.validate", "fairseq_cli.eval_lm"):  # fairseq does not import them
    importlib.import_module(_command)
for _module in fairseq_modules():
    _module.eval = evaluate  # type: ignore[attr-defined]
