"""The options of preprocessing that the training text decides, where the user has not.

The number of BPE merges, or of SentencePiece pieces, follows from the number of pairs
(:mod:`dual_fairseq.common.settings`). Two languages that share many words get one dictionary.
"""

from __future__ import annotations

import argparse
import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import islice
from pathlib import Path

from ..common.folders import RECORD
from ..common.progress import say
from ..common.records import read_record
from ..common.settings import SHARED_WORDS, pair_settings
from .lines import Survey, open_text

LINES = 100_000  # of each file, that are looked at
_WORD = re.compile(r"[!-/:-@\[-`{-~]|[^\s!-/:-@\[-`{-~]+")  # an ASCII sign is a word, as tokenisation makes it


def overlap(sides: Sequence[Sequence[Path]], segmented: bool) -> float:
    """How much the word distributions of two sides share: the sum of the smaller share of each word, 0 to 1.

    Args:
        sides: the files of each.
        segmented: whether words are what white space separates.
    """
    shares = []
    for files in sides:
        words: Counter[str] = Counter()
        for file in files:
            with open_text(file) as lines:
                for line in islice(lines, LINES):
                    text = line.decode("utf-8", "replace")
                    words.update(text.split() if segmented else _WORD.findall(text))
        total = words.total() or 1
        shares.append({word: count / total for word, count in words.items()})
    first, second = shares
    return sum(min(share, second[word]) for word, share in first.items() if word in second)


def choose(
    options: argparse.Namespace,
    dest: Path,
    parts: Sequence[Sequence[Path]],
    surveys: Mapping[str, Sequence[Survey]],
) -> float | None:
    """Complete ``bpe_size`` or ``vocab_size``, and ``joined_dictionary``; a DEST made of the same text keeps its own.

    Args:
        options: None stands for one that was not given.
        parts: the training text: pieces, each with a file a side.
        surveys: of it, by language.

    Returns:
        The overlap, where it was measured; that of ``--like``, where its dictionaries are taken.
    """
    noted = _noted(dest, surveys)
    pairs = sum(file.lines for file in next(iter(surveys.values())))
    size = {"bpe": "bpe_size", "sentencepiece": "vocab_size"}.get(options.subword)
    if size and getattr(options, size) is None:
        option = size.replace("_", "-")
        setattr(options, size, noted.get(option, pair_settings(pairs).bpe_size))
        why = "as DEST was made" if option in noted else f"for {pairs:,} pairs (docs/settings.md)"
        say(f"--{option} {getattr(options, size)}: {why}")
    shared = _overlap_of(Path(options.like)) if options.like else None
    if size and (options.joint_bpe or not options.bpe_size) and not options.like:
        shared = overlap(list(zip(*parts, strict=True)), options.tokenizer == "none")
    if options.joined_dictionary is None:
        options.joined_dictionary = noted.get("joined-dictionary", shared is not None and shared >= SHARED_WORDS)
        if options.joined_dictionary:
            why = f"the languages share {shared:.0%} of their words" if shared is not None else "as DEST was made"
            say(f"--joined-dictionary: {why}; dual-fairseq train shares their embeddings")
    return shared


def _overlap_of(like: Path) -> float | None:
    """The overlap that decided about the dictionaries of another DEST."""
    overlap = read_record(like / RECORD, {"overlap?": (None, float)}, "give another --like").get("overlap")
    return None if overlap is None else float(overlap)


def _noted(dest: Path, surveys: Mapping[str, Sequence[Survey]]) -> dict:
    """The settings that DEST was made with; empty where it was made of other training text, or was not made."""
    settings: dict = {}
    for stage in ("text", "bpe", "dual"):
        try:
            settings |= json.loads((dest / ".stages" / f"{stage}.json").read_text(encoding="utf-8"))["settings"]
        except (OSError, ValueError, LookupError, TypeError):  # the stages themselves see to damaged notes
            continue
    same = all(
        settings.get(f"text of train.{language}") == [file.sha256 for file in files]
        for language, files in surveys.items()
    )
    return settings if same else {}
