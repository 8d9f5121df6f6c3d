"""Builds the content of a report on one or more runs: scores, pictures, examples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ..common.comparison import Scored, comparison_notes
from ..common.errors import UserError
from ..common.folders import RunFolder
from ..common.tables import confusion_cells
from ..pair.significance import TRIALS
from . import pictures
from .examples import examples
from .page import Examples, Figures, Paragraph, Part, Scores, Section, Table, stage_table
from .runs import Run, System, arrow, choose_split, systems
from .scores import Row, baseline_of, score_rows, searches_of, signatures_of


@dataclass
class Options:
    """The options of a report.

    Args:
        split: see :func:`~dual_fairseq.report.runs.choose_split`.
        examples: sentences per direction.
        scatter: score sentence pairs with each stage's checkpoint and the language models.
        pairs: score at most this many sentence pairs.
        data: see :func:`~dual_fairseq.report.gaps.score_run`.
        cpu: use no GPU even if there is one.
        limits: direction → a validation NLL (bits per token) to draw as the limit.
    """

    split: str | None = None
    examples: int = 6
    scatter: bool = True
    pairs: int = 1000
    data: Path | None = None
    cpu: bool = False
    limits: Mapping[str, float] = field(default_factory=dict)


def build(runs: Sequence[Run], options: Options) -> tuple[list[Row], list[str], list[Section]]:
    """The report on some runs, finished or not.

    Returns:
        The rows of the table of scores, notes on what is missing or cannot be compared, and the sections of the page.
    """
    split = choose_split(runs, options.split)
    shown = systems(runs)
    directions = list(dict.fromkeys(d for run in runs for d in run.directions))
    rows, notes = score_rows(shown, split)
    missing = [f"{s.name} was not evaluated on '{split}'." for s in shown if split not in s.stage.evaluations]
    notes = [*missing, *notes, *comparison_notes(_scores_of(shown, split))]
    scores: list[Part] = []
    if rows:
        baseline = baseline_of(shown, split)
        scores = [
            Scores(rows),
            *_notes([*_lambdas(shown), *searches_of(rows), *signatures_of(rows)]),
            _explanation(split, baseline.name if baseline else ""),
            *_confusions(rows),
        ]
    curves = _figures(pictures.curves(shown, directions, options.limits))
    sections = [
        Section("Scores", [*scores, *_notes(notes)]),
        Section(
            "Training",
            [*(curves or _notes(["No validation was logged yet."])), stage_table(shown), *_notes(_perplexities(runs))],
        ),
        Section("The duality gap", _gap_parts(runs, shown, split, options)),
    ]
    for direction in directions:
        if chosen := examples(shown, split, direction, options.examples):
            sections.append(Section(f"Translations, {arrow(direction)}", [Examples(chosen, direction)]))
    return rows, notes, [section for section in sections if section.parts]


def _scores_of(shown: Sequence[System], split: str) -> list[Scored]:
    return [
        Scored(system.name, RunFolder(system.run.folder), system.stage.key, found.folder, found.scores)
        for system in shown
        if (found := system.stage.evaluations.get(split))
    ]


def _confusions(rows: Sequence[Row]) -> list[Part]:
    """The confusion of labels or tags by each system."""
    parts: list[Part] = []
    for row in rows:
        if confusion := row.scores.get("confusion"):
            (first, *others), *lines = confusion_cells(confusion)
            parts.append(Table((f"{row.system}, {arrow(row.direction)}: {first}", *others), lines))
    return parts


def _explanation(split: str, baseline: str) -> Paragraph:
    return Paragraph(
        f"Scores of the split '{split}', by the best checkpoint on the validation text, or by an average. ± is half "
        "of the 95 % interval (bootstrap). p is that of sacreBLEU's paired approximate randomisation (two-sided, "
        f"{TRIALS:,} trials) against {baseline}: the probability of so large a difference if the translations of the "
        "two systems were exchanged at random. It says nothing about other training seeds. Bold: p < 0.05. NLL is in "
        "bits a target token; |gap| in nats a sentence pair.",
        "note",
    )


def _lambdas(shown: Sequence[System]) -> list[str]:
    """A line with the weight of the penalty in each system that was trained with it."""
    values = {s.name: s.stage.options.get("dual-lambda", "0") for s in shown}
    trained = [f"{name} {value}" for name, value in values.items() if value.strip("0.")]
    return [f"λ: {', '.join(trained)}."] if trained else []


def _perplexities(runs: Sequence[Run]) -> list[str]:
    """A line for each run whose language models are found."""
    lines = []
    for run in runs:
        if perplexities := run.perplexities():
            of_run = f" of {run.name}" if len(runs) > 1 else ""
            values = ", ".join(f"{language} {value:.1f}" for language, value in perplexities.items())
            lines.append(f"Perplexity of the language models{of_run}, a token of the validation text: {values}.")
    return lines


def _notes(texts: Sequence[str]) -> list[Paragraph]:
    return [Paragraph(text, "note") for text in texts]


def _figures(drawn: Sequence[pictures.Picture], small: bool = False) -> list[Figures]:
    return [Figures(drawn, small)] if drawn else []


def _gap_parts(runs: Sequence[Run], shown: Sequence[System], split: str, options: Options) -> list[Part]:
    scored, notes = _scored(runs, shown, split, options)
    return [
        Paragraph(
            "The gap of a sentence pair is [log P(x) + log P(y|x)] − [log P(y) + log P(x|y)]. Both sums are ways "
            "to log P(x, y), so models that agree have gap 0. In a scatter they are equal on the diagonal."
        ),
        *(_figures(pictures.gap_curves(shown)) or _notes(["No gap was logged: no dual training, or λ is still 0."])),
        *_figures(pictures.scatters(scored, shown), small=True),
        *_figures(pictures.gap_histogram(scored, shown)),
        *_notes(notes),
    ]


def _scored(runs: Sequence[Run], shown: Sequence[System], split: str, options: Options):
    """System name → (system, scores), and why some are missing."""
    if not options.scatter:
        return {}, ["The scatter of sentence pairs was left out (--no-scatter)."]
    from .gaps import score_run

    scored, notes = {}, []
    for run in runs:
        try:
            stages = score_run(run, split, options.pairs, options.data, options.cpu)
        except UserError as error:
            notes.append(f"{run.name}: no scatter of sentence pairs, because {error}.")
            continue
        for system in shown:
            if system.run is run and system.stage.key in stages:
                scored[system.name] = (system, stages[system.stage.key])
    return scored, notes
