"""A report on one run or on several: a table on the terminal, and a page with pictures and examples.

Each RUN is a folder of scripts/train_dual.sh (or of make demo). The page shows both directions' NLL and BLEU over
updates, the gap, scatters of log P(x) + log P(y|x) against log P(y) + log P(x|y), scores with sacreBLEU's significance
test, and translations side by side. What a run lacks (a stage, an evaluation, language models) is left out with a note;
a run that still trains can be looked at any time. Runs given together, say of other seeds or λ, share tables and
pictures.
"""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from ..common.errors import UserError
from ..pair.evaluate import write_whole
from . import Options, build, text_table
from .runs import read_runs


def whole_number(text: str) -> int:
    """A number above 0, for argparse."""
    if not text.isdecimal() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"give a whole number above 0, not '{text}'")
    return int(text)


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line; see the first lines of this file."""
    parser = argparse.ArgumentParser(
        prog="dual-fairseq report",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("runs", metavar="RUN", nargs="*", type=Path, help="a folder of scripts/train_dual.sh")
    parser.add_argument(
        "--html", metavar="FILE", type=Path, nargs="?", help="the page (default: report.html in the first RUN)"
    )
    parser.add_argument("--split", metavar="NAME", help="what to show the scores of (default: test if there is one)")
    parser.add_argument(
        "--examples", metavar="N", type=whole_number, default=6, help="sentences a direction (default 6)"
    )
    parser.add_argument("--no-scatter", action="store_true", help="score no sentence pairs: no models are loaded")
    parser.add_argument("--pairs", metavar="N", type=whole_number, default=1000,
                        help="sentence pairs to score for scatters (default 1000)")  # fmt: skip
    parser.add_argument("--data", metavar="DEST", type=Path,
                        help="the folder of scripts/preprocess.sh, where it is not where the run found it")  # fmt: skip
    parser.add_argument("--cpu", action="store_true", help="use no GPU even if there is one")
    given = parser.parse_args(arguments)
    if given.html is not None and given.html.is_dir():  # --html RUN
        given.runs, given.html = [given.html, *given.runs], None
    if not given.runs:
        parser.error("give the folder of a run")
    out = given.html or given.runs[0] / "report.html"
    runs = read_runs(given.runs)
    if not out.parent.is_dir():
        raise UserError(f"--html {out}: there is no folder {out.parent}")
    if given.data is not None and not given.data.is_dir():
        raise UserError(f"--data {given.data}: there is no such folder")
    options = Options(given.split, given.examples, not given.no_scatter, given.pairs, given.data, given.cpu)
    rows, sections = build(runs, options)
    if rows:
        print(text_table(rows))
    else:
        print("Nothing was evaluated yet; see scripts/evaluate.sh.")
    from .page import page, paragraph

    title = ", ".join(run.name for run in runs)
    command = shlex.join(["python", "-m", "dual_fairseq", "report", *(arguments or sys.argv[1:])])
    write_whole(out, page(f"Dual training: {title}", paragraph(f"Made by {command}", "muted"), sections))
    print(f"\nPage: {out} ({out.stat().st_size / 1024:,.0f} KB)")
