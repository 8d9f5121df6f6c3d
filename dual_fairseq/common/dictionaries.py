"""Checks fairseq's dictionary files before fairseq reads them."""

from __future__ import annotations

from collections.abc import Iterable

from .arguments import LONGEST_NUMBER
from .errors import UserError
from .files import AnyPath, check_regular, lines_of, read_lines

SPECIAL = ("<s>", "<pad>", "</s>", "<unk>")  # symbols that fairseq adds by itself
_OVERWRITE = " #fairseq:overwrite"


def check_dictionary_file(path: AnyPath, known: Iterable[str] = SPECIAL) -> None:
    """Refuse a file that is not a dictionary.

    Args:
        path: the file: a symbol and its count per line.
        known: symbols that the file must not have.

    Raises:
        UserError: the file is missing or not a dictionary.
    """
    check_regular(path)
    symbols = set(known)
    fix = "copy the dictionary that the data were binarized with, or run dual-fairseq preprocess again"
    try:
        with open(path, encoding="utf-8") as file:
            for number, line in enumerate(lines_of(file, path), start=1):
                text = line.rstrip()
                symbol, _, count = text.removesuffix(_OVERWRITE).rpartition(" ")
                if not symbol or not count.isdecimal() or len(count) > LONGEST_NUMBER:
                    raise UserError(f"{path}: line {number} is not a symbol and its count; {fix}")
                if symbol in symbols and not text.endswith(_OVERWRITE):
                    raise UserError(f"{path}: line {number} repeats '{symbol}'; {fix}")
                symbols.add(symbol)
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: is not UTF-8 ({error.reason}); {fix}") from error
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}; {fix}") from error


def counted_symbols(path: AnyPath) -> list[str]:
    """The symbols of a dictionary file that are in the training text; fairseq adds others to fill it up.

    Raises:
        UserError: see :func:`check_dictionary_file`.
    """
    check_dictionary_file(path)
    lines = (line.rstrip().removesuffix(_OVERWRITE).rpartition(" ") for line in read_lines(path))
    return [symbol for symbol, _, count in lines if int(count)]
