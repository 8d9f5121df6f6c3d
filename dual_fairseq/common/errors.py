"""The only error that users should see."""

from __future__ import annotations

import importlib
import re
import sys
import unicodedata
from types import ModuleType

_LONGEST = 2_000  # characters of a message; a name in a file may have millions
# They change the order in which text is shown.
_BIDIRECTIONAL = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")


class UserError(SystemExit):
    """Something the user can fix: a wrong option, a missing file, a dictionary of another language.

    Its text is the message; if uncaught, it is printed after the package's name. It derives from :class:`SystemExit` on
    purpose: Python then prints only :attr:`code` and exits with status 1, and fairseq's own ``except Exception`` blocks
    (around checkpoint loading) cannot turn it into a traceback.

    Args:
        message: one line that names the file or option and says how to fix it.
    """

    def __init__(self, message: str) -> None:
        message = printable(message)
        if len(message) > _LONGEST:
            message = f"{message[: _LONGEST // 2]} ... {message[-_LONGEST // 2 :]}"
        super().__init__(message)
        self.code = f"dual_fairseq: error: {message}"


def import_package(name: str, purpose: str) -> ModuleType:
    """A package that not every installation has; raises UserError, with its purpose, if it is not installed."""
    try:
        return importlib.import_module(name)
    except ImportError as error:
        if error.name not in (None, name):
            raise
        raise UserError(f"{name} is not installed; it {purpose}: {sys.executable} -m pip install {name}") from None


def first_line(error: BaseException) -> str:
    """The first line of an error's message, else its type."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def first_detail(error: BaseException) -> str:
    """The second line of a message of several lines: PyTorch names the first wrong parameter there."""
    return next((line.strip() for line in str(error).splitlines()[1:] if line.strip()), str(error))


def printable(text: str, kept: str = "") -> str:
    r"""A text with escaped control characters (``\x1b``), so that a terminal does not obey them.

    Names in files and file names may come from strangers.

    Args:
        kept: characters that stay as they are, such as line ends.
    """

    def escaped(found: re.Match[str]) -> str:
        character = found[0]
        bad = unicodedata.category(character) in ("Cc", "Zl", "Zp") or character in _BIDIRECTIONAL
        return ascii(character)[1:-1] if bad and character not in kept else character

    return re.sub(r"[^\x20-\x7e]", escaped, text)
