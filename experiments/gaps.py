"""What training did to the gap: its spread by row, and what became of the pairs whose gap was large at the warm start.

    python experiments/gaps.py experiments/multi30k-3k.toml WORK --seeds 1 2 3 [--cpu]

Comes after experiments/run.py with the same recipe and WORK. Where 2·λ·|gap| > 1, the gradient of one direction's loss
makes its own reference less probable (a negative weight of log P); pairs are grouped by that, for --lambda, at the warm
start. WORK gets RECIPE-gaps.md and RECIPE-gaps.png. The same command goes on where it was stopped.
"""

from __future__ import annotations

import csv
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from recipe import Recipe, experiment_parser
from runner import Runner
from table import markdown, mean_sd

COLUMNS = ("log_p_y_given_x", "log_p_x_given_y", "gap", "tokens_x", "tokens_y")
Scores = dict[str, np.ndarray]


def scores_of(
    recipe: Recipe, work: Path, seeds: Sequence[int], splits: Sequence[str], runner: Runner
) -> dict[tuple[str, str], list[Scores]]:
    """(row, split) → for each seed the columns of ``dual-fairseq score``, (N,) each, nats."""
    models = work / "lm" / recipe.first_language_models
    lms = [("--src-lm", recipe.source), ("--tgt-lm", recipe.target)]
    given = [str(word) for name, language in lms for word in (name, models / language / "checkpoint_best.pt")]
    found: dict[tuple[str, str], list[Scores]] = {}
    for seed in seeds:
        for row in recipe.rows:
            home = recipe.home(row, seed)
            # rows after as many updates; all of them go on from the best of the warm start
            name = "checkpoint_best" if row.stage == "warmup" else "checkpoint_last"
            checkpoint = work / home / row.id / row.stage / f"{name}.pt"
            for split in splits:
                path = checkpoint.parent / f"{name}.gaps.{split}.tsv"
                if not path.is_file() or path.stat().st_mtime < checkpoint.stat().st_mtime:
                    print(f"{home}/{row.id}: {split}", flush=True)
                    unfinished = path.with_suffix(".unfinished")
                    command = [sys.executable, "-m", "dual_fairseq", "score", str(checkpoint), "-s", recipe.source,
                               "-t", recipe.target, "--data", str(recipe.data(work) / "dual"), "--split", split, *given,
                               "--output", str(unfinished), *runner.machine]  # fmt: skip
                    runner(f"{home}/{row.id}/gaps", command)
                    unfinished.replace(path)
                with path.open(encoding="utf-8", newline="") as file:
                    lines = list(csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE))
                columns = {name: np.array([float(line[name] or "nan") for line in lines]) for name in COLUMNS}
                found.setdefault((row.id, split), []).append(columns)
    return found


def spread(results: Sequence[Scores], weights: Sequence[float]) -> list[str]:
    """A row's cells in the first table."""
    gaps = [r["gap"] for r in results]
    lengths = [r["tokens_x"] + r["tokens_y"] for r in results]
    return [
        mean_sd([float(g.mean()) for g in gaps]),
        mean_sd([float(np.abs(g).mean()) for g in gaps]),
        f"{np.mean([g.std() for g in gaps]):.2f}",
        f"{np.mean([np.quantile(np.abs(g), 0.95) for g in gaps]):.1f}",
        f"{np.mean([np.corrcoef(np.abs(g), n)[0, 1] for g, n in zip(gaps, lengths, strict=True)]):.2f}",
        *(f"{100 * np.mean([(2 * weight * np.abs(g) > 1).mean() for g in gaps]):.1f} %" for weight in weights),
    ]


def changes(
    recipe: Recipe, found: dict[tuple[str, str], list[Scores]], split: str, threshold: float
) -> list[list[str]]:
    """The second table, without its head: what changed since the warm start, by the gap that pairs had there."""
    table = []
    for row in recipe.rows[1:]:
        cells = [row.name]
        for side in (1, 0, -1):
            of_seed = []
            for before, after in zip(found["warmup", split], found[row.id, split], strict=True):
                gap = before["gap"]
                group = np.abs(gap) <= threshold if side == 0 else side * gap > threshold
                names = ("log_p_y_given_x", "log_p_x_given_y")
                of_seed.append([(after[name] - before[name])[group].mean() for name in names])
            forward, backward = np.mean(of_seed, axis=0)
            cells += [f"{forward:+.2f}", f"{backward:+.2f}"]
        table.append(cells)
    return table


def tables(recipe: Recipe, found: dict[tuple[str, str], list[Scores]], splits: Sequence[str], weight: float) -> str:
    threshold = 1 / (2 * weight)
    weights = (0.01, 0.1) if weight in (0.01, 0.1) else (weight,)
    lines = [f"## The gap: {recipe.title}", ""]
    for split in splits:
        shares = (f"2λ|gap| > 1, λ = {w:g}" for w in weights)
        head = (split, "mean gap", "mean |gap|", "s.d.", "95 % below", "correlation with length", *shares)
        lines += [*markdown(head, [[row.name, *spread(found[row.id, split], weights)] for row in recipe.rows]), ""]
    for split in splits:
        share = [np.mean([(side * r["gap"] > threshold).mean() for r in found["warmup", split]]) for side in (1, -1)]
        groups = (f"gap > {threshold:g} ({share[0]:.0%})", "between", f"gap < −{threshold:g} ({share[1]:.0%})")
        kinds = [f"{group}: Δ log P({p})" for group in groups for p in ("y|x", "x|y")]
        lines += [*markdown([split, *kinds], changes(recipe, found, split, threshold)), ""]
    lines += [
        f"x is {recipe.source}, y {recipe.target}; nats a sentence pair, after the last update of each row, by the",
        f"language models '{recipe.first_language_models}'. s.d.: over pairs; correlation: of |gap| with the tokens of",
        "both sides. Δ: from the warm start on, mean over the pairs of the group that they were in there. Pairs chosen",
        "by a large gap come back towards the mean under any training: the difference between rows tells.",
    ]
    return "\n".join(lines) + "\n"


def picture(recipe: Recipe, found: dict[tuple[str, str], list[Scores]], splits: Sequence[str], path: Path) -> None:
    """How the gap spreads over the pairs of all seeds, a panel a split, a line a row."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, panels = plt.subplots(1, len(splits), figsize=(5.5 * len(splits), 3.6), squeeze=False, layout="constrained")
    widest = max(np.quantile(np.abs(r["gap"]), 0.99) for results in found.values() for r in results)
    for axes, split in zip(panels[0], splits, strict=True):
        for number, row in enumerate(recipe.rows):
            gaps = np.concatenate([r["gap"] for r in found[row.id, split]])
            axes.hist(gaps, bins=np.linspace(-widest, widest, 60), density=True, histtype="step", label=row.name,
                      color="0.6" if number == 0 else f"C{number - 1}")  # fmt: skip
        axes.set_xlabel(f"gap, nats ({split})")
        axes.set_yticks([])
    panels[0][-1].legend(fontsize=7)
    figure.suptitle(recipe.title)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def main() -> None:
    parser = experiment_parser(__doc__)
    parser.add_argument("--splits", nargs="+", default=["train", "valid"])
    parser.add_argument("--lambda", dest="weight", type=float, default=0.1, help="of the groups (default 0.1)")
    options = parser.parse_args()
    recipe, work = Recipe.read(options.recipe), options.work.resolve()
    try:
        with Runner(work, ["--cpu"] if options.cpu else []) as runner:
            found = scores_of(recipe, work, options.seeds, options.splits, runner)
    except FileNotFoundError as error:
        sys.exit(f"{error.filename}: there is no such checkpoint; experiments/run.py with this recipe makes it")
    text = tables(recipe, found, options.splits, options.weight)
    (work / f"{options.recipe.stem}-gaps.md").write_text(text, encoding="utf-8")
    picture(recipe, found, options.splits, work / f"{options.recipe.stem}-gaps.png")
    print(text)


if __name__ == "__main__":
    main()
