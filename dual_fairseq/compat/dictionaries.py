"""A damaged dictionary gives a one-line error that names the file and the line, in every task."""

from __future__ import annotations

from fairseq.data import Dictionary

from ..common.dictionaries import check_dictionary_file

_add_from_file = Dictionary.add_from_file


def add_from_file(self, f) -> None:
    """Like fairseq's method.

    Raises:
        UserError: the file is missing or no dictionary.
    """
    if isinstance(f, str):  # fairseq opens the file and calls this method again
        check_dictionary_file(f, self.symbols)
    _add_from_file(self, f)


Dictionary.add_from_file = add_from_file
