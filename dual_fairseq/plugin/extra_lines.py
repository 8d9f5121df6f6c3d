"""The lines that are printed beside those of fairseq-generate and fairseq-interactive."""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Iterable, Sequence
from typing import Any, TextIO

from fairseq.data import Dictionary
from torch import Tensor

from .ranking import component_line


class LinePrinter:
    """Prints extra lines about a batch's hypotheses before fairseq's H- lines, in the same order.

    ``R-3`` and the components for a hypothesis of sentence 3, if it has any. ``L-3``, a tab and its rank (1 is best)
    for a hypothesis that was cut off at the length limit.

    Args:
        dictionary: of the source language.
    """

    def __init__(self, dictionary: Dictionary) -> None:
        self._pad = dictionary.pad()
        self._file: str | None = None
        self._output: TextIO | None = None
        self._nbest = 1
        self._waiting: dict[tuple[int, ...], deque[int]] = {}  # numbers of the input's sentences
        self._next = 0

    def set_up(self, nbest: int, file: str | None) -> None:
        """Set how many hypotheses fairseq prints per sentence, and a file to use instead of stdout."""
        self._nbest, self._file = nbest, file

    def expect(self, sentences: Iterable[Tensor]) -> None:
        """Number the next sentences of ``fairseq-interactive``, whose batches do not say which sentences they hold."""
        for tokens in sentences:
            self._waiting.setdefault(self._key(tokens), deque()).append(self._next)
            self._next += 1

    def print(self, sample: dict[str, Any], hypotheses: Sequence[Sequence[dict[str, Any]]]) -> None:
        """Print the lines of a batch. Equal sentences are numbered in the order of the input."""
        if "id" in sample:
            numbers = sample["id"].tolist()
        else:
            numbers = [self._waiting[self._key(row)].popleft() for row in sample["net_input"]["src_tokens"]]
        for number, beam in zip(numbers, hypotheses, strict=True):
            for rank, hypothesis in enumerate(beam[: self._nbest], start=1):
                if "components" in hypothesis:
                    self._write(component_line(number, hypothesis["components"]))
                if hypothesis.get("cut_off"):
                    self._write(f"L-{number}\t{rank}")

    def _write(self, line: str) -> None:
        if self._output is None:  # open until the end
            self._output = open(self._file, "w", buffering=1, encoding="utf-8") if self._file else sys.stdout  # noqa: SIM115
        print(line, file=self._output)

    def _key(self, tokens: Tensor) -> tuple[int, ...]:
        return tuple(tokens[tokens.ne(self._pad)].tolist())
