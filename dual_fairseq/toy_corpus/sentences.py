"""Written sentences, and the words and marks of the grammar."""

from __future__ import annotations

import re
from collections.abc import Sequence


def tokenize(sentence: str) -> list[str]:
    """Splits a sentence into words and the marks ``. , ?``."""
    return re.findall(r"[^\s.,?]+|[.,?]", sentence)


def render(tokens: Sequence[str]) -> str:
    """Joins words and marks into a written sentence with an upper-case start."""
    text = re.sub(r" ([.,?])", r"\1", " ".join(tokens))
    return text[:1].upper() + text[1:]


def readings(sentence: str) -> list[list[str]]:
    """The token sequences with this written form: the first word may be upper case only because it is first."""
    tokens = tokenize(sentence)
    if not tokens or render(tokens) != sentence or not sentence[0].isupper():
        return []
    lowered = tokens[0][0].lower() + tokens[0][1:]
    return [tokens, [lowered, *tokens[1:]]]
