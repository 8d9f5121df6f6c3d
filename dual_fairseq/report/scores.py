"""The table of scores, and whether a difference is larger than the choice of test sentences explains."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sacrebleu.metrics import CHRF
from sacrebleu.metrics.base import Metric
from sacrebleu.significance import Result

from ..common.bleu import Accuracy, metric_of_signature
from ..common.comparison import unlike
from ..common.errors import UserError
from ..common.tables import SEARCH, aligned, quality, quality_name, search_of, searches, signatures
from ..pair.significance import TRIALS, paired_test
from .runs import RE_SCORED, System, arrow

INTERVAL_SAMPLES = 1000


@dataclass
class Row:
    """One system in one direction.

    Args:
        direction: ``de-en``.
        system: its name.
        scores: its entry in ``scores.json``.
        gap: mean \\|gap\\|, nats per sentence pair.
        tests: sacreBLEU's paired test for ``BLEU`` and ``chrF2``: score, p-value against the baseline, mean and
            half-width of the 95 % interval (bootstrap); without a p-value for the baseline itself.
        baseline: whether the other systems of its direction are compared with this one.
        search: how the translations were found, see :func:`~dual_fairseq.common.tables.search_of`.
    """

    direction: str
    system: str
    scores: dict[str, Any]
    gap: float | None
    tests: dict[str, Result] = field(default_factory=dict)
    baseline: bool = False
    search: Mapping[str, str] = field(default_factory=dict)

    def test(self, metric: str) -> Result | None:
        return next((result for name, result in self.tests.items() if name.startswith(metric)), None)

    def p_value(self, metric: str) -> float | None:
        result = self.test(metric)
        return None if result is None or self.baseline else result.p_value

    def cells(self) -> tuple[str, ...]:
        """The cells as plain text."""
        return (
            arrow(self.direction),
            self.system,
            quality(self.scores),
            "baseline" if self.baseline else probability(self.p_value("BLEU")),
            number(self.scores.get("chrf"), 2),
            "baseline" if self.baseline else probability(self.p_value("chrF")),
            number(self.scores.get("length_ratio"), 3),
            number(self.scores.get("nll_bits_per_token"), 3),
            number(self.gap, 2),
        )


def head_of(rows: Sequence[Row]) -> tuple[str, ...]:
    """The heads of the columns of :meth:`Row.cells`."""
    bleu = quality_name(row.scores for row in rows)
    return ("direction", "system", bleu, "p", "chrF", "p", "length", "NLL bits/token", "mean |gap| nats")


def number(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


def probability(p: float | None) -> str:
    """A p-value with three digits, or with more, so that 0.0499 does not read as 0.050."""
    if p is not None and p < 0.001:
        return "<0.001"
    digits = 3
    while p is not None and p < 0.05 and digits < 9 and float(number(p, digits)) >= 0.05:
        digits += 1
    return number(p, digits)


def baseline_of(systems: Sequence[System], split: str) -> System | None:
    """ "MLE continued" of the first run that has it, else the first system that was evaluated."""
    evaluated = [system for system in systems if split in system.stage.evaluations]
    return next((s for s in evaluated if s.stage.key == "mle"), evaluated[0] if evaluated else None)


def score_rows(systems: Sequence[System], split: str, trials: int = TRIALS) -> tuple[list[Row], list[str]]:
    """The table, direction by direction, and notes on what could not be compared.

    Args:
        systems: systems without an evaluation on ``split`` are left out.
        trials: of the significance test; 0 leaves it out.
    """
    evaluated = [system for system in systems if split in system.stage.evaluations]
    baseline = baseline_of(systems, split)
    directions = list(dict.fromkeys(d for s in evaluated for d in s.stage.evaluations[split].directions))
    rows: list[Row] = []
    notes: list[str] = []
    for direction in directions:
        by_system: dict[str, Row] = {}
        for system in evaluated:
            scores = system.stage.evaluations[split].scores
            if direction in scores:
                own = scores[direction]
                search = search_of(scores)
                by_system[system.name] = Row(direction, system.name, own, scores.get("gap_abs"), search=search)
                if own.get("cut_off"):
                    notes.append(
                        f"{system.name}, {arrow(direction)}: {own['cut_off']:,} translations were cut off at the "
                        "length limit."
                    )
                if own.get("dual_inference"):
                    name = system.name + RE_SCORED
                    by_system[name] = Row(direction, name, own["dual_inference"], None, search=search)
        if trials and baseline is not None:
            notes += _compare(by_system, evaluated, baseline, direction, split, trials)
        rows += by_system.values()
    return rows, list(dict.fromkeys(notes))


def _compare(
    rows: dict[str, Row], systems: Sequence[System], baseline: System, direction: str, split: str, trials: int
) -> list[str]:
    """Test all systems against the baseline, and write the results into ``rows``; returns notes."""
    texts = {
        s.name + suffix: [s.stage.evaluations[split].lines(direction, kind) for kind in (hypothesis, "ref")]
        for s in [baseline, *(s for s in systems if s is not baseline)]
        for suffix, hypothesis in (("", "hyp"), (RE_SCORED, "dual-inference.hyp"))
        if s.name + suffix in rows
    }
    hypotheses, references = texts.get(baseline.name, (None, None))
    if not hypotheses or not references or len(hypotheses) != len(references):
        return [f"No significance: the texts of {baseline.name} are missing."]
    compared: list[tuple[str, Sequence[str]]] = []
    notes = []
    for name, (hypothesis, reference) in texts.items():
        if difference := unlike(_basis(rows[name], reference), _basis(rows[baseline.name], references)):
            notes.append(f"{name}: has another {difference} than {baseline.name}, so it is not compared.")
        elif hypothesis and reference and len(hypothesis) == len(references):
            compared.append((name, hypothesis))
        else:
            notes.append(f"{name}: its translations or references are missing, so it is not compared.")
    try:
        own = rows[baseline.name].scores
        labels = own.get("accuracy") is not None
        bleu = Accuracy() if labels else metric_of_signature(own.get("bleu_signature") or "")
    except UserError as error:
        return [f"No significance, {arrow(direction)}: {error}."]
    metrics: dict[str, Metric] = {"BLEU": bleu} if labels else {"BLEU": bleu, "CHRF": CHRF()}
    print(f"Significance tests, {arrow(direction)}: {len(compared)} systems", file=sys.stderr, flush=True)
    for name, tests in paired_test(compared[0], compared[1:], references, metrics, trials, INTERVAL_SAMPLES).items():
        rows[name].tests = tests
    rows[baseline.name].baseline = True
    return notes


def _basis(row: Row, references: Sequence[str] | None) -> dict[str, object]:
    """For :func:`~dual_fairseq.common.comparison.unlike`: the search, the signature and the test text."""
    search = {words: row.search.get(name, "default") for name, words in SEARCH.items()} if row.search else {}
    return {**search, "sacreBLEU signature": row.scores.get("bleu_signature"), "test text": references}


def searches_of(rows: Sequence[Row]) -> list[str]:
    """See :func:`~dual_fairseq.common.tables.searches`."""
    return searches((row.system, row.search) for row in rows)


def text_table(rows: Sequence[Row]) -> str:
    """The table as plain text."""
    return "\n".join(
        [aligned([head_of(rows), *(row.cells() for row in rows)]), *searches_of(rows), *signatures_of(rows)]
    )


def signatures_of(rows: Sequence[Row]) -> list[str]:
    """See :func:`~dual_fairseq.common.tables.signatures`."""
    return signatures((row.direction, row.scores) for row in rows)
