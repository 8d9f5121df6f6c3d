"""The end of ``make demo``: a table, a picture and a page about a run on the embedded corpus, whose limits are known.

``python -m dual_fairseq.demo RUN`` reads what ``scripts/demo.sh`` left in RUN and writes RUN/report/.
"""

from __future__ import annotations

import argparse
import base64
import html
import json
import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fairseq.data.data_utils import load_indexed_dataset

from .errors import UserError
from .evaluation import STAGES, aligned, read_lines

SOURCE, TARGET = "de", "en"
DIRECTIONS = {f"{SOURCE}-{TARGET}": TARGET, f"{TARGET}-{SOURCE}": SOURCE}  # direction → its target language
TRUTH = {f"{SOURCE}-{TARGET}": "log_p_en_given_de", f"{TARGET}-{SOURCE}": "log_p_de_given_en"}
COLOURS = {f"{SOURCE}-{TARGET}": "tab:blue", f"{TARGET}-{SOURCE}": "tab:orange"}
HEAD = ("direction", "system", "BLEU", "chrF", "NLL bits/token", "above the limit", "mean |gap| nats")


@dataclass
class Row:
    """One system in one direction on the test text."""

    direction: str
    system: str
    bleu: float
    chrf: float
    nll: float  # bits per target token, </s> included
    limit: float  # the truth's own NLL of the same tokens: no model can expect less
    gap: float  # mean |gap|, nats a sentence pair

    def cells(self) -> tuple[str, ...]:
        return (
            self.direction.replace("-", "→"), self.system, f"{self.bleu:.2f}", f"{self.chrf:.2f}", f"{self.nll:.3f}",
            f"+{self.nll - self.limit:.3f}", f"{self.gap:.2f}",
        )  # fmt: skip


def read_json(path: Path) -> Any:
    """Raises: UserError: the file is not there."""
    return json.loads("\n".join(read_lines(path)))


def entropy_limits(run: Path, split: str) -> dict[str, float]:
    """The truth's NLL of a split, −log₂ P(target | source) a BPE token, by direction.

    A segmentation is a function of the sentence, so the probability of the tokens is that of the sentence.

    Raises:
        UserError: the binarized split is not the whole text that the truth was computed of.
    """
    truth = read_json(run / "text" / "truth.json")["splits"][split]
    limits = {}
    for direction, language in DIRECTIONS.items():
        path = run / "data" / "dual" / f"{split}.{SOURCE}-{TARGET}.{language}"
        sentences = load_indexed_dataset(str(path), None)
        if sentences is None or len(sentences) != truth["sentences"]:
            raise UserError(f"{path}: is not the text of {run / 'text'}; remove {run} and run the demo again")
        limits[direction] = -truth[TRUTH[direction]] / math.log(2) / int(sentences.sizes.sum())
    return limits


def result_rows(run: Path, split: str = "test") -> list[Row]:
    """The table: direction by direction, the systems in the order of :data:`~dual_fairseq.evaluation.STAGES`."""
    limits = entropy_limits(run, split)
    scores = {name: read_json(run / "train" / stage / "eval" / split / "scores.json") for stage, name in STAGES.items()}
    return [
        Row(
            direction, name, s[direction]["bleu"], s[direction]["chrf"], s[direction]["nll_bits_per_token"],
            limits[direction], s["gap_abs"],
        )
        for direction in DIRECTIONS
        for name, s in scores.items()
    ]  # fmt: skip


def text_table(rows: Sequence[Row]) -> str:
    """The table as plain text."""
    return aligned([HEAD, *(row.cells() for row in rows)])


def validation_curve(log: Path) -> list[dict[str, float]]:
    """The validation records of a ``train.log``, in order; of two at one update (a resumed run) the later."""
    records: dict[float, dict[str, float]] = {}
    for line in read_lines(log):
        if " | valid | {" in line:
            record = json.loads(line.split(" | valid | ", 1)[1])
            values = {key.removeprefix("valid_"): float(value) for key, value in record.items() if key != "epoch"}
            records[values["num_updates"]] = values
    return [records[update] for update in sorted(records)]


def picture(run: Path, rows: Sequence[Row], out: Path) -> None:
    """Validation NLL and BLEU over updates, and the gap of every system on the test text."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    curves = {stage: validation_curve(run / "train" / stage / "train.log") for stage in STAGES}
    start = curves["warmup"][-1]["num_updates"]
    best = max(curves["warmup"], key=lambda record: record["bleu"])
    limits = entropy_limits(run, "valid")
    figure, (nll, bleu, gap) = plt.subplots(1, 3, figsize=(15, 4.6), layout="constrained")
    for stage, style in (("warmup", "-"), ("dual", "-"), ("mle", "--")):  # the dashes on top, or they would not be seen
        offset = 0 if stage == "warmup" else start
        points = curves[stage] if stage == "warmup" else [{**best, "num_updates": 0}, *curves[stage]]
        updates = [offset + point["num_updates"] for point in points]
        width = 4 if stage == "dual" else 1.4
        for direction, colour in COLOURS.items():
            label = f"{STAGES[stage]} {direction.replace('-', '→')}"
            options = {"color": colour, "linestyle": style, "linewidth": width, "label": label}
            if stage != "mle":
                options["alpha"] = 0.45
            nll.plot(updates, [point[f"nll_loss_{direction}"] for point in points], **options)
            bleu.plot(updates, [point[f"bleu_{direction}"] for point in points], **options)
    for direction, colour in COLOURS.items():
        nll.axhline(limits[direction], color=colour, linestyle=":", linewidth=1.2)
        nll.annotate("limit", (0, limits[direction]), color=colour, fontsize=8, va="bottom")
    for axes in (nll, bleu):
        axes.axvline(start, color="0.7", linewidth=0.8)
        axes.set_xlabel("updates (both go on from the best warm start)")
        axes.grid(alpha=0.25)
    nll.set_ylim(top=min(nll.get_ylim()[1], 3 * max(limits.values()) + 2))
    nll.set_title("Validation NLL, bits a token (dotted: the truth)")
    bleu.set_title("Validation BLEU")
    bleu.legend(fontsize=8)
    gaps = {row.system: row.gap for row in rows}
    bars = gap.bar(list(gaps), list(gaps.values()), color=["0.75", "0.6", "tab:green"])
    gap.bar_label(bars, fmt="%.2f")
    gap.set_title("Mean |gap| on the test text, nats (the truth: 0)")
    figure.savefig(out, dpi=110)
    plt.close(figure)


def examples(run: Path, count: int = 6) -> dict[str, list[dict[str, str]]]:
    """Sentences that the systems translate differently: source, reference and each system's translation."""
    found: dict[str, list[dict[str, str]]] = {}
    for direction in DIRECTIONS:
        folders = {name: run / "train" / stage / "eval" / "test" for stage, name in STAGES.items()}
        columns = {name: read_lines(folder / f"{direction}.hyp.txt") for name, folder in folders.items()}
        folder = next(iter(folders.values()))
        columns = {
            "source": read_lines(folder / f"{direction}.src.txt"),
            "reference": read_lines(folder / f"{direction}.ref.txt"),
            **columns,
        }
        sentences = [dict(zip(columns, line, strict=True)) for line in zip(*columns.values(), strict=True)]
        differing = [s for s in sentences if len({s[name] for name in folders}) > 1]
        found[direction] = differing[:count]
    return found


def page(rows: Sequence[Row], image: Path, run: Path) -> str:
    """A self-contained HTML page."""

    def cells(tag: str, values: Sequence[str]) -> str:
        return "<tr>" + "".join(f"<{tag}>{html.escape(value)}</{tag}>" for value in values) + "</tr>"

    table = cells("th", HEAD) + "".join(cells("td", row.cells()) for row in rows)
    picture_data = base64.b64encode(image.read_bytes()).decode()
    parts = []
    for direction, sentences in examples(run).items():
        parts.append(f"<h2>Where the systems differ, {direction.replace('-', '→')}</h2>")
        for sentence in sentences:
            lines = "".join(
                f"<dt>{html.escape(name)}</dt>"
                f"<dd{' class=right' if text == sentence['reference'] else ''}>{html.escape(text)}</dd>"
                for name, text in sentence.items()
            )
            parts.append(f"<dl>{lines}</dl>")
    return PAGE.format(table=table, picture=picture_data, examples="\n".join(parts))


PAGE = """<!doctype html>
<html lang="en"><meta charset="utf-8"><title>dual-fairseq demo</title>
<style>
 body {{ font: 16px/1.5 system-ui, sans-serif; max-width: 72rem; margin: 2rem auto; padding: 0 1rem }}
 table {{ border-collapse: collapse }}
 th, td {{ padding: .3rem .9rem; text-align: right; border-bottom: 1px solid #ddd }}
 th:nth-child(-n+2), td:nth-child(-n+2) {{ text-align: left }} img {{ max-width: 100% }}
 dl {{ display: grid; grid-template-columns: 9rem 1fr; margin: 1rem 0 }} dt {{ color: #777 }} dd {{ margin: 0 }}
 .right {{ color: #176b2c }}
</style>
<h1>Two translation models, trained as a pair</h1>
<p>The corpus is drawn from a probabilistic grammar whose log P(x, y), log P(x) and log P(y) are known exactly, so
there is a limit that no model's negative log-likelihood (NLL) can be expected to beat: the truth's own. "Dual" and "MLE
continued" start from the same warm start and make the same number of updates; scores are of the test text, each system
at its best validation BLEU. This is one seed and a short training: small differences between the last two are
noise.</p>
<table>{table}</table>
<p><img alt="Validation NLL and BLEU over updates, and the mean gap" src="data:image/png;base64,{picture}"></p>
<p>The gap of a sentence pair is [log P(x) + log P(y|x)] − [log P(y) + log P(x|y)]: 0 for models that agree on P(x, y).
Here P(x) and P(y) come from the two trained language models. In the examples below a translation is green where it is
the reference, word for word.</p>
{examples}
</html>
"""


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line; see the first lines of this file."""
    parser = argparse.ArgumentParser(prog="python -m dual_fairseq.demo", description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path, help="the folder of scripts/demo.sh")
    run = parser.parse_args(arguments).run
    for chatty in ("fairseq", "matplotlib"):
        logging.getLogger(chatty).setLevel(logging.WARNING)
    report = run / "report"
    report.mkdir(exist_ok=True)
    rows = result_rows(run)
    table = text_table(rows)
    (report / "table.txt").write_text(table + "\n", encoding="utf-8")
    picture(run, rows, report / "demo.png")
    (report / "index.html").write_text(page(rows, report / "demo.png", run), encoding="utf-8")
    print(table)
    print("(One seed and a short training: small differences between the last two systems are noise; see README.md.)")
    print(f"\nPicture: {report / 'demo.png'}\nPage:    {report / 'index.html'}")


if __name__ == "__main__":
    main()
