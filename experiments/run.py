"""What one way of training a pair gains over another: from raw text to a table with seeds and significance.

    python experiments/run.py experiments/recipes/multi30k-3k.toml WORK --seeds 1 2 3 --jobs 2 [--from FOLDER] [--cpu]

A recipe names a corpus, language models, a warm start and rows. Each seed trains a warm start, and each row continues
it for the same number of updates. The commands of this repository do the work; the same command continues where it was
stopped. All choices are made on the validation text (checkpoint by BLEU, length penalty, weights of dual inference);
the test text is scored once for each row and seed.

WORK gets a table (RECIPE.md, RECIPE.json, RECIPE.png), the commands' output (logs/) and the runs (seed-N/ROW).
--results FOLDER also writes RECIPE.md to FOLDER; experiments/results holds the tables that the documentation refers to.
Recipes that share a WORK share what has the same name in both: corpus, language models, warm starts, rows. A recipe for
a part of the corpus has its own warm starts and rows, in WORK/PART/seed-N.
"""

from __future__ import annotations

from pathlib import Path

from plan import Plan
from recipe import Recipe, training_parser
from runner import Runner, run_all
from table import tabulate


def main() -> None:
    parser = training_parser(__doc__)
    parser.add_argument("--results", type=Path, metavar="FOLDER", help="also write the table to FOLDER/RECIPE.md")
    options = parser.parse_args()
    recipe, work = Recipe.read(options.recipe), options.work.resolve()
    if not options.table:
        with Runner(work, ["--cpu"] if options.cpu else []) as runner:
            run_all(Plan(recipe, work, runner, options.folder).jobs(options.seeds), options.jobs, runner)
    tabulate(recipe, work, options.seeds, options.recipe.stem, options.results)


if __name__ == "__main__":
    main()
