"""Pictures, scores and examples of one run or of several, on one page: ``dual-fairseq report RUN``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ..common.errors import UserError
from ..pair.significance import TRIALS
from .runs import Run, System, arrow, choose_split, systems
from .scores import Row, baseline_of, score_rows, text_table


@dataclass
class Options:
    """What a report is to hold.

    Args:
        split: see :func:`~dual_fairseq.report.runs.choose_split`.
        examples: sentences a direction.
        scatter: score sentence pairs with each stage's checkpoint and the language models.
        pairs: at most so many of them.
        data: see :func:`~dual_fairseq.report.gaps.score_run`.
        cpu: use no GPU even if there is one.
        limits: direction → a validation NLL (bits a token) to draw as the limit.
    """

    split: str | None = None
    examples: int = 6
    scatter: bool = True
    pairs: int = 1000
    data: Path | None = None
    cpu: bool = False
    limits: Mapping[str, float] = field(default_factory=dict)


def build(runs: Sequence[Run], options: Options) -> tuple[list[Row], list[str]]:
    """The report on some runs, as far as they have got.

    Returns:
        The table's rows, and the sections of the page as HTML.
    """
    # drawing takes a while to import
    from . import page, pictures

    split = choose_split(runs, options.split)
    shown = systems(runs)
    directions = list(dict.fromkeys(d for run in runs for d in run.directions))
    rows, notes = score_rows(shown, split)
    scored, scatter_notes = _scored(runs, shown, split, options)
    baseline = baseline_of(shown, split)
    explained = page.paragraph(
        f"Scores of the split '{split}', each system at its best validation. ± is half of the 95 % interval "
        f"(bootstrap) and p sacreBLEU's paired approximate randomisation (two-sided, {TRIALS:,} trials) against "
        f"{baseline.name if baseline else ''}: how likely a difference as large would be if it were by chance which "
        "system translated which sentence. It says nothing about other training seeds. Bold: p < 0.05. NLL is in "
        "bits a target token; |gap| in nats a sentence pair.",
        "note",
    )  # fmt: skip
    missing = [f"{s.name} was not evaluated on '{split}'." for s in shown if split not in s.stage.evaluations]
    curves = pictures.curves(shown, directions, options.limits)
    gap_pictures = pictures.gap_curves(shown)
    no_gap = "" if gap_pictures else page.paragraph("No gap was logged: no dual training, or λ is still 0.", "note")
    sections = [
        page.section(
            "Scores", page.score_table(rows), explained if rows else "",
            *(page.paragraph(note, "note") for note in [*missing, *notes]),
        ),
        page.section("Training", page.figures(curves) or page.paragraph("No validation was logged yet.", "note"),
                     page.stage_table(shown)),
        page.section(
            "The duality gap",
            page.paragraph(
                "The gap of a sentence pair is [log P(x) + log P(y|x)] − [log P(y) + log P(x|y)]. Both sums are ways "
                "to log P(x, y), so models that agree have gap 0. In a scatter they are equal on the diagonal."
            ),
            page.figures(gap_pictures), no_gap,
            page.figures(pictures.scatters(scored, shown), three=True),
            page.figures(pictures.gap_histogram(scored, shown)),
            *(page.paragraph(note, "note") for note in scatter_notes),
        ),
        *_examples(shown, split, directions, options.examples),
    ]  # fmt: skip
    return rows, sections


def _scored(runs: Sequence[Run], shown: Sequence[System], split: str, options: Options):
    """System name → (system, scores), and why some are missing."""
    if not options.scatter:
        return {}, ["The scatter of sentence pairs was left out (--no-scatter)."]
    from .gaps import score_run

    scored, notes = {}, []
    for run in runs:
        try:
            of_run = score_run(run, split, options.pairs, options.data, options.cpu)
        except UserError as error:
            reason = str(error).removeprefix("dual_fairseq: error: ")
            notes.append(f"{run.name}: no scatter of sentence pairs, because {reason}.")
            continue
        for system in shown:
            if system.run is run and system.stage.key in of_run:
                scored[system.name] = (system, of_run[system.stage.key])
    return scored, notes


def _examples(shown: Sequence[System], split: str, directions: Sequence[str], count: int) -> list[str]:
    from . import page

    sections = []
    for direction in directions:
        found = page.examples(shown, split, direction, count)
        if found:
            first = next(iter(found[0].translations))
            legend = (
                f'<p class="note">Sentences at even distances among those that the systems translate differently. '
                f"<mark>Shaded</mark>: not in the reference at this place. <ins>Underlined</ins>: other than "
                f"{page.escape(first)} has it; <del>struck out</del>: its words that are gone without replacement.</p>"
            )
            sections.append(page.section(f"Translations, {arrow(direction)}", legend, page.example_lists(found)))
    return sections


__all__ = ["Options", "build", "text_table"]
