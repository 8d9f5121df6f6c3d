"""Trigram models of text. They need no training time and no fairseq, and can tell one kind of text from another."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Iterable, Iterator

import regex

# Scripts without spaces between words, in which each character is a token: Thai, Lao, Burmese, Khmer, kana, Han.
_UNSPACED = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
# Marks are parts of words; so are the joiners of Persian, Hindi and others.
_TOKEN = regex.compile(rf"(?V1)[[\p{{L}}\p{{M}}\p{{N}}_\u200c\u200d]--[{_UNSPACED}]]+|\S")
_DISCOUNT = 0.75
Gram = tuple[str, ...]


def tokens(line: str) -> list[str]:
    """The words and punctuation marks of a line of raw text, case kept."""
    return _TOKEN.findall(line)


def vocabulary(lines: Iterable[str]) -> set[str]:
    """The tokens that occur at least twice in a text."""
    counts = Counter(token for line in lines for token in tokens(line))
    return {token for token, count in counts.items() if count > 1}


class Trigrams:
    """A trigram model with interpolated absolute discounting.

    Args:
        lines: the text to learn.
        known: the vocabulary; all other tokens are one symbol. Models can be compared if they have the same vocabulary.
    """

    def __init__(self, lines: Iterable[str], known: Collection[str]) -> None:
        self._known = known
        self._counts: Counter[Gram] = Counter()
        for line in lines:
            for words in self._grams(line):
                self._counts.update((words, words[1:], words[2:]))
        self._totals: Counter[Gram] = Counter()
        self._followers: Counter[Gram] = Counter()
        for gram, count in self._counts.items():
            self._totals[gram[:-1]] += count
            self._followers[gram[:-1]] += 1
        self._bits: dict[Gram, float] = {}

    def bits(self, line: str) -> float:
        """Cross-entropy of a line in bits per token, its end included."""
        grams = [*self._grams(line)]
        for gram in grams:
            if gram not in self._bits:
                self._bits[gram] = -math.log2(self._probability(gram))
        return sum(self._bits[gram] for gram in grams) / len(grams)

    def _grams(self, line: str) -> Iterator[tuple[str, str, str]]:
        words = ["<s>", "<s>", *(word if word in self._known else "<unk>" for word in tokens(line)), "</s>"]
        return zip(words, words[1:], words[2:], strict=False)

    def _probability(self, gram: Gram) -> float:
        if not gram:
            return 1 / (len(self._known) + 2)  # with <unk> and </s>
        shorter, total = self._probability(gram[1:]), self._totals[gram[:-1]]
        if not total:
            return shorter
        seen = max(self._counts[gram] - _DISCOUNT, 0)
        return (seen + _DISCOUNT * self._followers[gram[:-1]] * shorter) / total
