"""Report on one or several runs: print a table, and write a page with pictures and examples.

Each RUN is a folder of dual-fairseq train (or of the demo). The page shows both directions' NLL and BLEU over
updates, the gap, scatters of log P(x) + log P(y|x) against log P(y) + log P(x|y), scores with sacreBLEU's significance
test, and translations side by side. If a run lacks a part (a stage, an evaluation, language models), a note
says so. The command also works while a run trains. Several RUNs (such as other seeds or λ) share tables and pictures.
"""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from ..common.arguments import Parser
from ..common.errors import UserError
from ..common.files import check_output, write_text
from ..common.options import add_dest, add_device, add_output, add_split, whole_number
from .runs import Run, read_runs


def inputs(runs: Sequence[Run]) -> list[Path]:
    """The files that a report reads, which it must not overwrite."""
    return [path for run in runs for path in run.folder.rglob("*") if path.suffix in (".pt", ".json", ".txt", ".log")]


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line; see the first lines of this file."""
    parser = Parser("report", str(__doc__))
    parser.add_argument("runs", metavar="RUN", nargs="+", type=Path, help="the folder of dual-fairseq train")
    add_output(parser, "the page (default: report.html in the first RUN)", required=False)
    add_split(parser, "(default: test, or another one if test was not evaluated)")
    parser.add_argument(
        "--examples", metavar="N", type=whole_number(), default=6, help="sentences per direction (default %(default)s)"
    )
    parser.add_argument("--no-scatter", action="store_true", help="do not score sentence pairs: no models are loaded")
    parser.add_argument(
        "--pairs", metavar="N", type=whole_number(), default=1000,
        help="sentence pairs to score for scatters (default %(default)s)",
    )  # fmt: skip
    add_dest(parser, type=Path)
    add_device(parser)
    options = parser.parse_args(arguments)
    out = options.output or options.runs[0] / "report.html"
    runs = read_runs(options.runs)
    if not out.parent.is_dir():
        raise UserError(f"--output {out}: there is no folder {out.parent}")
    check_output(out, inputs(runs))
    if options.dest is not None and not options.dest.is_dir():
        raise UserError(f"--dest {options.dest}: there is no such folder")
    from .build import Options, build  # drawing takes a while to import
    from .page import Paragraph, render
    from .scores import text_table

    rows, notes, sections = build(
        runs,
        Options(options.split, options.examples, not options.no_scatter, options.pairs, options.dest, options.cpu),
    )
    if rows:
        print("\n".join([text_table(rows), *notes]))
    else:
        print("Nothing was evaluated yet; see dual-fairseq evaluate.")
    title = ", ".join(run.name for run in runs)
    command = shlex.join(["dual-fairseq", "report", *(arguments or sys.argv[2:])])
    write_text(out, render(f"Dual training: {title}", Paragraph(f"Made by {command}", "muted"), sections))
    print(f"\nPage: {out} ({out.stat().st_size / 1024:,.0f} KB)")
