"""Whether a difference in scores is more than the choice of test sentences explains."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import cast

from sacrebleu.metrics.base import Metric
from sacrebleu.significance import PairedTest, Result

TRIALS = 10_000


def paired_test(
    baseline: tuple[str, Sequence[str]],
    others: Sequence[tuple[str, Sequence[str]]],
    references: Sequence[str],
    metrics: Mapping[str, Metric],
    trials: int = TRIALS,
    interval_samples: int = 0,
) -> dict[str, dict[str, Result]]:
    """sacreBLEU's paired approximate randomisation of systems against a baseline, two-sided (Riezler and Maxwell 2005).

    Not its paired bootstrap, which takes the absolute values of resampled differences before it centres them: at 0.05
    it calls one in ten pairs of equally good systems different.

    Args:
        baseline, others: name and N translations each.
        references: N.
        metrics: sacreBLEU's.
        trials: of randomisation.
        interval_samples: of the bootstrap for the mean and 95 % interval of each score; 0 leaves them out.

    Returns:
        System → metric, by sacreBLEU's own name, as ``BLEU`` and ``chrF2`` → result: score, ``p_value`` (None for the
        baseline), and with ``interval_samples`` ``mean`` and ``ci``, half of the interval's width.
    """
    named = [baseline, *others]
    _, results = PairedTest(
        named, metrics, [references], "ar", n_samples=trials, n_ar_confidence=interval_samples or -1
    )()
    tests: dict[str, dict[str, Result]] = {}
    for index, (name, texts) in enumerate(named):
        tests[name] = {metric: cast(Result, of[index]) for metric, of in results.items() if metric != "System"}
        if index == 0:
            continue
        # Of the 2^k exchanges of k sentences that differ, two give the difference itself. sacreBLEU counts only those
        # that give more, and would call systems different for a single sentence, or none.
        differing = sum(mine != its for mine, its in zip(texts, baseline[1], strict=True))
        for result in tests[name].values():
            result.p_value = min(1.0, max(result.p_value or 0.0, 2.0 ** (1 - differing)))
    return tests
