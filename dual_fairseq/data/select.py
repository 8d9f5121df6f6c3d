"""Chooses monolingual lines that are like the pairs, by two trigram models (Moore and Lewis, 2010).

    dual-fairseq select --pairs text/train.de --valid text/valid.de --not text/test.de --from more.de.gz -o chosen.de

A line's score is its cross-entropy under a model of the pairs minus its cross-entropy under a model of the monolingual
text. The second model learns as many lines, but not this line. The validation text, which neither model has seen, shows
which scores are normal.
"""

from __future__ import annotations

import argparse
import random
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

from ..common.arguments import Parser
from ..common.errors import UserError
from ..common.files import check_output, whole_file
from ..common.options import add_output, add_seed, finite_number, whole_number
from ..common.progress import Progress, say
from .likeness import form, table
from .lines import read_rows, survey
from .ngrams import Trigrams, tokens, vocabulary
from .normalize import BadLine, decode

DESCRIPTION = """\
Choose the lines of monolingual text that are similar to one side of the pairs.

Two trigram models score each line, one of the pairs and one of the monolingual text (Moore and Lewis, 2010). A line is
chosen if it is as similar to the pairs as most lines of the validation text are. Repeated lines are left out. Sides of
the pairs and lines of the validation text and of --not are left out too; case and punctuation are ignored for this.

For a language model, use the result with dual-fairseq preprocess. For text that a pair will translate, match the
lengths, too. dual-fairseq synthesize does both with --select and --match-lengths."""


def get_parser() -> Parser:
    """The options of the command."""
    parser = Parser("select", DESCRIPTION)
    add = parser.add_argument
    add("--pairs", type=Path, required=True, metavar="FILE", help="the side of the pairs in this language")
    add("--valid", type=Path, required=True, metavar="FILE", help="the same side of the validation text")
    add("--from", dest="candidates", type=Path, required=True, nargs="+", metavar="FILE",
        help="monolingual text to choose from; all text may be plain or .gz")  # fmt: skip
    add("--not", dest="other", type=Path, nargs="+", default=[], metavar="FILE",
        help="more text to leave out, such as the test text")  # fmt: skip
    add_output(parser, "the file for the chosen lines, in the order of the input")
    add("--keep", type=finite_number, default=0.95, metavar="SHARE",
        help="the share of the validation text that would be chosen; a smaller share is stricter (default "
        "%(default)s)")  # fmt: skip
    add("--match-lengths", action="store_true",
        help="draw lines at random with the same distribution of lengths as the pairs")  # fmt: skip
    add("--lines", type=whole_number(), metavar="N",
        help="at most N lines, drawn at random (default: all; with --match-lengths twice the number of "
        "pairs)")  # fmt: skip
    add_seed(parser)
    return parser


class _Bare(dict[int, int | None]):
    """For ``str.translate``: removes punctuation, symbols, spaces and control characters."""

    def __missing__(self, code: int) -> int | None:
        self[code] = None if unicodedata.category(chr(code))[0] in "PSZC" else code
        return self[code]


_BARE = _Bare()


def bare(line: str) -> str:
    """A line without case, spaces and punctuation, for comparing lines."""
    return line.casefold().translate(_BARE)


def read_clean(files: Iterable[Path]) -> list[str]:
    """The usable lines of some files, cleaned like in ``dual-fairseq preprocess``.

    Raises:
        UserError: a file is missing, empty or damaged.
    """
    lines: list[str] = []
    repairs = Counter[str]()
    for file in files:
        survey(file)
        before = len(lines)
        for rows in read_rows([[file]]):
            for (raw,) in rows.lines:
                try:
                    lines.append(decode(raw, repairs))
                except BadLine:
                    continue
        if len(lines) == before:
            raise UserError(f"{file}: no usable line; give UTF-8 text with one sentence per line")
    return lines


def candidates(text: Iterable[str], left_out: Iterable[str]) -> list[str]:
    """The distinct lines of a text that are not in ``left_out``."""
    taken = {bare(line) for line in left_out} | {""}
    return [line for line in dict.fromkeys(text) if bare(line) not in taken]


def near(pairs: Sequence[str], valid: Sequence[str], lines: Sequence[str], keep: float, seed: int) -> list[str]:
    """The lines whose cross-entropy difference is not above the ``keep`` quantile of the validation text.

    Args:
        pairs, valid: the text that lines should be similar to, and the text that shows how similar.
        lines: distinct lines.
        keep: a share of ``valid``.
        seed: chooses the lines that the second model learns.
    """
    known = vocabulary(pairs)
    mixed = random.Random(seed).sample(range(len(lines)), len(lines))
    size = max(1, min(len(pairs), len(lines) // 2))
    halves = [set(mixed[:size]), set(mixed[size : 2 * size])]
    inside = Trigrams(pairs, known)
    outside = [Trigrams((lines[i] for i in sorted(half)), known) for half in halves]
    # neither model of the monolingual text has seen the validation lines
    normal = sorted(inside.bits(line) - outside[1].bits(line) for line in valid)
    bound = normal[min(len(normal) - 1, int(keep * (len(normal) - 1)))]
    chosen = []
    with Progress("select", len(lines), "lines") as bar:
        for number, line in enumerate(lines):
            if inside.bits(line) - outside[number in halves[0]].bits(line) <= bound:
                chosen.append(line)
            bar.update(1)
    return chosen


def draw(lines: Sequence[str], count: int | None, like: Sequence[str] | None, seed: int) -> list[str]:
    """Lines drawn at random, in their original order.

    Args:
        lines: the lines to draw from.
        count: the most lines to draw; None for all, or with ``like`` for twice the number of its lines.
        like: a text whose lengths in tokens decide how many lines of each length are drawn (without the shortest and
            the longest hundredth of its lines); None: any lengths.
    """
    order = random.Random(seed).sample(range(len(lines)), len(lines))
    if like is None:
        return [lines[i] for i in sorted(order[:count])]
    lengths = sorted(len(tokens(line)) for line in like)
    margin = len(lengths) // 100
    share = Counter(lengths[margin : len(lengths) - margin])
    count = count or 2 * len(like)
    # the whole parts of all shares, then the largest remainders
    exact = {length: count * number / share.total() for length, number in share.items()}
    left = {length: int(number) for length, number in exact.items()}
    for length in sorted(exact, key=lambda length: left[length] - exact[length])[: count - sum(left.values())]:
        left[length] += 1
    drawn = []
    for i in order:
        length = len(tokens(lines[i]))
        if left.get(length, 0):
            left[length] -= 1
            drawn.append(i)
    return [lines[i] for i in sorted(drawn)]


def select(options: argparse.Namespace) -> None:
    """Choose lines, as the options of :func:`get_parser` say.

    Raises:
        UserError: a file is missing or unusable, or nothing is chosen.
    """
    inputs = [options.pairs, options.valid, *options.candidates, *options.other]
    check_output(options.output, inputs)
    if not 0 < options.keep <= 1:
        raise UserError(f"--keep {options.keep}: is a share, above 0 and at most 1")
    pairs, valid = read_clean([options.pairs]), read_clean([options.valid])
    text = read_clean(options.candidates)
    other = [line for file in options.other for line in read_clean([file])]
    new = candidates(text, (*pairs, *valid, *other))
    if not new:
        raise UserError(f"{options.candidates[0]}: every line is a side of the pairs or of text to leave out")
    like = near(pairs, valid, new, options.keep, options.seed)
    chosen = draw(like, options.lines, pairs if options.match_lengths else None, options.seed)
    known = vocabulary(pairs)
    texts = {"pairs": pairs, "validation": valid, "monolingual": text, "chosen": chosen}
    print(table((name, form(lines, known)) for name, lines in texts.items()))
    if not chosen:
        raise UserError(f"{options.candidates[0]}: no line is similar to the pairs; try --keep 1, or other text")
    with whole_file(options.output) as file:
        file.writelines(f"{line}\n".encode() for line in chosen)
    say(
        f"{len(text):,} lines; {len(text) - len(new):,} repeated or left out, {len(new) - len(like):,} not similar to "
        f"the pairs, {len(like) - len(chosen):,} not drawn; {len(chosen):,} chosen: {options.output}"
    )


def main(arguments: Sequence[str]) -> None:
    """The command.

    Raises:
        UserError: an option or a file is wrong.
    """
    select(get_parser().parse_args(arguments))
