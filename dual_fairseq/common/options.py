"""Options that several commands share, each with one name and one explanation."""

from __future__ import annotations

import argparse
import math
import os
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from .arguments import LONGEST_NUMBER, count, decimal
from .errors import UserError


def flag(name: str) -> str:
    """An option as it is typed: ``--dual-lambda`` for ``dual_lambda``."""
    return "--" + name.replace("_", "-")


LARGEST_NUMBER = 2**31  # torch and numpy accept this everywhere


def whole_number(smallest: int = 1) -> Callable[[str], int]:
    """A type for argparse: a whole number of at least ``smallest``."""

    def read(text: str) -> int:
        if not text.isdecimal() or len(text) > LONGEST_NUMBER or not smallest <= int(text) < LARGEST_NUMBER:
            limit = f" and below {LARGEST_NUMBER:,}" if text.isdecimal() and len(text) > 9 else ""
            raise argparse.ArgumentTypeError(f"give a whole number of at least {smallest}{limit}, not '{text}'")
        return int(text)

    return read


def finite_number(text: str) -> float:
    """A type for argparse: a number that is not infinite and not NaN."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise argparse.ArgumentTypeError(f"give a finite number such as 1.5, not '{text}'")
    return value


def add_languages(
    parser: argparse._ActionsContainer,
    required: bool = False,
    source: str = "",
    target: str = "",
    sides: Sequence[str] = ("source", "target"),
) -> None:
    """Add -s/--source-lang and -t/--target-lang.

    Args:
        parser: a parser or one of its groups.
        required: whether they must be given.
        source, target: additions to the help, such as the default.
        sides: which of the two to add.
    """
    for side, note in (("source", source), ("target", target)):
        if side in sides:
            text = f"{side} language, such as de" + (f" {note}" if note else "")
            parser.add_argument(f"-{side[0]}", f"--{side}-lang", required=required, metavar="LANG", help=text)


def add_output(
    parser: argparse._ActionsContainer, text: str = "the file to write", metavar: str = "FILE", required: bool = True
) -> None:
    """Add -o/--output, a path.

    Args:
        text: the help.
    """
    parser.add_argument("-o", "--output", type=Path, required=required, metavar=metavar, help=text)


def add_device(parser: argparse._ActionsContainer, fp16: bool = False) -> None:
    """Add --cpu, and --fp16 if ``fp16`` is set."""
    parser.add_argument("--cpu", action="store_true", help="use no GPU even if there is one")
    if fp16:
        parser.add_argument("--fp16", action="store_true", help="compute in half precision; needs a GPU")


ENGINES = ("fairseq", "ctranslate2", "auto")
INT8 = "--int8: fairseq does not compute in 8 bits; give --engine ctranslate2 as well"
NOT_INSTALLED = "is not installed: pip install ctranslate2"


def add_engine(parser: argparse._ActionsContainer) -> None:
    """Add --engine and --int8."""
    parser.add_argument(
        "--engine", choices=ENGINES, default="fairseq",
        help="what runs the models: fairseq (default); ctranslate2, which is faster and runs Transformers only (pip "
        "install ctranslate2); or auto: ctranslate2 where it can",
    )  # fmt: skip
    parser.add_argument("--int8", action="store_true", help="compute in 8 bits, with --engine ctranslate2 or auto")


def engine_words(options: argparse.Namespace) -> list[str]:
    """The options of :func:`add_engine` as words of a command line; none for fairseq.

    Raises:
        UserError: --int8 with fairseq, or CTranslate2 is not installed.
    """
    if options.engine == "ctranslate2" and find_spec("ctranslate2") is None:
        raise UserError(f"--engine ctranslate2: {NOT_INSTALLED}; give --engine fairseq")
    if options.engine != "fairseq":
        return ["--engine", options.engine, *["--int8"] * options.int8]
    if options.int8:
        raise UserError(INT8)
    return []


# The pipeline keeps values as text, for other commands; it gives the types of :mod:`.arguments`.
Type = Callable[[str], Any]
from_0, from_1 = whole_number(0), whole_number(1)


def add_beam(parser: argparse._ActionsContainer, type: Type = from_1) -> None:
    """Add --beam."""
    parser.add_argument("--beam", type=type, default="5", metavar="N", help="beam size (default %(default)s)")


def add_lenpen(parser: argparse._ActionsContainer, type: Type = finite_number, default: str | None = "1") -> None:
    """Add --lenpen."""
    text = "length penalty: above 1 favours longer output (default 1)"
    parser.add_argument("--lenpen", type=type, default=default, metavar="X", help=text)


def add_length_limit(parser: argparse._ActionsContainer) -> None:
    """Add --max-len-a and --max-len-b, as text for fairseq; :func:`check_length_limit` checks them."""
    parser.add_argument(
        "--max-len-a",
        type=decimal,
        metavar="A",
        help="a translation of n source tokens has at most A * n + B tokens ...",
    )
    parser.add_argument(
        "--max-len-b", type=count, metavar="B",
        help="... (default: from the lengths in the training text, with some room). Translations that are cut off at "
        "this limit are counted",
    )  # fmt: skip


def check_length_limit(options: argparse.Namespace) -> None:
    """Raises UserError if only one of --max-len-a and --max-len-b was given."""
    if (options.max_len_a is None) != (options.max_len_b is None):
        raise UserError("give both --max-len-a and --max-len-b, or neither")


def length_limit_words(options: argparse.Namespace) -> list[str]:
    """--max-len-a and --max-len-b as words of a command line; none if not given."""
    if options.max_len_a is None:
        return []
    # fairseq cannot tell its defaults, 0 and 200, from the same values that were given
    factor = options.max_len_a if float(options.max_len_a) else "1e-9"
    return ["--max-len-a", factor, "--max-len-b", options.max_len_b]


def length_limit_given(options: argparse.Namespace) -> dict[str, float]:
    """--max-len-a and --max-len-b as numbers, by the names of fairseq's ``GenerationConfig``; nothing if not given."""
    words = length_limit_words(options)
    return {"max_len_a": float(words[1]), "max_len_b": int(words[3])} if words else {}


def add_max_tokens(parser: argparse._ActionsContainer, type: Type = from_1) -> None:
    """Add --max-tokens of a search."""
    text = "tokens of a batch, padding included (default %(default)s)"
    parser.add_argument("--max-tokens", type=type, default="4096", metavar="N", help=text)


def add_language_models(
    parser: argparse._ActionsContainer, default: str = "those that the pair was trained with", type: Type = str
) -> None:
    """Add --src-lm and --tgt-lm.

    Args:
        default: the models that are used without these options, for the help.
    """
    parser.add_argument("--src-lm", type=type, metavar="FILE", help="language model of the source language ...")
    text = f"... and of the target language (default: {default})"
    parser.add_argument("--tgt-lm", type=type, metavar="FILE", help=text)


def add_split(parser: argparse._ActionsContainer, note: str = "", default: str | None = None, type: Type = str) -> None:
    """Add --split.

    Args:
        note: the end of the help, such as the default.
    """
    text = f"a split of the data, such as test {note}".rstrip()
    parser.add_argument("--split", type=type, default=default, metavar="NAME", help=text)


def add_dest(
    parser: argparse._ActionsContainer, note: str = "(default: the one that RUN records)", type: Type = str
) -> None:
    """Add --dest, a folder to read.

    Args:
        note: the end of the help.
    """
    text = f"the folder that dual-fairseq preprocess wrote {note}"
    parser.add_argument("--dest", type=type, metavar="DEST", help=text)


def add_sacrebleu_tokenize(parser: argparse._ActionsContainer) -> None:
    """Add --sacrebleu-tokenize."""
    parser.add_argument(
        "--sacrebleu-tokenize", default="", metavar="NAME",
        help="sacreBLEU's tokenizer (default: 13a, or the target language's: zh, ja-mecab, ko-mecab, and char for "
        "Thai, Lao, Khmer and others; none for text of --tokenizer none, whose words are scored as they are)",
    )  # fmt: skip


def add_dry_run(parser: argparse._ActionsContainer) -> None:
    """Add --dry-run."""
    text = "print the fairseq commands that this would run, and do nothing"
    parser.add_argument("--dry-run", action="store_true", help=text)


def add_seed(parser: argparse._ActionsContainer, type: Type = from_0) -> None:
    """Add --seed."""
    text = "seed of the random numbers; the same seed gives the same result (default %(default)s)"
    parser.add_argument("--seed", type=type, default="1", metavar="N", help=text)


def add_workers(parser: argparse._ActionsContainer) -> None:
    """Add --workers."""
    text = "processes to use (default: the number of processors)"
    parser.add_argument("--workers", type=whole_number(), default=os.cpu_count() or 1, metavar="N", help=text)
