"""Several experiments in one table, for example several archs or sizes of corpus.

    python experiments/collect.py runs/rnnsearch/grammar-rnnsearch.json runs/luong/grammar-rnn_luong.json ...
    python experiments/collect.py runs/m3k/multi30k-{1k,3k,10k}.json --rows mle dual-0.01 --by-size sizes.png

It reads the records of dual-fairseq experiment, in which the same rows have the same ids, and makes a line for each
experiment and row. --by-size also draws a picture over the number of training pairs.
"""

from __future__ import annotations

import argparse
import json
import shlex
import statistics
import sys
from pathlib import Path
from typing import Any

from dual_fairseq.common.drawing import look
from dual_fairseq.common.files import whole_file, write_text
from dual_fairseq.common.tables import signatures
from dual_fairseq.experiment.table import Comparison, gain_cells, markdown, mean_sd


def read(path: Path) -> dict[str, Any]:
    """A record of dual-fairseq experiment; exits with one line if the file is not one."""
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        record["title"], record["seeds"], record["rows"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        sys.exit(f"{path}: is not a record of dual-fairseq experiment ({error}); give its RECIPE.json")
    return record


def directions_of(records: dict[str, dict[str, Any]]) -> tuple[str, ...]:
    """As ("de-en", "en-de"); exits with one line if the records have several language pairs."""
    pairs = {tuple(key for key in row if key != "name") for r in records.values() for row in r["rows"].values()}
    if len(pairs) != 1:
        sys.exit(f"{', '.join(records)}: are of several language pairs; give records of one pair")
    return pairs.pop()


def collect(records: dict[str, dict[str, Any]], ids: list[str]) -> str:
    """Markdown.

    Args:
        records: recipe → its record.
        ids: of the rows to show, in order.
    """
    known, lines = limited(records), []
    for direction in directions_of(records):
        head = [direction.replace("-", "→"), "", "BLEU", "gain", "p", "dual inference", "gain", "p", "NLL, bits"]
        head += ["above the limit", "times the limit"] if known else []
        body = []
        for recipe, record in records.items():
            for number, id in enumerate(ids):
                if id in record["rows"]:
                    row = record["rows"][id]
                    body.append([f"`{recipe}`" if number == 0 else "", row["name"], *_cells(row[direction], known)])
        lines += [*markdown(head, body), ""]
    seeds = sorted({seed for record in records.values() for seed in record["seeds"]})
    lines.append(f"Seeds {', '.join(map(str, seeds))}.")
    for line in signatures(
        (direction, {"bleu_signature": result.get("signature")})
        for record in records.values()
        for id in ids
        for direction in directions_of(records)
        for result in record["rows"].get(id, {}).get(direction, {}).get("results", [])
    ):
        lines += ["", line]
    return "\n".join([*lines, ""])


def _cells(found: dict[str, Any], limit_known: bool) -> list[str]:
    results = found["results"]
    cells = []
    for search in ("plain", "dual_inference"):
        cells.append(mean_sd([r["scores"][search]["bleu"] for r in results]))
        cells += gain_cells([Comparison(**c) for c in found["over_baseline"].get(search, [])])
    cells.append(mean_sd([r["nll_bits"] for r in results], 3))
    if limit_known:
        cells.append(mean_sd([r["nll_bits"] - r["limit_bits"] for r in results], 3))
        cells.append(mean_sd([times_limit(r) for r in results]))
    return cells


def times_limit(result: dict[str, Any]) -> float:
    """The NLL of whole sentences, divided by that of the truth. It can be compared between different BPE codes."""
    return float(result["nll_bits"] / result["limit_bits"])


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


def gains(rows: list[tuple[int, dict[str, Any]]], direction: str) -> list[tuple[str, str, list[float]]]:
    """(search, label, gains): a row's mean gain in BLEU at each size, over the baseline by the same search.

    For the baseline itself: over its own beam search.

    Args:
        rows: (number of pairs, row of a record).
        direction: as "de-en".
    """
    name, first = rows[0][1]["name"], rows[0][1][direction]
    over, labels = "over_baseline", {"plain": name, "dual_inference": f"{name}, both by dual inference"}
    if not first[over]:
        over, labels = "over_beam_search", {"dual_inference": f"{name}: dual inference over beam search"}
    return [
        (search, label, [statistics.fmean(c["gain"] for c in row[direction][over][search]) for _, row in rows])
        for search, label in labels.items()
    ]


@look()
def picture(records: dict[str, dict[str, Any]], ids: list[str], path: Path) -> None:
    """Gains by the number of pairs, a column a direction; below, where known, the NLL by the limit.

    Exits with one line if a record is too old for it, or the file cannot be written.
    """
    from matplotlib.figure import Figure
    from matplotlib.ticker import LogLocator, NullLocator

    for name, record in records.items():
        if "pairs" not in record:
            sys.exit(
                f"{name}: its record does not say how many pairs it has; make it again: dual-fairseq experiment --table"
            )
    by_size = sorted(records.values(), key=lambda record: record["pairs"])
    sizes, known = [record["pairs"] for record in by_size], limited(records)
    directions = directions_of(records)
    figure = Figure(figsize=(5.5 * len(directions), 3.2 * (1 + known)), layout="constrained")
    panels = figure.subplots(1 + known, len(directions), sharex=True, sharey="row", squeeze=False)
    for column, direction in zip(panels.T, directions, strict=True):
        column[0].set_title(direction.replace("-", "→"))
        column[0].axhline(0, color="0.7", linewidth=0.8)
        for number, id in enumerate(ids):
            rows = [(record["pairs"], record["rows"][id]) for record in by_size if id in record["rows"]]
            at = [size for size, _ in rows]
            for search, label, values in gains(rows, direction):
                line = "-" if search == "plain" else "--"
                column[0].plot(at, values, line, marker="o", markersize=4, color=f"C{number}", label=label)
            if known:
                values = [statistics.fmean(map(times_limit, row[direction]["results"])) for _, row in rows]
                column[1].plot(at, values, marker="o", markersize=4, color=f"C{number}", label=rows[0][1]["name"])
        column[-1].set_xscale("log")
        column[-1].set_xticks(sizes, [f"{size:,}" for size in sizes])
        column[-1].minorticks_off()
        column[-1].set_xlabel("training pairs")
        if known:
            column[1].set_yscale("log")
            column[1].axhline(1, color="0.7", linewidth=0.8)
            column[1].yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            column[1].yaxis.set_minor_locator(NullLocator())
            column[1].yaxis.set_major_formatter("{x:g}")
    for panel, label in zip(panels, ("gain, BLEU", "NLL, times the limit"), strict=False):
        panel[0].set_ylabel(label)
        panel[0].legend(fontsize=7)
    try:
        with whole_file(path) as file:
            figure.savefig(file, format=path.suffix[1:] or "png", dpi=110)
    except ValueError as error:
        sys.exit(f"{path}: cannot be written ({error})")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("record", type=Path, nargs="+", help="RECIPE.json in a WORK of dual-fairseq experiment")
    parser.add_argument("--rows", nargs="+", default=["mle", "dual-0.01"], metavar="ID", help="default: %(default)s")
    parser.add_argument("-o", "--output", type=Path, metavar="FILE", help="write the table to it as well")
    parser.add_argument("--by-size", type=Path, metavar="FILE", help="write a picture over the number of pairs to it")
    options = parser.parse_args()
    records = {path.stem: read(path) for path in options.record}
    for id in options.rows:
        if not any(id in record["rows"] for record in records.values()):
            sys.exit(f"--rows {id}: is in none of {', '.join(records)}")
    text = collect(records, options.rows)
    print(text)
    if options.output:
        command = shlex.join(["python", "experiments/collect.py", *map(str, options.record), "--rows", *options.rows])
        write_text(options.output, f"# {options.output.stem}\n\nMade by\n\n    {command}\n\n{text}")
    if options.by_size:
        picture(records, options.rows, options.by_size)


if __name__ == "__main__":
    main()
