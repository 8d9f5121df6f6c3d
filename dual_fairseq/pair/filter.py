"""Keep the good pairs of noisy parallel text, with the table of scores from ``dual-fairseq score``.

    dual-fairseq filter scores.tsv --source my.de --target my.en --keep 0.8 --output-prefix clean

A statistic of the four log-probabilities separates good pairs from bad pairs. A pair of models and their language
models give two estimates of the pointwise mutual information of x and y:

    log P(y|x) − log P(y)    and    log P(x|y) − log P(x)

Each is the log-likelihood ratio of "y translates x" to "x and y are independent". If the models are right, this is the
best test of a misaligned pair, by the lemma of Neyman and Pearson. The difference of the two estimates is the gap. If
the models agree, it is 0 for good and for bad pairs: it shows how much they disagree, not how good the pair is.
"""

from __future__ import annotations

import argparse
import math
import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np

from ..common.arguments import Parser
from ..common.errors import UserError
from ..common.files import check_output, whole_file
from ..common.options import finite_number
from ..common.progress import say
from ..data.lines import read_rows, survey
from .score_table import DIGITS, LOG_PROBS, read_table, scored_text

Columns = Mapping[str, np.ndarray]
# The side with more characters mostly has more tokens. Over at least FEWEST_PAIRS pairs, the logarithms of the two
# length ratios have a correlation near 1, or near -1 if the files are exchanged.
FEWEST_PAIRS, EXCHANGED = 20, -0.5


@dataclass(frozen=True)
class Statistic:
    """A number for each sentence pair that separates good pairs from bad ones.

    Attributes:
        formula: for readers.
        compute: table columns → (N,) values; NaN if a value cannot be computed.
        higher_is_better: whether good pairs have large values.
        needs_language_models: whether it uses log P(x) or log P(y).
    """

    formula: str
    compute: Callable[[Columns], np.ndarray]
    higher_is_better: bool = True
    needs_language_models: bool = True

    def goodness(self, columns: Columns) -> np.ndarray:
        """The values, with a sign so that larger is better."""
        return self.compute(columns) if self.higher_is_better else -self.compute(columns)


def _tokens(c: Columns) -> np.ndarray:
    return c["tokens_x"] + c["tokens_y"]


def _forward(c: Columns) -> np.ndarray:
    return c["log_p_y_given_x"] / c["tokens_y"]


def _reverse(c: Columns) -> np.ndarray:
    return c["log_p_x_given_y"] / c["tokens_x"]


def _dual_cross_entropy(c: Columns) -> np.ndarray:
    forward, reverse = -_forward(c), -_reverse(c)
    return np.abs(forward - reverse) + (forward + reverse) / 2


def _pmi_forward(c: Columns) -> np.ndarray:
    return c["log_p_y_given_x"] - c["log_p_y"]


def _pmi_reverse(c: Columns) -> np.ndarray:
    return c["log_p_x_given_y"] - c["log_p_x"]


def _pmi(c: Columns) -> np.ndarray:
    return (_pmi_forward(c) + _pmi_reverse(c)) / 2


def _normalized_pmi(c: Columns) -> np.ndarray:
    return _pmi(c) / (-sum(c[name] for name in LOG_PROBS) / 2)


def _gap(c: Columns) -> np.ndarray:
    return np.abs(_pmi_forward(c) - _pmi_reverse(c))


STATISTICS: dict[str, Statistic] = {
    "normalized_pmi": Statistic("pmi / −½ [log P(x) + log P(y|x) + log P(y) + log P(x|y)]", _normalized_pmi),
    "conditionals": Statistic(
        "½ [log P(y|x)/|y| + log P(x|y)/|x|]", lambda c: (_forward(c) + _reverse(c)) / 2, True, False
    ),
    "dual_cross_entropy": Statistic(
        "|H(y|x) − H(x|y)| + ½ [H(y|x) + H(x|y)], H = −log P / tokens", _dual_cross_entropy, False, False
    ),
    "pmi": Statistic("½ [log P(y|x) − log P(y) + log P(x|y) − log P(x)]", _pmi),
    "pmi_per_token": Statistic("pmi / (|x| + |y|)", lambda c: _pmi(c) / _tokens(c)),
    "pmi_forward": Statistic("log P(y|x) − log P(y)", _pmi_forward),
    "pmi_reverse": Statistic("log P(x|y) − log P(x)", _pmi_reverse),
    "forward": Statistic("log P(y|x) / |y|", _forward, True, False),
    "reverse": Statistic("log P(x|y) / |x|", _reverse, True, False),
    "gap": Statistic("|gap|", _gap, False),
    "gap_per_token": Statistic("|gap| / (|x| + |y|)", lambda c: _gap(c) / _tokens(c), False),
}


def choose(goodness: np.ndarray, keep: float | None = None, threshold: float | None = None) -> np.ndarray:
    """Which pairs to keep.

    Args:
        goodness: (N,) larger is better; NaN is never kept.
        keep: the share of all N pairs to keep (fewer if too few have a value); among equals, the first.
        threshold: instead, keep the pairs that are at least this good.

    Returns:
        (N,) bool.
    """
    known = ~np.isnan(goodness)
    if threshold is not None:
        return known & (goodness >= threshold)
    assert keep is not None
    order = np.argsort(np.where(known, -goodness, np.inf), kind="stable")
    chosen = np.zeros(len(goodness), dtype=bool)
    chosen[order[: min(round(keep * len(goodness)), int(known.sum()))]] = True
    return chosen


def get_parser() -> Parser:
    """The options of filtering."""
    lines = [
        f"  {name:<20}{'' if s.higher_is_better else '(low is good) '}{s.formula}" for name, s in STATISTICS.items()
    ]
    parser = Parser(
        "filter",
        "Keep the best pairs of parallel text, by the table of scores that dual-fairseq score made of it.\n\n"
        "PREFIX.de and PREFIX.en (named as --source and --target end) get the pairs in the order of the input. Pairs\n"
        "without a value are dropped.",
    )
    parser.usage = (
        "dual-fairseq filter SCORES --source FILE --target FILE --output-prefix PREFIX "
        "(--keep SHARE | --threshold VALUE) [options]"
    )
    parser.epilog = (
        "statistics for --by (log-probabilities in nats; |x|, |y| in tokens):\n"
        + "\n".join(lines)
        + "\n\ndocs/scoring.md compares them."
    )
    parser.add_argument("scores", type=Path, metavar="SCORES", help="table of dual-fairseq score (or .gz)")
    parser.add_argument("--source", type=Path, required=True, metavar="FILE", help="the source text that was scored")
    parser.add_argument("--target", type=Path, required=True, metavar="FILE", help="the target text that was scored")
    parser.add_argument(
        "--output-prefix", required=True, metavar="PREFIX", help="the beginning of the names of the files to write"
    )
    parser.add_argument(
        "--by",
        choices=STATISTICS,
        default="normalized_pmi",
        metavar="NAME",
        help="the statistic that decides about a pair, see below (default %(default)s)",
    )
    how = parser.add_mutually_exclusive_group(required=True)
    how.add_argument("--keep", type=finite_number, metavar="SHARE", help="the share of all lines to keep, e.g. 0.8")
    how.add_argument(
        "--threshold", type=finite_number, metavar="VALUE", help="keep pairs whose value is this good or better"
    )
    parser.add_argument(
        "--dropped", type=Path, metavar="FILE", help="also write the dropped pairs: line, value, source, target"
    )
    return parser


def main(arguments: Sequence[str]) -> None:
    """The command line of filtering.

    Raises:
        UserError: an option or a file is wrong.
    """
    options = get_parser().parse_args(arguments)
    if options.keep is not None and not 0 < options.keep <= 1:
        percent = 1 < options.keep <= 100
        advice = f"; did you mean {options.keep / 100:g}?" if percent else ""
        raise UserError(f"--keep {options.keep:g}: is a share, above 0 and at most 1{advice}")
    inputs = [options.scores, options.source, options.target]
    suffixes = [re.sub(r"\.gz$", "", path.name).rpartition(".")[2] for path in inputs[1:]]
    if suffixes[0] == suffixes[1] or any("." not in re.sub(r"\.gz$", "", path.name) for path in inputs[1:]):
        raise UserError(
            f"--source {options.source} --target {options.target}: name the files by their languages, as in my.de and "
            "my.en; the output is named after them"
        )
    outputs = [Path(f"{options.output_prefix}.{suffix}") for suffix in suffixes]
    if options.dropped in outputs:
        raise UserError(f"--dropped {options.dropped}: is the file of the kept lines; choose another name")
    for path in (*outputs, *filter(None, [options.dropped])):
        check_output(path, inputs)
    texts = {path: survey(path) for path in inputs[1:]}

    columns, statistic = read_table(options.scores), STATISTICS[options.by]
    for path, text in texts.items():
        if text.lines != len(columns["line"]):
            raise UserError(
                f"{path}: has {text.lines:,} lines, but {options.scores} has scores of {len(columns['line']):,} pairs; "
                "give the text that was scored"
            )
    if scored := scored_text(options.scores):
        _check_text(options, scored, [text.sha256[:DIGITS] for text in texts.values()])
    else:
        _check_order(options, columns)
    values = statistic.compute(columns)
    if np.isnan(values).all():
        hint = "; it needs language models (--src-lm, --tgt-lm), --by conditionals does not"
        hint = hint if statistic.needs_language_models else ""
        raise UserError(f"{options.scores}: no pair has a value of --by {options.by}{hint}")
    threshold = options.threshold
    if threshold is not None and not statistic.higher_is_better:
        threshold = -threshold
    kept = choose(statistic.goodness(columns), options.keep, threshold)

    with ExitStack() as stack:
        files = [stack.enter_context(whole_file(path)) for path in (*outputs, *filter(None, [options.dropped]))]
        _copy_lines(options, kept, values, files)
    no_value = int(np.isnan(values).sum())
    say(
        f"kept {int(kept.sum()):,} of {len(kept):,} pairs"
        + (f" with {options.by} from {values[kept].min():.4g} to {values[kept].max():.4g}" if kept.any() else "")
        + (f"; {no_value:,} of those dropped have no value" if no_value else "")
        + f": {outputs[0]}, {outputs[1]}"
    )


def _check_text(options: argparse.Namespace, scored: list[tuple[str, str]], digests: list[str]) -> None:
    """Check that source and target are the text that was scored.

    Raises:
        UserError: a file is not, or the files are exchanged.
    """
    expected = [digest for _, digest in scored]
    if digests == expected:
        return
    if digests == expected[::-1]:
        raise UserError(
            f"--source {options.source} --target {options.target}: are exchanged; give the files as they were scored"
        )
    files = (options.source, options.target)
    others = [f"{path} ({lang})" for path, d, (lang, e) in zip(files, digests, scored, strict=True) if d != e]
    raise UserError(
        f"{options.scores}: has scores of other text than {' and '.join(others)}; give the text that was scored, or "
        "score this text; to filter it line by line by these scores, remove the column text from the table"
    )


def _check_order(options: argparse.Namespace, columns: Columns) -> None:
    """Check that source and target belong to the table: the longer side of each pair must agree.

    Raises:
        UserError: the files look exchanged.
    """
    lengths = [[len(x), len(y)] for rows in read_rows([(options.source, options.target)]) for x, y in rows.lines]
    (x, y), tokens = np.array(lengths, dtype=float).T, (columns["tokens_x"], columns["tokens_y"])
    with np.errstate(divide="ignore", invalid="ignore"):
        text, table = np.log(x / y), np.log(tokens[0] / tokens[1])
    known = np.isfinite(text) & np.isfinite(table)
    if known.sum() < FEWEST_PAIRS or not text[known].std() or not table[known].std():
        return
    if np.corrcoef(text[known], table[known])[0, 1] < EXCHANGED:
        raise UserError(
            f"--source {options.source} --target {options.target}: look exchanged: if a line of the source is the "
            f"longer one, the target has more tokens in {options.scores}; give the files as they were scored"
        )


def _copy_lines(options: argparse.Namespace, kept: np.ndarray, values: np.ndarray, files: Sequence[IO[bytes]]) -> None:
    """Write the kept lines unchanged to the first two files, and the dropped lines to the third."""
    source, target, *dropped = files
    for file in dropped:
        file.write(b"line\tvalue\tsource\ttarget\n")
    index = 0
    for rows in read_rows([(options.source, options.target)]):
        for x, y in rows.lines:
            if kept[index]:
                source.write(x + b"\n")
                target.write(y + b"\n")
            else:
                value = "" if math.isnan(values[index]) else f"{values[index]:.6g}"
                cells = [f"{index + 1}\t{value}".encode(), *(text.replace(b"\t", b" ").rstrip() for text in (x, y))]
                for file in dropped:
                    file.write(b"\t".join(cells) + b"\n")
            index += 1
