"""Turns words into the models' tokens: byte pair encoding, SentencePiece, characters, or the words themselves."""

from __future__ import annotations

import io
import os
import re
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import patch

from ..common.errors import UserError, import_package
from ..common.files import count_lines, read_lines
from ..common.progress import Progress, say
from ..common.segmentation import SEPARATOR, VISIBLE_SPACE
from .workers import parallel

_CACHED_WORDS = 500_000  # subword-nmt keeps every word that it has seen, and a stream of text has endless words
_SKIPPED = "▅"  # SentencePiece does not learn from lines with it
_LEARNED_LINES = 4_000_000  # SentencePiece holds its text in memory; from more lines, so many are drawn
# A word that itself ends in the separator would be joined with the next word. Its end is replaced by "@" and a code
# point that Unicode reserves for such use.
_FINAL_SEPARATOR = re.compile(rf"{SEPARATOR}(?!\S)")
_MARKED = "@\ufdd0"
_CLEAR_ENDS = "!?。！？؟۔।॥።፧။།។։᱾"  # end a sentence even if tokenisation leaves them at a word
_SENTENCE_ENDS = {".", "…", *_CLEAR_ENDS}
_WIDE_ENDS = set("。！？")  # no space follows them


@dataclass(frozen=True)
class Subword:
    """The models' tokens.

    Attributes:
        post_process: fairseq's name for the way to undo them (``--post-process``, ``--eval-bleu-remove-bpe``); None if
            they are words.
        space: the token between two words; "" if there is no such token.
    """

    post_process: str | None
    space: str = ""

    def join(self, tokens: str) -> str:
        """Tokens joined by spaces → words joined by spaces."""
        from fairseq.data.data_utils import post_process

        return unmarked(post_process(tokens, self.post_process))

    def ends_word(self, token: str, following: str) -> bool:
        """Whether a word ends between two tokens; "" follows the last token."""
        if self.post_process != "sentencepiece":
            return self.post_process is None or not token.endswith(SEPARATOR)
        begins = following == self.space if self.space else following.startswith(VISIBLE_SPACE)
        return begins or not following or token in _WIDE_ENDS

    def cut(self, tokens: list[str], limit: int) -> list[list[str]]:
        """Cut tokens into pieces of at most ``limit``.

        A line over the limit is cut into its sentences, because models trained on sentences lose most of a long text.
        A sentence over the limit is cut after a word if possible. A piece neither begins nor ends with :attr:`space`.

        Args:
            tokens: the tokens of a line.
            limit: the most tokens in a piece.
        """
        space = self.space
        if len(tokens) <= limit:
            return [tokens]
        pieces: list[list[str]] = [[]]
        for token, following in zip(tokens, [*tokens[1:], ""], strict=True):
            if space and token == space and not pieces[-1]:
                continue
            pieces[-1].append(token)
            ends = token in _SENTENCE_ENDS or token.endswith((*_CLEAR_ENDS,))
            if ends and following not in _SENTENCE_ENDS and self.ends_word(token, following):
                pieces.append([])
            elif len(pieces[-1]) == limit:
                last = [*zip(pieces[-1], [*pieces[-1][1:], following], strict=True)]
                end = next((i for i in range(limit, 0, -1) if self.ends_word(*last[i - 1])), limit)
                tail = pieces[-1][end:]
                pieces[-1:] = [pieces[-1][:end], tail[1:] if space and tail[:1] == [space] else tail]
        return [piece for piece in pieces if piece]


def unmarked(words: str) -> str:
    """Words without the mark that :func:`load_bpe` puts on words that themselves end in the separator."""
    return words.replace(_MARKED, SEPARATOR)


def characters(line: str) -> str:
    """Each character of a line as a token, a space as ``▁``, as fairseq's ``--bpe characters`` does.

    A ``▁`` in the line becomes ``_``, because it would turn into a space when characters are joined again.
    """
    from fairseq.data.encoders.characters import Characters

    return Characters.encode(visible_spaces_replaced(line))


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
    if first and not re.fullmatch(r"#version: 0\.[12](\.0+)*", lines[0].rstrip()):
        raise UserError(f"{codes}: line 1 names no version that subword-nmt knows, such as 0.2; {fix}")
    for number, line in enumerate(lines[first:], start=first + 1):
        if len(line.strip("\r ").split(" ")) != 2 or "\r" in line.rstrip("\r"):
            raise UserError(f"{codes}: line {number} is not a pair of pieces of words; {fix}")
    with open(codes, encoding="utf-8") as file:
        bpe = BPE(file, separator=SEPARATOR)

    def segment(line: str) -> str:
        if len(bpe.cache) > _CACHED_WORDS:
            bpe.cache.clear()
        return bpe.process_line(_FINAL_SEPARATOR.sub(_MARKED, line))

    return segment


def learn_bpe(texts: Sequence[Path], size: int, codes: Path, label: str) -> int:
    """Learn at most ``size`` merges on the texts together, write them to ``codes``, and return their number.

    Args:
        label: the name of the text in progress lines.

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
            f"{texts[0]}: no pair of characters occurs twice, so BPE cannot be learned; "
            "give more text or pass --bpe-size 0"
        )

    def counted(numbers: range) -> Iterator[int]:
        with Progress(f"bpe: {label}", len(numbers), "merges") as bar:
            for number in numbers:
                yield number
                bar.update(1)

    quiet = SimpleNamespace(version_info=sys.version_info, stderr=io.StringIO())  # a message below replaces its output
    with (
        open(codes, "w", encoding="utf-8", newline="\n") as file,
        patch.multiple(subword_nmt, tqdm=counted, sys=quiet),
    ):
        subword_nmt.learn_bpe([f"{word} {count}" for word, count in words.items()], file, size, is_dict=True)
    merges = count_lines(codes) - 1  # without the line of the version
    if merges < size:
        say(f"bpe: {label}: only {merges:,} merges instead of {size:,}: no other pair occurs twice in the text")
    return merges


def require_sentencepiece() -> None:
    """Raises UserError if the package is not installed."""
    import_package("sentencepiece", "segments the text")


def learn_sentencepiece(texts: Sequence[Path], size: int, model: Path, label: str) -> int:
    """Learn a unigram model of at most ``size`` pieces on the texts together; returns the number of its pieces.

    Args:
        model: the file to write.
        label: the name of the text in messages.

    Raises:
        UserError: ``size`` is too small for the text.
    """
    from sentencepiece import SentencePieceTrainer, set_random_generator_seed

    set_random_generator_seed(1)  # decides which lines are drawn
    say(f"sentencepiece: {label}: learning")
    try:
        with open(model, "wb") as file:
            SentencePieceTrainer.train(
                sentence_iterator=(
                    visible_spaces_replaced(line).replace(_SKIPPED, "█") for text in texts for line in text_lines(text)
                ),
                model_writer=file, vocab_size=size, hard_vocab_limit=False, character_coverage=1.0,
                normalization_rule_name="identity", max_sentence_length=1 << 20, input_sentence_size=_LEARNED_LINES,
                bos_id=-1, eos_id=-1, minloglevel=3,
            )  # fmt: skip
    except (RuntimeError, OSError) as error:
        needed = re.search(r"required_chars\. [0-9]+ vs ([0-9]+)", str(error))
        if needed is None:
            raise
        raise UserError(
            f"--vocab-size {size}: the characters of the text need at least {int(needed[1]):,} pieces"
        ) from None
    pieces = count_pieces(model)
    if pieces < size:
        say(f"sentencepiece: {label}: only {pieces:,} pieces instead of {size:,}: the text has no more pieces")
    return pieces


def count_pieces(model: Path) -> int:
    """The number of pieces of a SentencePiece model."""
    from sentencepiece import SentencePieceProcessor

    return len(SentencePieceProcessor(model_file=str(model)))


def load_sentencepiece(model: str | os.PathLike[str]) -> Callable[[str], str]:
    """A function that segments a line by a SentencePiece model, as fairseq's ``--bpe sentencepiece`` does.

    A ``▁`` in the line becomes ``_``, because it would turn into a space when pieces are joined again.

    Raises:
        UserError: the package is not installed, or the file is no model.
    """
    require_sentencepiece()
    from sentencepiece import SentencePieceProcessor

    try:
        processor = SentencePieceProcessor(model_file=os.fspath(model))
    except (RuntimeError, OSError) as error:
        raise UserError(
            f"{model}: is not a model of SentencePiece; copy the one that the text was segmented with, or run "
            "dual-fairseq preprocess again"
        ) from error
    return lambda line: " ".join(processor.encode(visible_spaces_replaced(line), out_type=str))


def visible_spaces_replaced(line: str) -> str:
    """Replaces ``▁`` by ``_``, because the token ``▁`` stands for a space."""
    return line.replace(VISIBLE_SPACE, "_")


def segment_file(text: Path, make: Callable[[], Callable[[str], str]], output: Path, workers: int) -> None:
    """Segment a tokenised text line by line.

    Args:
        text: the tokenised text.
        make: makes the function that segments a line, once in each process.
        output: the file to write.
        workers: the number of processes.
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


def _blocks(path: Path) -> Iterator[list[str]]:
    lines = text_lines(path)
    while block := list(islice(lines, 1000)):
        yield block
