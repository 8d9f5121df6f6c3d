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

import json
import statistics
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from plan import Plan
from recipe import Recipe, Row, training_parser
from runner import ROOT, Runner, run_all

sys.path.insert(0, str(ROOT))

SAMPLES = 1000  # of the paired bootstrap


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


def main() -> None:
    options = training_parser(__doc__).parse_args()
    recipe, work = Recipe.read(options.recipe), options.work.resolve()
    if not options.table:
        with Runner(work, ["--cpu"] if options.cpu else []) as runner:
            run_all(Plan(recipe, work, runner, options.folder).jobs(options.seeds), options.jobs, runner)
    tabulate(recipe, work, options.seeds, options.recipe.stem)


if __name__ == "__main__":
    main()
