"""No text of a file or of a command line is evaluated as Python.

fairseq evaluates some options of models, optimizers and commands. All of them are plain values.
"""

from __future__ import annotations

import importlib
import sys
from typing import Any

from ..common.errors import UserError
from ..common.literals import NoLiteral, literal


def evaluate(text: str) -> Any:
    """What fairseq's ``eval`` is for.

    Raises:
        UserError: it is more than a plain value.
    """
    try:
        return literal(text)
    except NoLiteral as error:
        raise UserError(f"{text[:60]}: {error}") from error


for _command in ("fairseq_cli.validate", "fairseq_cli.eval_lm"):  # fairseq itself does not import them
    importlib.import_module(_command)
for _name, _module in list(sys.modules.items()):
    _name = _module.__spec__.name if _name == "__main__" and _module.__spec__ else _name
    if _name.partition(".")[0] in ("fairseq", "fairseq_cli"):
        _module.eval = evaluate  # type: ignore[attr-defined]
