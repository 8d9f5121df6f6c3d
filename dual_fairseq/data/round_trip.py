"""Turns a text into the models' tokens and back; the result should be the same text."""

from __future__ import annotations

import argparse
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from difflib import SequenceMatcher
from typing import Any

import regex

from ..common.bleu import bleu_metric
from ..common.progress import say
from ..common.segmentation import VISIBLE_SPACE, count_pieces
from .writing import Writing

ENOUGH = 99.5  # BLEU
_UNSPACED = regex.compile(r"[\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}\p{Tibetan}]")
_LONG_WORDS = 10  # letters; if words of these scripts are longer on average, white space does not separate words
_SHOWN = 3
_TOKENISED = 0.05  # if this share of words or more is only punctuation, another program has tokenised the text


@dataclass
class RoundTrip:
    """The comparison of a text with the text that its tokens give back.

    Attributes:
        bleu: BLEU of the returned text against the text; 100 if they differ only in white space.
        tokenised: whether spaces separate the text's punctuation from its words.
        differences: (text, returned text) → how often; ``examples`` has an example of each.
    """

    bleu: float
    tokenised: bool = False
    differences: Counter[tuple[str, str]] = field(default_factory=Counter)
    examples: dict[tuple[str, str], tuple[str, str]] = field(default_factory=dict)

    def record(self) -> dict[str, Any]:
        """The record for ``preprocess.json``."""
        common = [{"text": a, "back": b, "times": n} for (a, b), n in self.differences.most_common(_SHOWN)]
        return {"bleu": round(self.bleu, 2), "differences": common}

    def report(self, name: str, options: argparse.Namespace, subword: str = "--subword") -> None:
        """Print the score, the most common differences, and advice.

        Args:
            name: the name of the text.
            options: the options of preprocessing.
            subword: the option that chooses the subwords of this text; "" if these change only ▁.
        """
        say(f"round trip: {name}: {self.bleu:.1f}")
        for kind, times in self.differences.most_common(_SHOWN):
            before, after = map(visible, self.examples[kind])
            say(f"  {times:,} times {visible(kind[0])} -> {visible(kind[1])}, as in {before} -> {after}")
        if self.bleu >= ENOUGH:
            return
        if not subword:
            fix = f"{VISIBLE_SPACE} stands for a space among tokens and became _; take it out of the text"
        elif options.normalize_punctuation:
            fix = "--normalize-punctuation changes it; leave that out"
        elif self.tokenised:
            option = subword.replace("subword", "tokenizer")
            fix = f"another program has tokenised it; {option} none keeps its words unchanged"
        else:
            fix = f"{subword} sentencepiece keeps every text unchanged"
        say(f"warning: {name}: no translation can reach more than BLEU {self.bleu:.1f}: tokenisation changes it; {fix}")


def measure(lines: Sequence[str], back: Sequence[str], language: str) -> RoundTrip:
    """Compare a text with the returned text line by line; the kind of white space does not matter.

    Args:
        language: decides how BLEU tokenises.
    """
    trip, writing = RoundTrip(100.0), Writing()
    for line, other in zip(lines, back, strict=True):
        writing.add(line)
        if (words := line.split()) != (others := other.split()):
            for example in _differences(words, others):
                kind = _kind(*example)
                trip.differences[kind] += 1
                trip.examples.setdefault(kind, example)
    if trip.differences:
        trip.bleu = bleu_metric(language).corpus_score(back, [lines]).score
        trip.tokenised = writing.record()["apart"] >= _TOKENISED
    return trip


def _differences(words: Sequence[str], others: Sequence[str]) -> Iterator[tuple[str, str]]:
    """The differences of two lines: word by word, or several words at once if their numbers differ."""
    for change, a, b, c, d in SequenceMatcher(None, words, others, autojunk=False).get_opcodes():
        if change == "replace" and b - a == d - c:
            yield from zip(words[a:b], others[c:d], strict=True)
        elif change != "equal":
            yield " ".join(words[a:b]), " ".join(others[c:d])


def _kind(before: str, after: str) -> tuple[str, str]:
    """A difference without the common beginning and end of both sides; its letters and digits become …."""
    shorter = min(len(before), len(after))
    start = next((i for i in range(shorter) if before[i] != after[i]), shorter)
    end = next((i for i in range(shorter - start) if before[-1 - i] != after[-1 - i]), shorter - start)
    first, second = (regex.sub(r"[\p{L}\p{N}]+", "…", text[start : len(text) - end]) for text in (before, after))
    return first, second


def visible(text: str) -> str:
    """A text in quotation marks; combining and invisible characters are shown by number."""
    hidden = (unicodedata.category(c) in ("Mn", "Me", "Cf", "Cc", "Cn", "Co") for c in text)
    return '"' + "".join(f"<U+{ord(c):04X}>" if h else c for c, h in zip(text, hidden, strict=True)) + '"'


@dataclass(frozen=True)
class Words:
    """The counts of a text's words.

    Attributes:
        pieces: the result of :func:`count_pieces`.
        letters: the letters of all words together.
        unspaced: how many of the letters are from scripts without spaces between words.
    """

    pieces: dict[str, int]
    letters: int
    unspaced: int

    @property
    def unspaced_length(self) -> float | None:
        """The mean number of letters between spaces if white space does not separate words; else None."""
        length = self.letters / self.pieces[""]
        return length if self.unspaced > self.letters / 2 and length > _LONG_WORDS else None


def count_words(lines: Iterable[str]) -> Words:
    """Count the words of a text."""
    letters = unspaced = 0

    def words() -> Iterator[tuple[str, int]]:
        nonlocal letters, unspaced
        for line in lines:
            parts = line.split()
            letters += sum(map(len, parts))
            unspaced += 0 if line.isascii() else len(_UNSPACED.findall(line))
            yield from ((word, 1) for word in parts)

    return Words(count_pieces(words()), letters, unspaced)
