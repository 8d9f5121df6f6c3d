"""Several experiments in one table, as of several archs or sizes of corpus.

    python experiments/collect.py runs/rnnsearch/grammar-rnnsearch.json runs/luong/grammar-rnn_luong.json ...

Takes what experiments/run.py left, in which the same rows have the same names. A line for each experiment and row.
"""

from __future__ import annotations

import argparse
import json
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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("record", type=Path, nargs="+", help="RECIPE.json in a WORK of experiments/run.py")
    parser.add_argument("--rows", nargs="+", default=["mle", "dual-0.01"], metavar="ID", help="default: %(default)s")
    options = parser.parse_args()
    print(collect({path.stem: read(path) for path in options.record}, options.rows))


if __name__ == "__main__":
    main()
