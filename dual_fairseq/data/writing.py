"""How a text is written: its case, the spaces between its words, its punctuation.

Models read text well that is written as their training text was. ``dual-fairseq preprocess`` records how that is;
text that is clearly written otherwise (in lower case, tokenised, without spaces) is warned of.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from .subword import text_lines

ENOUGH = 1000  # letters, by which a text is judged
_SAMPLE = 50_000  # lines
_TIMES = 5  # a share that is so many times another one is another
_LARGE = {"upper": 0.01, "apart": 0.05, "unknown": 0.1}  # the larger of two shares that differ is at least so large
_UNSPACED, _SEGMENTED = 10, 5  # letters of a word, from which and up to which there are no spaces between words, or are
_LONGER = 2.5
# What ends a word, a clause or a quotation; tokenisation puts a space before it.
_ENDS = frozenset(".,;:!?…)]}”’»،؛؟۔।॥։።፣፤፧།᱾。、，．；：！？）」』》〉၊။")


@dataclass
class Writing:
    """Counts of a text."""

    cased: int = 0  # letters that have case
    upper: int = 0
    letters: int = 0  # all characters but white space
    words: int = 0  # from space to space
    apart: int = 0  # words that are punctuation alone

    def add(self, line: str) -> None:
        """Count a line."""
        words = line.split()
        self.words += len(words)
        self.letters += sum(map(len, words))
        self.apart += sum(_ENDS.issuperset(word) for word in words)
        upper = sum(map(str.isupper, line))
        self.upper += upper
        self.cased += upper + sum(map(str.islower, line))

    def record(self) -> dict[str, float]:
        """Shares of upper case among the letters, and of punctuation among the words; mean letters of a word."""
        return {
            "upper": round(self.upper / max(1, self.cased), 4),
            "apart": round(self.apart / max(1, self.words), 4),
            "length": round(self.letters / max(1, self.words), 2),
        }


def writing_of(text: Path, lines: int) -> dict[str, float]:
    """The record of a text of so many lines; of a long one, lines at equal distances are looked at."""
    writing = Writing()
    for line in islice(text_lines(text), 0, None, 1 + lines // _SAMPLE):
        writing.add(line)
    return writing.record()


def differences(text: Mapping[str, float], training: Mapping[str, Any]) -> list[str]:
    """In what a text is clearly written otherwise than the training text, in words.

    Args:
        text, training: of :meth:`Writing.record`; and ``unknown``, the share of tokens that are unknown to the models.
    """
    found = []
    for name, what, either in (
        ("upper", "of its letters are in upper case", True),
        ("apart", "of its words are punctuation by itself", True),
        ("unknown", "of its tokens are unknown", False),
    ):
        here, there = text[name], training.get(name, text[name])
        smaller, larger = (min(here, there), max(here, there)) if either else (there, here)
        if larger >= _LARGE[name] and larger > _TIMES * smaller:
            found.append(f"{here:.1%} {what}, not {there:.1%}")
    here, there = text["length"], training.get("length", text["length"])
    if there > _UNSPACED:
        other = here < _SEGMENTED
    else:
        other = max(here, there) > _LONGER * min(here, there)
    if other:
        found.append(f"its words have {here:.1f} letters, not {there:.1f}")
    return found


class Watch:
    """Compares the beginning of a text with the training text.

    Args:
        training: how that is written: of :meth:`Writing.record`, and ``unknown``, the share of tokens of held-out text
            that are unknown to the models.
        known: the models' symbols.
    """

    def __init__(self, training: Mapping[str, float], known: Collection[str]) -> None:
        self._training, self._known = training, known
        self._writing, self._tokens, self._unknown = Writing(), 0, 0

    def add(self, line: str, tokens: str) -> list[str] | None:
        """Look at a line.

        Args:
            line: raw text.
            tokens: the models' tokens of it, joined by spaces.

        Returns:
            None, until enough has been seen; then the :func:`differences`.
        """
        self._writing.add(line)
        words = tokens.split()
        self._tokens += len(words)
        self._unknown += sum(word not in self._known for word in words)
        if self._writing.letters < ENOUGH:
            return None
        unknown = self._unknown / max(1, self._tokens)
        return differences({**self._writing.record(), "unknown": unknown}, self._training)
