"""The models' tokens: how a language's text becomes them, what undoes that, and whether text is in pieces already."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# ``--subword`` → what fairseq calls its reverse.
POST_PROCESS = {
    "bpe": "subword_nmt",
    "sentencepiece": "sentencepiece",
    "char": "sentencepiece",
    "word": None,
    "label": None,
}
SEPARATOR = "@@"  # ends a piece of subword-nmt that its word goes on after
VISIBLE_SPACE = "▁"  # begins a word of SentencePiece; the space between two words, where tokens are characters
_SHARE = 0.01  # less than that of a text's words, and they only look like pieces


@dataclass(frozen=True)
class Side:
    """How the text of one language becomes the models' tokens.

    Attributes:
        tokenizer: ``moses`` or ``none``.
        subword: ``bpe``, ``sentencepiece``, ``char``, ``word`` or ``label``.
        has_codes: whether there are BPE codes or a SentencePiece model; not for text that was segmented already.
        post_process: fairseq's name for what undoes the segmentation; None where tokens are words.
    """

    tokenizer: str
    subword: str
    has_codes: bool
    post_process: str | None

    @property
    def segmented(self) -> bool:
        """Whether its words are what someone else made of the text; characters and SentencePiece make raw text."""
        return self.tokenizer == "none" and self.post_process != "sentencepiece"

    @property
    def labels(self) -> bool:
        """Whether each line is one symbol, the label of the other side."""
        return self.subword == "label"

    @property
    def in_pieces(self) -> bool:
        """Whether the text was in pieces before preprocessing; translations are words all the same."""
        return self.subword == "bpe" and not self.has_codes and self.post_process is not None


def by_language(value: Any, languages: Sequence[str]) -> dict[str, Any]:
    """A setting of each language, from a record that holds one value where both languages share it."""
    return value if isinstance(value, dict) and value.keys() == set(languages) else dict.fromkeys(languages, value)


def shared(values: Mapping[str, Any]) -> Any:
    """What :func:`by_language` reads: the one value of all languages, else the values by language."""
    first, *others = values.values()
    return first if all(value == first for value in others) else dict(values)


def count_pieces(words: Iterable[tuple[str, int]]) -> dict[str, int]:
    """How many words look like pieces.

    Args:
        words: words with their numbers.

    Returns:
        What undoes the segmentation, by fairseq's name → the number of its pieces; "" → that of all words.
    """
    counts = {"subword_nmt": 0, "sentencepiece": 0, "": 0}
    for word, count in words:
        counts[""] += count
        counts["subword_nmt"] += count * word.endswith(SEPARATOR)
        counts["sentencepiece"] += count * word.startswith(VISIBLE_SPACE)
    return counts


def pieces_of(counts: dict[str, int]) -> str | None:
    """The kind of pieces that a text is in, by the counts of :func:`count_pieces`; None for words."""
    return next((kind for kind, count in counts.items() if kind and count > _SHARE * counts[""]), None)


def pieces_of_dictionary(path: Path) -> str | None:
    """The kind of pieces that are in a dictionary of fairseq; None for words, or where there is no such file."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
        return pieces_of(count_pieces((line.split(" ")[0], int(line.split(" ")[1])) for line in lines))
    except (OSError, ValueError, IndexError):
        return None
