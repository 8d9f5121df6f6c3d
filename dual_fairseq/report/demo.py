"""The end of ``make demo``: a table, a picture and a page about a run on the embedded corpus, whose limits are known.

It reads the output of the other steps of ``dual-fairseq demo`` in RUN, and writes RUN/report/.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from fairseq.data.data_utils import load_indexed_dataset

from ..common.arguments import Parser
from ..common.drawing import REPORT, look
from ..common.errors import UserError
from ..common.files import whole_file, write_text
from ..common.folders import STAGES
from ..common.options import add_device
from ..common.records import read_record
from ..common.tables import aligned, read_scores
from .build import Options, build
from .page import Paragraph, Section, Table, render
from .runs import Run, arrow, read_run, systems
from .scores import number, signatures_of

SOURCE, TARGET = "de", "en"
DIRECTIONS = {f"{SOURCE}-{TARGET}": TARGET, f"{TARGET}-{SOURCE}": SOURCE}  # direction → its target language
TRUTH = {f"{SOURCE}-{TARGET}": "log_p_en_given_de", f"{TARGET}-{SOURCE}": "log_p_de_given_en"}
HEAD = ("direction", "system", "BLEU", "chrF", "NLL bits/token", "above the limit", "mean |gap| nats", "BLEU re-scored")


@dataclass
class Row:
    """One system in one direction on the test text."""

    direction: str
    system: str
    bleu: float
    chrf: float
    nll: float  # bits per target token, </s> included
    limit: float  # the truth's own NLL of the same tokens: no model can expect less
    gap: float  # mean |gap|, nats per sentence pair
    rescored: float | None = None  # BLEU with dual inference

    def cells(self) -> tuple[str, ...]:
        return (
            arrow(self.direction), self.system, f"{self.bleu:.2f}", f"{self.chrf:.2f}", f"{self.nll:.3f}",
            f"+{self.nll - self.limit:.3f}", f"{self.gap:.2f}", number(self.rescored, 2),
        )  # fmt: skip


def entropy_limits(run: Path, split: str) -> dict[str, float]:
    """The truth's NLL of a split, −log₂ P(target | source) per BPE token, by direction.

    A segmentation is a function of the sentence, so the tokens have the probability of the sentence.

    Raises:
        UserError: the binarized split is not the whole text that the truth was computed for.
    """
    truth = read_record(run / "text" / "truth.json", {"splits": {}}, "remove the folder and run the demo again")[
        "splits"
    ][split]
    limits = {}
    for direction, language in DIRECTIONS.items():
        path = run / "data" / "dual" / f"{split}.{SOURCE}-{TARGET}.{language}"
        sentences = load_indexed_dataset(str(path), None)
        if sentences is None or len(sentences) != truth["sentences"]:
            raise UserError(f"{path}: is not the text of {run / 'text'}; remove {run} and run the demo again")
        limits[direction] = -truth[TRUTH[direction]] / math.log(2) / int(sentences.sizes.sum())
    return limits


def result_rows(run: Path) -> list[Row]:
    """The table: direction by direction, the systems in the order of :data:`~dual_fairseq.common.folders.STAGES`."""
    limits = entropy_limits(run, "test")
    scores = {name: read_scores(run / "train" / stage / "eval/test/scores.json") for stage, name in STAGES.items()}
    return [
        Row(
            direction, name, s[direction]["bleu"], s[direction]["chrf"], s[direction]["nll_bits_per_token"],
            limits[direction], s["gap_abs"], (s[direction].get("dual_inference") or {}).get("bleu"),
        )
        for direction in DIRECTIONS
        for name, s in scores.items()
    ]  # fmt: skip


def text_table(rows: Sequence[Row]) -> str:
    """The table as plain text."""
    return aligned([HEAD, *(row.cells() for row in rows)])


@look(REPORT)
def picture(run: Run, rows: Sequence[Row], limits: Mapping[str, float], out: Path) -> None:
    """Validation NLL and BLEU over updates, and the gap of every system on the test text."""
    from matplotlib.figure import Figure

    from .pictures import STAGE_COLOURS, draw_curves

    shown = systems([run])
    figure = Figure(figsize=(15, 8), layout="constrained")
    axes = figure.subplots(2, 3)
    for line, direction in zip(axes, DIRECTIONS, strict=True):
        draw_curves(line[0], shown, f"nll_loss_{direction}", limits[direction])
        line[0].set_title(f"Validation NLL {arrow(direction)}, bits a token", pad=16)
        draw_curves(line[1], shown, f"bleu_{direction}")
        line[1].set_title(f"Validation BLEU {arrow(direction)}", pad=16)
    gaps = {row.system: row.gap for row in rows}
    bars = axes[0, 2].bar(list(gaps), list(gaps.values()), color=[STAGE_COLOURS[stage] for stage in STAGES], width=0.6)
    axes[0, 2].bar_label(bars, fmt="%.2f")
    axes[0, 2].margins(y=0.1)
    axes[0, 2].set_title("Mean |gap| on the test text, nats (the truth: 0)", pad=16)
    draw_curves(axes[1, 2], shown, "gap_abs", training=True)
    axes[1, 2].set_ylim(bottom=0)
    axes[1, 2].set_title("Mean |gap| over updates, nats", pad=16)
    with whole_file(out) as file:
        figure.savefig(file, format="png", dpi=80)


LEAD = """\
The corpus is drawn from a probabilistic grammar whose log P(x, y), log P(x) and log P(y) are known exactly, so \
there is a limit that no model's negative log-likelihood (NLL) can be expected to beat: the truth's own. "Dual" and \
"MLE continued" start from the same warm start and make the same number of updates. "Dual" is trained on the pairs and \
on text that the warm start translated, "MLE continued" on the pairs. Scores are of the test text, each system at its \
best validation BLEU. This is one seed and a short training."""


def limit_section(rows: Sequence[Row]) -> Section:
    """How far each system is from the truth."""
    head = ("direction", "system", "NLL bits/token", "the truth's own", "above the limit")
    lines = [
        (arrow(row.direction), row.system, f"{row.nll:.3f}", f"{row.limit:.3f}", f"+{row.nll - row.limit:.3f}")
        for row in rows
    ]
    return Section("Distance from the limit, on the test text", [Table(head, lines, names=2)])


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line; see the first lines of this file."""
    parser = Parser("report.demo", __doc__.splitlines()[0])
    parser.add_argument("run", type=Path, help="the folder of dual-fairseq demo")
    add_device(parser)
    options = parser.parse_args(arguments)
    folder = options.run
    report = folder / "report"
    report.mkdir(exist_ok=True)
    rows = result_rows(folder)
    run, limits = read_run(folder), entropy_limits(folder, "valid")
    picture(run, rows, limits, report / "demo.png")
    evaluated, notes, (scores, *others) = build([run], Options(split="test", limits=limits, cpu=options.cpu))
    table = "\n".join([text_table(rows), *signatures_of(evaluated), *notes])
    write_text(report / "table.txt", table + "\n")
    title = "Two translation models, trained as a pair"
    html = render(title, Paragraph(LEAD), [scores, limit_section(rows), *others])
    write_text(report / "index.html", html)
    print(table)
    print(
        "(Re-scored: by dual inference, where the pair and both language models choose among the beam's translations.)"
    )
    print("(One seed and a short training.)")
    print(f"\nPicture: {report / 'demo.png'}\nPage:    {report / 'index.html'}")
