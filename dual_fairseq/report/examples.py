"""Translations side by side: sentences that the systems translate differently, and the words in which they differ."""

from __future__ import annotations

import difflib
import re
import string
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from markupsafe import Markup, escape

from .runs import RE_SCORED, System

# Signs that are words of their own, and scripts that are written without spaces.
_SIGNS = re.escape(string.punctuation) + "„“”‚‘’«»‹›–—…¿¡。、，！？；：「」（）"
_LONGEST = 500  # words of a text with marks: the time to find the marks grows with the cube of this
_UNSPACED = "\u0e00-\u0e7f\u1000-\u109f\u3040-\u30ff\u3400-\u9fff"
# Vowel signs and tone marks of Thai and Myanmar. They, and a consonant that Myanmar's U+1039 stacks under another one,
# must stay with their letter: alone in an HTML element they would be misplaced.
_MARKS = "".join(c for c in map(chr, range(0x0E00, 0x10A0)) if unicodedata.category(c)[0] == "M") + "\u3099\u309a"
_WORD = re.compile(rf"\s*(?:[{_UNSPACED}](?:\u1039[{_UNSPACED}]|[{_MARKS}])*|[^\s{_SIGNS}{_UNSPACED}]+|[{_SIGNS}])")


@dataclass
class Example:
    """A sentence, its reference, and its translation by each system."""

    source: str
    reference: str
    translations: dict[str, str]

    def marked(self) -> dict[str, Markup]:
        """The translations with marks (see :func:`marked`) against those of the first system."""
        first = next(iter(self.translations.values()))
        return {name: marked(text, self.reference, first) for name, text in self.translations.items()}


def examples(systems: Sequence[System], split: str, direction: str, count: int) -> list[Example]:
    """Sentences that the systems translate differently, at even distances in the text.

    A system is left out if its texts are missing, or are of another test text than those of the first system.
    """
    source: list[str] | None = None
    reference: list[str] | None = None
    columns: dict[str, list[str]] = {}
    for system in systems:
        evaluation = system.stage.evaluations.get(split)
        if evaluation is None:
            continue
        kinds = {system.name: "hyp"}
        if (evaluation.scores.get(direction) or {}).get("dual_inference"):
            kinds[system.name + RE_SCORED] = "dual-inference.hyp"
        for name, kind in kinds.items():
            texts = [evaluation.lines(direction, kind) for kind in ("src", "ref", kind)]
            if any(text is None for text in texts) or len({len(text or ()) for text in texts}) > 1:
                continue
            if reference is None:
                source, reference = texts[0], texts[1]
            if texts[1] == reference:
                columns[name] = texts[2] or []
    differing = [i for i, lines in enumerate(zip(*columns.values(), strict=True)) if len(set(lines)) > 1]
    if not differing or source is None or reference is None:
        return []
    chosen = np.unique(np.linspace(0, len(differing) - 1, min(count, len(differing))).round().astype(int))
    return [
        Example(source[i], reference[i], {name: lines[i] for name, lines in columns.items()})
        for i in (differing[int(c)] for c in chosen)
    ]


def words(text: str) -> list[str]:
    """Words and signs, each with the white space before it; joined, they are the text except for trailing space."""
    return _WORD.findall(text.rstrip())  # otherwise each space at the end is tried with all that follow


def marked(text: str, reference: str, first: str) -> Markup:
    """A translation as HTML, with its differences: ``<mark>`` from the reference, ``<ins>``, ``<del>`` from ``first``.

    Args:
        text, reference, first: plain sentences. ``first`` is another system's translation of the same source.
    """
    tokens = words(text)
    if max(map(len, (tokens, words(reference), words(first)))) > _LONGEST:
        return escape(text)
    plain = [token.strip() for token in tokens]
    foreign = [True] * len(tokens)
    for _, start, size in _matches([w.strip() for w in words(reference)], plain):
        foreign[start : start + size] = [False] * size
    new, dropped = [True] * len(tokens), {}
    first_words = words(first)
    previous = (0, 0)
    for first_at, at, size in _matches([w.strip() for w in first_words], plain):
        new[at : at + size] = [False] * size
        if at == previous[1] and first_at > previous[0]:  # words were removed without replacement
            dropped[at] = first_words[previous[0] : first_at]
        previous = (first_at + size, at + size)
    parts = []
    for index in range(len(tokens) + 1):
        parts += [Markup("{}<del>{}</del>").format(*_apart(word)) for word in dropped.get(index, ())]
        if index < len(tokens):
            space, word = _apart(tokens[index])
            shown = Markup("<mark>{}</mark>" if foreign[index] else "{}").format(word)
            parts.append(Markup("{}<ins>{}</ins>" if new[index] else "{}{}").format(space, shown))
    return Markup("").join(parts)


def _apart(token: str) -> tuple[str, str]:
    word = token.lstrip()
    return token[: len(token) - len(word)], word


def _matches(a: list[str], b: list[str]) -> list[difflib.Match]:
    """The matching blocks of difflib, which end with an empty match at both ends."""
    return difflib.SequenceMatcher(a=a, b=b, autojunk=False).get_matching_blocks()
