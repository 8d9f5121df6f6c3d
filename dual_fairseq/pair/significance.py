"""Whether a difference in scores is larger than the choice of test sentences explains."""

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

    sacreBLEU's paired bootstrap is not used: it takes absolute values of resampled differences before it centres them.
    At 0.05, it calls one in ten pairs of equally good systems different.

    Args:
        baseline, others: name and N translations each.
        references: N references.
        metrics: sacreBLEU metrics.
        trials: how many randomisations.
        interval_samples: bootstrap samples for the mean and 95 % interval of each score; 0 omits them.

    Returns:
        System → metric (sacreBLEU's name, such as ``BLEU`` or ``chrF2``) → result: score, ``p_value`` (None for the
        baseline) and, with ``interval_samples``, ``mean`` and ``ci``, half of the interval's width.
    """
    systems = [baseline, *others]
    _, results = PairedTest(
        systems, metrics, [references], "ar", n_samples=trials, n_ar_confidence=interval_samples or -1
    )()
    tests: dict[str, dict[str, Result]] = {}
    for index, (name, texts) in enumerate(systems):
        tests[name] = {metric: cast(Result, row[index]) for metric, row in results.items() if metric != "System"}
        if index == 0:
            continue
        # k different sentences have 2^k exchanges; two give the difference itself. sacreBLEU counts only exchanges
        # that give more, and would call systems different because of a single sentence, or none.
        differing = sum(text != other for text, other in zip(texts, baseline[1], strict=True))
        for result in tests[name].values():
            result.p_value = min(1.0, max(result.p_value or 0.0, 2.0 ** (1 - differing)))
    return tests
