"""How a text is written: its case, the spaces between its words, its punctuation.

Models read text well if it is written like their training text. ``dual-fairseq preprocess`` records how the training
text is written. Text that is clearly different (in lower case, tokenised, without spaces) leads to a warning.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from .subword import text_lines

ENOUGH = 1000  # letters, to judge a text
_SAMPLE = 50_000  # lines
_TIMES = 5  # shares differ if one is more than this many times the other
_LARGE = {"upper": 0.01, "apart": 0.05, "unknown": 0.1}  # and the larger share is at least this large
_UNSPACED, _SEGMENTED = 10, 5  # mean letters per word: more without spaces between words, fewer with spaces
_LONGER = 2.5
# Signs that end a word, a clause or a quotation; tokenisation puts a space before them.
_ENDS = frozenset(".,;:!?…)]}”’»،؛؟۔।॥։።፣፤፧།᱾。、，．；：！？）」』》〉၊။")


@dataclass
class Writing:
    """Counts of a text."""

    cased: int = 0  # letters that have case
    upper: int = 0
    letters: int = 0  # all characters but white space
    words: int = 0  # from space to space
    apart: int = 0  # words that are only punctuation

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
    """The record of a text of ``lines`` lines; of a long text, only lines at equal distances are read."""
    writing = Writing()
    for line in islice(text_lines(text), 0, None, 1 + lines // _SAMPLE):
        writing.add(line)
    return writing.record()


def differences(text: Mapping[str, float], training: Mapping[str, float]) -> list[str]:
    """The clear differences between the writing of a text and of the training text, in words.

    Args:
        text, training: from :meth:`Writing.record`, with ``unknown``, the share of tokens unknown to the models.
    """
    messages = []
    for name, feature, both_ways in (
        ("upper", "of its letters are in upper case", True),
        ("apart", "of its words are punctuation by itself", True),
        ("unknown", "of its tokens are unknown", False),
    ):
        here, there = text[name], training[name]
        smaller, larger = (min(here, there), max(here, there)) if both_ways else (there, here)
        if larger >= _LARGE[name] and larger > _TIMES * smaller:
            messages.append(f"{here:.1%} {feature}, not {there:.1%}")
    here, there = text["length"], training["length"]
    if there > _UNSPACED:
        differs = here < _SEGMENTED
    else:
        differs = max(here, there) > _LONGER * min(here, there)
    if differs:
        messages.append(f"its words have {here:.1f} letters, not {there:.1f}")
    return messages


class Watch:
    """Compares the beginning of a text with the training text.

    Args:
        training: how it is written: from :meth:`Writing.record`, with ``unknown``, the share of tokens of held-out text
            that are unknown to the models.
        known: the models' symbols.
    """

    def __init__(self, training: Mapping[str, float], known: Collection[str]) -> None:
        self._training, self._known = training, known
        self._writing, self._tokens, self._unknown = Writing(), 0, 0

    def add(self, line: str, tokens: str) -> list[str] | None:
        """Count a line.

        Args:
            line: raw text.
            tokens: the models' tokens of the line, joined by spaces.

        Returns:
            None until enough text has been counted; then the :func:`differences`.
        """
        self._writing.add(line)
        words = tokens.split()
        self._tokens += len(words)
        self._unknown += sum(word not in self._known for word in words)
        if self._writing.letters < ENOUGH:
            return None
        unknown = self._unknown / max(1, self._tokens)
        return differences({**self._writing.record(), "unknown": unknown}, self._training)
