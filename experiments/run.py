"""From raw text to a table: what one way of training a pair gains over another, with seeds and significance.

    python experiments/run.py experiments/multi30k-3k.toml WORK --seeds 1 2 3 --jobs 2 [--from FOLDER] [--cpu]

A recipe names a corpus, language models, a warm start and rows. Of every seed a pair is warm-started, and each row goes
on from it for the same number of updates. All of it is done by the scripts of this repository; the same command goes on
where it was stopped. All choices are made on the validation text (checkpoint by BLEU, length penalty, weights of dual
inference); the test text is scored once a row and seed.

WORK gets a table (RECIPE.md, RECIPE.json, RECIPE.png), WORK/logs what the commands printed, WORK/seed-N/ROW the runs.
Recipes that share a WORK share what has the same name in both: corpus, language models, warm starts, rows.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import statistics
import sys
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from runner import ROOT, Job, Runner, run_all

sys.path.insert(0, str(ROOT))

SAMPLES = 1000  # of the paired bootstrap


@dataclass
class Row:
    """A way to go on from the warm start.

    Args:
        id: its folder, in WORK/seed-N.
        name: in the table.
        options: of scripts/train_dual.sh.
        language_models: which of the recipe's.
        synthetic: which of the recipe's synthetic text is in its training data.
        baseline: whether the others are compared with it.
        stage: of train_dual.sh, which is evaluated.
    """

    id: str
    name: str
    options: str = ""
    language_models: str = ""
    synthetic: str = ""
    baseline: bool = False
    stage: str = "dual"


@dataclass
class Recipe:
    """What a recipe file holds; ``*_options`` are options of the script in question.

    A file may name another as ``base``, which may do so too, and hold only what differs; with ``only``, a list of ids,
    it takes no more than these of the rows.

    Args:
        title: of the table.
        corpus: commands that make the data, of the repository or ``python -m``; ``{data}`` stands for the folder of
            scripts/preprocess.sh, ``{text}`` for one for raw text.
        language_models: name → options of scripts/train_lm.sh and ``text``, "all" or "parallel".
        pair_options: of scripts/train_dual.sh, for the warm start and all rows.
        warmup_options, continued_options: for the one and for the others.
        rows: the first is the warm start itself.
        synthetic: name → options of scripts/synthesize.sh, by which each warm start makes some, and ``upsample``, of
            scripts/preprocess.sh.
        one_warm_start: every seed goes on from the same warm start, in WORK/shared, whose seed is 1. Saves most of the
            time of long warm starts; the spread between seeds is then that of going on alone.
    """

    title: str
    corpus: list[str]
    language_models: dict[str, dict[str, str]]
    pair_options: str
    warmup_options: str
    continued_options: str
    rows: list[Row]
    synthetic: dict[str, dict[str, Any]] = field(default_factory=dict)
    one_warm_start: bool = False
    beam: int = 10
    source: str = "de"
    target: str = "en"

    @classmethod
    def read(cls, path: Path) -> Recipe:
        """Exits with one line if it cannot be read."""
        try:
            content = read_with_bases(path)
            rows = [Row(**row) for row in content.pop("row")]
            if (only := content.pop("only", None)) is not None:
                if unknown := set(only) - {row.id for row in rows}:
                    raise ValueError(f"only: there is no row {', '.join(sorted(unknown))}")
                rows = [row for row in rows if row.id in only]
            rows.insert(0, Row("warmup", "warm start", stage="warmup"))
            recipe = cls(rows=rows, **content)
        except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
            sys.exit(f"{path}: is not a recipe: {error}")
        if sum(row.baseline for row in rows) != 1:
            sys.exit(f"{path}: one row has to be the baseline")
        for row in rows[1:]:
            row.language_models = row.language_models or next(iter(recipe.language_models))
            if row.language_models not in recipe.language_models:
                sys.exit(f"{path}: row {row.id}: there are no language models '{row.language_models}'")
            if row.synthetic and row.synthetic not in recipe.synthetic:
                sys.exit(f"{path}: row {row.id}: there is no synthetic text '{row.synthetic}'")
        # what only rows of the base need is not made; the first language models evaluate the warm start
        needed = {next(iter(recipe.language_models)), *(row.language_models for row in rows)}
        recipe.language_models = {name: of for name, of in recipe.language_models.items() if name in needed}
        needed = {row.synthetic for row in rows}
        recipe.synthetic = {name: of for name, of in recipe.synthetic.items() if name in needed}
        return recipe

    def home(self, row: Row, seed: int) -> str:
        """The folder in WORK that holds the row's run of this seed."""
        return "shared" if self.one_warm_start and row.stage == "warmup" else f"seed-{seed}"


def read_with_bases(path: Path) -> dict[str, Any]:
    """A recipe file over those that it is based on."""
    content = tomllib.loads(path.read_text(encoding="utf-8"))
    base = content.pop("base", None)
    return read_with_bases(path.parent / base) | content if base else content


def jobs_of(
    recipe: Recipe, work: Path, seeds: Sequence[int], runner: Runner, corpus_options: Sequence[str]
) -> list[Job]:
    """All that has to be done, each job naming what it waits for."""
    data, text = work / "data", work / "text"
    languages = (recipe.source, recipe.target)

    def script(name: str, after: Sequence[str], script: str, *arguments: object) -> Job:
        command = [str(ROOT / "scripts" / script), *runner.machine, *map(str, arguments)]
        return Job(name, lambda: runner(name, command), list(after))

    def corpus(name: str, commands: Sequence[str], data: Path, *more: object) -> None:
        for command in commands:
            words = shlex.split(command.format(data=shlex.quote(str(data)), text=shlex.quote(str(text))))
            if words[0].startswith("scripts/recipes/"):
                words[2:2] = corpus_options
                if "--" not in words:  # behind it are options of preprocess.sh
                    words.append("--")
            words[0] = sys.executable if words[0] == "python" else str(ROOT / words[0])
            runner(name, [*words, *map(str, more)])

    def lms_of(models: str) -> list[object]:
        folder = work / "lm" / (models or next(iter(recipe.language_models)))
        files = [folder / language / "checkpoint_best.pt" for language in languages]
        return ["--src-lm", files[0], "--tgt-lm", files[1]]

    def warm_start(home: str) -> Path:
        return work / home / "warmup" / "warmup" / "checkpoint_best.pt"

    def synthetic_jobs(home: str) -> list[Job]:
        jobs = []
        for made, settings in recipe.synthetic.items():
            prefix, place = work / home / f"synthetic-{made}", work / home / f"data-{made}"
            name, waits = f"{home}/synthetic-{made}", [f"{home}/warmup/test"]
            options = [*lms_of(""), *shlex.split(settings["options"])]
            jobs.append(script(name, waits, "synthesize.sh", data, warm_start(home), prefix, *options))
            more = ("--synthetic", prefix, "--upsample", settings.get("upsample", 1))
            of_it = (f"{home}/data-{made}", recipe.corpus[-1:], place, *more)
            jobs.append(Job(of_it[0], lambda of_it=of_it: corpus(*of_it), [name]))
        return jobs

    def row_jobs(row: Row, home: str, seed: int) -> list[Job]:
        name, folder = f"{home}/{row.id}", work / home / row.id
        # the warm start itself needs no language models, but its evaluation does
        models = row.language_models or next(iter(recipe.language_models))
        given, trained = lms_of(models), [f"lm/{models}/{language}" for language in languages]
        common = ["--seed", str(seed), "--no-eval", *shlex.split(recipe.pair_options)]
        of_row = data
        if row.stage == "warmup":
            options = own_options(common, shlex.split(recipe.warmup_options))
            training = script(name, ["corpus"], "train_dual.sh", data, folder, "--warmup-only", *options)
        else:
            start = recipe.home(recipe.rows[0], seed)
            of_row = work / start / f"data-{row.synthetic}" if row.synthetic else data
            waits = [f"{start}/data-{row.synthetic}" if row.synthetic else f"{start}/warmup", *trained]
            init = ["--init-src2tgt", warm_start(start), "--init-tgt2src", warm_start(start)]
            options = own_options(common, shlex.split(recipe.continued_options) + shlex.split(row.options))
            training = script(name, waits, "train_dual.sh", of_row, folder, *given, *init, *options)
        best = folder / row.stage / "checkpoint_best.pt"
        evaluation = [of_row, best, *given, "--dual-inference", "--beam", recipe.beam]
        return [training, script(f"{name}/test", [name, *trained], "evaluate.sh", *evaluation)]

    jobs = [Job("corpus", lambda: corpus("corpus", recipe.corpus, data))]
    for name, settings in recipe.language_models.items():
        for language in languages:
            of_language, waits = data / "lm" / language, ["corpus"]
            if settings.get("text") == "parallel":
                of_language, waits = work / "parallel" / language, [f"parallel/{language}"]
                side = (data, recipe, language, of_language)
                jobs.append(Job(waits[0], lambda side=side: parallel_text(*side), ["corpus"]))
            options = shlex.split(settings["options"])
            folder = work / "lm" / name / language
            jobs.append(script(f"lm/{name}/{language}", waits, "train_lm.sh", of_language, folder, *options))
    starts = {recipe.home(recipe.rows[0], seed): 1 if recipe.one_warm_start else seed for seed in seeds}
    for home, seed in starts.items():
        jobs += [*row_jobs(recipe.rows[0], home, seed), *synthetic_jobs(home)]
    for seed in seeds:
        for row in recipe.rows[1:]:
            jobs += row_jobs(row, f"seed-{seed}", seed)
    return jobs


def own_options(common: Sequence[str], own: Sequence[str]) -> list[str]:
    """Options of train_dual.sh put together: what is meant for fairseq-train, behind ``--``, stays last."""
    front, back = [], []
    for options in (list(common), list(own)):
        cut = options.index("--") if "--" in options else len(options)
        front += options[:cut]
        back += options[cut + 1 :]
    return [*front, *(["--", *back] if back else [])]


def parallel_text(corpus: Path, recipe: Recipe, language: str, folder: Path) -> None:
    """A side of the parallel text as language model data: the pair's files under a language model's names."""
    folder.mkdir(parents=True, exist_ok=True)
    files = {"dict.txt": f"dict.{language}.txt"}
    for split in ("train", "valid"):
        for kind in ("bin", "idx"):
            files[f"{split}.{kind}"] = f"{split}.{recipe.source}-{recipe.target}.{language}.{kind}"
    for link, name in files.items():
        (folder / link).unlink(missing_ok=True)
        (folder / link).symlink_to(os.path.relpath(corpus / "dual" / name, folder))


# --- the table


@dataclass
class Result:
    """One row, one seed, one direction, on the test text; ``tuned`` is with the length penalty tuned on validation."""

    bleu: float
    chrf: float
    length_ratio: float
    tuned_bleu: float
    tuned_lenpen: float
    tuned_length_ratio: float
    limit_bits: float | None
    dual_inference_bleu: float
    nll_bits: float
    updates: int
    seconds: float
    texts: dict[str, list[str]] = field(repr=False)


def result_of(work: Path, folder: Path, row: Row, direction: str) -> Result:
    """What scripts/evaluate.sh left, and the same translations with the tuned length penalty."""
    from dual_fairseq.demo import entropy_limits
    from dual_fairseq.dual_inference import Weights
    from dual_fairseq.evaluation import detokenize, read_lines, score
    from dual_fairseq.nbest import read_nbest

    out = folder / row.stage / "eval" / "test"
    target = direction.split("-")[1]
    scores = json.loads((out / "scores.json").read_text())[direction]
    tuning = json.loads((out / "tuning" / direction / "weights.json").read_text())
    references = read_lines(out / f"{direction}.ref.txt")
    generated = out / f"{direction}.generate.txt"
    nbest = read_nbest(read_lines(generated), len(references), generated)
    lenpen = tuning["lenpen"]["lenpen"]
    chosen = Weights().score(nbest.components, lenpen).argmax(axis=1)
    tokenizer = json.loads((work / "data" / "preprocess.json").read_text())["tokenizer"]
    tuned = detokenize(nbest.take(chosen), target, tokenizer)
    tuned_scores = score(tuned, references, target)
    limits = entropy_limits(work, "test") if (work / "text" / "truth.json").is_file() else {}
    updates, seconds = spent(folder / row.stage / "train.log")
    re_scored = out / f"{direction}.dual-inference.hyp.txt"
    return Result(
        bleu=scores["bleu"], chrf=scores["chrf"], length_ratio=scores["length_ratio"],
        tuned_bleu=tuned_scores.bleu, tuned_lenpen=lenpen, tuned_length_ratio=tuned_scores.length_ratio,
        limit_bits=limits.get(direction),
        dual_inference_bleu=scores["dual_inference"]["bleu"], nll_bits=scores["nll_bits_per_token"],
        updates=updates, seconds=seconds,
        texts={"ref": references, "plain": read_lines(out / f"{direction}.hyp.txt"), "tuned": tuned,
               "dual inference": read_lines(re_scored)},
    )  # fmt: skip


def spent(log: Path) -> tuple[int, float]:
    """Updates and seconds of training, validation left out."""
    from dual_fairseq.report.runs import read_log

    _, epochs = read_log(log)
    return int(epochs[-1]["num_updates"]), sum(epoch["train_wall"] for epoch in epochs)


def p_value(system: list[str], baseline: list[str], references: list[str], target: str) -> float:
    """sacreBLEU's paired bootstrap of BLEU."""
    from sacrebleu.significance import PairedTest

    from dual_fairseq.evaluation import bleu_metric

    if system == baseline:
        return 1.0
    named = [("baseline", baseline), ("system", system)]
    _, results = PairedTest(named, {"BLEU": bleu_metric(target)}, [references], "bs", n_samples=SAMPLES)()
    return float(next(values for name, values in results.items() if name.startswith("BLEU"))[1].p_value)


def mean_sd(values: Sequence[float], digits: int = 2) -> str:
    spread = f" ± {statistics.stdev(values):.{digits}f}" if len(values) > 1 else ""
    return f"{statistics.fmean(values):.{digits}f}{spread}"


def tabulate(recipe: Recipe, work: Path, seeds: Sequence[int], name: str) -> dict[str, Any]:
    """Read all results, compare each row with the baseline of its seed, and write NAME.md, NAME.json and NAME.png.

    Rows that have not been evaluated for every seed are left out, and named.
    """
    from dual_fairseq.report import quieten_libraries

    quieten_libraries()
    directions = [f"{recipe.source}-{recipe.target}", f"{recipe.target}-{recipe.source}"]
    places = {row.id: [work / recipe.home(row, seed) / row.id for seed in seeds] for row in recipe.rows}
    made = {
        row.id: all((p / row.stage / "eval/test/scores.json").is_file() for p in places[row.id]) for row in recipe.rows
    }
    baseline = next(row for row in recipe.rows if row.baseline)
    if not made[baseline.id]:
        sys.exit(
            f"{work}: the baseline, {baseline.id}, has not been evaluated for every seed yet; give --seeds those done"
        )
    rows = [row for row in recipe.rows if made[row.id]]
    lines = [f"## {recipe.title}", "", f"{len(seeds)} seed(s); mean ± standard deviation; beam {recipe.beam}.", ""]
    record: dict[str, Any] = {"title": recipe.title, "seeds": list(seeds), "rows": {}}
    for direction in directions:
        source, target = direction.split("-")
        results = {row.id: [result_of(work, place, row, direction) for place in places[row.id]] for row in rows}
        limited = results[baseline.id][0].limit_bits is not None
        head = ("", "BLEU", "BLEU, length penalty tuned", "gain", "p < 0.05", "length ratio", "chrF", "dual inference",
                "gain", "NLL, bits", *(["above the limit"] if limited else []), "updates", "hours")  # fmt: skip
        lines += [f"### {source}→{target}", "", "| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
        of_baseline = results[baseline.id]
        for row in rows:
            mine = results[row.id]
            gains = [a.tuned_bleu - b.tuned_bleu for a, b in zip(mine, of_baseline, strict=True)]
            di_gains = [a.dual_inference_bleu - b.tuned_bleu for a, b in zip(mine, of_baseline, strict=True)]
            p = [
                p_value(a.texts["tuned"], b.texts["tuned"], a.texts["ref"], target)
                for a, b in zip(mine, of_baseline, strict=True)
            ]
            better = sum(value < 0.05 and gain > 0 for value, gain in zip(p, gains, strict=True))
            worse = sum(value < 0.05 and gain < 0 for value, gain in zip(p, gains, strict=True))
            verdict = f"{better} of {len(p)}" + (f" ({worse} worse)" if worse else "")
            compared = not row.baseline
            lines.append(
                "| " + " | ".join([
                    row.name, mean_sd([r.bleu for r in mine]), mean_sd([r.tuned_bleu for r in mine]),
                    f"{statistics.fmean(gains):+.2f}" if compared else "", verdict if compared else "",
                    mean_sd([r.tuned_length_ratio for r in mine], 3), mean_sd([r.chrf for r in mine]),
                    mean_sd([r.dual_inference_bleu for r in mine]), f"{statistics.fmean(di_gains):+.2f}",
                    mean_sd([r.nll_bits for r in mine], 3),
                    *([mean_sd([r.nll_bits - r.limit_bits for r in mine], 3)] if limited else []),
                    f"{statistics.fmean(r.updates for r in mine):,.0f}",
                    f"{statistics.fmean(r.seconds for r in mine) / 3600:.2f}",
                ]) + " |"
            )  # fmt: skip
            of_row = record["rows"].setdefault(row.id, {"name": row.name})
            of_row[direction] = {
                "p": p, "gains": gains, "dual_inference_gains": di_gains,
                "results": [{k: v for k, v in vars(r).items() if k != "texts"} for r in mine],
            }  # fmt: skip
        lines.append("")
    lines += [
        "Gains are over the row without one, those of dual inference too. Length penalty and weights of dual inference",
        f"are tuned on the validation text. p: paired bootstrap, {SAMPLES:,} samples, by seed. Hours: of training.",
    ]
    if left_out := [row.id for row in recipe.rows if not made[row.id]]:
        lines += ["", f"Not evaluated yet for all of these seeds: {', '.join(left_out)}."]
    text = "\n".join(lines) + "\n"
    (work / f"{name}.md").write_text(text, encoding="utf-8")
    (work / f"{name}.json").write_text(json.dumps(record, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    picture(recipe.title, rows, record, directions, work / f"{name}.png")
    print(text)
    return record


def picture(title: str, rows: Sequence[Row], record: dict[str, Any], directions: Sequence[str], path: Path) -> None:
    """BLEU by row, a panel a direction: points are seeds, hollow ones with dual inference."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    names = [row.name for row in rows]
    figure, panels = plt.subplots(1, 2, figsize=(11, 0.5 * len(names) + 1.6), sharey=True, layout="constrained")
    for axes, direction in zip(panels, directions, strict=True):
        for y, row in enumerate(rows):
            results = record["rows"][row.id][direction]["results"]
            for key, face, label in (
                ("tuned_bleu", "#1f5fa8", "beam search"),
                ("dual_inference_bleu", "none", "dual inference"),
            ):
                values = [r[key] for r in results]
                axes.scatter(values, [y] * len(values), facecolors=face, edgecolors="#1f5fa8", zorder=3,
                             label=label if y == 0 else None)  # fmt: skip
                axes.plot([statistics.fmean(values)], [y], marker="|", markersize=16, color="black", zorder=4)
        axes.set_title(direction.replace("-", "→"))
        axes.set_xlabel("BLEU, test")
        axes.grid(axis="x", alpha=0.25)
    panels[0].set_yticks(range(len(names)), names)
    panels[0].invert_yaxis()
    panels[1].legend(fontsize=8)
    figure.suptitle(title)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def experiment_parser(description: str | None) -> argparse.ArgumentParser:
    """Of a command that takes a recipe, its folder and some of its seeds."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe", type=Path)
    parser.add_argument("work", type=Path)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--cpu", action="store_true", help="use no GPU even if there is one")
    return parser


def main() -> None:
    parser = experiment_parser(__doc__)
    parser.add_argument("--jobs", type=int, default=1, help="commands side by side (default 1)")
    parser.add_argument(
        "--from", dest="folder", type=Path, metavar="FOLDER", help="--from of the corpus's recipe script"
    )
    parser.add_argument("--table", action="store_true", help="only make the table of what is there")
    options = parser.parse_args()

    recipe, work = Recipe.read(options.recipe), options.work.resolve()
    if not options.table:
        corpus_options = ["--from", str(options.folder.resolve())] if options.folder else []
        with Runner(work, ["--cpu"] if options.cpu else []) as runner:
            run_all(jobs_of(recipe, work, options.seeds, runner, corpus_options), options.jobs, runner)
    tabulate(recipe, work, options.seeds, options.recipe.stem)


if __name__ == "__main__":
    main()
