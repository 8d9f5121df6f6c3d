"""Which settings make the strongest baseline: a recipe's warm start and its variants, on the validation text.

    python experiments/baseline.py experiments/recipes/multi30k-3k.toml WORK --seeds 1 --jobs 2 [--from FOLDER] [--cpu]

A variant has other options of dual-fairseq train or preprocess. The test text is not used. WORK gets
RECIPE-baseline.md; WORK/baseline/VARIANT (or WORK/PART/baseline/VARIANT) gets the runs. The recipe's own warm start is
that of dual-fairseq experiment. The same command continues where it was stopped.
"""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from dual_fairseq.common.arguments import Parser
from dual_fairseq.common.errors import UserError
from dual_fairseq.common.files import write_text
from dual_fairseq.common.interruption import stoppable
from dual_fairseq.experiment.plan import Plan
from dual_fairseq.experiment.recipe import Recipe, Variant, add_training
from dual_fairseq.experiment.run import work_of
from dual_fairseq.experiment.runner import Job, Runner, run_all
from dual_fairseq.experiment.table import markdown, mean_sd


def jobs_of(plan: Plan, seeds: Sequence[int]) -> list[Job]:
    """The recipe's own warm start and all variants, of each seed."""
    corpus, commands = plan.corpus
    jobs = plan.corpus_jobs()
    for home, seed in plan.warm_starts(seeds).items():
        jobs.append(plan.warm_start_job(f"{home}/warmup", [corpus], plan.data, plan.work / home / "warmup", seed))
    for variant in plan.recipe.variants:
        folder, data, waits = home_of(plan.recipe, plan.work, variant), plan.data, [corpus]
        if variant.preprocess:
            data = folder / "data"
            waits = [str(data.relative_to(plan.work))]
            made = (waits[0], commands[-1:], data, *shlex.split(variant.preprocess))
            jobs.append(Job(waits[0], lambda made=made: plan.make_corpus(*made), [corpus]))
        options = shlex.split(variant.options)
        for seed in seeds:
            name = str((folder / f"seed-{seed}").relative_to(plan.work))
            jobs.append(plan.warm_start_job(name, waits, data, folder / f"seed-{seed}", seed, options))
    return jobs


def home_of(recipe: Recipe, work: Path, variant: Variant) -> Path:
    """The folder of its runs."""
    return work / recipe.part / "baseline" / variant.id


def table(recipe: Recipe, work: Path, seeds: Sequence[int]) -> str:
    """Markdown; a line for each warm start that all seeds have."""
    from dual_fairseq.report.runs import read_run

    directions = (f"{recipe.source}-{recipe.target}", f"{recipe.target}-{recipe.source}")
    runs = {"as in the recipe": recipe.folders(work, recipe.rows[0], seeds)}
    for variant in recipe.variants:
        runs[variant.name] = [home_of(recipe, work, variant) / f"seed-{seed}" for seed in seeds]
    head = ["warm start", *(direction.replace("-", "→") for direction in directions), "mean BLEU", "updates", "hours"]
    body, missing = [], []
    for name, folders in runs.items():
        stages = [read_run(folder).stages["warmup"] for folder in folders if (folder / "warmup" / "finished").is_file()]
        if len(stages) < len(folders):
            missing.append(name)
            continue
        scores = [[stage.best[f"bleu_{direction}"] for stage in stages] for direction in directions]
        means = [stage.best["bleu"] for stage in stages]
        updates = max(int(stage.train[-1]["num_updates"]) for stage in stages)
        hours = sum(epoch["train_wall"] for stage in stages for epoch in stage.train) / 3600 / len(stages)
        body.append([name, *map(mean_sd, scores), mean_sd(means), f"{updates:,}", f"{hours:.2f}"])
    lines = [
        f"## {recipe.title}: validation BLEU of the warm start",
        "",
        *markdown(head, body),
        "",
        f"Seeds {', '.join(map(str, seeds))}; greedy search, detokenised, of the best checkpoint by mean BLEU.",
    ]
    lines += [f"Not trained yet: {'; '.join(missing)}."] if missing else []
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = Parser("experiments/baseline.py", str(__doc__))
    add_training(parser)
    options = parser.parse_args(sys.argv[1:])
    recipe, work = Recipe.read(options.recipe), work_of(options.recipe, options.work)
    if not recipe.variants:
        raise UserError(f"{options.recipe}: names no variants; add some: [[variant]] with id, name, options")
    if not options.table:
        runner = Runner(work, ["--cpu"] if options.cpu else [])
        with stoppable():
            run_all(jobs_of(Plan(recipe, work, runner, options.folder), options.seeds), options.jobs, runner)
    text = table(recipe, work, options.seeds)
    write_text(work / f"{options.recipe.stem}-baseline.md", text)
    print(text)


if __name__ == "__main__":
    main()
