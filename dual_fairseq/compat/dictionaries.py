"""A damaged dictionary ends in one line that names the file and the line, whichever task reads it."""

from __future__ import annotations

from fairseq.data import Dictionary

from ..common.dictionaries import check_dictionary_file

_add_from_file = Dictionary.add_from_file


def add_from_file(self, f) -> None:
    """As fairseq's.

    Raises:
        UserError: the file is missing or no dictionary.
    """
    if isinstance(f, str):  # which fairseq opens, to come here again
        check_dictionary_file(f, self.symbols)
    _add_from_file(self, f)


Dictionary.add_from_file = add_from_file
