"""Whether two texts are of one kind: how their lines end and begin, how long they are, which words they know."""

from __future__ import annotations

import unicodedata
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..common.files import read_lines
from ..common.progress import say
from ..common.tables import aligned
from .ngrams import tokens, vocabulary

_CLOSING = "\"'”’»›)]"
_SHORT = 4  # tokens
_SAMPLE = 50_000  # lines that are looked at
HEAD = ("text", "lines", "no final punctuation", "lower-case start", "mean tokens", f"up to {_SHORT}", "unknown tokens")


@dataclass(frozen=True)
class Form:
    """What the lines of a text look like; shares are of its lines, or of its tokens for ``unknown``."""

    lines: int
    unended: float
    lower: float
    length: float  # mean, in tokens
    short: float
    unknown: float

    def cells(self, name: str) -> tuple[str, ...]:
        """A line of a table with :data:`HEAD`."""
        shares = f"{self.unended:.1%}", f"{self.lower:.1%}", f"{self.length:.1f}", f"{self.short:.1%}"
        return (name, f"{self.lines:,}", *shares, f"{self.unknown:.1%}")


def form(lines: Sequence[str], known: Collection[str]) -> Form:
    """The form of a text.

    Args:
        lines: raw text; of a long one, lines at equal distances are looked at.
        known: the vocabulary of the pairs.
    """
    sample = lines[:: max(1, len(lines) // _SAMPLE)]
    split = [tokens(line) for line in sample]
    lengths = [len(words) for words in split]
    count, total = max(1, len(sample)), max(1, sum(lengths))
    return Form(
        len(lines),
        sum(not _ends(line) for line in sample) / count,
        sum(line[:1].islower() for line in sample) / count,
        total / count,
        sum(length <= _SHORT for length in lengths) / count,
        sum(word not in known for words in split for word in words) / total,
    )


def _ends(line: str) -> bool:
    end = line.rstrip(_CLOSING)[-1:]
    return bool(end) and unicodedata.category(end)[0] == "P"


def table(forms: Iterable[tuple[str, Form]]) -> str:
    """Names and forms of texts, for people."""
    return aligned([HEAD, *(of.cells(name) for name, of in forms)])


def differences(text: Form, pairs: Form, valid: Form) -> list[str]:
    """In what a text differs from the text of the pairs, in words.

    Args:
        text, pairs: the two.
        valid: the validation text, whose unknown tokens say how many are normal.
    """
    found = []
    for what, here, there in (
        ("lines without final punctuation", text.unended, pairs.unended),
        ("lines that begin in lower case", text.lower, pairs.lower),
    ):
        if abs(here - there) > 0.1:
            found.append(f"{here:.0%} {what} (pairs {there:.0%})")
    if not 0.8 < text.length / pairs.length < 1.25:
        found.append(f"{text.length:.1f} tokens a line (pairs {pairs.length:.1f})")
    if text.unknown > valid.unknown + 0.05 and text.unknown > 2 * valid.unknown:
        found.append(f"{text.unknown:.0%} tokens that the pairs lack (validation text {valid.unknown:.0%})")
    return found


def report(language: str, pairs: Path, valid: Path, text: Path) -> None:
    """Print how monolingual text compares with the pairs, and warn where it is of another kind.

    Args:
        language: of the three files, which hold clean raw text.
    """
    of_pairs = read_lines(pairs)
    known = vocabulary(of_pairs)
    forms = [form(lines, known) for lines in (of_pairs, read_lines(valid), read_lines(text))]
    say(table(zip((f"{language}: pairs", "validation", "monolingual"), forms, strict=True)))
    if found := differences(forms[2], forms[0], forms[1]):
        say(
            f"warning: the monolingual text of {language} differs from the text of the pairs: {'; '.join(found)}. "
            "dual-fairseq select keeps the lines that are similar to the pairs"
        )
