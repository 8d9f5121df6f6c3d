"""Chooses options of preprocessing by the training text, if the user left them out.

The number of BPE merges, or of SentencePiece pieces, follows from the number of pairs
(:mod:`dual_fairseq.common.settings`). Two languages that share many words get one dictionary.
"""

from __future__ import annotations

import argparse
import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain, islice
from pathlib import Path

from ..common.errors import UserError
from ..common.files import lines_of
from ..common.folders import RECORD
from ..common.progress import say
from ..common.records import read_record
from ..common.segmentation import by_language, shared
from ..common.settings import SHARED_WORDS, pair_settings
from .lines import Survey, open_text
from .options import same_way
from .round_trip import count_words

LINES = 100_000  # lines that are read of each file
_PIECES_A_CHARACTER = 2  # each character of Chinese is a piece, and there must be others
_WORD = re.compile(r"[!-/:-@\[-`{-~]|[^\s!-/:-@\[-`{-~]+")  # an ASCII sign is a word, as after tokenisation


def overlap(sides: Sequence[Sequence[Path]], segmented: bool) -> float:
    """The overlap of the word distributions of two sides: the sum of the smaller share of each word, 0 to 1.

    Args:
        sides: the files of each side.
        segmented: whether white space separates the words.
    """
    shares = []
    for files in sides:
        words: Counter[str] = Counter()
        for line in _lines(files):
            words.update(line.split() if segmented else _WORD.findall(line))
        total = words.total() or 1
        shares.append({word: count / total for word, count in words.items()})
    first, second = shares
    return sum(min(share, second[word]) for word, share in first.items() if word in second)


def _lines(files: Iterable[Path]) -> Iterator[str]:
    for file in files:
        with open_text(file) as lines:
            for line in islice(lines_of(lines, file), LINES):
                yield line.decode("utf-8", "replace")


def check_ratio(options: argparse.Namespace, parts: Sequence[Sequence[Path]]) -> None:
    """Refuse ``--max-ratio`` if white space does not separate the words of a side.

    Args:
        parts: as for :func:`choose`.

    Raises:
        UserError: it does not.
    """
    for language, files in zip(options.subword, zip(*parts, strict=True), strict=False) if options.max_ratio else ():
        words = count_words(_lines(files))
        if words.letters and words.unspaced_length:
            raise UserError(
                f"--max-ratio {options.max_ratio:g}: compares the numbers of words, but the script of {language} puts "
                "no space between words; leave it out (dual-fairseq filter finds bad pairs)"
            )


def choose(
    options: argparse.Namespace,
    dest: Path,
    parts: Sequence[Sequence[Path]],
    surveys: Mapping[str, Sequence[Survey]],
) -> float | None:
    """Complete ``bpe_size`` or ``vocab_size``, and ``joined_dictionary``; a DEST of the same text keeps its values.

    Args:
        options: None stands for an option that was not given.
        parts: the pieces of the training text, each with one file per side; none if only ``--like`` has the text.
        surveys: the surveys of the training text, by language.

    Returns:
        The overlap if it was measured; the overlap of ``--like`` if its dictionaries are used; else None.
    """
    noted = _noted(dest, surveys, options)
    pairs = sum(file.lines for file in next(iter(surveys.values()), ()))
    kinds, default = options.subword, pair_settings(pairs).bpe_size
    sides = list(zip(*parts, strict=True))
    by_pairs = f"for {pairs:,} pairs (docs/settings.md)"
    if "bpe" in kinds.values() and options.bpe_size is None:
        options.bpe_size = noted.get("bpe-size", default)
        say(f"--bpe-size {options.bpe_size}: " + ("as DEST was made" if "bpe-size" in noted else by_pairs))
    if open_sizes := [language for language, size in options.vocab_size.items() if size is None]:  # of SentencePiece
        before = by_language(noted.get("vocab-size"), tuple(kinds))
        files_of = dict(zip(kinds, sides, strict=False))
        for group in [open_sizes] if options.joint_bpe else [[language] for language in open_sizes]:
            size, why = before[group[0]], "as DEST was made"
            if not size:
                files = chain.from_iterable(files_of.get(language, ()) for language in group)
                characters = len(set(chain.from_iterable(_lines(files))))
                size, why = max(
                    (default, by_pairs), (_PIECES_A_CHARACTER * characters, f"for {characters:,} characters")
                )
            options.vocab_size |= dict.fromkeys(group, size)
            say(f"--vocab-size {size}: {why}")
    common = _overlap_of(Path(options.like)) if options.like else None
    by_words = "char" not in kinds.values() and (options.joint_bpe or not options.bpe_size)
    if same_way(options) and (options.joined_dictionary or by_words) and not options.like:
        common = overlap(sides, "none" in options.tokenizer.values())
    if options.joined_dictionary is None:
        options.joined_dictionary = noted.get("joined-dictionary", common is not None and common >= SHARED_WORDS)
        if options.joined_dictionary:
            why = f"the languages share {common:.0%} of their words" if common is not None else "as DEST was made"
            say(f"--joined-dictionary: {why}; dual-fairseq train shares their embeddings")
    return common


def _overlap_of(like: Path) -> float | None:
    """The overlap that decided about the dictionaries of another DEST."""
    overlap = read_record(like / RECORD, {"overlap?": (None, float)}, "give another --like").get("overlap")
    return None if overlap is None else float(overlap)


def _noted(dest: Path, surveys: Mapping[str, Sequence[Survey]], options: argparse.Namespace) -> dict:
    """The settings that DEST was made with; empty if it was made from other training text or in another way."""
    settings: dict = {}
    for stage in ("text", "bpe", "dual"):
        try:
            settings |= json.loads((dest / ".stages" / f"{stage}.json").read_text(encoding="utf-8"))["settings"]
        except (OSError, ValueError, LookupError, TypeError):  # the stages themselves report damaged notes
            continue
    text = {f"text of train.{language}": [file.sha256 for file in files] for language, files in surveys.items()}
    ways = {name: shared(getattr(options, name)) for name in ("tokenizer", "subword")}
    same = all(settings.get(name) == digests for name, digests in text.items())
    same = same and all(settings.get(name) == way for name, way in ways.items())
    return settings if same else {}
