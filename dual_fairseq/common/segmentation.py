"""The models' tokens: what undoes each kind of segmentation, and whether text is in pieces already."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

# ``--subword`` → what fairseq calls its reverse.
POST_PROCESS = {"bpe": "subword_nmt", "sentencepiece": "sentencepiece", "char": "sentencepiece", "word": None}
SEPARATOR = "@@"  # ends a piece of subword-nmt that its word goes on after
VISIBLE_SPACE = "▁"  # begins a word of SentencePiece; the space between two words, where tokens are characters
_SHARE = 0.01  # less than that of a text's words, and they only look like pieces


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
