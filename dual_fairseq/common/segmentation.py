"""The models' tokens: how text becomes tokens, how to undo this, and whether text is already in pieces."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# ``--subword`` → fairseq's name for its reverse.
POST_PROCESS = {
    "bpe": "subword_nmt",
    "sentencepiece": "sentencepiece",
    "char": "sentencepiece",
    "word": None,
    "label": None,
    "tag": None,
}
ANNOTATIONS = ("label", "tag")  # of ``--subword``: sides that are not text, and are scored by their accuracy
SEPARATOR = "@@"  # ends a piece of subword-nmt if the word continues
VISIBLE_SPACE = "▁"  # begins a word of SentencePiece; the space between words if tokens are characters
_SHARE = 0.01  # a smaller share of a text's words only looks like pieces


@dataclass(frozen=True)
class Side:
    """How the text of one language becomes the models' tokens.

    Attributes:
        tokenizer: ``moses`` or ``none``.
        subword: ``bpe``, ``sentencepiece``, ``char``, ``word``, ``label`` or ``tag``.
        has_codes: whether there are BPE codes or a SentencePiece model; False for already segmented text.
        post_process: fairseq's name for undoing the segmentation; None if tokens are words.
    """

    tokenizer: str
    subword: str
    has_codes: bool
    post_process: str | None

    @property
    def segmented(self) -> bool:
        """Whether another program made the words; characters and SentencePiece give raw text."""
        return self.tokenizer == "none" and self.post_process != "sentencepiece"

    @property
    def labels(self) -> bool:
        """Whether each line is one symbol, the label of the other side."""
        return self.subword == "label"

    @property
    def tags(self) -> bool:
        """Whether each line has a tag for each word of the other side."""
        return self.subword == "tag"

    @property
    def in_pieces(self) -> bool:
        """Whether the text was in pieces before preprocessing; translations are still words."""
        return self.subword == "bpe" and not self.has_codes and self.post_process is not None


def by_language(value: Any, languages: Sequence[str]) -> dict[str, Any]:
    """A setting by language, from a record that holds one value if both languages share it."""
    return value if isinstance(value, dict) and value.keys() == set(languages) else dict.fromkeys(languages, value)


def shared(values: Mapping[str, Any]) -> Any:
    """The reverse of :func:`by_language`: the shared value, else the values by language."""
    first, *others = values.values()
    return first if all(value == first for value in others) else dict(values)


def count_pieces(words: Iterable[tuple[str, int]]) -> dict[str, int]:
    """How many words look like pieces.

    Args:
        words: words with their counts.

    Returns:
        fairseq's name for undoing the segmentation → number of pieces; "" → number of all words.
    """
    counts = {"subword_nmt": 0, "sentencepiece": 0, "": 0}
    for word, count in words:
        counts[""] += count
        counts["subword_nmt"] += count * word.endswith(SEPARATOR)
        counts["sentencepiece"] += count * word.startswith(VISIBLE_SPACE)
    return counts


def pieces_of(counts: dict[str, int]) -> str | None:
    """The kind of pieces in a text, from the counts of :func:`count_pieces`; None for words."""
    return next((kind for kind, count in counts.items() if kind and count > _SHARE * counts[""]), None)


def pieces_of_dictionary(path: Path) -> str | None:
    """The kind of pieces in a fairseq dictionary; None for words or an unreadable file."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
        return pieces_of(count_pieces((line.split(" ")[0], int(line.split(" ")[1])) for line in lines))
    except (OSError, ValueError, IndexError):
        return None
