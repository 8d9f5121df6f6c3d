"""Saved n-best lists of fairseq-generate with ``--dual-inference-alpha 1 --nbest N``, and choices from them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..common.errors import UserError
from ..plugin.ranking import COMPONENTS, Weights, read_component_line, sentence_number

_SPARSE = 20  # a list with this many times more places than translations is damaged


@dataclass
class NBest:
    """Up to K translations for each of N sentences.

    Args:
        texts: by sentence number, in the order of the beam search, best first.
        components: (N, K, 5) nats, see :data:`~dual_fairseq.plugin.ranking.COMPONENTS`; NaN after the last translation.
    """

    texts: list[list[str]]
    components: np.ndarray

    def best(self, weights: Weights, lenpen: float) -> list[str]:
        """The best translation of each sentence by the weights; '' for a sentence without translations."""
        return self.take(best_of(self.components, weights, lenpen))

    def take(self, chosen: np.ndarray) -> list[str]:
        """(N,) index for each sentence → the translations; '' for a sentence without translations."""
        return [texts[i] if texts else "" for texts, i in zip(self.texts, chosen, strict=True)]


def best_of(components: np.ndarray, weights: Weights, lenpen: float) -> np.ndarray:
    """(N, K, 5) components → (N,) index of the best; with plain weights 0, the best of the beam search."""
    if weights.plain:
        return np.zeros(len(components), dtype=np.int64)
    return weights.score(components, lenpen).argmax(axis=1)


def read_nbest(lines: Sequence[str], count: int, path: Path) -> NBest:
    """The ``R-`` and ``H-`` lines of fairseq-generate's output; texts are tokens joined by spaces.

    Args:
        lines: the lines of the output.
        count: the number of sentences; a missing sentence has no translations.
        path: the file, for messages.

    Raises:
        UserError: components are missing, or there are more sentences.
    """
    texts: list[list[str]] = [[] for _ in range(count)]
    components: list[list[np.ndarray]] = [[] for _ in range(count)]
    try:
        for line in lines:
            if line.startswith("H-"):
                head, _, tokens = line.split("\t", 2)
                texts[sentence_number(head)].append(tokens)
            elif line.startswith("R-"):
                number, values = read_component_line(line)
                components[number].append(values)
    except IndexError as error:
        raise UserError(f"{path}: has more sentences than the {count} of the reference; give the same split") from error
    except (ValueError, KeyError) as error:
        raise UserError(f"{path}: is not output of fairseq-generate, or was cut: {line[:60]!r}") from error
    if [len(t) for t in texts] != [len(c) for c in components]:
        raise UserError(
            f"{path}: lacks component scores of some translations; make it with fairseq-generate "
            "--task dual_translation --dual-inference-alpha 1 --nbest N"
        )
    pieces = sum("@@ " in f"{text} " for entries in texts for text in entries)
    if pieces > sum(map(len, texts)) // 10:  # a word may end in @@ by itself
        raise UserError(
            f"{path}: {pieces:,} translations hold BPE marks (@@); make it with fairseq-generate --remove-bpe"
        )
    missing = texts.count([])
    if missing > count // 10:
        raise UserError(
            f"{path}: has no translation of {missing:,} of the reference's {count:,} sentences; give the same split"
        )
    most = max(map(len, texts), default=0) or 1
    if most * count > _SPARSE * max(sum(map(len, texts)), 100_000):
        raise UserError(f"{path}: has {most:,} translations of one sentence, but few of others; make it again")
    table = np.full((count, most, len(COMPONENTS)), np.nan)
    for row, entries in zip(table, components, strict=True):
        if entries:
            row[: len(entries)] = entries
    return NBest(texts, table)
