"""``dual-fairseq experiment``: compares ways of training a pair, in a table."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ..common.arguments import Parser
from ..common.errors import UserError
from .plan import Plan
from .recipe import Recipe, add_training
from .runner import Runner, run_all
from .table import tabulate

HELP = """\
Compare several settings and seeds of training a pair, from one warm start and one pair of language models, in one table
with significance.

RECIPE is a file that names the data, language models, a warm start and rows (docs/experiments.md has one to copy). Each
seed trains a warm start, and each row continues it for the same number of updates. All choices are made on the
validation text (checkpoint by BLEU, length penalty, weights of dual inference). The test text is scored once for each
row and seed. If the command was stopped, run it again: it continues.

WORK holds the table (RECIPE.md, RECIPE.json, RECIPE.png), the output of the commands (logs/) and the runs (seed-N/ROW).
Recipes with the same WORK share everything that has the same name in both: corpus, language models, warm starts, rows.
A recipe for a part of the corpus has its own warm starts and rows, in WORK/PART/seed-N.
"""


def get_parser() -> Parser:
    """The options of the command."""
    parser = Parser("experiment", HELP)
    add_training(parser)
    parser.add_argument("--results", type=Path, metavar="FOLDER", help="also write the table to FOLDER/RECIPE.md")
    return parser


def main(arguments: Sequence[str] | None = None) -> None:
    """The command.

    Raises:
        UserError: the user has something to fix, or a command failed.
    """
    options = get_parser().parse_args(arguments)
    if options.results and not options.results.is_dir():
        raise UserError(f"--results {options.results}: there is no such folder; make it first")
    recipe, work = Recipe.read(options.recipe), work_of(options.recipe, options.work)
    if not options.table:
        runner = Runner(work, ["--cpu"] if options.cpu else [])
        run_all(Plan(recipe, work, runner, options.folder).jobs(options.seeds), options.jobs, runner)
    tabulate(recipe, work, options.seeds, options.recipe, options.results)


def work_of(recipe: Path, work: Path | None) -> Path:
    """The folder of an experiment: by default one named after the recipe, in ``runs``."""
    return (work or Path("runs") / recipe.stem).resolve()
