"""The results of an experiment: a table of all rows, with significance, and a picture."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..common.comparison import unlike
from ..common.drawing import look
from ..common.errors import UserError
from ..common.files import whole_file, write_json, write_text
from ..common.folders import Data, StageFolder
from ..common.tables import signatures
from ..pipeline.choices import count_pairs
from .recipe import Recipe, Row
from .results import Result, all_scores_of, result_of, unchecked

TRIALS = 2000  # of each significance test
# How translations are chosen; a row is compared with the baseline under the same choice.
SEARCHES = {
    "plain": "beam search", "tuned": "length penalty tuned", "alpha": "dual inference by one α",
    "dual_inference": "dual inference",
}  # fmt: skip
LEGEND = """\
Mean ± sample standard deviation over seeds. Gain: over {baseline}, by the same way of choosing.
p: two-sided, paired approximate randomisation. Evaluated: the checkpoint of the best validation BLEU,
greedy and mean of both directions. Length penalty and weights of dual inference are tuned on the
validation text, too, and choose among the beam's translations. NLL is of the references. Hours are of
training; they cannot be compared if the machine had other work."""


@dataclass
class Comparison:
    """A difference in BLEU, and its p-value."""

    gain: float
    p: float


ByRow = dict[str, dict[str, list[Comparison]]]  # row → search → seed


def compare(mine: Result, search: str, other: Result, its_search: str) -> Comparison:
    """Compare a search of one result with a search of another result."""
    from ..common.bleu import metric_of_signature
    from ..pair.significance import paired_test

    texts = ("other", other.texts[its_search]), [("mine", mine.texts[search])]
    tests = paired_test(*texts, mine.references, {"BLEU": metric_of_signature(mine.signature)}, TRIALS)["mine"]
    return Comparison(mine.scores[search]["bleu"] - other.scores[its_search]["bleu"], tests["BLEU"].p_value or 0.0)


def alike(pairs: Sequence[tuple[Result, Result]]) -> bool:
    """Whether the results may be compared."""
    return not any(unlike(basis(a), basis(b)) for a, b in pairs)


def basis(result: Result) -> dict[str, object]:
    """For :func:`~dual_fairseq.common.comparison.unlike`; all rows are evaluated with the search of the recipe."""
    return {"test text": result.references, "sacreBLEU signature": result.signature}


def with_other_updates(rows: Sequence[Row], baseline: Row, by_row: dict[str, list[Result]]) -> list[str]:
    """The names of the rows that were not trained for as many updates as the baseline; never the warm start."""
    updates = {row.id: [result.updates for result in by_row[row.id]] for row in (*rows, baseline)}
    return [row.name for row in rows if row.stage == baseline.stage and updates[row.id] != updates[baseline.id]]


def with_baseline(rows: Sequence[Row], baseline: Row, by_row: dict[str, list[Result]]) -> tuple[ByRow, list[str]]:
    """The comparisons of the rows with the baseline in one direction, and the names of those that are not alike."""
    compared, others = {}, []
    for row in rows:
        # a warm start that seeds share is one system
        if row.baseline or len(by_row[row.id]) != len(by_row[baseline.id]):
            continue
        pairs = list(zip(by_row[row.id], by_row[baseline.id], strict=True))
        if alike(pairs):
            compared[row.id] = {s: [compare(mine, s, its, s) for mine, its in pairs] for s in SEARCHES}
        else:
            others.append(row.name)
    return compared, others


def against(recipe: Recipe, rows: Sequence[Row], results: dict[str, dict[str, list[Result]]], seeds: int) -> list[str]:
    """Lines of Markdown: the recipe's comparisons of rows with each other, as in :func:`tables`."""
    names = {row.id: row.name for row in rows}
    searches = ("plain", "dual_inference")
    head = []
    for direction in results:
        for search in searches:
            head += [f"{direction.replace('-', '→')} {SEARCHES[search]}", "p" if seeds == 1 else "p < 0.05"]
    body = []
    for id, other in recipe.comparisons:
        if not names.keys() >= {id, other}:
            continue
        cells = [f"{names[id]} − {names[other]}"]
        for by_row in results.values():
            for search in searches:
                pairs = list(zip(by_row[id], by_row[other], strict=False))  # all seeds may share a warm start
                alone = len(by_row[id]) != len(by_row[other]) or not alike(pairs)
                compared = None if alone else [compare(mine, search, its, search) for mine, its in pairs]
                cells += gain_cells(compared)
        body.append(cells)
    return rows_of_table("Row against row", head, body) if body else []


def mean_sd(values: Sequence[float], digits: int = 2, sign: str = "") -> str:
    """The mean, with the sample standard deviation if there are several values."""
    spread = f" ± {statistics.stdev(values):.{digits}f}" if len(values) > 1 else ""
    mean = round(statistics.fmean(values), digits) + 0.0  # no −0.00
    return f"{mean:{sign}.{digits}f}{spread}"


def verdict(comparisons: Sequence[Comparison]) -> str:
    """p of one seed; for several seeds, how many are better, and how many worse, with p < 0.05."""
    from ..report.scores import probability

    if len(comparisons) == 1:
        return probability(comparisons[0].p)
    better, worse = (sum(c.p < 0.05 and sign * c.gain > 0 for c in comparisons) for sign in (1, -1))
    return f"{better} of {len(comparisons)}" + (f" ({worse} worse)" if worse else "")


def gain_cells(comparisons: Sequence[Comparison] | None) -> list[str]:
    """Mean gain and verdict; empty if nothing was compared."""
    return [mean_sd([c.gain for c in comparisons], sign="+"), verdict(comparisons)] if comparisons else ["", ""]


def markdown(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """The lines of a table; a bar in a cell, as in |gap|, is escaped."""
    escaped = [" | ".join(cell.replace("|", "\\|") for cell in cells) for cells in (head, *rows)]
    first, *others = [f"| {cells} |" for cells in escaped]
    return [first, "|" + "---|" * len(head), *others]


def rows_of_table(name: str, head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """A table under a heading; the first column, the row's name, has no title."""
    return [f"## {name}", "", *markdown(["", *head], rows), ""]


def tables(
    rows: Sequence[Row],
    results: dict[str, dict[str, list[Result]]],
    compared: dict[str, ByRow],
    chosen: dict[str, ByRow],
    seeds: int,
) -> list[str]:
    """Lines of Markdown: one table per way of choosing, and one for all other results.

    Args:
        rows: in order.
        results: direction → row → seed.
        compared: direction → row → search → seed: comparisons with the baseline, without rows that have none.
        chosen: the same, with the row's own beam search.
        seeds: the number of seeds.
    """
    lines = []
    arrows = {direction: direction.replace("-", "→") for direction in results}
    difference = "p" if seeds == 1 else "p < 0.05"
    for search, title in SEARCHES.items():
        reranked = search in ("alpha", "dual_inference")
        measures = ["BLEU", *(["over beam search", difference] if reranked else []), "gain", difference]
        measures += ["length ratio"] if search == "tuned" else []
        body = []
        for row in rows:
            cells = [row.name]
            for direction, by_row in results.items():
                scores = [r.scores[search] for r in by_row[row.id]]
                cells.append(mean_sd([s["bleu"] for s in scores]))
                for comparisons in (chosen, compared) if reranked else (compared,):
                    cells += gain_cells(comparisons[direction].get(row.id, {}).get(search))
                if search == "tuned":
                    cells.append(mean_sd([s["length_ratio"] for s in scores], 3))
            body.append(cells)
        head = [f"{arrow} {measures[0]}" if i == 0 else m for arrow in arrows.values() for i, m in enumerate(measures)]
        lines += rows_of_table(title[0].upper() + title[1:], head, body)

    limited = all(r.limit_bits is not None for by_row in results.values() for runs in by_row.values() for r in runs)
    head, body = [], []
    for arrow in arrows.values():
        head += [f"{arrow} chrF", "length ratio", "NLL, bits", *(["above the limit"] if limited else [])]
    for row in rows:
        cells = [row.name]
        for by_row in results.values():
            mine = by_row[row.id]
            cells += [mean_sd([r.scores["plain"]["chrf"] for r in mine])]
            cells += [
                mean_sd([r.scores["plain"]["length_ratio"] for r in mine], 3),
                mean_sd([r.nll_bits for r in mine], 3),
            ]
            cells += [mean_sd([r.nll_bits - (r.limit_bits or 0) for r in mine], 3)] if limited else []
        cells += [mean_sd([r.validation_bleu for r in mine]), ", ".join(f"{r.checkpoint_updates:,}" for r in mine)]
        body.append([*cells, f"{statistics.fmean(r.seconds for r in mine) / 3600:.2f}"])
    return lines + rows_of_table("More of beam search", [*head, "validation BLEU", "best at update", "hours"], body)


def tabulate(
    recipe: Recipe, work: Path, seeds: Sequence[int], file: Path, published: Path | None = None
) -> dict[str, Any]:
    """Read all results, compare each row with the baseline of its seed, and write NAME.md, NAME.json and NAME.png.

    Rows that have not been evaluated for every seed are left out, and named.

    Args:
        recipe, work, seeds: of the command.
        file: the recipe file.
        published: a folder that gets NAME.md as well.
    """
    from ..common.quiet import quieten_libraries

    quieten_libraries()
    name = file.stem
    directions = [f"{recipe.source}-{recipe.target}", f"{recipe.target}-{recipe.source}"]
    places = {row.id: all_scores_of(recipe, work, row, seeds) for row in recipe.rows}
    baseline = next(row for row in recipe.rows if row.baseline)
    if not places[baseline.id]:
        raise UserError(
            f"{work}: the baseline, {baseline.id}, is not evaluated for every seed yet, or not with these settings; "
            "give --seeds the finished seeds, or leave out --table"
        )
    rows = [row for row in recipe.rows if places[row.id]]
    results = {
        d: {row.id: [result_of(recipe, work, place, d) for place in places[row.id]] for row in rows} for d in directions
    }
    compared: dict[str, ByRow] = {}
    others: dict[str, None] = {}
    for direction, by_row in results.items():
        compared[direction], unlike_rows = with_baseline(rows, baseline, by_row)
        others |= dict.fromkeys(unlike_rows)
    chosen = {direction: over_beam_search(by_row) for direction, by_row in results.items()}
    seed_words, test = " ".join(map(str, seeds)), f"; test text: {recipe.test}" if recipe.test else ""
    lines = [f"# {recipe.title}", "", f"Seeds {', '.join(map(str, seeds))}; beam {recipe.beam}{test}. Made by", ""]
    lines += [f"    dual-fairseq experiment {file} WORK --seeds {seed_words}", ""]
    lines += tables(rows, results, compared, chosen, len(seeds))
    lines += against(recipe, rows, results, len(seeds))
    lines += [LEGEND.format(baseline=baseline.name)]
    stages = {row.name: [StageFolder(place.parents[1]) for place in places[row.id]] for row in rows}
    notes = {
        "Evaluated with the mean of the last checkpoints instead of that one":
            [name for name, folders in stages.items() if any(stage.average.is_file() for stage in folders)],
        "Not evaluated yet for all of these seeds": [row.id for row in recipe.rows if not places[row.id]],
        f"Trained for another number of updates than {baseline.name}":
            with_other_updates(rows, baseline, results[directions[0]]),
        "Not compared, since the test text or sacreBLEU's signature is another": list(others),
        "Scores of files that are gone and could not be checked (checkpoint or language models)":
            [row.name for row in rows if unchecked(recipe, work, row, seeds)],
    }  # fmt: skip
    lines += [line for note, names in notes.items() if names for line in ("", f"{note}: {', '.join(names)}.")]
    lines += ["", "sacreBLEU:", "", *(f"- {line}" for line in signatures_of(results))]
    record = {
        "title": recipe.title,
        "seeds": list(seeds),
        "rows": records_of(rows, results, compared, chosen),
        "pairs": count_pairs(Data.from_folder(recipe.of_pairs(work))),
    }
    text = "\n".join(lines) + "\n"
    for folder in (work, published) if published else (work,):
        write_text(folder / f"{name}.md", text)
    write_json(work / f"{name}.json", record)
    picture(recipe.title, rows, record, directions, work / f"{name}.png")
    print(text)
    return record


def records_of(
    rows: Sequence[Row],
    results: dict[str, dict[str, list[Result]]],
    compared: dict[str, ByRow],
    chosen: dict[str, ByRow],
) -> dict[str, Any]:
    """Row → direction → its results and comparisons, without texts, for NAME.json."""

    def comparisons(by_search: dict[str, Any]) -> dict[str, Any]:
        return {search: list(map(vars, of_seeds)) for search, of_seeds in by_search.items()}

    return {
        row.id: {"name": row.name}
        | {
            direction: {
                "results": [
                    {key: value for key, value in vars(result).items() if key not in ("texts", "references")}
                    for result in by_row[row.id]
                ],
                "over_baseline": comparisons(compared[direction].get(row.id, {})),
                "over_beam_search": comparisons(chosen[direction][row.id]),
            }
            for direction, by_row in results.items()
        }
        for row in rows
    }


def over_beam_search(by_row: dict[str, list[Result]]) -> ByRow:
    """Both forms of dual inference, each compared with the beam search of the same result."""
    forms = ("alpha", "dual_inference")
    return {id: {form: [compare(r, form, r, "plain") for r in row] for form in forms} for id, row in by_row.items()}


def signatures_of(results: dict[str, dict[str, list[Result]]]) -> list[str]:
    """The signatures of all results, as of :func:`~dual_fairseq.common.tables.signatures`."""
    return signatures(
        (direction, {"bleu_signature": result.signature, "chrf_signature": result.chrf_signature})
        for direction, by_row in results.items()
        for of_seeds in by_row.values()
        for result in of_seeds
    )


@look()
def picture(title: str, rows: Sequence[Row], record: dict[str, Any], directions: Sequence[str], path: Path) -> None:
    """BLEU by row, one panel per direction: points are seeds; hollow points are with dual inference."""
    from matplotlib.figure import Figure

    names = [row.name for row in rows]
    figure = Figure(figsize=(11, 0.5 * len(names) + 1.6), layout="constrained")
    panels = figure.subplots(1, 2, sharey=True)
    for axes, direction in zip(panels, directions, strict=True):
        for y, row in enumerate(rows):
            results = record["rows"][row.id][direction]["results"]
            for search, face in (("plain", "#1f5fa8"), ("dual_inference", "none")):
                values = [r["scores"][search]["bleu"] for r in results]
                axes.scatter(values, [y] * len(values), facecolors=face, edgecolors="#1f5fa8", zorder=3,
                             label=SEARCHES[search] if y == 0 else None)  # fmt: skip
                axes.plot([statistics.fmean(values)], [y], marker="|", markersize=16, color="black", zorder=4)
        axes.set_title(direction.replace("-", "→"))
        axes.set_xlabel("BLEU, test")
        axes.grid(axis="x", alpha=0.25)
    panels[0].set_yticks(range(len(names)), names, parse_math=False)  # a name may have a $
    panels[0].invert_yaxis()
    panels[1].legend(fontsize=8)
    figure.suptitle(title, parse_math=False)
    with whole_file(path) as file:
        figure.savefig(file, format="png", dpi=110)
