"""Compares the kinds of two texts: how their lines begin and end, how long they are, which words they have."""

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
_SAMPLE = 50_000  # lines
HEAD = ("text", "lines", "no final punctuation", "lower-case start", "mean tokens", f"up to {_SHORT}", "unknown tokens")


@dataclass(frozen=True)
class Form:
    """The form of a text's lines; shares are shares of lines, except ``unknown``, a share of tokens."""

    lines: int
    unended: float
    lower: float
    length: float  # mean, in tokens
    short: float
    unknown: float

    def cells(self, name: str) -> tuple[str, ...]:
        """A row of the table with the header :data:`HEAD`."""
        shares = f"{self.unended:.1%}", f"{self.lower:.1%}", f"{self.length:.1f}", f"{self.short:.1%}"
        return (name, f"{self.lines:,}", *shares, f"{self.unknown:.1%}")


def form(lines: Sequence[str], known: Collection[str]) -> Form:
    """The form of a text.

    Args:
        lines: raw text; of a long text, only lines at equal distances are used.
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
    """A table of names and forms of texts."""
    return aligned([HEAD, *(text_form.cells(name) for name, text_form in forms)])


def differences(text: Form, pairs: Form, valid: Form) -> list[str]:
    """The differences between a text and the text of the pairs, in words.

    Args:
        text, pairs: the forms of both.
        valid: the form of the validation text, which shows what share of unknown tokens is normal.
    """
    messages = []
    for feature, here, there in (
        ("lines without final punctuation", text.unended, pairs.unended),
        ("lines that begin in lower case", text.lower, pairs.lower),
    ):
        if abs(here - there) > 0.1:
            messages.append(f"{here:.0%} {feature} (pairs {there:.0%})")
    if not 0.8 < text.length / pairs.length < 1.25:
        messages.append(f"{text.length:.1f} tokens a line (pairs {pairs.length:.1f})")
    if text.unknown > valid.unknown + 0.05 and text.unknown > 2 * valid.unknown:
        messages.append(f"{text.unknown:.0%} tokens that the pairs lack (validation text {valid.unknown:.0%})")
    return messages


def report(language: str, pairs: Path, valid: Path, text: Path) -> None:
    """Print how monolingual text compares with the pairs, and warn if it is of another kind.

    Args:
        language: the language of the three files, which hold clean raw text.
    """
    pair_lines = read_lines(pairs)
    known = vocabulary(pair_lines)
    forms = [form(lines, known) for lines in (pair_lines, read_lines(valid), read_lines(text))]
    say(table(zip((f"{language}: pairs", "validation", "monolingual"), forms, strict=True)))
    if messages := differences(forms[2], forms[0], forms[1]):
        say(
            f"warning: the monolingual text of {language} differs from the text of the pairs: {'; '.join(messages)}. "
            "dual-fairseq select keeps the lines that are similar to the pairs"
        )
