"""Words to the models' tokens: byte pair encoding, characters, or the words themselves."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from unittest.mock import patch

from ..common.errors import UserError
from ..common.files import read_lines
from ..common.folders import POST_PROCESS
from ..common.progress import Progress, say
from .workers import parallel

SEPARATOR = "@@"
VISIBLE_SPACE = "▁"  # as fairseq's --bpe characters and SentencePiece have it
_CACHED_WORDS = 500_000  # subword-nmt keeps every word that it has seen, and a stream of text has no end of them


@dataclass(frozen=True)
class Subword:
    """What ``--subword`` makes of tokenised words.

    Attributes:
        post_process: fairseq's name for what undoes it (``--post-process``, ``--eval-bleu-remove-bpe``), if anything.
        space: the token that stands between two words; "" where words follow each other.
    """

    post_process: str | None
    space: str = ""


SUBWORDS = {kind: Subword(name, VISIBLE_SPACE if kind == "char" else "") for kind, name in POST_PROCESS.items()}


def characters(line: str) -> str:
    """Each character of a line as a token, a space as ``▁``, as fairseq's ``--bpe characters`` does.

    A ``▁`` in the line becomes ``_``, because it would turn into a space when characters are joined again.
    """
    from fairseq.data.encoders.characters import Characters

    return Characters.encode(line.replace(VISIBLE_SPACE, "_"))


def load_bpe(codes: str | os.PathLike[str]) -> Callable[[str], str]:
    """A function that segments a tokenised line by a file of BPE codes, as fairseq's ``--bpe subword_nmt`` does.

    Raises:
        UserError: the file is missing, or holds no codes.
    """
    from subword_nmt.apply_bpe import BPE

    fix = "copy the codes that the text was segmented with, or run dual-fairseq preprocess again"
    lines = read_lines(codes)
    first = 1 if lines and lines[0].startswith("#version:") else 0
    if len(lines) == first:
        raise UserError(f"{codes}: holds no BPE codes; {fix}")
    if first and not re.fullmatch(r"#version: [0-9]+(\.[0-9]+)*", lines[0].rstrip()):
        raise UserError(f"{codes}: line 1 names no version; {fix}")
    for number, line in enumerate(lines[first:], start=first + 1):
        if len(line.strip("\r ").split(" ")) != 2:
            raise UserError(f"{codes}: line {number} is no pair of pieces of words; {fix}")
    with open(codes, encoding="utf-8") as file:
        bpe = BPE(file, separator=SEPARATOR)

    def segment(line: str) -> str:
        if len(bpe.cache) > _CACHED_WORDS:
            bpe.cache.clear()
        return bpe.process_line(line)

    return segment


def learn_bpe(texts: Sequence[Path], size: int, codes: Path, label: str) -> int:
    """Learn at most ``size`` merges on the texts together, write them to ``codes``, and return their number.

    Args:
        label: what progress lines call the text.

    Raises:
        UserError: there is nothing to merge.
    """
    from subword_nmt import learn_bpe as subword_nmt

    words = Counter(word for text in texts for line in text_lines(text) for word in line.split(" "))
    pairs: Counter[str] = Counter()
    for word, count in words.items():
        for i in range(len(word) - 1):
            pairs[word[i : i + 2]] += count
    if not pairs or max(pairs.values()) < 2:
        raise UserError(
            f"{texts[0]}: no two characters occur together twice, so there is no BPE to learn; "
            "give more text or pass --bpe-size 0"
        )

    def counted(numbers: range) -> Iterator[int]:
        with Progress(f"bpe: {label}", len(numbers), "merges") as bar:
            for number in numbers:
                yield number
                bar.update(1)

    with open(codes, "w", encoding="utf-8", newline="\n") as file, patch.object(subword_nmt, "tqdm", counted):
        subword_nmt.learn_bpe([f"{word} {count}" for word, count in words.items()], file, size, is_dict=True)
    merges = count_lines(codes) - 1  # below the version
    if merges < size:
        say(f"bpe: {label}: only {merges:,} merges instead of {size:,}: no other pair occurs twice in the text")
    return merges


def segment_file(text: Path, make: Callable[[], Callable[[str], str]], output: Path, workers: int) -> None:
    """Segment a tokenised text line by line.

    Args:
        text: the tokenised text.
        make: makes the function that segments a line, once in each process.
        output: the file to write.
        workers: processes.
    """

    def segment_block() -> Callable[[list[str]], list[str]]:
        segment = make()
        return lambda block: [segment(line) for line in block]

    with open(output, "w", encoding="utf-8", newline="\n") as file:
        for block in parallel(segment_block, _blocks(text), workers):
            file.writelines(line + "\n" for line in block)


def text_lines(path: Path) -> Iterator[str]:
    """The lines of a text that preprocessing wrote."""
    with open(path, encoding="utf-8", newline="\n") as file:
        for line in file:
            yield line.removesuffix("\n")


def count_lines(path: Path) -> int:
    """The number of lines of a text that preprocessing wrote."""
    return sum(1 for _ in text_lines(path))


def _blocks(path: Path) -> Iterator[list[str]]:
    lines = text_lines(path)
    while block := list(islice(lines, 1000)):
        yield block
