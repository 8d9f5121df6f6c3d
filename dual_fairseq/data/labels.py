"""Sides of a corpus that are labels or tags of the other side: one symbol for each sentence, or for each word."""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path

from ..common.dictionaries import SPECIAL, counted_symbols
from ..common.errors import UserError
from ..common.progress import say
from ..common.segmentation import ANNOTATIONS
from .clean import REASONS
from .lines import read_rows
from .normalize import BadLine, decode, lower


def check_tokenizers(options: argparse.Namespace) -> None:
    """Raises UserError if labels or tags are to be tokenised; the options are not by language yet."""
    for side in ("source", "target"):
        kind = getattr(options, f"{side}_subword") or options.subword
        if kind in ANNOTATIONS and getattr(options, f"{side}_tokenizer") == "moses":
            raise UserError(f"--{side}-tokenizer moses: {kind}s are not tokenised; leave it out")


def check_options(options: argparse.Namespace) -> None:
    """Raises UserError if an option makes no sense because a side is labels or tags."""
    if set(options.subword.values()) == {"label"}:
        raise UserError("--subword label: is for one side; give --source-subword label or --target-subword label")
    sides = {"source": options.source_lang, "target": options.target_lang}
    for side, language in sides.items():
        other, text = next(item for item in sides.items() if item[0] != side)
        words = options.subword[text] == "word" and options.tokenizer[text] == "none"
        if options.subword[language] == "tag" and not words:
            raise UserError(
                f"--{side}-subword tag: each word of {text} has a tag, so the models must read its words; give "
                f"--{other}-subword word and --{other}-tokenizer none"
            )
        if options.subword[language] != "label":
            continue
        if options.max_ratio:
            raise UserError(f"--max-ratio: each label of {language} is one word; leave it out")
        if getattr(options, f"extra_mono_{side}"):
            raise UserError(
                f"--extra-mono-{side}: the language model of labels counts only labels of the training text; leave "
                "the option out"
            )


def read_label(raw: bytes, language: str, lowercase: bool) -> str:
    """The label in a line, cleaned as in preprocessing.

    Raises:
        ValueError: the line is not one label; the message says what it is.
    """
    try:
        text = decode(raw, Counter())
    except BadLine as bad:
        raise ValueError("no label" if str(bad) == "empty" else REASONS[str(bad)]) from bad
    words = (lower(text, language) if lowercase else text).split()
    if len(words) > 1:
        raise ValueError(f"{len(words)} words, not one label ({text[:60]})")
    if words[0] in SPECIAL:
        raise ValueError(f"a word that fairseq reserves: {words[0]}")
    return words[0]


def check_labels(
    options: argparse.Namespace, parts: Mapping[str, Sequence[Sequence[Path]]], dictionaries: Sequence[Path]
) -> None:
    """Check all lines that should be labels, before any work and whatever ``--on-bad-line`` says.

    Args:
        options: from :func:`~dual_fairseq.data.options.parse`.
        parts: split → its pieces, each with one file per side.
        dictionaries: the dictionaries of existing models, one per side; else none.

    Raises:
        UserError: a line is not one label, or is a label that the models do not learn.
    """
    for side, language in enumerate((options.source_lang, options.target_lang)):
        if options.subword[language] != "label":
            continue
        known = set(counted_symbols(dictionaries[side])) if dictionaries else None
        files = {split: [part[side] for part in pieces] for split, pieces in parts.items()}
        held_out = [file for split in ("valid", "test") for file in files.pop(split, [])]
        for group in ([*chain(*files.values())], held_out):
            seen = set()
            for label, where in _labels(group, language, options.lowercase):
                if known is not None and label not in known:
                    raise UserError(f"{where}: the label {label} is not in the training text; leave the pair out")
                seen.add(label)
            known = known if group is held_out else seen or known
        names = sorted(known or ())
        say(f"{language}: {len(names):,} labels: {', '.join(names[:10])}{', ...' * (len(names) > 10)}")


def check_tags(options: argparse.Namespace, parts: Mapping[str, Sequence[Sequence[Path]]]) -> None:
    """Check, before any work, that each word has a tag; bad lines, which are dropped, are not checked.

    Args:
        options, parts: as for :func:`check_labels`.

    Raises:
        UserError: the sides of a line have different numbers of words.
    """
    for pieces in parts.values() if "tag" in options.subword.values() else ():
        for rows in read_rows(pieces):
            for number, row in enumerate(rows.lines, start=rows.first):
                try:
                    source, target = (len(decode(raw, Counter()).split()) for raw in row)
                except BadLine:
                    continue
                if source != target:
                    files = " and ".join(map(str, pieces[rows.part]))
                    raise UserError(f"{files}: line {number}: {source} and {target} words; give each word one tag")


def refuse_lost(unknown: Mapping[str, float], options: argparse.Namespace) -> None:
    """Refuse a label that cleaning has left without training pairs.

    Args:
        unknown: ``<split>.<language>`` → the share of its words that the dictionary lacks.
        options: from :func:`~dual_fairseq.data.options.parse`.

    Raises:
        UserError: there is such a label.
    """
    for name, share in unknown.items():
        if share and options.subword[name.split(".")[1]] == "label":
            raise UserError(f"{name}: has a label whose training pairs were all dropped; see raw/train.dropped.tsv")


def _labels(files: Sequence[Path], language: str, lowercase: bool) -> Iterator[tuple[str, str]]:
    """Yields (label, its file and line)."""
    for rows in read_rows([(file,) for file in files]):
        for number, (raw,) in enumerate(rows.lines, start=rows.first):
            where = f"{files[rows.part]}: line {number}"
            try:
                yield read_label(raw, language, lowercase), where
            except ValueError as error:
                raise UserError(f"{where}: {error}; with --subword label each line is one label") from error
