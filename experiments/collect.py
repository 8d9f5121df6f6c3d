"""Several experiments in one table, as of several archs or sizes of corpus.

    python experiments/collect.py runs/rnnsearch/grammar-rnnsearch.json runs/luong/grammar-rnn_luong.json ...
    python experiments/collect.py runs/m3k/multi30k-{1k,3k,10k}.json --rows mle dual-0.01 --by-size sizes.png

Takes what experiments/run.py left, in which the same rows have the same names. A line for each experiment and row; with
--by-size a picture, too, over the number of training pairs.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from pathlib import Path
from typing import Any

from table import Comparison, gain_cells, markdown, mean_sd


def read(path: Path) -> dict[str, Any]:
    """A record of experiments/run.py; exits with one line if it is none."""
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        record["title"], record["seeds"], record["rows"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        sys.exit(f"{path}: is not a record of experiments/run.py ({error}); give its RECIPE.json")
    return record


def collect(records: dict[str, dict[str, Any]], ids: list[str]) -> str:
    """Markdown.

    Args:
        records: recipe → what it found.
        ids: of the rows to show, in order.
    """
    directions = [name for name in next(iter(next(iter(records.values()))["rows"].values())) if name != "name"]
    known, lines = limited(records), []
    for direction in directions:
        head = [direction.replace("-", "→"), "", "BLEU", "gain", "p", "dual inference", "gain", "p", "NLL, bits"]
        head += ["above the limit"] if known else []
        body = []
        for recipe, record in records.items():
            for number, id in enumerate(ids):
                if id in record["rows"]:
                    row = record["rows"][id]
                    body.append([f"`{recipe}`" if number == 0 else "", row["name"], *_cells(row[direction], known)])
        lines += [*markdown(head, body), ""]
    seeds = sorted({seed for record in records.values() for seed in record["seeds"]})
    return "\n".join([*lines, f"Seeds {', '.join(map(str, seeds))}.", ""])


def _cells(found: dict[str, Any], limit_known: bool) -> list[str]:
    results = found["results"]
    cells = []
    for search in ("plain", "dual_inference"):
        cells.append(mean_sd([r["scores"][search]["bleu"] for r in results]))
        cells += gain_cells([Comparison(**c) for c in found["over_baseline"].get(search, [])])
    cells.append(mean_sd([r["nll_bits"] for r in results], 3))
    return [*cells, mean_sd([r["nll_bits"] - r["limit_bits"] for r in results], 3)] if limit_known else cells


def limited(records: dict[str, dict[str, Any]]) -> bool:
    """Whether all of them know the truth's own NLL."""
    return all(
        result["limit_bits"] is not None
        for record in records.values()
        for row in record["rows"].values()
        for direction, found in row.items()
        if direction != "name"
        for result in found["results"]
    )


Points = list[tuple[int, float]]


def gains(by_size: list[dict[str, Any]], id: str, direction: str) -> dict[str, Points]:
    """Label → (pairs, BLEU gained over the baseline) of a row; of the baseline itself, what dual inference gains it.

    Args:
        by_size: records in order.
        id: of the row; records without it are left out.
        direction: as "de-en".
    """
    rows = [(record["pairs"], record["rows"][id]) for record in by_size if id in record["rows"]]
    name = rows[0][1]["name"]
    kinds = {
        name: ("over_baseline", "plain"),
        f"{name}, both by dual inference": ("over_baseline", "dual_inference"),
    }
    if not rows[0][1][direction]["over_baseline"]:
        kinds = {f"{name}: dual inference over beam search": ("over_beam_search", "dual_inference")}
    return {
        label: [(size, statistics.fmean(c["gain"] for c in row[direction][over][search])) for size, row in rows]
        for label, (over, search) in kinds.items()
    }


def distances(by_size: list[dict[str, Any]], id: str, direction: str) -> Points:
    """(pairs, bits a token by which a row's NLL is above the limit)."""
    rows = [(record["pairs"], record["rows"][id][direction]) for record in by_size if id in record["rows"]]
    return [(size, statistics.fmean(r["nll_bits"] - r["limit_bits"] for r in row["results"])) for size, row in rows]


def picture(records: dict[str, dict[str, Any]], ids: list[str], path: Path) -> None:
    """Gains by the number of pairs, a column a direction; below, where known, how far the NLL is from the limit."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    known, by_size = limited(records), sorted(records.values(), key=lambda record: record["pairs"])
    directions = [name for name in by_size[0]["rows"][ids[0]] if name != "name"]
    figure, panels = plt.subplots(1 + known, len(directions), figsize=(5.5 * len(directions), 3.2 * (1 + known)),
                                  sharex=True, sharey="row", squeeze=False, layout="constrained")  # fmt: skip
    for column, direction in enumerate(directions):
        panels[0][column].set_title(direction.replace("-", "→"))
        panels[0][column].axhline(0, color="0.7", linewidth=0.8)
        for number, id in enumerate(ids):
            curves = [(0, label, points) for label, points in gains(by_size, id, direction).items()]
            if known:
                name = by_size[0]["rows"][id]["name"]
                curves.append((1, name, distances(by_size, id, direction)))
            for panel, label, points in curves:
                line = "--" if "dual inference" in label.removeprefix(by_size[0]["rows"][id]["name"]) else "-"
                panels[panel][column].plot(*zip(*points, strict=True), line, marker="o", markersize=4,
                                           color=f"C{number}", label=label)  # fmt: skip
        axis, sizes = panels[-1][column], [record["pairs"] for record in by_size]
        axis.set_xscale("log")
        axis.set_xticks(sizes, [f"{size:,}" for size in sizes])
        axis.minorticks_off()
        axis.set_xlabel("training pairs")
    for panel, label in zip(panels, ("gain, BLEU", "NLL above the limit, bits a token"), strict=False):
        panel[0].set_ylabel(label)
        panel[0].legend(fontsize=7)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("record", type=Path, nargs="+", help="RECIPE.json in a WORK of experiments/run.py")
    parser.add_argument("--rows", nargs="+", default=["mle", "dual-0.01"], metavar="ID", help="default: %(default)s")
    parser.add_argument("--by-size", type=Path, metavar="FILE", help="write a picture over the number of pairs to it")
    options = parser.parse_args()
    records = {path.stem: read(path) for path in options.record}
    print(collect(records, options.rows))
    if options.by_size:
        picture(records, options.rows, options.by_size)


if __name__ == "__main__":
    main()
